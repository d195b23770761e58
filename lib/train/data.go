package train

import (
	"errors"
	"fmt"
	"math"
)

var (
	// ErrData: samples, labels or shapes do not go together.
	ErrData = errors.New("bad training data")
	// ErrConfig: a training setting is out of range.
	ErrConfig = errors.New("bad training configuration")
	// ErrDiverged: the loss is no longer a number; the learning rate is
	// probably too high.
	ErrDiverged = errors.New("training diverged")
	// ErrNotMLP: the ONNX model is no chain of dense layers with ReLU.
	ErrNotMLP = errors.New("model is no multi-layer perceptron")
)

// Data is a set of labelled samples: sample i is X[i*Features:(i+1)*Features],
// of class Y[i]. It is not changed.
type Data struct {
	X        []float32
	Features int
	Y        []int
}

// Len is the number of samples.
func (d Data) Len() int { return len(d.Y) }

// Row is sample i.
func (d Data) Row(i int) []float32 { return d.X[i*d.Features : (i+1)*d.Features] }

// Subset copies the samples with the given indices.
func (d Data) Subset(indices []int) Data {
	s := Data{Features: d.Features, X: make([]float32, 0, len(indices)*d.Features), Y: make([]int, 0, len(indices))}
	for _, i := range indices {
		s.X = append(s.X, d.Row(i)...)
		s.Y = append(s.Y, d.Y[i])
	}
	return s
}

// Head is the first n samples, sharing memory; fewer if there are fewer.
func (d Data) Head(n int) Data {
	n = min(n, d.Len())
	return Data{X: d.X[:n*d.Features], Features: d.Features, Y: d.Y[:n]}
}

// check demands finite samples of the right width and labels in [0,classes).
func (d Data) check(features, classes int) error {
	if d.Features != features {
		return fmt.Errorf("%w: samples have %d features, the network takes %d", ErrData, d.Features, features)
	}
	if len(d.Y) == 0 || len(d.X) != len(d.Y)*d.Features {
		return fmt.Errorf("%w: %d values for %d samples of %d features", ErrData, len(d.X), len(d.Y), d.Features)
	}
	for i, y := range d.Y {
		if y < 0 || y >= classes {
			return fmt.Errorf("%w: sample %d has label %d, expected 0 to %d", ErrData, i, y, classes-1)
		}
	}
	for i, x := range d.X {
		if v := float64(x); math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Errorf("%w: sample %d is not finite", ErrData, i/d.Features)
		}
	}
	return nil
}
