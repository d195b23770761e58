package onnx

var castOps = map[string]operator{
	"Cast":     {minIn: 1, maxIn: 1, build: buildCast},
	"CastLike": {since: 15, minIn: 2, maxIn: 2, build: buildCast},
}

func buildCast(b *builder) (kernel, error) {
	from := b.meta(0)
	var to DType
	if b.node.Op == "CastLike" {
		to = b.meta(1).typ
	} else {
		n, err := b.int("to", 0)
		if err != nil {
			return nil, err
		}
		to = DType(n)
	}
	if to.width() == 0 {
		return nil, unsupported("cast to %v", to)
	}
	m := from
	m.typ = to
	b.set(0, m)
	in, out := b.in[0], b.out[0]
	if from.typ == to {
		return buildIdentity(b)
	}
	return func(f *frame) error {
		return cast(f, in, out, from.typ, to)
	}, nil
}

// cast goes through int64 between integers, which keeps all 64 bits, and
// through float64 otherwise, truncating towards zero.
func cast(f *frame, in, out int, from, to DType) error {
	x := &f.vals[in]
	shape := x.shape
	switch {
	case to == Bool:
		dst, err := alloc[bool](f, out, shape)
		for i, v := range toFloat64s(x, from) {
			if err == nil {
				dst[i] = v != 0
			}
		}
		return err
	case to == Float16:
		dst, err := alloc[uint16](f, out, shape)
		for i, v := range toFloat64s(x, from) {
			if err == nil {
				dst[i] = toHalf(float32(v))
			}
		}
		return err
	case isInteger(from) && isInteger(to):
		return store(f, out, shape, to, toInt64s(x, from))
	}
	return store(f, out, shape, to, toFloat64s(x, from))
}

func isInteger(t DType) bool {
	switch t {
	case Bool, Float16, Float32, Float64:
		return false
	}
	return true
}

func store[S int64 | float64](f *frame, out int, shape []int, to DType, v []S) error {
	switch to {
	case Float32:
		return storeAs[float32](f, out, shape, v)
	case Float64:
		return storeAs[float64](f, out, shape, v)
	case Int64:
		return storeAs[int64](f, out, shape, v)
	case Int32:
		return storeAs[int32](f, out, shape, v)
	case Int16:
		return storeAs[int16](f, out, shape, v)
	case Int8:
		return storeAs[int8](f, out, shape, v)
	case Uint64:
		return storeAs[uint64](f, out, shape, v)
	case Uint32:
		return storeAs[uint32](f, out, shape, v)
	case Uint16:
		return storeAs[uint16](f, out, shape, v)
	}
	return storeAs[uint8](f, out, shape, v)
}

func storeAs[T number, S int64 | float64](f *frame, out int, shape []int, v []S) error {
	dst, err := alloc[T](f, out, shape)
	if err != nil {
		return err
	}
	for i, x := range v {
		dst[i] = T(x)
	}
	return nil
}

// toFloat64s widens a value of type t.
func toFloat64s(v *value, t DType) []float64 {
	switch t {
	case Float32:
		return widen[float64](v.f32)
	case Float64:
		return get[float64](v)
	case Float16:
		half := get[uint16](v)
		out := make([]float64, len(half))
		for i, h := range half {
			out[i] = float64(fromHalf(h))
		}
		return out
	case Uint64:
		return widen[float64](get[uint64](v))
	}
	return widen[float64](toInt64s(v, t))
}

// toInt64s widens a value of integer type t or bool; uint64 keeps its bits.
func toInt64s(v *value, t DType) []int64 {
	switch t {
	case Int64:
		return get[int64](v)
	case Int32:
		return widen[int64](get[int32](v))
	case Int16:
		return widen[int64](get[int16](v))
	case Int8:
		return widen[int64](get[int8](v))
	case Uint64:
		return widen[int64](get[uint64](v))
	case Uint32:
		return widen[int64](get[uint32](v))
	case Uint16:
		return widen[int64](get[uint16](v))
	case Uint8:
		return widen[int64](get[uint8](v))
	case Bool:
		out := make([]int64, len(get[bool](v)))
		for i, x := range get[bool](v) {
			if x {
				out[i] = 1
			}
		}
		return out
	}
	return nil
}

func widen[D, S number](v []S) []D {
	out := make([]D, len(v))
	for i, x := range v {
		out[i] = D(x)
	}
	return out
}
