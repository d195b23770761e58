package onnx

import "context"

// frame is the memory of one run: a value per slot. Frames are pooled, so a
// slot's float32 buffer serves later runs.
type frame struct {
	ctx     context.Context
	vals    []value
	consts  []*value
	symbols []int64 // sizes of symbolic dimensions in this run, -1 if unbound
	budget  int64   // elements that this run may still allocate
	most    int64   // elements that one value may have; under 2^31
}

// value is the contents of a slot: float32 in f32, any other type in other.
// Either may be shared with an input, an initializer or another slot, and so
// is never written after the kernel that set it.
type value struct {
	shape []int
	f32   []float32
	other any
	buf   []float32 // scratch owned by this slot
}

func (p *Program) newFrame() *frame {
	f := &frame{
		vals:    make([]value, len(p.consts)),
		consts:  p.consts,
		symbols: make([]int64, p.symbols),
	}
	for i, k := range p.consts {
		if k != nil {
			f.vals[i] = *k
		}
	}
	return f
}

// release drops references to the caller's memory and pools the frame.
func (p *Program) release(f *frame) {
	for i := range f.vals {
		if f.consts[i] == nil {
			f.vals[i].f32, f.vals[i].other = nil, nil
		}
	}
	f.ctx = nil
	p.frames.Put(f)
}

// get is the data of a value whose element type is T.
func get[T any](v *value) []T {
	if p, ok := any(&v.f32).(*[]T); ok {
		return *p
	}
	d, _ := v.other.([]T)
	return d
}

// alloc gives slot memory for the shape. The memory's contents are undefined.
func alloc[T any](f *frame, slot int, shape []int) ([]T, error) {
	v := &f.vals[slot]
	v.shape = append(v.shape[:0], shape...)
	n, err := f.charge(v.shape) // not shape: errors mention it, and callers keep theirs on the stack
	if err != nil {
		return nil, err
	}
	if p, ok := any(&v.f32).(*[]T); ok {
		if cap(v.buf) < n {
			v.buf = make([]float32, n)
		}
		v.f32 = v.buf[:n]
		return *p, nil
	}
	d := make([]T, n)
	v.other = d
	return d, nil
}

// charge takes the elements of a new value from the run's budget.
func (f *frame) charge(shape []int) (int, error) {
	n := int64(1)
	for _, d := range shape {
		if d < 0 || int64(d) > f.most {
			return 0, overLimit("a value of shape %v", shape)
		}
		// No overflow: both factors are at most f.most, checked below to be
		// under 2^31.
		if n *= int64(d); n > f.most {
			return 0, overLimit("a value of shape %v", shape)
		}
	}
	if f.budget -= n; f.budget < 0 {
		return 0, overLimit("a run needs more elements than allowed, at a value of shape %v", shape)
	}
	return int(n), nil
}

// alias makes slot dst show the data of src in another shape of equal size.
func (f *frame) alias(dst, src int, shape []int) {
	v, s := &f.vals[dst], &f.vals[src]
	v.shape = append(v.shape[:0], shape...)
	v.f32, v.other = s.f32, s.other
}

func valueOf(t *Tensor) *value {
	v := &value{}
	v.load(t)
	return v
}

func (v *value) load(t *Tensor) {
	v.shape = v.shape[:0]
	for _, d := range t.Shape {
		v.shape = append(v.shape, int(d))
	}
	if d, ok := t.Data.([]float32); ok {
		v.f32 = d
		return
	}
	v.other = t.Data
}

// tensor copies a value out of the frame.
func (v *value) tensor(name string, t DType) Tensor {
	out := Tensor{Name: name, Type: t, Shape: make([]int64, len(v.shape))}
	for i, d := range v.shape {
		out.Shape[i] = int64(d)
	}
	if t == Float32 {
		out.Data = append(make([]float32, 0, len(v.f32)), v.f32...)
		return out
	}
	out.Data = moverOf(t).clone(v)
	return out
}

// size is the product of a shape without unknown dimensions.
func size(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}
