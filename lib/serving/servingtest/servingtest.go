// Package servingtest makes small real models for tests of what serves them.
package servingtest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/edgetwin/sedna/lib/onnx"
)

// Classifier is an ONNX model of n classes that takes "x" (FP32, [batch,n]) and
// returns "y" of the same shape: gain·x, with the classes in reverse order when
// gain is negative (and then |gain|·x), and a softmax at its end if wanted. So
// a request says itself how confident the answer is.
func Classifier(n int, gain float32, softmax bool) []byte {
	weights := make([]float32, n*n)
	for i := range n {
		if gain < 0 {
			weights[i*n+n-1-i] = -gain
		} else {
			weights[i*n+i] = gain
		}
	}
	product := "y"
	var nodes []onnx.Node
	if softmax {
		product = "scores"
		nodes = []onnx.Node{{Name: "softmax", Op: "Softmax", Inputs: []string{product}, Outputs: []string{"y"}}}
	}
	nodes = append([]onnx.Node{{Name: "weigh", Op: "MatMul", Inputs: []string{"x", "w"}, Outputs: []string{product}}}, nodes...)
	b, err := onnx.Encode(&onnx.Model{Graph: onnx.Graph{
		Name:         "classifier",
		Nodes:        nodes,
		Initializers: []onnx.Tensor{onnx.New("w", []int64{int64(n), int64(n)}, weights)},
		Inputs:       []onnx.ValueInfo{{Name: "x", Type: onnx.Float32, Dims: onnx.Batched(int64(n))}},
		Outputs:      []onnx.ValueInfo{{Name: "y", Type: onnx.Float32, Dims: onnx.Batched(int64(n))}},
	}})
	if err != nil {
		panic(err) // the model is made above
	}
	return b
}

// File writes a model into the test's own folder and gives its path.
func File(t testing.TB, model []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model.onnx")
	if err := os.WriteFile(path, model, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
