package engine_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/edgetwin/sedna/lib/engine"
	"github.com/edgetwin/sedna/lib/engine/enginetest"
)

func TestRegistry(t *testing.T) {
	missing := &enginetest.Fake{EngineName: "t-missing", Format: []string{"t"}, LoadErr: fmt.Errorf("libx.so: %w", engine.ErrUnavailable)}
	small := &enginetest.Fake{EngineName: "t-small", Format: []string{"t", "u"}}
	broken := &enginetest.Fake{EngineName: "t-broken", Format: []string{"u"}, LoadErr: engine.ErrInvalidModel}
	engine.Register(small, 0)
	engine.Register(missing, 10)
	engine.Register(broken, 5)

	if e, err := engine.Lookup("t-small"); err != nil || e != engine.Engine(small) {
		t.Errorf("Lookup: %v, %v", e, err)
	}
	if _, err := engine.Lookup("none"); !errors.Is(err, engine.ErrUnknown) || !strings.Contains(err.Error(), "t-small") {
		t.Errorf("Lookup of an unknown name: %v", err)
	}
	if es := engine.For("t"); len(es) != 2 || es[0] != engine.Engine(missing) {
		t.Errorf("For: %v", es)
	}
	if _, e, err := engine.Open(t.Context(), "t", "", engine.Options{}); err != nil || e.Name() != "t-small" {
		t.Errorf("Open went to %v, %v", e, err)
	}
	if _, _, err := engine.Open(t.Context(), "u", "", engine.Options{}); !errors.Is(err, engine.ErrInvalidModel) {
		t.Errorf("Open of a broken model: %v", err)
	}
	if _, _, err := engine.Open(t.Context(), "v", "", engine.Options{}); !errors.Is(err, engine.ErrUnknown) {
		t.Errorf("Open of an unknown format: %v", err)
	}
	defer func() {
		if recover() == nil {
			t.Error("a taken name was registered again")
		}
	}()
	engine.Register(small, 0)
}

var infos = []engine.TensorInfo{
	{Name: "image", Datatype: engine.FP32, Shape: []int64{-1, 4}},
	{Name: "scale", Datatype: engine.FP64, Shape: []int64{}},
	{Name: "any", Datatype: engine.Bytes},
}

func good() []engine.Tensor {
	return []engine.Tensor{
		engine.Of("scale", nil, []float64{1}),
		engine.Of("image", []int64{2, 4}, make([]float32, 8)),
		{Name: "any", Datatype: engine.Bytes, Shape: []int64{1, 1}, Data: [][]byte{[]byte("ab")}},
	}
}

func TestCheck(t *testing.T) {
	if err := engine.Check(good(), infos, engine.Limits{}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		field, mentions string
		lim             engine.Limits
		spoil           func(in []engine.Tensor) []engine.Tensor
	}{
		{"inputs", `"scale" (FP64, shape [])`, engine.Limits{}, func(in []engine.Tensor) []engine.Tensor { return in[1:] }},
		{"inputs[3].name", "twice", engine.Limits{}, func(in []engine.Tensor) []engine.Tensor { return append(in, in[0]) }},
		{"inputs[1].name", `"image", "scale", "any"`, engine.Limits{}, func(in []engine.Tensor) []engine.Tensor { in[1].Name = "x"; return in }},
		{"inputs[1].datatype", `"FP32"`, engine.Limits{}, func(in []engine.Tensor) []engine.Tensor { in[1].Datatype = "FP64"; return in }},
		{"inputs[1].shape", "[-1,4]", engine.Limits{}, func(in []engine.Tensor) []engine.Tensor { in[1].Shape = []int64{4, 2}; return in }},
		{"inputs[1].shape", "[-1,4]", engine.Limits{}, func(in []engine.Tensor) []engine.Tensor { in[1].Shape = []int64{0, 4}; return in }},
		{"inputs[1].shape", "[-1,4]", engine.Limits{}, func(in []engine.Tensor) []engine.Tensor { in[1].Shape = []int64{8}; return in }},
		{"inputs[2].shape", "positive", engine.Limits{}, func(in []engine.Tensor) []engine.Tensor { in[2].Shape = []int64{-1}; return in }},
		{"inputs[1].shape", "more than", engine.Limits{}, func(in []engine.Tensor) []engine.Tensor {
			in[1].Shape = []int64{math.MaxInt64, 4}
			return in
		}},
		{"inputs[1].shape", "7 elements", engine.Limits{MaxElements: 7}, nil},
		{"inputs[1].shape", "1 are allowed", engine.Limits{MaxRank: 1}, nil},
		{"inputs", "41 bytes", engine.Limits{MaxBytes: 41}, nil},
		{"inputs", "at most 2", engine.Limits{MaxTensors: 2}, nil},
		{"inputs[1].data", "8 for shape [2,4]", engine.Limits{}, func(in []engine.Tensor) []engine.Tensor { in[1].Data = []float32{1}; return in }},
		{"inputs[1].data", "[]float64", engine.Limits{}, func(in []engine.Tensor) []engine.Tensor { in[1].Data = make([]float64, 8); return in }},
		{"inputs[1].data", "nil", engine.Limits{}, func(in []engine.Tensor) []engine.Tensor { in[1].Data = nil; return in }},
		{"inputs[1].data[3]", "finite", engine.Limits{}, func(in []engine.Tensor) []engine.Tensor {
			in[1].Data.([]float32)[3] = float32(math.Inf(-1))
			return in
		}},
		{"inputs[0].data[0]", "finite", engine.Limits{}, func(in []engine.Tensor) []engine.Tensor { in[0].Data = []float64{math.NaN()}; return in }},
	} {
		in := good()
		if c.spoil != nil {
			in = c.spoil(in)
		}
		err := engine.Check(in, infos, c.lim)
		var bad *engine.InputError
		if !errors.As(err, &bad) || bad.Field != c.field || !strings.Contains(bad.Message, c.mentions) {
			t.Errorf("%v, want %s with %q", err, c.field, c.mentions)
		}
	}
	at := engine.Limits{MaxElements: 8, MaxRank: 2, MaxBytes: 42, MaxTensors: 3}
	if err := engine.Check(good(), infos, at); err != nil {
		t.Errorf("at the limits: %v", err)
	}
	in := good()
	in[0].Data = []float64{math.NaN()}
	if err := engine.Check(in, infos, engine.Limits{AllowNonFinite: true}); err != nil {
		t.Errorf("allowed NaN: %v", err)
	}
	half := []engine.Tensor{{Name: "h", Datatype: engine.FP16, Shape: []int64{2}, Data: []uint16{0x3c00, 0x7c00}}}
	if err := engine.Check(half, []engine.TensorInfo{{Name: "h", Datatype: engine.FP16, Shape: []int64{2}}}, engine.Limits{}); err == nil {
		t.Error("infinity in FP16 passed")
	}
}

func TestWarmUp(t *testing.T) {
	var got []engine.Tensor
	f := &enginetest.Fake{In: infos[:2], Do: func(_ context.Context, in []engine.Tensor) ([]engine.Tensor, error) {
		got = in
		return nil, nil
	}}
	s, err := f.Load(t.Context(), "", engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := engine.WarmUp(t.Context(), s); err != nil || len(got) != 2 || got[0].Shape[0] != 1 || engine.Len(got[0].Data) != 4 {
		t.Errorf("ran on %v, %v", got, err)
	}
	f.Do = func(context.Context, []engine.Tensor) ([]engine.Tensor, error) { return nil, errors.New("broken") }
	if err := engine.WarmUp(t.Context(), s); err == nil {
		t.Error("a failing model warmed up")
	}
	f.In, got = infos, nil
	if err := engine.WarmUp(t.Context(), s); err != nil || got != nil {
		t.Errorf("unknown rank: %v, %v", got, err)
	}
}

func TestZeroHolds(t *testing.T) {
	for _, dt := range []string{
		engine.Bool, engine.Uint8, engine.Uint16, engine.Uint32, engine.Uint64, engine.Int8, engine.Int16,
		engine.Int32, engine.Int64, engine.FP16, engine.FP32, engine.FP64, engine.Bytes,
	} {
		data, err := engine.Zero(dt, 3)
		if err != nil || engine.Len(data) != 3 {
			t.Fatalf("%s: %v, %v", dt, data, err)
		}
		in := []engine.Tensor{{Name: "x", Datatype: dt, Shape: []int64{3}, Data: data}}
		if err := engine.Check(in, []engine.TensorInfo{{Name: "x", Datatype: dt, Shape: []int64{-1}}}, engine.Limits{}); err != nil {
			t.Errorf("%s: %v", dt, err)
		}
	}
	if _, err := engine.Zero("FP8", 1); err == nil {
		t.Error("FP8 exists")
	}
}
