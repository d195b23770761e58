package engine

import (
	"fmt"
	"math"

	"github.com/edgetwin/sedna/models/oip"
)

// Datatypes of the Open Inference Protocol v2 and the Go slice that
// Tensor.Data holds for each.
const (
	Bool   = oip.Bool   // []bool
	Uint8  = oip.Uint8  // []uint8
	Uint16 = oip.Uint16 // []uint16
	Uint32 = oip.Uint32 // []uint32
	Uint64 = oip.Uint64 // []uint64
	Int8   = oip.Int8   // []int8
	Int16  = oip.Int16  // []int16
	Int32  = oip.Int32  // []int32
	Int64  = oip.Int64  // []int64
	FP16   = oip.FP16   // []uint16, IEEE 754 binary16 bits
	FP32   = oip.FP32   // []float32
	FP64   = oip.FP64   // []float64
	Bytes  = oip.Bytes  // [][]byte
)

// Tensor is one named value of a request or response, row-major.
//
// A Session neither keeps nor changes the tensors it is given, and gives up
// those that it returns: the caller owns both.
type Tensor struct {
	Name     string
	Datatype string  // one of the constants above
	Shape    []int64 // every dimension known; empty for a scalar
	Data     any     // the slice type that the constants above list
}

// TensorInfo describes an input or output of a model.
type TensorInfo struct {
	Name     string
	Datatype string
	Shape    []int64 // -1 for a dynamic dimension; nil when even the rank is unknown
}

// Number is an element type of a tensor that Of can tell the datatype of.
type Number interface {
	bool | uint8 | uint16 | uint32 | uint64 | int8 | int16 | int32 | int64 | float32 | float64
}

// Of makes a tensor of the datatype that belongs to T. It takes data over.
func Of[T Number](name string, shape []int64, data []T) Tensor {
	return Tensor{Name: name, Datatype: datatypeOf(any(data)), Shape: shape, Data: data}
}

// Len is the number of elements in data, or -1 when data is no slice that a
// Tensor may hold.
func Len(data any) int {
	switch d := data.(type) {
	case []bool:
		return len(d)
	case []uint8:
		return len(d)
	case []uint16:
		return len(d)
	case []uint32:
		return len(d)
	case []uint64:
		return len(d)
	case []int8:
		return len(d)
	case []int16:
		return len(d)
	case []int32:
		return len(d)
	case []int64:
		return len(d)
	case []float32:
		return len(d)
	case []float64:
		return len(d)
	case [][]byte:
		return len(d)
	}
	return -1
}

// Elements is the product of shape, or false when a dimension is negative or
// the product exceeds the range of int64.
func Elements(shape []int64) (int64, bool) {
	n := int64(1)
	zero := false
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

// Zero makes data of n zero elements for the datatype, or an error when the
// datatype is none of the protocol's.
func Zero(datatype string, n int) (any, error) {
	switch datatype {
	case Bool:
		return make([]bool, n), nil
	case Uint8:
		return make([]uint8, n), nil
	case Uint16, FP16:
		return make([]uint16, n), nil
	case Uint32:
		return make([]uint32, n), nil
	case Uint64:
		return make([]uint64, n), nil
	case Int8:
		return make([]int8, n), nil
	case Int16:
		return make([]int16, n), nil
	case Int32:
		return make([]int32, n), nil
	case Int64:
		return make([]int64, n), nil
	case FP32:
		return make([]float32, n), nil
	case FP64:
		return make([]float64, n), nil
	case Bytes:
		return make([][]byte, n), nil
	}
	return nil, fmt.Errorf("unknown datatype %q", datatype)
}

// ElementBytes is the width of one element, 0 for BYTES and for unknown
// datatypes.
func ElementBytes(datatype string) int {
	switch datatype {
	case Bool, Uint8, Int8:
		return 1
	case Uint16, Int16, FP16:
		return 2
	case Uint32, Int32, FP32:
		return 4
	case Uint64, Int64, FP64:
		return 8
	}
	return 0
}

func datatypeOf(data any) string {
	switch data.(type) {
	case []bool:
		return Bool
	case []uint8:
		return Uint8
	case []uint16:
		return Uint16
	case []uint32:
		return Uint32
	case []uint64:
		return Uint64
	case []int8:
		return Int8
	case []int16:
		return Int16
	case []int32:
		return Int32
	case []int64:
		return Int64
	case []float32:
		return FP32
	case []float64:
		return FP64
	case [][]byte:
		return Bytes
	}
	return ""
}

// holds says whether data is the slice type that belongs to the datatype.
func holds(datatype string, data any) bool {
	got := datatypeOf(data)
	return got != "" && (got == datatype || datatype == FP16 && got == Uint16)
}
