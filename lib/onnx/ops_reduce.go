package onnx

import "math"

var reduceOps = map[string]operator{
	"ReduceSum":  {minIn: 1, maxIn: 2, build: buildReduce},
	"ReduceMean": {minIn: 1, maxIn: 2, build: buildReduce},
	"ReduceMax":  {minIn: 1, maxIn: 2, build: buildReduce},
	"ReduceMin":  {minIn: 1, maxIn: 2, build: buildReduce},
	"ArgMax":     {minIn: 1, maxIn: 1, build: buildArgMax},
}

// axes says what to reduce: the list, or what slot holds when it is not -1.
// An empty list means all axes, or none if noop.
type axes struct {
	list       []int
	slot       int
	keep, noop bool
}

func buildReduce(b *builder) (kernel, error) {
	n, err := b.numeric()
	if err != nil {
		return nil, err
	}
	var ax axes
	keep, err := b.int("keepdims", 1)
	if err != nil {
		return nil, err
	}
	noop, err := b.int("noop_with_empty_axes", 0)
	if err != nil {
		return nil, err
	}
	ax.keep, ax.noop = keep != 0, noop != 0
	since := int64(18)
	if b.node.Op == "ReduceSum" {
		since = 13
	}
	var known bool
	if ax.list, known, ax.slot, err = b.intsInput("axes", 1, since); err != nil {
		return nil, err
	}
	x := b.meta(0)
	b.set(0, meta{typ: x.typ})
	if known && x.rank {
		_, shape, err := ax.resolve(x.shape, ax.list)
		if err != nil {
			return nil, err
		}
		b.set(0, ranked(x.typ, shape...))
	}
	return n.reduce(b.node.Op, b.in[0], b.out[0], ax), nil
}

// resolve marks the reduced dimensions and computes the result's shape.
func (a axes) resolve(shape, list []int) (reduced []bool, out []int, err error) {
	reduced = make([]bool, len(shape))
	for _, x := range list {
		i, err := axis(x, len(shape))
		if err != nil {
			return nil, nil, err
		}
		reduced[i] = true
	}
	if len(list) == 0 && !a.noop {
		for i := range reduced {
			reduced[i] = true
		}
	}
	out = []int{}
	for i, d := range shape {
		switch {
		case !reduced[i]:
			out = append(out, d)
		case a.keep:
			out = append(out, 1)
		}
	}
	return reduced, out, nil
}

func (numbers[T]) reduce(op string, in, out int, ax axes) kernel {
	return func(f *frame) error {
		x := &f.vals[in]
		list := ax.list
		if ax.slot >= 0 {
			list = toInts(get[int64](&f.vals[ax.slot]))
		}
		reduced, shape, err := ax.resolve(x.shape, list)
		if err != nil {
			return err
		}
		src := get[T](x)
		dst, err := alloc[T](f, out, shape)
		if err != nil {
			return err
		}
		each := 1
		for i, d := range x.shape {
			if reduced[i] {
				each *= d
			}
		}
		fold(op, dst, src, x.shape, reduced)
		if each == 0 && op != "ReduceSum" {
			return reduceNothing(op, dst)
		}
		if op == "ReduceMean" {
			for i := range dst {
				dst[i] = T(float64(dst[i]) / float64(each))
			}
		}
		return nil
	}
}

// reduceNothing fills in what the maximum or minimum of no numbers is: an
// infinity. Integers have none, and a mean of nothing is not defined.
func reduceNothing[T number](op string, dst []T) error {
	inf := map[string]float32{"ReduceMax": float32(math.Inf(-1)), "ReduceMin": float32(math.Inf(1))}[op]
	switch d := any(dst).(type) {
	case []float32:
		if inf != 0 {
			for i := range d {
				d[i] = inf
			}
			return nil
		}
	case []float64:
		if inf != 0 {
			for i := range d {
				d[i] = float64(inf)
			}
			return nil
		}
	}
	if len(dst) == 0 {
		return nil
	}
	return mismatch("%s over no elements", op)
}

// fold walks src once; at is the place in dst of the current element.
func fold[T number](op string, dst, src []T, shape []int, reduced []bool) {
	rank := len(shape)
	step, inner := make([]int, rank), 1
	for i := rank - 1; i >= 0; i-- {
		if !reduced[i] {
			step[i] = inner
			inner *= shape[i]
		}
	}
	clear(dst)
	seen := make([]bool, len(dst))
	index, at := make([]int, rank), 0
	for _, v := range src {
		switch {
		case !seen[at]:
			dst[at], seen[at] = v, true
		case op == "ReduceMax":
			dst[at] = max(dst[at], v)
		case op == "ReduceMin":
			dst[at] = min(dst[at], v)
		default:
			dst[at] += v
		}
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
}

func buildArgMax(b *builder) (kernel, error) {
	n, err := b.numeric()
	if err != nil {
		return nil, err
	}
	a, err := b.int("axis", 0)
	if err != nil {
		return nil, err
	}
	keep, err := b.int("keepdims", 1)
	if err != nil {
		return nil, err
	}
	last, err := b.int("select_last_index", 0)
	if err != nil {
		return nil, err
	}
	b.set(0, meta{typ: Int64})
	if x := b.meta(0); x.rank {
		_, shape, err := (axes{keep: keep != 0}).resolve(x.shape, []int{a})
		if err != nil {
			return nil, err
		}
		b.set(0, ranked(Int64, shape...))
	}
	return n.argMax(b.in[0], b.out[0], a, keep != 0, last != 0), nil
}

func (numbers[T]) argMax(in, out int, a int, keep, last bool) kernel {
	return func(f *frame) error {
		x := &f.vals[in]
		ax, err := axis(a, len(x.shape))
		if err != nil {
			return err
		}
		_, shape, err := (axes{keep: keep}).resolve(x.shape, []int{ax})
		if err != nil {
			return err
		}
		dst, err := alloc[int64](f, out, shape)
		if err != nil {
			return err
		}
		src, n, inner := get[T](x), x.shape[ax], size(x.shape[ax+1:])
		if n == 0 && len(dst) > 0 {
			return mismatch("ArgMax over no elements")
		}
		for i := range dst {
			base := i/inner*n*inner + i%inner
			best, at := src[base], 0
			for j := 1; j < n; j++ {
				if v := src[base+j*inner]; v > best || last && v == best {
					best, at = v, j
				}
			}
			dst[i] = int64(at)
		}
		return nil
	}
}
