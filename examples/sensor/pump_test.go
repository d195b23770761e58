package main

import (
	"math/rand/v2"
	"testing"
)

// TestPump holds the faults to what their description says of them.
func TestPump(t *testing.T) {
	mean := func(f fault) (m sample) {
		const n = 20 * rate
		p := newPump(rand.New(rand.NewPCG(7, 7)))
		for range n {
			s := p.step(f)
			m.vibration += s.vibration / n
			m.temperature += s.temperature / n
			m.pressure += s.pressure / n
		}
		return m
	}
	sound, gas, worn := mean(none), mean(cavitation), mean(bearing)
	if d := gas.pressure - sound.pressure; d > -0.2 || d < -0.5 {
		t.Errorf("cavitation changes the pressure by %.2f bar", d)
	}
	if d := worn.vibration - sound.vibration; d < 0.7 || d > 1.3 {
		t.Errorf("a worn bearing changes the vibration by %.2f mm/s", d)
	}
	if worn.temperature < sound.temperature+0.5 {
		t.Errorf("a worn bearing has %.1f °C, a sound one %.1f", worn.temperature, sound.temperature)
	}
}

// TestWindows holds windows to the service's manifest: rows oldest first, a row
// in the order of the sources, and a label for the newest row.
func TestWindows(t *testing.T) {
	d, settled := windows(rand.New(rand.NewPCG(1, 1)), 4000)
	if d.Features != 48 || d.Len() < 950 || len(settled) != d.Len() || len(d.X) != 48*d.Len() {
		t.Fatalf("%d windows of %d, %d values", d.Len(), d.Features, len(d.X))
	}
	faulty := 0
	for i := range d.Len() {
		faulty += d.Y[i]
		row := d.Row(i)
		for r := range window {
			if v, c, p := row[3*r], row[3*r+1], row[3*r+2]; v > 20 || c < 40 || p > 10 {
				t.Fatalf("window %d, row %d: %v mm/s, %v °C, %v bar", i, r, v, c, p)
			}
		}
		// The next window begins stride rows later.
		if i > 0 && row[0] != d.Row(i - 1)[3*stride] {
			t.Fatalf("window %d does not follow the one before by %d rows", i, stride)
		}
	}
	if share := float64(faulty) / float64(d.Len()); share < 0.2 || share > 0.6 {
		t.Errorf("%.2f of the windows are faulty", share)
	}
}
