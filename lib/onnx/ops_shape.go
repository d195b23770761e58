package onnx

import "slices"

// shapeOps change or read shapes; none of them copies elements.
var shapeOps = map[string]operator{
	"Reshape":   {minIn: 2, maxIn: 2, build: buildReshape},
	"Flatten":   {minIn: 1, maxIn: 1, build: buildFlatten},
	"Squeeze":   {minIn: 1, maxIn: 2, build: buildSqueeze},
	"Unsqueeze": {minIn: 1, maxIn: 2, build: buildUnsqueeze},
	"Identity":  {minIn: 1, maxIn: 1, build: buildIdentity},
	"Shape":     {minIn: 1, maxIn: 1, build: buildShape},
}

// axis maps a possibly negative axis to [0,rank).
func axis(a, rank int) (int, error) {
	if a < -rank || a >= rank {
		return 0, mismatch("axis %d of a value with %d dimensions", a, rank)
	}
	if a < 0 {
		a += rank
	}
	return a, nil
}

func buildIdentity(b *builder) (kernel, error) {
	in, out := b.in[0], b.out[0]
	b.set(0, b.meta(0))
	return func(f *frame) error {
		f.alias(out, in, f.vals[in].shape)
		return nil
	}, nil
}

func buildReshape(b *builder) (kernel, error) {
	if err := b.int64s(1); err != nil {
		return nil, err
	}
	allowZero, err := b.int("allowzero", 0)
	if err != nil {
		return nil, err
	}
	in, to, out := b.in[0], b.in[1], b.out[0]
	x := b.meta(0)
	b.set(0, meta{typ: x.typ})
	if k := b.meta(1).konst; k != nil {
		want := toInts(get[int64](k))
		if slices.Contains(want, 0) && allowZero == 0 && !x.rank {
			want = nil
		}
		if want != nil {
			shape, err := reshape(nil, x.shape, want, allowZero != 0, x.rank && !slices.Contains(x.shape, -1))
			if err != nil {
				return nil, err
			}
			b.set(0, ranked(x.typ, shape...))
		}
	}
	return func(f *frame) error {
		var room, wants [8]int
		want := wants[:0]
		for _, d := range get[int64](&f.vals[to]) {
			want = append(want, int(d))
		}
		shape, err := reshape(room[:0], f.vals[in].shape, want, allowZero != 0, true)
		if err != nil {
			return err
		}
		f.alias(out, in, shape)
		return nil
	}, nil
}

// reshape resolves 0 (copy the dimension) and -1 (whatever is left) in want.
// Unless the input's shape is complete, what depends on it stays -1.
func reshape(dst, have, want []int, allowZero, complete bool) ([]int, error) {
	open, known := -1, 1
	for i, d := range want {
		switch {
		case d == 0 && !allowZero:
			if i >= len(have) {
				return dst, mismatch("dimension %d to copy from a value of shape %v", i, have)
			}
			d = have[i]
		case d == -1:
			if open >= 0 {
				return dst, mismatch("two dimensions to infer in %v", want)
			}
			open = i
		case d < 0:
			return dst, mismatch("negative dimension in %v", want)
		}
		dst = append(dst, d)
		if i != open {
			if d > 0 && known > (1<<31)/d {
				return dst, overLimit("shape %v", want)
			}
			known *= d
		}
	}
	if !complete {
		return dst, nil
	}
	n := size(have)
	if open >= 0 {
		if known == 0 || n%known != 0 {
			return dst, mismatch("%v cannot be reshaped to %v", have, want)
		}
		dst[open] = n / known
		known = n
	}
	if known != n {
		return dst, mismatch("%v cannot be reshaped to %v", have, want)
	}
	return dst, nil
}

func buildFlatten(b *builder) (kernel, error) {
	a, err := b.int("axis", 1)
	if err != nil {
		return nil, err
	}
	in, out := b.in[0], b.out[0]
	x := b.meta(0)
	shape := []int{-1, -1}
	if x.rank {
		if shape, err = flatten(shape[:0], x.shape, a); err != nil {
			return nil, err
		}
	}
	b.set(0, ranked(x.typ, shape...))
	return func(f *frame) error {
		var room [2]int
		shape, err := flatten(room[:0], f.vals[in].shape, a)
		if err != nil {
			return err
		}
		f.alias(out, in, shape)
		return nil
	}, nil
}

func flatten(dst, shape []int, a int) ([]int, error) {
	if a < -len(shape) || a > len(shape) {
		return nil, mismatch("axis %d of a value with %d dimensions", a, len(shape))
	}
	if a < 0 {
		a += len(shape)
	}
	return append(dst, knownSize(shape[:a]), knownSize(shape[a:])), nil
}

// knownSize is the product of a shape, -1 when a dimension is unknown or the
// product is larger than any value may be.
func knownSize(shape []int) int {
	n := 1
	for _, d := range shape {
		if d < 0 || d > 0 && n > (1<<31)/d {
			return -1
		}
		n *= d
	}
	return n
}

// reaxis builds Squeeze and Unsqueeze, which take axes as an attribute before
// opset 13 and as an input since.
func reaxis(b *builder, change func(dst, shape, axes []int) ([]int, error)) (kernel, error) {
	list, known, slot, err := b.intsInput("axes", 1, 13)
	if err != nil {
		return nil, err
	}
	in, out := b.in[0], b.out[0]
	x := b.meta(0)
	b.set(0, meta{typ: x.typ})
	if known && x.rank {
		shape, err := change(nil, x.shape, list)
		if err != nil {
			return nil, err
		}
		if shape != nil {
			b.set(0, ranked(x.typ, shape...))
		}
	}
	return func(f *frame) error {
		list := list
		if slot >= 0 {
			list = toInts(get[int64](&f.vals[slot]))
		}
		var room [8]int
		shape, err := change(room[:0], f.vals[in].shape, list)
		if err != nil {
			return err
		}
		f.alias(out, in, shape)
		return nil
	}, nil
}

func buildSqueeze(b *builder) (kernel, error) { return reaxis(b, squeeze) }

// squeeze drops the listed dimensions, or every one of size 1. It returns nil
// when the latter depends on an unknown dimension.
func squeeze(dst, shape, axes []int) ([]int, error) {
	if dst == nil {
		dst = []int{}
	}
	if axes == nil {
		for _, d := range shape {
			if d < 0 {
				return nil, nil
			}
			if d != 1 {
				dst = append(dst, d)
			}
		}
		return dst, nil
	}
	drop := make([]bool, len(shape))
	for _, a := range axes {
		a, err := axis(a, len(shape))
		if err != nil {
			return nil, err
		}
		if shape[a] != 1 && shape[a] >= 0 {
			return nil, mismatch("axis %d of %v is not 1", a, shape)
		}
		drop[a] = true
	}
	for i, d := range shape {
		if !drop[i] {
			dst = append(dst, d)
		}
	}
	return dst, nil
}

func buildUnsqueeze(b *builder) (kernel, error) {
	if b.opset >= 13 && !b.has(1) {
		return nil, malformed("axes are missing")
	}
	return reaxis(b, unsqueeze)
}

func unsqueeze(dst, shape, axes []int) ([]int, error) {
	if dst == nil {
		dst = []int{}
	}
	rank := len(shape) + len(axes)
	added := make([]bool, rank)
	for _, a := range axes {
		a, err := axis(a, rank)
		if err != nil {
			return nil, err
		}
		if added[a] {
			return nil, mismatch("axis %d is added twice", a)
		}
		added[a] = true
	}
	next := 0
	for _, one := range added {
		if one {
			dst = append(dst, 1)
			continue
		}
		dst = append(dst, shape[next])
		next++
	}
	return dst, nil
}

func buildShape(b *builder) (kernel, error) {
	start, err := b.int("start", 0)
	if err != nil {
		return nil, err
	}
	end, err := b.int("end", 1<<30)
	if err != nil {
		return nil, err
	}
	in, out := b.in[0], b.out[0]
	b.set(0, ranked(Int64, -1))
	return func(f *frame) error {
		shape := f.vals[in].shape
		from, to := bound(start, len(shape)), bound(end, len(shape))
		part := shape[from:max(from, to)]
		dst, err := alloc[int64](f, out, []int{len(part)})
		for i := range dst {
			dst[i] = int64(part[i])
		}
		return err
	}, nil
}

// bound clamps a Python-style index to [0,n].
func bound(i, n int) int {
	if i < 0 {
		i += n
	}
	return max(0, min(i, n))
}
