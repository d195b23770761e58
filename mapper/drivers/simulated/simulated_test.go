package simulated_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgetwin/sedna/mapper/devices"
	"github.com/edgetwin/sedna/mapper/drivers/simulated"
	"github.com/edgetwin/sedna/models/wire"
)

func setup(seed int64, kind devices.Kind, v map[string]any) devices.Setup {
	return devices.Setup{Namespace: "default", Name: "d", Protocol: devices.NewSettings("protocol", map[string]any{"seed": seed}),
		Properties: []devices.Property{{Name: "a", Kind: kind, Writable: true, Visitor: devices.NewSettings("a", v)}}}
}

func read(t *testing.T, d devices.Driver) any {
	t.Helper()
	got, err := d.Read(t.Context(), []string{"a"})
	if err != nil || got["a"].Err != nil {
		t.Fatal(got, err)
	}
	return got["a"].Value
}

func TestFunctions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		series := func(seed int64, kind devices.Kind, v map[string]any) (out []any) {
			d, err := simulated.New(setup(seed, kind, v))
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if err := d.Connect(t.Context()); err != nil {
				t.Fatal(err)
			}
			for range 5 {
				out = append(out, read(t, d))
				time.Sleep(250 * time.Millisecond)
			}
			return out
		}
		sine := series(0, devices.Double, map[string]any{"function": "sine", "offset": 10.0, "amplitude": 2.0, "periodMilliseconds": int64(1000)})
		for i, want := range []float64{10, 12, 10, 8, 10} {
			if math.Abs(sine[i].(float64)-want) > 1e-9 {
				t.Errorf("%v", sine)
			}
		}
		if got := fmt.Sprint(series(0, devices.Int, map[string]any{"function": "counter", "offset": 1.0, "step": 2.0, "min": 0.0, "max": 4.0})); got != "[1 3 0 2 4]" {
			t.Error(got)
		}
		if got := fmt.Sprint(series(0, devices.String, map[string]any{"value": "x"})); got != "[x x x x x]" {
			t.Error(got)
		}
		walk := map[string]any{"function": "randomWalk", "step": 1.0, "min": -0.5, "max": 0.5}
		a, b, c := series(1, devices.Double, walk), series(1, devices.Double, walk), series(2, devices.Double, walk)
		if !slices.Equal(a, b) || slices.Equal(a, c) {
			t.Errorf("%v %v %v", a, b, c)
		}
		for _, v := range append(a, c...) {
			if math.Abs(v.(float64)) > 0.5 {
				t.Errorf("%v leaves its bounds", v)
			}
		}
		if n := series(1, devices.Double, map[string]any{"value": "5", "noise": 0.1}); slices.Equal(n[:4], n[1:]) {
			t.Errorf("no noise: %v", n)
		}
	})
}

func TestHoldsWhatWasWritten(t *testing.T) {
	d, err := simulated.New(setup(0, devices.Int, map[string]any{"function": "counter"}))
	if err != nil {
		t.Fatal(err)
	}
	read(t, d)
	if err := d.Write(t.Context(), "a", int64(7)); err != nil || read(t, d) != int64(7) || read(t, d) != int64(7) {
		t.Error(err)
	}
}

func TestRefusedConfigurations(t *testing.T) {
	for want, v := range map[string]map[string]any{"a.function": {"function": "square"}, "a.max": {"min": 1.0}, "a.value": {"value": "many"}, "a.periodMilliseconds": {"periodMilliseconds": int64(0)}} {
		var e *wire.Error
		if _, err := simulated.New(setup(0, devices.Int, v)); !errors.As(err, &e) || e.Field != want {
			t.Errorf("%s: %v", want, err)
		}
	}
}
