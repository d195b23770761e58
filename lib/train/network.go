package train

import (
	"fmt"
	"math"
	"math/rand/v2"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"
)

// Layer is out = in·W + B with W of shape [In,Out], row-major.
type Layer struct {
	In, Out int
	W, B    []float32
}

// Network is a chain of layers with ReLU between them and softmax at the end.
// It is not safe for concurrent use while it is being trained.
type Network struct {
	// Front, if not nil, is a fixed linear map of shape [Features(),
	// Layers[0].In] that is applied to the samples first and is not trained,
	// such as a pooling of pixels.
	Front  []float32
	Layers []Layer
}

// New makes a network with random weights (He initialisation), zero biases
// and widths[0] features, hidden layers, and widths' last as classes. Two
// widths are softmax regression.
func New(seed int64, widths ...int) (*Network, error) {
	if len(widths) < 2 {
		return nil, fmt.Errorf("%w: %d widths, expected features and classes at least", ErrConfig, len(widths))
	}
	rng := rand.New(rand.NewPCG(uint64(seed), 0x5ed7a))
	n := &Network{}
	for i := 1; i < len(widths); i++ {
		in, out := widths[i-1], widths[i]
		if in < 1 || out < 1 || in > math.MaxInt32/out {
			return nil, fmt.Errorf("%w: layer of %d by %d", ErrConfig, in, out)
		}
		l := Layer{In: in, Out: out, W: make([]float32, in*out), B: make([]float32, out)}
		scale := math.Sqrt(2 / float64(in))
		for j := range l.W {
			l.W[j] = float32(rng.NormFloat64() * scale)
		}
		n.Layers = append(n.Layers, l)
	}
	return n, nil
}

// SetFront puts a fixed linear map of shape [features, Layers[0].In] before
// the network.
func (n *Network) SetFront(front []float32) error {
	if in := n.Layers[0].In; len(front) == 0 || len(front)%in != 0 {
		return fmt.Errorf("%w: a map of %d values before %d inputs", ErrConfig, len(front), in)
	}
	n.Front = front
	return nil
}

// Features is the width of a sample.
func (n *Network) Features() int {
	if n.Front != nil {
		return len(n.Front) / n.Layers[0].In
	}
	return n.Layers[0].In
}

// Classes is the number of classes.
func (n *Network) Classes() int { return n.Layers[len(n.Layers)-1].Out }

// Clone copies the network.
func (n *Network) Clone() *Network {
	c := &Network{Front: n.Front}
	for _, l := range n.Layers {
		l.W, l.B = append([]float32(nil), l.W...), append([]float32(nil), l.B...)
		c.Layers = append(c.Layers, l)
	}
	return c
}

// Weights copies all trained values: per layer W, then B.
func (n *Network) Weights() []float32 {
	var flat []float32
	for _, l := range n.Layers {
		flat = append(append(flat, l.W...), l.B...)
	}
	return flat
}

// SetWeights replaces all trained values, in the order of Weights.
func (n *Network) SetWeights(flat []float32) error {
	want := 0
	for _, l := range n.Layers {
		want += len(l.W) + len(l.B)
	}
	if len(flat) != want {
		return fmt.Errorf("%w: %d weights, expected %d", ErrData, len(flat), want)
	}
	for _, l := range n.Layers {
		flat = flat[copy(l.W, flat):]
		flat = flat[copy(l.B, flat):]
	}
	return nil
}

// mapped applies Front to the data.
func (n *Network) mapped(d Data) Data {
	if n.Front == nil {
		return d
	}
	in := n.Layers[0].In
	m := Data{Features: in, Y: d.Y, X: make([]float32, d.Len()*in)}
	multiply(blas.NoTrans, blas.NoTrans, matrix(d.X, d.Features), matrix(n.Front, in), 0, matrix(m.X, in))
	return m
}

// Probabilities computes the class probabilities of each sample, [Len,Classes].
func (n *Network) Probabilities(d Data) ([]float32, error) {
	if d.Features != n.Features() || len(d.X)%d.Features != 0 {
		return nil, fmt.Errorf("%w: samples have %d features, the network takes %d", ErrData, d.Features, n.Features())
	}
	rows := len(d.X) / d.Features
	if rows == 0 {
		return nil, nil
	}
	if d.Len() != rows {
		d.Y = make([]int, rows) // labels are not needed
	}
	m := n.mapped(d)
	a := newActivations(n, rows)
	a.forward(n, m.X, rows)
	return a.out[len(a.out)-1], nil
}

// Metrics says how good a network is on some data.
type Metrics struct {
	Accuracy float64 // share of samples whose most probable class is theirs
	Loss     float64 // mean cross-entropy, in nats
}

// Evaluate measures the network on data.
func (n *Network) Evaluate(d Data) (Metrics, error) {
	if err := d.check(n.Features(), n.Classes()); err != nil {
		return Metrics{}, err
	}
	p, err := n.Probabilities(d)
	if err != nil {
		return Metrics{}, err
	}
	return measure(p, d.Y, n.Classes()), nil
}

func measure(p []float32, y []int, classes int) Metrics {
	var m Metrics
	for i, label := range y {
		row := p[i*classes : (i+1)*classes]
		if Best(row) == label {
			m.Accuracy++
		}
		m.Loss -= math.Log(max(float64(row[label]), 1e-12))
	}
	m.Accuracy /= float64(len(y))
	m.Loss /= float64(len(y))
	return m
}

// Best is the index of the largest value, the first of equals.
func Best(p []float32) int {
	best := 0
	for i, v := range p {
		if v > p[best] {
			best = i
		}
	}
	return best
}

// matrix sees v as rows of the given width.
func matrix(v []float32, width int) blas32.General {
	return blas32.General{Rows: len(v) / width, Cols: width, Stride: width, Data: v}
}

// multiply is c = op(a)·op(b) + beta·c.
func multiply(ta, tb blas.Transpose, a, b blas32.General, beta float32, c blas32.General) {
	blas32.Gemm(ta, tb, 1, a, b, beta, c)
}
