package onnx

import (
	"context"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"
	"gonum.org/v1/gonum/blas/gonum"
)

// checkEvery is the multiply-adds between two looks at the context, about
// 10 ms of work.
const checkEvery = 1 << 24

// dense computes dst[m,n] = x[m,k] · wT[n,k]ᵀ + bias[n] with weights stored by
// output, so that each result is a dot product of contiguous rows. For the
// widths that sensor models have this is faster than a general product, at
// batch 1 as well as 32: see BenchmarkDense. bias may be nil.
func dense(ctx context.Context, dst, x, wT, bias []float32, m, n, k int) error {
	var impl gonum.Implementation
	work := 0
	for i := range m {
		row, out := x[i*k:(i+1)*k], dst[i*n:(i+1)*n]
		for j := range out {
			out[j] = impl.Sdot(k, row, 1, wT[j*k:(j+1)*k], 1)
		}
		for j, b := range bias {
			out[j] += b
		}
		if work += n * k; work >= checkEvery {
			work = 0
			if err := ctx.Err(); err != nil {
				return err
			}
		}
	}
	return nil
}

// product is the general c[m,n] = alpha·op(a)·op(b), in slices of rows so that
// a long product can be cancelled.
func product(ctx context.Context, c, a, b []float32, m, n, k int, transA, transB bool, alpha float32) error {
	if m == 0 || n == 0 {
		return nil
	}
	if k == 0 {
		clear(c)
		return nil
	}
	flags := map[bool]blas.Transpose{false: blas.NoTrans, true: blas.Trans}
	right := blas32.General{Rows: k, Cols: n, Stride: n, Data: b}
	if transB {
		right = blas32.General{Rows: n, Cols: k, Stride: k, Data: b}
	}
	rows := min(m, max(1, checkEvery/(n*k)))
	for i := 0; i < m; i += rows {
		if err := ctx.Err(); err != nil {
			return err
		}
		r := min(rows, m-i)
		left := blas32.General{Rows: r, Cols: k, Stride: k, Data: a[min(i*k, len(a)):]}
		if transA {
			left = blas32.General{Rows: k, Cols: r, Stride: m, Data: a[i:]}
		}
		blas32.Gemm(flags[transA], flags[transB], alpha, left, right, 0,
			blas32.General{Rows: r, Cols: n, Stride: n, Data: c[i*n:]})
	}
	return nil
}

// transposed turns w[k,n] into w[n,k].
func transposed[T any](w []T, k, n int) []T {
	out := make([]T, len(w))
	for i := range k {
		for j := range n {
			out[j*k+i] = w[i*n+j]
		}
	}
	return out
}
