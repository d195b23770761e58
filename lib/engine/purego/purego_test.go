package purego_test

import (
	"errors"
	"testing"

	"github.com/edgetwin/sedna/lib/engine"
	"github.com/edgetwin/sedna/lib/engine/enginetest"
	"github.com/edgetwin/sedna/lib/engine/purego"
	"github.com/edgetwin/sedna/lib/onnx"
)

func TestContract(t *testing.T) {
	e, err := engine.Lookup(purego.Name)
	if err != nil {
		t.Fatal(err)
	}
	enginetest.Run(t, e)
}

func model(op string, inputs ...string) []byte {
	m := &onnx.Model{Graph: onnx.Graph{
		Nodes:   []onnx.Node{{Name: "n", Op: op, Inputs: inputs, Outputs: []string{"y"}}},
		Outputs: []onnx.ValueInfo{{Name: "y", Type: onnx.Float32}},
	}}
	for _, in := range inputs {
		m.Graph.Inputs = append(m.Graph.Inputs, onnx.ValueInfo{Name: in, Type: onnx.Float32, Dims: onnx.Batched()})
	}
	b, err := onnx.Encode(m)
	if err != nil {
		panic(err)
	}
	return b
}

func TestErrors(t *testing.T) {
	if _, err := purego.New(model("Conv", "a", "b"), engine.Options{}); !errors.Is(err, engine.ErrUnsupported) {
		t.Errorf("operator: %v", err)
	}
	if _, err := purego.New(model("Add", "a"), engine.Options{}); !errors.Is(err, engine.ErrInvalidModel) {
		t.Errorf("missing input: %v", err)
	}
	s, err := purego.New(model("Add", "a", "b"), engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Infer(t.Context(), []engine.Tensor{
		engine.Of("b", []int64{1}, []float32{1}), engine.Of("a", []int64{2}, []float32{1, 2}),
	})
	if bad := (*engine.InputError)(nil); !errors.As(err, &bad) || bad.Field != "inputs" {
		t.Errorf("batches of 2 and 1: %v", err)
	}
}

func BenchmarkInfer(b *testing.B) {
	s, err := purego.New(enginetest.Doubler(), engine.Options{})
	if err != nil {
		b.Fatal(err)
	}
	in := []engine.Tensor{engine.Of("x", []int64{1, 2}, []float32{1, 2})}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Infer(b.Context(), in); err != nil {
			b.Fatal(err)
		}
	}
}
