package onnx

import (
	"encoding/binary"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// tensorFields is a TensorProto as it stands in the file: exactly one of the
// lists, or raw, holds the elements.
type tensorFields struct {
	t       Tensor
	raw     []byte
	hasRaw  bool
	floats  []float32
	doubles []float64
	ints    []int64 // int32_data, int64_data or uint64_data
}

func (d *decoder) tensor(b []byte) (Tensor, error) {
	p := tensorFields{t: Tensor{Shape: []int64{}}}
	if err := walk(b, func(f field) error { return d.tensorField(f, &p) }); err != nil {
		return Tensor{}, fmt.Errorf("tensor %q: %w", p.t.Name, err)
	}
	if err := d.fill(&p); err != nil {
		return Tensor{}, fmt.Errorf("tensor %q: %w", p.t.Name, err)
	}
	return p.t, nil
}

func (d *decoder) tensorField(f field, p *tensorFields) (err error) {
	// A list cannot have more entries than the model may have elements; that
	// it has as many as the shape says is checked when all fields are known.
	most := int(min(d.lim.MaxElements, math.MaxInt))
	switch f.num {
	case 1:
		p.t.Shape, err = ints(p.t.Shape, f, d.lim.MaxRank)
	case 2:
		var n int64
		n, err = f.int()
		p.t.Type = DType(n)
	case 3:
		err = unsupported("segmented tensor")
	case 4:
		p.floats, err = floats(p.floats, f, most)
	case 5, 7, 11:
		p.ints, err = ints(p.ints, f, most)
	case 8:
		p.t.Name, err = d.name(f)
	case 9:
		err = f.want(protowire.BytesType)
		p.raw, p.hasRaw = f.bytes, true
	case 10:
		p.doubles, err = doubles(p.doubles, f, most)
	case 13:
		err = unsupported("external data")
	case 14:
		var location int64
		if location, err = f.int(); err == nil && location != 0 {
			err = unsupported("external data")
		}
	}
	return err
}

// fill sets the tensor's data once type and shape are known. The allocation
// is bounded by the bytes that the file really has for it.
func (d *decoder) fill(p *tensorFields) error {
	t := &p.t
	width := t.Type.width()
	if width == 0 {
		return unsupported("element type %v", t.Type)
	}
	n, ok := count(t.Shape)
	if !ok || n > d.lim.MaxElements {
		return overLimit("shape %v has more than %d elements", t.Shape, d.lim.MaxElements)
	}
	if d.total += n; d.total > d.lim.MaxTotal {
		return overLimit("the model has more than %d elements", d.lim.MaxTotal)
	}
	if p.hasRaw {
		if int64(len(p.raw)) != n*int64(width) {
			return malformed("%d raw bytes for %d elements of %v", len(p.raw), n, t.Type)
		}
		t.Data = fromRaw(t.Type, p.raw)
		return nil
	}
	var have int
	switch t.Type {
	case Float32:
		have, t.Data = len(p.floats), notNil(p.floats)
	case Float64:
		have, t.Data = len(p.doubles), notNil(p.doubles)
	default:
		have, t.Data = len(p.ints), fromInts(t.Type, p.ints)
	}
	if int64(have) != n {
		return malformed("%d elements for shape %v", have, t.Shape)
	}
	return nil
}

func notNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

func fromInts(t DType, v []int64) any {
	switch t {
	case Uint8:
		return narrow[uint8](v)
	case Int8:
		return narrow[int8](v)
	case Uint16, Float16:
		return narrow[uint16](v)
	case Int16:
		return narrow[int16](v)
	case Int32:
		return narrow[int32](v)
	case Uint32:
		return narrow[uint32](v)
	case Uint64:
		return narrow[uint64](v)
	case Bool:
		out := make([]bool, len(v))
		for i, x := range v {
			out[i] = x != 0
		}
		return out
	}
	return notNil(v)
}

func narrow[T uint8 | int8 | uint16 | int16 | uint32 | int32 | uint64](v []int64) []T {
	out := make([]T, len(v))
	for i, x := range v {
		out[i] = T(x)
	}
	return out
}

// fromRaw reads little-endian elements; len(b) is a multiple of the width.
func fromRaw(t DType, b []byte) any {
	le := binary.LittleEndian
	switch t {
	case Float32:
		return each(b, 4, func(b []byte) float32 { return math.Float32frombits(le.Uint32(b)) })
	case Float64:
		return each(b, 8, func(b []byte) float64 { return math.Float64frombits(le.Uint64(b)) })
	case Int64:
		return each(b, 8, func(b []byte) int64 { return int64(le.Uint64(b)) })
	case Uint64:
		return each(b, 8, le.Uint64)
	case Int32:
		return each(b, 4, func(b []byte) int32 { return int32(le.Uint32(b)) })
	case Uint32:
		return each(b, 4, le.Uint32)
	case Int16:
		return each(b, 2, func(b []byte) int16 { return int16(le.Uint16(b)) })
	case Uint16, Float16:
		return each(b, 2, le.Uint16)
	case Int8:
		return each(b, 1, func(b []byte) int8 { return int8(b[0]) })
	case Bool:
		return each(b, 1, func(b []byte) bool { return b[0] != 0 })
	}
	return append([]uint8{}, b...)
}

func each[T any](b []byte, width int, read func([]byte) T) []T {
	out := make([]T, len(b)/width)
	for i := range out {
		out[i] = read(b[i*width:])
	}
	return out
}
