// Package enginetest holds what every engine must pass, and a fake engine for
// tests of code that uses one.
package enginetest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/edgetwin/sedna/lib/engine"
	"github.com/edgetwin/sedna/lib/onnx"
)

// Doubler is an ONNX model that takes "x" (FP32, [batch,2]) and returns "y",
// its double, for engines of format "onnx".
func Doubler() []byte {
	b, err := onnx.Encode(&onnx.Model{Graph: onnx.Graph{
		Name:         "doubler",
		Nodes:        []onnx.Node{{Name: "double", Op: "Mul", Inputs: []string{"x", "two"}, Outputs: []string{"y"}}},
		Initializers: []onnx.Tensor{onnx.New("two", []int64{}, []float32{2})},
		Inputs:       []onnx.ValueInfo{{Name: "x", Type: onnx.Float32, Dims: onnx.Batched(2)}},
		Outputs:      []onnx.ValueInfo{{Name: "y", Type: onnx.Float32, Dims: onnx.Batched(2)}},
	}})
	if err != nil {
		panic(err) // the model above is constant
	}
	return b
}

// Run checks an engine that loads "onnx" against the contracts of
// engine.Engine and engine.Session.
func Run(t *testing.T, e engine.Engine) {
	path := filepath.Join(t.TempDir(), "doubler.onnx")
	if err := os.WriteFile(path, Doubler(), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := e.Load(t.Context(), path, engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	t.Run("metadata", func(t *testing.T) { metadata(t, s) })
	t.Run("warm up", func(t *testing.T) {
		if err := engine.WarmUp(t.Context(), s); err != nil {
			t.Error(err)
		}
	})
	t.Run("concurrent", func(t *testing.T) { concurrent(t, s) })
	t.Run("bad inputs", func(t *testing.T) { badInputs(t, s) })
	t.Run("context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Infer(ctx, input(1, 2)); !errors.Is(err, context.Canceled) {
			t.Errorf("Infer with an ended context: %v", err)
		}
		if err := double(t.Context(), s, 1, 2); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
	t.Run("close", func(t *testing.T) {
		for range 2 {
			if err := s.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		}
		if _, err := s.Infer(t.Context(), input(1, 2)); !errors.Is(err, engine.ErrClosed) {
			t.Errorf("Infer after Close: %v", err)
		}
	})
	t.Run("bad files", func(t *testing.T) { badFiles(t, e) })
}

func metadata(t *testing.T, s engine.Session) {
	for name, infos := range map[string][]engine.TensorInfo{"x": s.Inputs(), "y": s.Outputs()} {
		if len(infos) != 1 || infos[0].Name != name || infos[0].Datatype != engine.FP32 ||
			len(infos[0].Shape) != 2 || infos[0].Shape[0] != -1 || infos[0].Shape[1] != 2 {
			t.Errorf("%s is described as %+v", name, infos)
		}
	}
	if s.MemoryBytes() <= 0 {
		t.Errorf("MemoryBytes is %d", s.MemoryBytes())
	}
}

func input(v ...float32) []engine.Tensor {
	return []engine.Tensor{engine.Of("x", []int64{int64(len(v) / 2), 2}, v)}
}

func double(ctx context.Context, s engine.Session, v ...float32) error {
	out, err := s.Infer(ctx, input(v...))
	if err != nil {
		return err
	}
	y, ok := out[0].Data.([]float32)
	if !ok || len(out) != 1 || out[0].Name != "y" || out[0].Datatype != engine.FP32 || len(y) != len(v) {
		return errors.New("output is not y of the input's size")
	}
	for i := range v {
		if y[i] != 2*v[i] {
			return errors.New("output is not the double")
		}
	}
	return nil
}

func concurrent(t *testing.T, s engine.Session) {
	var wg sync.WaitGroup
	for g := range 8 {
		v := make([]float32, 2*(g+1))
		for i := range v {
			v[i] = float32(g*100 + i)
		}
		wg.Go(func() {
			for range 50 {
				if err := double(context.Background(), s, v...); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func badInputs(t *testing.T, s engine.Session) {
	for name, in := range map[string][]engine.Tensor{
		"none":     nil,
		"name":     {engine.Of("z", []int64{1, 2}, []float32{1, 2})},
		"datatype": {engine.Of("x", []int64{1, 2}, []float64{1, 2})},
		"shape":    {engine.Of("x", []int64{1, 3}, []float32{1, 2, 3})},
		"data":     {engine.Of("x", []int64{2, 2}, []float32{1, 2})},
	} {
		var bad *engine.InputError
		if _, err := s.Infer(t.Context(), in); !errors.As(err, &bad) || !strings.HasPrefix(bad.Field, "inputs") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func badFiles(t *testing.T, e engine.Engine) {
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage.onnx")
	if err := os.WriteFile(garbage, []byte("no model"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Load(t.Context(), garbage, engine.Options{}); !errors.Is(err, engine.ErrInvalidModel) {
		t.Errorf("garbage: %v", err)
	}
	if _, err := e.Load(t.Context(), filepath.Join(dir, "none.onnx"), engine.Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	large := filepath.Join(dir, "large.onnx")
	if err := os.WriteFile(large, Doubler(), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Load(t.Context(), large, engine.Options{MaxModelBytes: 10}); !errors.Is(err, engine.ErrInvalidModel) {
		t.Errorf("file over the limit: %v", err)
	}
}
