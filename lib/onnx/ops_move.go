package onnx

import "slices"

// moveOps copy elements of any type without calculating.
var moveOps = map[string]operator{
	"Transpose": {minIn: 1, maxIn: 1, build: buildTranspose},
	"Concat":    {minIn: 1, maxIn: many, build: buildConcat},
	"Gather":    {minIn: 2, maxIn: 2, build: buildGather},
	"Constant":  {minIn: 0, maxIn: 0, build: buildConstant},
}

// mover makes the kernels that exist for every element type.
type mover interface {
	clone(v *value) any
	transpose(in, out int, perm []int) kernel
	concat(in []int, out, axis int) kernel
	gather(in, indices, out, axis int, t DType) kernel
}

type elements[T any] struct{}

// moverOf is nil for element types that this package does not hold.
func moverOf(t DType) mover {
	switch t {
	case Float32:
		return elements[float32]{}
	case Float64:
		return elements[float64]{}
	case Int64:
		return elements[int64]{}
	case Int32:
		return elements[int32]{}
	case Int16:
		return elements[int16]{}
	case Int8:
		return elements[int8]{}
	case Uint64:
		return elements[uint64]{}
	case Uint32:
		return elements[uint32]{}
	case Uint16, Float16:
		return elements[uint16]{}
	case Uint8:
		return elements[uint8]{}
	case Bool:
		return elements[bool]{}
	}
	return nil
}

func (elements[T]) clone(v *value) any {
	return append([]T{}, get[T](v)...)
}

func buildTranspose(b *builder) (kernel, error) {
	perm, err := b.ints("perm")
	if err != nil {
		return nil, err
	}
	x := b.meta(0)
	b.set(0, meta{typ: x.typ})
	if x.rank {
		p, err := permutation(perm, len(x.shape))
		if err != nil {
			return nil, err
		}
		shape := make([]int, len(p))
		for i, a := range p {
			shape[i] = x.shape[a]
		}
		b.set(0, ranked(x.typ, shape...))
	}
	return moverOf(x.typ).transpose(b.in[0], b.out[0], perm), nil
}

// permutation checks perm; nil stands for reversed dimensions.
func permutation(perm []int, rank int) ([]int, error) {
	if perm == nil {
		perm = sequence(rank)
		slices.Reverse(perm)
	}
	if len(perm) != rank {
		return nil, mismatch("permutation %v of %d dimensions", perm, rank)
	}
	seen := make([]bool, rank)
	for _, a := range perm {
		if a < 0 || a >= rank || seen[a] {
			return nil, mismatch("%v is no permutation", perm)
		}
		seen[a] = true
	}
	return perm, nil
}

func (elements[T]) transpose(in, out int, perm []int) kernel {
	return func(f *frame) error {
		x := &f.vals[in]
		p, err := permutation(perm, len(x.shape))
		if err != nil {
			return err
		}
		rank := len(p)
		strides, inner := make([]int, rank), 1
		for i := rank - 1; i >= 0; i-- {
			strides[i] = inner
			inner *= x.shape[i]
		}
		shape, step := make([]int, rank), make([]int, rank)
		for i, a := range p {
			shape[i], step[i] = x.shape[a], strides[a]
		}
		dst, err := alloc[T](f, out, shape)
		if err != nil {
			return err
		}
		src := get[T](x)
		index, at := make([]int, rank), 0
		for i := range dst {
			dst[i] = src[at]
			for d := rank - 1; d >= 0; d-- {
				index[d]++
				at += step[d]
				if index[d] < shape[d] {
					break
				}
				at -= shape[d] * step[d]
				index[d] = 0
			}
		}
		return nil
	}
}

func buildConcat(b *builder) (kernel, error) {
	if err := b.sameType(0); err != nil {
		return nil, err
	}
	for i := range b.in {
		if !b.has(i) {
			return nil, malformed("input %d is missing", i)
		}
	}
	a, err := b.attr("axis", AttrInt)
	if err != nil {
		return nil, err
	}
	if a == nil {
		return nil, malformed("attribute axis is missing")
	}
	t := b.meta(0).typ
	b.set(0, meta{typ: t})
	var shapes [][]int
	for i := range b.in {
		if m := b.meta(i); m.rank {
			shapes = append(shapes, m.shape)
		}
	}
	if len(shapes) == len(b.in) {
		shape, _, err := concat(shapes, int(a.I))
		if err != nil {
			return nil, err
		}
		b.set(0, ranked(t, shape...))
	}
	return moverOf(t).concat(b.in, b.out[0], int(a.I)), nil
}

// concat is the result's shape and the resolved axis.
func concat(shapes [][]int, a int) ([]int, int, error) {
	ax, err := axis(a, len(shapes[0]))
	if err != nil {
		return nil, 0, err
	}
	shape := slices.Clone(shapes[0])
	for _, s := range shapes[1:] {
		if len(s) != len(shape) {
			return nil, 0, mismatch("shapes %v and %v to concatenate", shapes[0], s)
		}
		for i, d := range s {
			switch {
			case i != ax && shape[i] < 0:
				shape[i] = d
			case i != ax && d >= 0 && d != shape[i]:
				return nil, 0, mismatch("shapes %v and %v to concatenate along axis %d", shapes[0], s, ax)
			case i == ax && (d < 0 || shape[i] < 0):
				shape[i] = -1
			case i == ax:
				shape[i] += d
			}
		}
	}
	return shape, ax, nil
}

func (elements[T]) concat(in []int, out, axis int) kernel {
	return func(f *frame) error {
		shapes := make([][]int, len(in))
		for i, slot := range in {
			shapes[i] = f.vals[slot].shape
		}
		shape, ax, err := concat(shapes, axis)
		if err != nil {
			return err
		}
		dst, err := alloc[T](f, out, shape)
		if err != nil {
			return err
		}
		for outer := range size(shape[:ax]) {
			for i, slot := range in {
				run := size(shapes[i][ax:])
				dst = dst[copy(dst, get[T](&f.vals[slot])[outer*run:(outer+1)*run]):]
			}
		}
		return nil
	}
}

func buildGather(b *builder) (kernel, error) {
	a, err := b.int("axis", 0)
	if err != nil {
		return nil, err
	}
	it := b.meta(1).typ
	if it != Int64 && it != Int32 {
		return nil, mismatch("indices are %v, expected int32 or int64", it)
	}
	x := b.meta(0)
	b.set(0, meta{typ: x.typ})
	return moverOf(x.typ).gather(b.in[0], b.in[1], b.out[0], a, it), nil
}

func (elements[T]) gather(in, indices, out, a int, t DType) kernel {
	return func(f *frame) error {
		x, idx := &f.vals[in], &f.vals[indices]
		ax, err := axis(a, len(x.shape))
		if err != nil {
			return err
		}
		shape := slices.Concat(x.shape[:ax], idx.shape, x.shape[ax+1:])
		dst, err := alloc[T](f, out, shape)
		if err != nil {
			return err
		}
		src, run, n := get[T](x), size(x.shape[ax+1:]), x.shape[ax]
		at := toInt64s(idx, t)
		for outer := range size(x.shape[:ax]) {
			for _, i := range at {
				if i < -int64(n) || i >= int64(n) {
					return mismatch("index %d of a dimension of size %d", i, n)
				}
				if i < 0 {
					i += int64(n)
				}
				from := (outer*n + int(i)) * run
				dst = dst[copy(dst, src[from:from+run]):]
			}
		}
		return nil
	}
}

// buildConstant puts the value into the slot: there is nothing left to run.
func buildConstant(b *builder) (kernel, error) {
	if len(b.node.Attributes) != 1 {
		return nil, malformed("%d attributes, expected 1", len(b.node.Attributes))
	}
	var t Tensor
	switch a := &b.node.Attributes[0]; {
	case a.Name == "value" && a.T != nil:
		t = *a.T
	case a.Name == "value_float":
		t = New("", []int64{}, []float32{a.F})
	case a.Name == "value_int":
		t = New("", []int64{}, []int64{a.I})
	case a.Name == "value_floats":
		t = New("", []int64{int64(len(a.Floats))}, a.Floats)
	case a.Name == "value_ints":
		t = New("", []int64{int64(len(a.Ints))}, a.Ints)
	default:
		return nil, unsupported("constant given as %q", a.Name)
	}
	if err := t.check(b.c.lim); err != nil {
		return nil, err
	}
	v := valueOf(&t)
	b.outMeta[0] = meta{typ: t.Type, shape: v.shape, rank: true, konst: v}
	return nil, nil
}
