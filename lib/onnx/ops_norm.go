package onnx

import (
	"math"
	"slices"
)

// normOps normalise along an axis or pass through.
var normOps = map[string]operator{
	"Softmax":            {minIn: 1, maxIn: 1, build: buildSoftmax},
	"LogSoftmax":         {minIn: 1, maxIn: 1, build: buildSoftmax},
	"BatchNormalization": {since: 9, minIn: 5, maxIn: 5, maxOut: 5, build: buildBatchNorm},
	"Dropout":            {minIn: 1, maxIn: 3, maxOut: 2, build: buildDropout},
}

// buildSoftmax normalises along one axis since opset 13; before, the input is
// seen as a matrix split at the axis and each row is normalised.
func buildSoftmax(b *builder) (kernel, error) {
	t, err := b.floatOnly()
	if err != nil {
		return nil, err
	}
	matrix, def := b.opset < 13, -1
	if matrix {
		def = 1
	}
	a, err := b.int("axis", def)
	if err != nil {
		return nil, err
	}
	x := b.meta(0)
	b.set(0, x)
	if x.rank {
		if _, err := axis(a, len(x.shape)); err != nil {
			return nil, err
		}
	}
	log := b.node.Op == "LogSoftmax"
	if t == Float64 {
		return softmaxKernel(b.in[0], b.out[0], a, matrix, log, math.Exp), nil
	}
	return softmaxKernel(b.in[0], b.out[0], a, matrix, log, exp32), nil
}

func softmaxKernel[T float](in, out, a int, matrix, log bool, exp func(T) T) kernel {
	return func(f *frame) error {
		x := &f.vals[in]
		ax, err := axis(a, len(x.shape))
		if err != nil {
			return err
		}
		dst, err := alloc[T](f, out, x.shape)
		if err != nil || len(dst) == 0 {
			return err
		}
		n, inner := x.shape[ax], size(x.shape[ax+1:])
		if matrix {
			n, inner = n*inner, 1
		}
		src := get[T](x)
		for base := 0; base < len(src); base += n * inner {
			for i := range inner {
				softmax(dst[base+i:], src[base+i:], n, inner, log, exp)
			}
		}
		return nil
	}
}

// softmax normalises the n elements that are step apart.
func softmax[T float](dst, src []T, n, step int, log bool, exp func(T) T) {
	top := src[0]
	for i := 1; i < n; i++ {
		top = max(top, src[i*step])
	}
	var sum T
	for i := range n {
		e := exp(src[i*step] - top)
		dst[i*step] = e
		sum += e
	}
	if log {
		shift := top + T(math.Log(float64(sum)))
		for i := range n {
			dst[i*step] = src[i*step] - shift
		}
		return
	}
	scale := 1 / sum
	for i := range n {
		dst[i*step] *= scale
	}
}

// buildBatchNorm is the inference form: a scale and a shift per channel.
func buildBatchNorm(b *builder) (kernel, error) {
	if t, err := b.floatOnly(); err != nil || t != Float32 {
		if err == nil {
			err = unsupported("element type %v", t)
		}
		return nil, err
	}
	training, err := b.int("training_mode", 0)
	if err != nil {
		return nil, err
	}
	if training != 0 || len(b.out) > 1 {
		return nil, unsupported("training mode")
	}
	eps, err := b.float("epsilon", 1e-5)
	if err != nil {
		return nil, err
	}
	b.set(0, b.meta(0))
	in, out := b.in, b.out[0]
	return func(f *frame) error {
		x := &f.vals[in[0]]
		if len(x.shape) < 2 {
			return mismatch("input of shape %v, expected at least [batch,channels]", x.shape)
		}
		channels, inner := x.shape[1], size(x.shape[2:])
		for _, slot := range in[1:] {
			if s := f.vals[slot].shape; !slices.Equal(s, []int{channels}) {
				return mismatch("parameter of shape %v for %d channels", s, channels)
			}
		}
		dst, err := alloc[float32](f, out, x.shape)
		if err != nil {
			return err
		}
		scale, shift := f.vals[in[1]].f32, f.vals[in[2]].f32
		mean, variance := f.vals[in[3]].f32, f.vals[in[4]].f32
		src := x.f32
		for len(src) > 0 {
			for c := range channels {
				k := scale[c] / float32(math.Sqrt(float64(variance[c]+eps)))
				d := shift[c] - mean[c]*k
				for i, v := range src[:inner] {
					dst[i] = v*k + d
				}
				src, dst = src[inner:], dst[inner:]
			}
		}
		return nil
	}, nil
}

// buildDropout passes the input on. Training mode is refused unless it is
// known to be off.
func buildDropout(b *builder) (kernel, error) {
	if b.has(2) {
		k := b.meta(2).konst
		if k == nil || slices.Contains(get[bool](k), true) {
			return nil, unsupported("training mode")
		}
	}
	in, out, mask := b.in[0], b.out[0], -1
	x := b.meta(0)
	b.set(0, x)
	if len(b.out) > 1 && b.out[1] >= 0 {
		if b.opset < 10 {
			return nil, unsupported("mask before opset 10")
		}
		mask = b.out[1]
		x.typ = Bool
		b.set(1, x)
	}
	return func(f *frame) error {
		shape := f.vals[in].shape
		f.alias(out, in, shape)
		if mask < 0 {
			return nil
		}
		kept, err := alloc[bool](f, mask, shape)
		for i := range kept {
			kept[i] = true
		}
		return err
	}, nil
}
