package onnx

import (
	"fmt"
	"math"
)

// DType is ONNX's TensorProto.DataType.
type DType int32

// Element types. A Tensor's Data is a slice of the Go type of that name;
// Float16 is []uint16 with IEEE 754 binary16 bits. String, BFloat16 and the
// complex and sub-byte types are known by number only.
const (
	Undefined DType = 0
	Float32   DType = 1
	Uint8     DType = 2
	Int8      DType = 3
	Uint16    DType = 4
	Int16     DType = 5
	Int32     DType = 6
	Int64     DType = 7
	String    DType = 8
	Bool      DType = 9
	Float16   DType = 10
	Float64   DType = 11
	Uint32    DType = 12
	Uint64    DType = 13
	BFloat16  DType = 16
)

var dtypeNames = map[DType]string{
	Undefined: "undefined", Float32: "float32", Uint8: "uint8", Int8: "int8", Uint16: "uint16",
	Int16: "int16", Int32: "int32", Int64: "int64", String: "string", Bool: "bool",
	Float16: "float16", Float64: "float64", Uint32: "uint32", Uint64: "uint64", BFloat16: "bfloat16",
}

func (t DType) String() string {
	if n, ok := dtypeNames[t]; ok {
		return n
	}
	return fmt.Sprintf("dtype(%d)", int32(t))
}

// Tensor is a dense value, row-major. Shape is empty for a scalar.
type Tensor struct {
	Name  string
	Type  DType
	Shape []int64
	Data  any
}

// Number lists the element types of which New makes tensors.
type Number interface {
	bool | uint8 | int8 | uint16 | int16 | uint32 | int32 | uint64 | int64 | float32 | float64
}

// New makes a tensor that holds data. It panics when data has not as many
// elements as the shape asks for: both come from the same program.
func New[T Number](name string, shape []int64, data []T) Tensor {
	if n, ok := count(shape); !ok || n != int64(len(data)) {
		panic(fmt.Sprintf("onnx: tensor %q of shape %v with %d elements", name, shape, len(data)))
	}
	return Tensor{Name: name, Type: typeOf(any(data)), Shape: shape, Data: data}
}

// Float32s is the data of a float32 tensor, else nil.
func (t *Tensor) Float32s() []float32 {
	d, _ := t.Data.([]float32)
	return d
}

// Int64s is the data of an int64 tensor, else nil.
func (t *Tensor) Int64s() []int64 {
	d, _ := t.Data.([]int64)
	return d
}

// check says whether type, shape and data agree.
func (t *Tensor) check(lim Limits) error {
	n, ok := count(t.Shape)
	switch {
	case len(t.Shape) > lim.MaxRank:
		return overLimit("%d dimensions, at most %d", len(t.Shape), lim.MaxRank)
	case !ok || n > lim.MaxElements:
		return overLimit("shape %v has more than %d elements", t.Shape, lim.MaxElements)
	case !holds(t.Type, t.Data):
		return malformed("%T does not hold %v", t.Data, t.Type)
	case int64(length(t.Data)) != n:
		return malformed("%d elements for shape %v", length(t.Data), t.Shape)
	}
	return nil
}

// count is the product of a shape, or false when it is negative or overflows.
func count(shape []int64) (int64, bool) {
	n, zero := int64(1), false
	for _, d := range shape {
		switch {
		case d < 0:
			return 0, false
		case d == 0:
			zero = true
		case n > math.MaxInt64/d:
			return 0, false
		default:
			n *= d
		}
	}
	if zero {
		return 0, true
	}
	return n, true
}

func typeOf(data any) DType {
	switch data.(type) {
	case []float32:
		return Float32
	case []uint8:
		return Uint8
	case []int8:
		return Int8
	case []uint16:
		return Uint16
	case []int16:
		return Int16
	case []int32:
		return Int32
	case []int64:
		return Int64
	case []bool:
		return Bool
	case []float64:
		return Float64
	case []uint32:
		return Uint32
	case []uint64:
		return Uint64
	}
	return Undefined
}

func holds(t DType, data any) bool {
	got := typeOf(data)
	return got != Undefined && (got == t || t == Float16 && got == Uint16)
}

func length(data any) int {
	switch d := data.(type) {
	case []float32:
		return len(d)
	case []uint8:
		return len(d)
	case []int8:
		return len(d)
	case []uint16:
		return len(d)
	case []int16:
		return len(d)
	case []int32:
		return len(d)
	case []int64:
		return len(d)
	case []bool:
		return len(d)
	case []float64:
		return len(d)
	case []uint32:
		return len(d)
	case []uint64:
		return len(d)
	}
	return 0
}

// width is the bytes of one element in raw_data, 0 for unsupported types.
func (t DType) width() int {
	switch t {
	case Uint8, Int8, Bool:
		return 1
	case Uint16, Int16, Float16:
		return 2
	case Float32, Int32, Uint32:
		return 4
	case Float64, Int64, Uint64:
		return 8
	}
	return 0
}

// fromHalf widens IEEE 754 binary16 bits.
func fromHalf(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	exp, frac := uint32(h>>10&0x1f), uint32(h&0x3ff)
	switch {
	case exp == 0x1f:
		return math.Float32frombits(sign | 0x7f800000 | frac<<13)
	case exp != 0:
		return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
	}
	f := float32(frac) / (1 << 24)
	if sign != 0 {
		return -f
	}
	return f
}

// toHalf narrows to IEEE 754 binary16 bits, rounding to nearest even.
func toHalf(f float32) uint16 {
	bits := math.Float32bits(f)
	sign := uint16(bits >> 16 & 0x8000)
	abs := bits & 0x7fffffff
	switch {
	case abs > 0x7f800000:
		return sign | 0x7e00
	case abs >= 0x477ff000: // rounds to 65,536 or more
		return sign | 0x7c00
	case abs < 0x38800000: // subnormal: a multiple of 2^-24
		return sign | uint16(math.RoundToEven(float64(math.Float32frombits(abs))*(1<<24)))
	}
	abs += 0xfff + abs>>13&1
	return sign | uint16((abs-0x38000000)>>13)
}
