package engine

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Limits bound one inference request. Zero fields mean the defaults.
type Limits struct {
	// MaxTensors is the most input tensors. Default 64.
	MaxTensors int
	// MaxElements is the most elements of one tensor. Default 16 Mi, which
	// is a batch of 16 RGB frames of 592x592.
	MaxElements int64
	// MaxBytes is the most bytes of all inputs together. Default 128 MiB.
	MaxBytes int64
	// MaxRank is the most dimensions of one tensor. Default 8.
	MaxRank int
	// AllowNonFinite lets NaN and infinities through. They are refused by
	// default: they come from broken sensors and turn every output into NaN.
	AllowNonFinite bool
}

// WithDefaults replaces zero fields by the defaults.
func (l Limits) WithDefaults() Limits {
	if l.MaxTensors == 0 {
		l.MaxTensors = 64
	}
	if l.MaxElements == 0 {
		l.MaxElements = 16 << 20
	}
	if l.MaxBytes == 0 {
		l.MaxBytes = 128 << 20
	}
	if l.MaxRank == 0 {
		l.MaxRank = 8
	}
	return l
}

// InputError says which field of a request is wrong and what was expected.
type InputError struct {
	Field   string // in the protocol's terms: "inputs[0].shape"
	Message string // what it is and what was expected instead
}

func (e *InputError) Error() string { return e.Field + ": " + e.Message }

// Check compares the inputs of a request with what the model takes: every
// input present once and no other, datatypes, shapes, element counts, limits
// and finite values. It returns nil or an *InputError for the first fault.
func Check(in []Tensor, infos []TensorInfo, lim Limits) error {
	lim = lim.WithDefaults()
	if len(in) > lim.MaxTensors {
		return &InputError{"inputs", fmt.Sprintf("has %d tensors, at most %d are allowed", len(in), lim.MaxTensors)}
	}
	var total int64
	for i := range in {
		t := &in[i]
		info := find(infos, t.Name)
		if info == nil {
			return fault(i, "name", "is %q, expected one of %s", t.Name, inputNames(infos))
		}
		if slices.ContainsFunc(in[:i], func(o Tensor) bool { return o.Name == t.Name }) {
			return fault(i, "name", "%q is given twice", t.Name)
		}
		if err := checkTensor(i, t, info, lim); err != nil {
			return err
		}
		if total += size(t); total > lim.MaxBytes {
			return &InputError{"inputs", fmt.Sprintf("take more than %d bytes together", lim.MaxBytes)}
		}
	}
	for _, info := range infos {
		if !slices.ContainsFunc(in, func(t Tensor) bool { return t.Name == info.Name }) {
			return &InputError{"inputs", fmt.Sprintf("lack %q (%s, shape %s)", info.Name, info.Datatype, expected(info.Shape))}
		}
	}
	return nil
}

func checkTensor(i int, t *Tensor, info *TensorInfo, lim Limits) error {
	if t.Datatype != info.Datatype {
		return fault(i, "datatype", "is %q, expected %q", t.Datatype, info.Datatype)
	}
	if len(t.Shape) > lim.MaxRank {
		return fault(i, "shape", "has %d dimensions, at most %d are allowed", len(t.Shape), lim.MaxRank)
	}
	if !fits(t.Shape, info.Shape) {
		return fault(i, "shape", "is %s, expected %s", dims(t.Shape), expected(info.Shape))
	}
	n, ok := Elements(t.Shape)
	if !ok || n > lim.MaxElements {
		return fault(i, "shape", "%s has more than %d elements", dims(t.Shape), lim.MaxElements)
	}
	if !holds(t.Datatype, t.Data) {
		return fault(i, "data", "is %T, which does not hold %s", t.Data, t.Datatype)
	}
	if got := Len(t.Data); int64(got) != n {
		return fault(i, "data", "has %d elements, expected %d for shape %s", got, n, dims(t.Shape))
	}
	if lim.AllowNonFinite {
		return nil
	}
	if at := nonFinite(t); at >= 0 {
		return fault(i, fmt.Sprintf("data[%d]", at), "is not a finite number")
	}
	return nil
}

// fits says whether a concrete shape matches a model's. A dynamic dimension
// takes any positive size: an empty batch is never meant.
func fits(shape, want []int64) bool {
	if want == nil {
		return !slices.ContainsFunc(shape, func(d int64) bool { return d <= 0 })
	}
	if len(shape) != len(want) {
		return false
	}
	for i, d := range shape {
		if want[i] < 0 && d <= 0 || want[i] >= 0 && d != want[i] {
			return false
		}
	}
	return true
}

// nonFinite is the index of the first NaN or infinity, or -1.
func nonFinite(t *Tensor) int {
	switch d := t.Data.(type) {
	case []float32:
		for i, v := range d {
			if v-v != 0 {
				return i
			}
		}
	case []float64:
		for i, v := range d {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return i
			}
		}
	case []uint16:
		const exponent = 0x7c00
		if t.Datatype != FP16 {
			return -1
		}
		for i, v := range d {
			if v&exponent == exponent {
				return i
			}
		}
	}
	return -1
}

func size(t *Tensor) int64 {
	if b, ok := t.Data.([][]byte); ok {
		var n int64
		for _, e := range b {
			n += int64(len(e))
		}
		return n
	}
	return int64(Len(t.Data)) * int64(ElementBytes(t.Datatype))
}

func find(infos []TensorInfo, name string) *TensorInfo {
	for i := range infos {
		if infos[i].Name == name {
			return &infos[i]
		}
	}
	return nil
}

func inputNames(infos []TensorInfo) string {
	quoted := make([]string, len(infos))
	for i, info := range infos {
		quoted[i] = fmt.Sprintf("%q", info.Name)
	}
	return strings.Join(quoted, ", ")
}

// dims prints a shape as JSON would.
func dims(shape []int64) string {
	return strings.ReplaceAll(fmt.Sprint(shape), " ", ",")
}

// expected prints a model's shape.
func expected(shape []int64) string {
	if shape == nil {
		return "any with positive dimensions"
	}
	return dims(shape)
}

func fault(i int, field, format string, args ...any) error {
	return &InputError{fmt.Sprintf("inputs[%d].%s", i, field), fmt.Sprintf(format, args...)}
}
