package onnx

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"
)

// mlp is a model of the given layer widths with ReLU between and Softmax last.
func mlp(widths ...int64) *Model {
	r := rand.New(rand.NewPCG(1, 2))
	g := Graph{
		Name:    "mlp",
		Inputs:  []ValueInfo{{Name: "input", Type: Float32, Dims: Batched(widths[0])}},
		Outputs: []ValueInfo{{Name: "probabilities", Type: Float32, Dims: Batched(widths[len(widths)-1])}},
	}
	random := func(n int64) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = r.Float32() - 0.5
		}
		return v
	}
	last := "input"
	for i := 1; i < len(widths); i++ {
		k, n := widths[i-1], widths[i]
		w, b, h := fmt.Sprint("w", i), fmt.Sprint("b", i), fmt.Sprint("h", i)
		g.Initializers = append(g.Initializers, New(w, []int64{k, n}, random(k*n)), New(b, []int64{n}, random(n)))
		g.Nodes = append(g.Nodes, Node{Op: "Gemm", Inputs: []string{last, w, b}, Outputs: []string{h}})
		last = h
		if i < len(widths)-1 {
			last = fmt.Sprint("r", i)
			g.Nodes = append(g.Nodes, Node{Op: "Relu", Inputs: []string{h}, Outputs: []string{last}})
		}
	}
	g.Nodes = append(g.Nodes, Node{Op: "Softmax", Inputs: []string{last}, Outputs: []string{"probabilities"}})
	return &Model{Graph: g}
}

func BenchmarkRun(b *testing.B) {
	for _, c := range []struct {
		name   string
		widths []int64
	}{
		{"digits", []int64{64, 32, 10}},
		{"digits128", []int64{64, 128, 10}},
		{"mnist", []int64{784, 128, 10}},
	} {
		p, err := Compile(mlp(c.widths...), Limits{})
		if err != nil {
			b.Fatal(err)
		}
		for _, batch := range []int64{1, 32} {
			in := []Tensor{New("input", []int64{batch, c.widths[0]}, make([]float32, batch*c.widths[0]))}
			for i := range in[0].Float32s() {
				in[0].Float32s()[i] = float32(i%17) / 16
			}
			b.Run(fmt.Sprintf("%s/batch=%d", c.name, batch), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := p.Run(context.Background(), in); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkDense compares the dot-product kernel with gonum's general product
// on the layers of the digits and MNIST networks.
func BenchmarkDense(b *testing.B) {
	for _, c := range []struct{ m, k, n int }{
		{1, 64, 32}, {32, 64, 32}, {1, 32, 10}, {32, 32, 10}, {1, 784, 128}, {32, 784, 128},
	} {
		x, w, dst := make([]float32, c.m*c.k), make([]float32, c.k*c.n), make([]float32, c.m*c.n)
		for i := range x {
			x[i] = float32(i%7) + 1
		}
		size := fmt.Sprintf("%dx%dx%d", c.m, c.k, c.n)
		b.Run("dot/"+size, func(b *testing.B) {
			for b.Loop() {
				if err := dense(context.Background(), dst, x, w, nil, c.m, c.n, c.k); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("gemm/"+size, func(b *testing.B) {
			for b.Loop() {
				blas32.Gemm(blas.NoTrans, blas.NoTrans, 1,
					blas32.General{Rows: c.m, Cols: c.k, Stride: c.k, Data: x},
					blas32.General{Rows: c.k, Cols: c.n, Stride: c.n, Data: w}, 0,
					blas32.General{Rows: c.m, Cols: c.n, Stride: c.n, Data: dst})
			}
		})
	}
}
