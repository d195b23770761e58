package modbus

import (
	"fmt"
	"math"
	"math/bits"

	"github.com/edgetwin/sedna/models/wire"
)

// words is how many registers a value of a type takes.
var words = map[string]int{"bool": 1, "int16": 1, "uint16": 1, "int32": 2, "uint32": 2, "float32": 2, "float64": 4}

// order brings registers as they came to the most significant word and byte
// first, and back.
func (v *Visitor) order(regs []uint16) []uint16 {
	out := make([]uint16, len(regs))
	for i, r := range regs {
		if v.WordOrder == "low" {
			i = len(regs) - 1 - i
		}
		if v.ByteOrder == "little" {
			r = bits.ReverseBytes16(r)
		}
		out[i] = r
	}
	return out
}

// decode gives the value in registers, scaled.
func (v *Visitor) decode(regs []uint16) any {
	r := v.order(regs)
	var raw uint64
	for _, w := range r {
		raw = raw<<16 | uint64(w)
	}
	var f float64
	switch v.Type {
	case "bool":
		return raw>>v.Bit&1 == 1
	case "int16":
		f = float64(int16(raw))
	case "uint16", "uint32":
		f = float64(raw)
	case "int32":
		f = float64(int32(raw))
	case "float32":
		f = float64(math.Float32frombits(uint32(raw)))
		if v.Scale == 1 && v.Offset == 0 {
			return math.Float32frombits(uint32(raw))
		}
	case "float64":
		f = math.Float64frombits(raw)
	}
	return f*v.Scale + v.Offset
}

// encode gives the registers for a value; it fails when the value does not fit.
func (v *Visitor) encode(value any) ([]uint16, error) {
	var f float64
	switch value := value.(type) {
	case bool:
		if value {
			f = 1
		}
	case int64:
		f = float64(value)
	case float64:
		f = value
	default:
		return nil, wire.E(wire.InvalidArgument, "", "only numbers and booleans can be written", "")
	}
	if v.Type != "bool" {
		f = (f - v.Offset) / v.Scale
	}
	least, most := 0.0, 0.0
	switch v.Type {
	case "bool":
		least, most = 0, 1
	case "int16":
		least, most = math.MinInt16, math.MaxInt16
	case "uint16":
		most = math.MaxUint16
	case "int32":
		least, most = math.MinInt32, math.MaxInt32
	case "uint32":
		most = math.MaxUint32
	case "float32":
		least, most = -math.MaxFloat32, math.MaxFloat32
	default:
		least, most = -math.MaxFloat64, math.MaxFloat64
	}
	var raw uint64
	switch v.Type {
	case "float32":
		raw = uint64(math.Float32bits(float32(f)))
	case "float64":
		raw = math.Float64bits(f)
	default:
		f = math.Round(f)
		raw = uint64(int64(f))
	}
	if !(f >= least && f <= most) { // NaN too
		return nil, wire.E(wire.InvalidArgument, "", fmt.Sprintf("%v does not fit into %s, which takes %v to %v", f, v.Type, least, most), "")
	}
	n := words[v.Type]
	regs := make([]uint16, n)
	for i := range regs {
		regs[i] = uint16(raw >> (16 * (n - 1 - i)))
	}
	return v.order(regs), nil
}
