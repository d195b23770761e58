package onnx

import "math"

var activationOps = map[string]operator{
	"Relu":        {since: 6, minIn: 1, maxIn: 1, build: buildRelu},
	"LeakyRelu":   {since: 6, minIn: 1, maxIn: 1, build: activation(leakyRelu)},
	"Elu":         {since: 6, minIn: 1, maxIn: 1, build: activation(elu)},
	"HardSigmoid": {since: 6, minIn: 1, maxIn: 1, build: activation(hardSigmoid)},
	"Gelu":        {since: 20, minIn: 1, maxIn: 1, build: activation(gelu)},
	"Sigmoid":     {since: 6, minIn: 1, maxIn: 1, build: plain(sigmoid32, func(x float64) float64 { return 1 / (1 + math.Exp(-x)) })},
	"Tanh":        {since: 6, minIn: 1, maxIn: 1, build: plain(tanh32, math.Tanh)},
	"Exp":         {minIn: 1, maxIn: 1, build: plain(exp32, math.Exp)},
	"Log":         {minIn: 1, maxIn: 1, build: plain(nil, math.Log)},
	"Sqrt":        {minIn: 1, maxIn: 1, build: plain(nil, math.Sqrt)},
	"Erf":         {since: 9, minIn: 1, maxIn: 1, build: plain(nil, math.Erf)},
	"Softplus":    {since: 1, minIn: 1, maxIn: 1, build: plain(nil, softplus)},
	"Clip":        {minIn: 1, maxIn: 3, build: buildClip},
}

// plain builds an elementwise operator without attributes. narrow is the
// float32 form; without one the float64 form serves both.
func plain(narrow func(float32) float32, wide func(float64) float64) func(*builder) (kernel, error) {
	if narrow == nil {
		narrow = func(x float32) float32 { return float32(wide(float64(x))) }
	}
	return activation(func(*builder) (func(float32) float32, func(float64) float64, error) {
		return narrow, wide, nil
	})
}

// activation builds an elementwise operator from the functions that make
// returns for a node's attributes; a nil narrow form stands for the wide one.
func activation(make func(*builder) (func(float32) float32, func(float64) float64, error)) func(*builder) (kernel, error) {
	return func(b *builder) (kernel, error) {
		t, err := b.floatOnly()
		if err != nil {
			return nil, err
		}
		narrow, wide, err := make(b)
		if err != nil {
			return nil, err
		}
		b.set(0, b.meta(0))
		if t == Float64 {
			return mapped(b.in[0], b.out[0], wide), nil
		}
		if narrow == nil {
			narrow = func(x float32) float32 { return float32(wide(float64(x))) }
		}
		return mapped(b.in[0], b.out[0], narrow), nil
	}
}

func mapped[T float](in, out int, fn func(T) T) kernel {
	return func(f *frame) error {
		x := get[T](&f.vals[in])
		dst, err := alloc[T](f, out, f.vals[in].shape)
		if err != nil {
			return err
		}
		for i, v := range x {
			dst[i] = fn(v)
		}
		return nil
	}
}

func buildRelu(b *builder) (kernel, error) {
	t, in, out := b.meta(0).typ, b.in[0], b.out[0]
	b.set(0, b.meta(0))
	if t == Float32 {
		return func(f *frame) error {
			x := f.vals[in].f32
			dst, err := alloc[float32](f, out, f.vals[in].shape)
			if err != nil {
				return err
			}
			// max compiles to branch-free code and passes NaN on.
			for i, v := range x {
				dst[i] = max(v, 0)
			}
			return nil
		}, nil
	}
	n, err := b.numeric()
	if err != nil {
		return nil, err
	}
	return n.clip(in, -1, -1, out, 0, math.Inf(1)), nil
}

func leakyRelu(b *builder) (func(float32) float32, func(float64) float64, error) {
	alpha, err := b.float("alpha", 0.01)
	return nil, func(x float64) float64 {
		if x < 0 {
			return float64(alpha) * x
		}
		return x
	}, err
}

func elu(b *builder) (func(float32) float32, func(float64) float64, error) {
	alpha, err := b.float("alpha", 1)
	return nil, func(x float64) float64 {
		if x < 0 {
			return float64(alpha) * math.Expm1(x)
		}
		return x
	}, err
}

func hardSigmoid(b *builder) (func(float32) float32, func(float64) float64, error) {
	alpha, err := b.float("alpha", 0.2)
	if err != nil {
		return nil, nil, err
	}
	beta, err := b.float("beta", 0.5)
	return nil, func(x float64) float64 {
		return max(0, min(1, float64(alpha)*x+float64(beta)))
	}, err
}

func gelu(b *builder) (func(float32) float32, func(float64) float64, error) {
	a, err := b.attr("approximate", AttrString)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case a == nil || string(a.S) == "none":
		return nil, func(x float64) float64 { return 0.5 * x * (1 + math.Erf(x/math.Sqrt2)) }, nil
	case string(a.S) == "tanh":
		k := math.Sqrt(2 / math.Pi)
		return nil, func(x float64) float64 { return 0.5 * x * (1 + math.Tanh(k*(x+0.044715*x*x*x))) }, nil
	}
	return nil, nil, malformed("approximate is %q, expected none or tanh", a.S)
}

// softplus is ln(1+e^x), without overflow for large x.
func softplus(x float64) float64 {
	return max(x, 0) + math.Log1p(math.Exp(-math.Abs(x)))
}

// buildClip takes the bounds from attributes before opset 11, then from
// inputs.
func buildClip(b *builder) (kernel, error) {
	n, err := b.numeric()
	if err != nil {
		return nil, err
	}
	if err := b.sameType(0); err != nil {
		return nil, err
	}
	b.set(0, b.meta(0))
	low, high := math.Inf(-1), math.Inf(1)
	if b.opset < 11 {
		l, err := b.float("min", float32(low))
		if err != nil {
			return nil, err
		}
		h, err := b.float("max", float32(high))
		if err != nil {
			return nil, err
		}
		return n.clip(b.in[0], -1, -1, b.out[0], float64(l), float64(h)), nil
	}
	return n.clip(b.in[0], b.slot(1), b.slot(2), b.out[0], low, high), nil
}

// clip bounds by the scalars in slots low and high; a negative slot stands for
// the default, and an infinite default for no bound.
func (numbers[T]) clip(in, low, high, out int, defLow, defHigh float64) kernel {
	limit := func(f *frame, slot int, def float64) (v T, on bool, err error) {
		if slot < 0 {
			if math.IsInf(def, 0) {
				return 0, false, nil
			}
			return T(def), true, nil
		}
		d := get[T](&f.vals[slot])
		if len(d) != 1 {
			return 0, false, mismatch("a bound has %d elements, expected 1", len(d))
		}
		return d[0], true, nil
	}
	return func(f *frame) error {
		lo, hasLo, err := limit(f, low, defLow)
		if err != nil {
			return err
		}
		hi, hasHi, err := limit(f, high, defHigh)
		if err != nil {
			return err
		}
		x := get[T](&f.vals[in])
		dst, err := alloc[T](f, out, f.vals[in].shape)
		if err != nil {
			return err
		}
		for i, v := range x {
			if hasLo {
				v = max(v, lo)
			}
			if hasHi {
				v = min(v, hi)
			}
			dst[i] = v
		}
		return nil
	}
}
