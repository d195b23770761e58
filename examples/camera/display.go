package main

import (
	"bytes"
	"context"
	"image"
	"image/color"
	"image/jpeg"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/edgetwin/sedna/examples/internal/fakes/camera"
	"github.com/edgetwin/sedna/lib/dataset/digits"
)

// The picture: a panel of 8×8 lamps that fills the frame, since the service
// scales the whole frame to the model's 8×8 pixels. Between the lamps it is
// black.
const (
	width, height = 320, 240
	gap           = 3    // pixels between a lamp and the edge of its cell
	noise         = 10   // standard deviation of the sensor's noise, of 255
	shake         = 3    // pixels that the camera moves at most
	flicker       = 0.06 // share of the brightness that comes and goes
)

// display shows held-out handwritten digits, one after the other. What it
// shows follows from the seed alone.
type display struct {
	set   *digits.Dataset
	order []int // samples as they are shown; neighbours are different digits
	rng   *rand.Rand
	grain [1 << 16]int8 // noise to draw from
}

func newDisplay(seed int64) (*display, error) {
	set, err := digits.Load()
	if err != nil {
		return nil, err
	}
	d := &display{set: set, rng: rand.New(rand.NewPCG(uint64(seed), 1))}
	_, held := set.Split()
	for _, i := range d.rng.Perm(len(held)) {
		if n := len(d.order); n == 0 || set.Y[d.order[n-1]] != set.Y[held[i]] {
			d.order = append(d.order, held[i])
		}
	}
	// The order repeats: the last one is another digit than the first, too.
	for set.Y[d.order[len(d.order)-1]] == set.Y[d.order[0]] {
		d.order = d.order[:len(d.order)-1]
	}
	for i := range d.grain {
		d.grain[i] = int8(max(-127, min(127, noise*d.rng.NormFloat64())))
	}
	return d, nil
}

// sample is what is on display as the n-th digit, as its index in the data set.
func (d *display) sample(n int) int { return d.order[n%len(d.order)] }

func (d *display) label(n int) string { return strconv.Itoa(d.set.Y[d.sample(n)]) }

// frame is a picture of the n-th digit, as a camera takes it.
func (d *display) frame(n int) ([]byte, error) {
	const cellX, cellY = width / digits.Side, height / digits.Side
	lamps := d.set.Row(d.sample(n))
	img := image.NewGray(image.Rect(0, 0, width, height))
	light := 255 * (1 - flicker*d.rng.Float64())
	dx, dy := d.rng.IntN(2*shake+1)-shake, d.rng.IntN(2*shake+1)-shake
	grain := d.rng.IntN(len(d.grain))
	for y := range height {
		for x := range width {
			v := 0.0
			if px, py := x+dx, y+dy; px >= 0 && py >= 0 && px < width && py < height &&
				inLamp(px%cellX, cellX) && inLamp(py%cellY, cellY) {
				v = light * float64(lamps[py/cellY*digits.Side+px/cellX])
			}
			v += float64(d.grain[(grain+y*width+x)%len(d.grain)])
			img.SetGray(x, y, color.Gray{Y: uint8(max(0, min(255, v)))})
		}
	}
	var b bytes.Buffer
	err := jpeg.Encode(&b, img, nil)
	return b.Bytes(), err
}

// inLamp tells whether a place in a cell belongs to its lamp.
func inLamp(at, cell int) bool { return at >= gap && at < cell-gap }

// change is a moment at which another digit came on display.
type change struct {
	At    time.Time // the first frame of it was handed to the camera
	Label string
	Index int // in the data set
}

// show hands frames of the digits from first on to the camera, each for hold
// frames, until ctx ends or count digits were shown. It tells when each came.
func (d *display) show(ctx context.Context, c camera.Camera, fps, hold, first, count int) (changes []change, frames int, err error) {
	tick := time.NewTicker(time.Second / time.Duration(fps))
	defer tick.Stop()
	for ; frames < count*hold; frames++ {
		n := first + frames/hold
		b, err := d.frame(n)
		if err != nil {
			return nil, 0, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return changes, frames, nil
		}
		if frames%hold == 0 {
			changes = append(changes, change{At: time.Now(), Label: d.label(n), Index: d.sample(n)})
		}
		c.Show(b)
	}
	return changes, frames, nil
}
