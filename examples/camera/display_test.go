package main

import (
	"bytes"
	"context"
	"image"
	"image/jpeg"
	"testing"
	"time"

	"golang.org/x/image/draw"

	"github.com/edgetwin/sedna/lib/dataset/digits"
)

// TestFramesShowTheDigit scales frames to the model's size and finds the
// digit's own pixels again, in spite of lamps, noise and shaking.
func TestFramesShowTheDigit(t *testing.T) {
	d, err := newDisplay(1)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 20 {
		b, err := d.frame(n)
		if err != nil {
			t.Fatal(err)
		}
		img, err := jpeg.Decode(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		small := image.NewGray(image.Rect(0, 0, digits.Side, digits.Side))
		draw.ApproxBiLinear.Scale(small, small.Bounds(), img, img.Bounds(), draw.Src, nil)
		off := 0.0
		for i, want := range d.set.Row(d.sample(n)) {
			off = max(off, abs(float64(small.Pix[i])-255*float64(want)))
		}
		if off > 60 {
			t.Errorf("digit %d: a pixel is %v off", n, off)
		}
	}
}

func abs(v float64) float64 { return max(v, -v) }

func TestOrder(t *testing.T) {
	d, err := newDisplay(1)
	if err != nil {
		t.Fatal(err)
	}
	in, _ := d.set.Split()
	trained := map[int]bool{}
	for _, i := range in {
		trained[i] = true
	}
	for n := range 2 * len(d.order) {
		if d.label(n) == d.label(n+1) {
			t.Errorf("%d and the next are both a %s", n, d.label(n))
		}
		if trained[d.sample(n)] {
			t.Errorf("sample %d was trained on", d.sample(n))
		}
	}
	again, err := newDisplay(1)
	if err != nil {
		t.Fatal(err)
	}
	other, err := newDisplay(2)
	if err != nil {
		t.Fatal(err)
	}
	same, differs := true, false
	for n := range 50 {
		same = same && d.sample(n) == again.sample(n)
		differs = differs || d.sample(n) != other.sample(n)
	}
	if !same || !differs {
		t.Errorf("the order does not follow from the seed: same %t, differs %t", same, differs)
	}
}

// shots keeps what a camera is shown.
type shots struct{ frames [][]byte }

func (s *shots) Show(b []byte) { s.frames = append(s.frames, b) }
func (s *shots) Close() error  { return nil }

func TestShow(t *testing.T) {
	d, err := newDisplay(1)
	if err != nil {
		t.Fatal(err)
	}
	var c shots
	began := time.Now()
	changes, frames, err := d.show(t.Context(), &c, 200, 5, 3, 4)
	if err != nil || frames != 20 || len(c.frames) != 20 || len(changes) != 4 {
		t.Fatalf("%d frames, %d handed over, %d changes, %v", frames, len(c.frames), len(changes), err)
	}
	if took := time.Since(began); took < 95*time.Millisecond {
		t.Errorf("20 frames at 200 a second took %v", took)
	}
	for k, ch := range changes {
		if ch.Label != d.label(3+k) || ch.Index != d.sample(3+k) {
			t.Errorf("change %d: %+v", k, ch)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, frames, err := d.show(ctx, &c, 1, 5, 0, 1); err != nil || frames != 0 {
		t.Errorf("after its end: %d frames, %v", frames, err)
	}
}
