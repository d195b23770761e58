package digits

import (
	"bytes"
	"image/png"
	"math"
	"slices"
	"testing"
)

func load(t *testing.T) *Dataset {
	t.Helper()
	d, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestLoad(t *testing.T) {
	d := load(t)
	counts := make([]int, Classes)
	for _, y := range d.Y {
		counts[y]++
	}
	// The counts that scikit-learn documents for its copy.
	if want := []int{178, 182, 177, 183, 181, 182, 181, 179, 174, 180}; !slices.Equal(counts, want) {
		t.Errorf("samples per digit are %v, want %v", counts, want)
	}
	if got := d.Row(0)[2:6]; !slices.Equal(got, []float32{5. / 16, 13. / 16, 9. / 16, 1. / 16}) {
		t.Errorf("the first sample starts with %v", got)
	}
	if len(d.X) != d.Len()*Pixels {
		t.Errorf("%d values", len(d.X))
	}
}

func TestSplitIsFixed(t *testing.T) {
	d := load(t)
	train, test := d.Split()
	if len(train) != 1297 || len(test) != TestSamples {
		t.Fatalf("%d to train and %d to test", len(train), len(test))
	}
	all := slices.Sorted(slices.Values(slices.Concat(train, test)))
	for i, v := range all {
		if i != v {
			t.Fatalf("sample %d is missing or double", i)
		}
	}
	if first := test[:5]; !slices.Equal(first, []int{1465, 1105, 364, 105, 1750}) {
		t.Errorf("the test part starts with %v", first)
	}
}

func TestPool(t *testing.T) {
	d := load(t)
	w := PoolWeights()
	row, pooled := d.Row(7), Pool(d.Row(7))
	for j := range PooledSide * PooledSide {
		var sum float32
		for i, v := range row {
			sum += v * w[i*PooledSide*PooledSide+j]
		}
		if math.Abs(float64(sum-pooled[j])) > 1e-6 {
			t.Errorf("pixel %d is %v by matrix and %v by pooling", j, sum, pooled[j])
		}
	}
	if want := (row[0] + row[1] + row[8] + row[9]) / 4; pooled[0] != want {
		t.Errorf("first pixel is %v, want %v", pooled[0], want)
	}
}

func TestPNG(t *testing.T) {
	d := load(t)
	b, err := d.PNG(3)
	if err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range d.Row(3) {
		v, _, _, _ := img.At(p%Side, p/Side).RGBA()
		if got := float64(v>>8) / 255; math.Abs(got-float64(want)) > 0.5/255+1e-9 {
			t.Errorf("pixel %d is %v, want %v", p, got, want)
		}
	}
}
