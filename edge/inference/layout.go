package inference

import (
	"fmt"
	"slices"

	"github.com/edgetwin/sedna/lib/engine"
	"github.com/edgetwin/sedna/models/oip"
)

// layout says how rows of readings become one of the model's inputs.
type layout struct {
	info   engine.TensorInfo
	window int // rows
	open   int // dimensions beside the batch that the model leaves open
	known  int // product of the others
}

// newLayout reads a model's input. The error says why no rows can become it.
func newLayout(info engine.TensorInfo, window int) (layout, error) {
	l := layout{info: info, window: window, known: 1}
	if engine.ElementBytes(info.Datatype) == 0 {
		return l, fmt.Errorf("is of %s, which holds no numbers", info.Datatype)
	}
	if info.Shape == nil {
		l.open = 2
		return l, nil
	}
	var closed []int64
	for i, d := range info.Shape {
		switch {
		case d >= 0:
			closed = append(closed, d)
		case i > 0:
			l.open++
		}
	}
	if l.open > 1 && (l.open != 2 || len(info.Shape) != 3 || len(closed) != 0) {
		return l, fmt.Errorf("of shape %v leaves more open than rows and columns", info.Shape)
	}
	n, ok := engine.Elements(closed)
	if !ok || n < 1 || n > maxElements {
		return l, fmt.Errorf("of shape %v has no number of elements that readings can fill", info.Shape)
	}
	l.known = int(n)
	return l, nil
}

// maxElements is where the arithmetic of layouts ends; limits are far below.
const maxElements = 1 << 30

// shape gives the tensor's shape for rows of the given number of values, with a
// batch of one, and whether it is source by source instead of row by row. ok is
// false when the rows do not make the model's input.
func (l *layout) shape(columns int) (shape []int64, bySource, ok bool) {
	values := l.window * columns
	if l.info.Shape == nil || l.open == 2 {
		return []int64{1, int64(l.window), int64(columns)}, false, true
	}
	shape = slices.Clone(l.info.Shape)
	if len(shape) > 0 && shape[0] < 0 {
		shape[0] = 1
	}
	if i := slices.Index(shape, -1); i >= 0 {
		shape[i] = int64(values / l.known)
	}
	if n, _ := engine.Elements(shape); n != int64(values) {
		return nil, false, false
	}
	n := len(shape)
	if n < 2 || slices.ContainsFunc(shape[:n-2], func(d int64) bool { return d != 1 }) {
		return shape, false, true
	}
	rows := shape[n-2] == int64(l.window) && shape[n-1] == int64(columns)
	return shape, !rows && shape[n-2] == int64(columns) && shape[n-1] == int64(l.window), true
}

// tensor is one input of the model, that is filled again and again.
type tensor struct {
	oip.Tensor
	set func(at int, v float64)
}

// newTensor makes a tensor of n elements.
func newTensor(name, datatype string, shape []int64, n int) (tensor, error) {
	data, err := engine.Zero(datatype, n)
	t := tensor{Tensor: oip.Tensor{Name: name, Datatype: datatype, Shape: shape, Data: data}}
	switch d := data.(type) {
	case []bool:
		t.set = func(at int, v float64) { d[at] = v != 0 }
	case []uint8:
		t.set = setter(d)
	case []uint16:
		t.set = setter(d)
		if datatype == engine.FP16 {
			t.set = func(at int, v float64) { d[at] = oip.HalfBits(v) }
		}
	case []uint32:
		t.set = setter(d)
	case []uint64:
		t.set = setter(d)
	case []int8:
		t.set = setter(d)
	case []int16:
		t.set = setter(d)
	case []int32:
		t.set = setter(d)
	case []int64:
		t.set = setter(d)
	case []float32:
		t.set = setter(d)
	case []float64:
		t.set = setter(d)
	}
	return t, err
}

func setter[T uint8 | uint16 | uint32 | uint64 | int8 | int16 | int32 | int64 | float32 | float64](d []T) func(int, float64) {
	return func(at int, v float64) { d[at] = T(v) }
}
