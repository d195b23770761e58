// Package digits holds 1,797 handwritten digits of 8×8 pixels, a real data set
// small enough to be embedded. CREDITS.md names its source and licence.
package digits

import (
	"bufio"
	"bytes"
	"compress/gzip"
	_ "embed"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"strconv"
	"strings"
)

const (
	// Side is the width and height of an image, Pixels its size.
	Side   = 8
	Pixels = Side * Side
	// Classes are the digits 0 to 9.
	Classes = 10
	// TestSamples is how many samples Split sets aside.
	TestSamples = 500

	samples  = 1797
	maxValue = 16 // of a pixel in the file
)

//go:embed digits.csv.gz
var file []byte

// Dataset is the samples in the order of the file. It must not be changed.
type Dataset struct {
	// X has Pixels values in [0,1] per sample, row by row; 0 is paper, 1 is
	// full ink.
	X []float32
	// Y is the digit of each sample.
	Y []int
}

// Load reads the embedded file.
func Load() (*Dataset, error) {
	z, err := gzip.NewReader(bytes.NewReader(file))
	if err != nil {
		return nil, fmt.Errorf("digits: %w", err)
	}
	d := &Dataset{X: make([]float32, 0, samples*Pixels), Y: make([]int, 0, samples)}
	lines := bufio.NewScanner(z)
	for lines.Scan() {
		if err := d.add(lines.Text()); err != nil {
			return nil, fmt.Errorf("digits: line %d: %w", d.Len()+1, err)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("digits: %w", err)
	}
	if d.Len() != samples {
		return nil, fmt.Errorf("digits: %d samples, expected %d", d.Len(), samples)
	}
	return d, nil
}

func (d *Dataset) add(line string) error {
	fields := strings.Split(line, ",")
	if len(fields) != Pixels+1 {
		return fmt.Errorf("%d fields, expected %d", len(fields), Pixels+1)
	}
	for i, f := range fields {
		v, err := strconv.ParseUint(f, 10, 8)
		if err != nil {
			return err
		}
		switch {
		case i == Pixels && v < Classes:
			d.Y = append(d.Y, int(v))
		case i < Pixels && v <= maxValue:
			d.X = append(d.X, float32(v)/maxValue)
		default:
			return fmt.Errorf("field %d is %d", i+1, v)
		}
	}
	return nil
}

// Len is the number of samples.
func (d *Dataset) Len() int { return len(d.Y) }

// Row is the pixels of sample i.
func (d *Dataset) Row(i int) []float32 { return d.X[i*Pixels : (i+1)*Pixels] }

// Select copies the samples with the given indices.
func (d *Dataset) Select(indices []int) (x []float32, y []int) {
	for _, i := range indices {
		x = append(x, d.Row(i)...)
		y = append(y, d.Y[i])
	}
	return x, y
}

// Split is the fixed partition that examples and tests use: the indices of
// 1,297 samples to train on and of 500 to test on, shuffled once and for all,
// not stratified. The order of the file groups samples by writer, so without
// shuffling the test would be of other writers than the training.
func (d *Dataset) Split() (train, test []int) {
	order := make([]int, d.Len())
	for i := range order {
		order[i] = i
	}
	// Fisher-Yates with SplitMix64, written out so that the split never
	// changes with a library.
	state := uint64(1998)
	for i := len(order) - 1; i > 0; i-- {
		state += 0x9e3779b97f4a7c15
		z := state
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		j := int((z ^ z>>31) % uint64(i+1))
		order[i], order[j] = order[j], order[i]
	}
	return order[TestSamples:], order[:TestSamples]
}

// PooledSide is the width and height of a pooled image.
const PooledSide = Side / 2

// PoolWeights is the [Pixels, PooledSide²] matrix that averages each 2×2 block
// of pixels, row-major: multiplied with an image it gives a 4×4 image.
func PoolWeights() []float32 {
	const pooled = PooledSide * PooledSide
	w := make([]float32, Pixels*pooled)
	for y := range Side {
		for x := range Side {
			w[(y*Side+x)*pooled+y/2*PooledSide+x/2] = 0.25
		}
	}
	return w
}

// Pool averages each 2×2 block of an image's pixels: 4×4 pixels, which show
// much less.
func Pool(pixels []float32) []float32 {
	out := make([]float32, PooledSide*PooledSide)
	for i, v := range pixels {
		out[i/Side/2*PooledSide+i%Side/2] += v / 4
	}
	return out
}

// ImageGray is sample i as an image, ink white on black: pixel/255 is X.
func (d *Dataset) ImageGray(i int) *image.Gray {
	img := image.NewGray(image.Rect(0, 0, Side, Side))
	for p, v := range d.Row(i) {
		img.SetGray(p%Side, p/Side, color.Gray{Y: uint8(v*255 + 0.5)})
	}
	return img
}

// PNG is sample i as a PNG file.
func (d *Dataset) PNG(i int) ([]byte, error) {
	var b bytes.Buffer
	if err := png.Encode(&b, d.ImageGray(i)); err != nil {
		return nil, fmt.Errorf("digits: sample %d: %w", i, err)
	}
	return b.Bytes(), nil
}
