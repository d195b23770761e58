package onnx

import "math"

// number is every element type one can calculate with.
type number interface {
	float | integer
}

type float interface{ float32 | float64 }

type integer interface {
	uint8 | int8 | uint16 | int16 | uint32 | int32 | uint64 | int64
}

// numeric makes the kernels that exist for every number type.
type numeric interface {
	binary(op string, a, b, out int) kernel
	clip(in, low, high, out int, defLow, defHigh float64) kernel
	reduce(op string, in, out int, ax axes) kernel
	argMax(in, out int, axis int, keep, last bool) kernel
	sign(op string, in, out int) kernel
	pow(in, exponent, out int, t DType) kernel
	gemm(g gemm) kernel
	matmul(a, b, out int) kernel
}

type numbers[T number] struct{}

// numericOf is nil for types that are no numbers.
func numericOf(t DType) numeric {
	switch t {
	case Float32:
		return numbers[float32]{}
	case Float64:
		return numbers[float64]{}
	case Int64:
		return numbers[int64]{}
	case Int32:
		return numbers[int32]{}
	case Int16:
		return numbers[int16]{}
	case Int8:
		return numbers[int8]{}
	case Uint64:
		return numbers[uint64]{}
	case Uint32:
		return numbers[uint32]{}
	case Uint16:
		return numbers[uint16]{}
	case Uint8:
		return numbers[uint8]{}
	}
	return nil
}

func (b *builder) numeric() (numeric, error) {
	t := b.meta(0).typ
	if n := numericOf(t); n != nil {
		return n, nil
	}
	return nil, unsupported("element type %v", t)
}

var arithmeticOps = map[string]operator{
	"Add": {minIn: 2, maxIn: 2, build: buildBinary},
	"Sub": {minIn: 2, maxIn: 2, build: buildBinary},
	"Mul": {minIn: 2, maxIn: 2, build: buildBinary},
	"Div": {minIn: 2, maxIn: 2, build: buildBinary},
	"Pow": {minIn: 2, maxIn: 2, build: buildPow},
	"Neg": {minIn: 1, maxIn: 1, build: buildSign},
	"Abs": {minIn: 1, maxIn: 1, build: buildSign},
}

// setBroadcast sets output 0 to what inputs 0 and 1 broadcast to.
func (b *builder) setBroadcast(t DType) error {
	x, y := b.meta(0), b.meta(1)
	if !x.rank || !y.rank {
		b.set(0, meta{typ: t})
		return nil
	}
	shape, err := broadcast(nil, x.shape, y.shape)
	b.set(0, ranked(t, shape...))
	return err
}

func buildBinary(b *builder) (kernel, error) {
	n, err := b.numeric()
	if err != nil {
		return nil, err
	}
	if err := b.sameType(0); err != nil {
		return nil, err
	}
	if err := b.setBroadcast(b.meta(0).typ); err != nil {
		return nil, err
	}
	return n.binary(b.node.Op, b.in[0], b.in[1], b.out[0]), nil
}

func (numbers[T]) binary(op string, a, b, out int) kernel {
	apply := map[string]func(dst, a, b []T) error{
		"Add": addRun[T], "Sub": subRun[T], "Mul": mulRun[T], "Div": divRun[T],
	}[op]
	return func(f *frame) error {
		x, y := &f.vals[a], &f.vals[b]
		var room [8]int
		shape, err := broadcast(room[:0], x.shape, y.shape)
		if err != nil {
			return err
		}
		dst, err := alloc[T](f, out, shape)
		if err != nil {
			return err
		}
		return zip(dst, get[T](x), get[T](y), shape, x.shape, y.shape, apply)
	}
}

func addRun[T number](dst, a, b []T) error {
	switch {
	case len(a) == len(b):
		for i, x := range a {
			dst[i] = x + b[i]
		}
	case len(a) == 1:
		for i, y := range b {
			dst[i] = a[0] + y
		}
	default:
		for i, x := range a {
			dst[i] = x + b[0]
		}
	}
	return nil
}

func subRun[T number](dst, a, b []T) error {
	switch {
	case len(a) == len(b):
		for i, x := range a {
			dst[i] = x - b[i]
		}
	case len(a) == 1:
		for i, y := range b {
			dst[i] = a[0] - y
		}
	default:
		for i, x := range a {
			dst[i] = x - b[0]
		}
	}
	return nil
}

func mulRun[T number](dst, a, b []T) error {
	switch {
	case len(a) == len(b):
		for i, x := range a {
			dst[i] = x * b[i]
		}
	case len(a) == 1:
		for i, y := range b {
			dst[i] = a[0] * y
		}
	default:
		for i, x := range a {
			dst[i] = x * b[0]
		}
	}
	return nil
}

// divRun refuses integer division by zero, which has no result.
func divRun[T number](dst, a, b []T) error {
	half := 0.5
	if T(half) == 0 {
		for _, y := range b {
			if y == 0 {
				return mismatch("integer division by zero")
			}
		}
	}
	switch {
	case len(a) == len(b):
		for i, x := range a {
			dst[i] = x / b[i]
		}
	case len(a) == 1:
		for i, y := range b {
			dst[i] = a[0] / y
		}
	default:
		for i, x := range a {
			dst[i] = x / b[0]
		}
	}
	return nil
}

func buildPow(b *builder) (kernel, error) {
	n, err := b.numeric()
	if err != nil {
		return nil, err
	}
	if t := b.meta(1).typ; numericOf(t) == nil {
		return nil, unsupported("exponent of type %v", t)
	}
	if err := b.setBroadcast(b.meta(0).typ); err != nil {
		return nil, err
	}
	return n.pow(b.in[0], b.in[1], b.out[0], b.meta(1).typ), nil
}

// pow computes in float64, so integer powers are exact up to 2^53.
func (numbers[T]) pow(in, exponent, out int, t DType) kernel {
	apply := func(dst, a, b []float64) error {
		for i := range dst {
			dst[i] = math.Pow(a[min(i, len(a)-1)], b[min(i, len(b)-1)])
		}
		return nil
	}
	return func(f *frame) error {
		x, y := &f.vals[in], &f.vals[exponent]
		shape, err := broadcast(nil, x.shape, y.shape)
		if err != nil {
			return err
		}
		dst, err := alloc[T](f, out, shape)
		if err != nil {
			return err
		}
		xs := get[T](x)
		base := make([]float64, len(xs))
		for i, v := range xs {
			base[i] = float64(v)
		}
		result := make([]float64, len(dst))
		if err := zip(result, base, toFloat64s(y, t), shape, x.shape, y.shape, apply); err != nil {
			return err
		}
		for i, v := range result {
			dst[i] = T(v)
		}
		return nil
	}
}

func buildSign(b *builder) (kernel, error) {
	n, err := b.numeric()
	if err != nil {
		return nil, err
	}
	b.set(0, b.meta(0))
	return n.sign(b.node.Op, b.in[0], b.out[0]), nil
}

func (numbers[T]) sign(op string, in, out int) kernel {
	abs := op == "Abs"
	return func(f *frame) error {
		x := get[T](&f.vals[in])
		dst, err := alloc[T](f, out, f.vals[in].shape)
		if err != nil {
			return err
		}
		for i, v := range x {
			switch {
			case !abs:
				dst[i] = -v
			case v > 0:
				dst[i] = v
			default:
				dst[i] = 0 - v // 0 and not -0 for 0
			}
		}
		return nil
	}
}
