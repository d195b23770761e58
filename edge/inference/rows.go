package inference

import (
	"slices"

	"github.com/edgetwin/sedna/models/oip"
)

// takeRows makes tensors of some samples of a batch.
func takeRows(tensors []oip.Tensor, rows []int, samples int) []oip.Tensor {
	out := make([]oip.Tensor, len(tensors))
	for i, t := range tensors {
		t.Shape = slices.Clone(t.Shape)
		t.Shape[0] = int64(len(rows))
		t.Data = copyRows(nil, t.Data, rows, samples)
		out[i] = t
	}
	return out
}

// putRows writes the answer for some samples of a batch into the answer for
// all. It changes nothing and gives false when the outputs are not of the same
// names, datatypes and row shapes.
func putRows(whole, part *oip.InferResponse, rows []int, samples int) bool {
	if len(whole.Outputs) != len(part.Outputs) {
		return false
	}
	for i := range whole.Outputs {
		w := &whole.Outputs[i]
		p := part.Output(w.Name)
		if p == nil || p.Datatype != w.Datatype || len(p.Shape) != len(w.Shape) || len(w.Shape) == 0 ||
			p.Shape[0] != int64(len(rows)) || w.Shape[0] != int64(samples) || !slices.Equal(p.Shape[1:], w.Shape[1:]) {
			return false
		}
	}
	for i := range whole.Outputs {
		w := &whole.Outputs[i]
		w.Data = copyRows(w.Data, part.Output(w.Name).Data, rows, samples)
	}
	return true
}

// copyRows picks rows out of src into new data where dst is nil, and else puts
// the rows of src, in order, into those of dst. Both hold the same slice type;
// dst, or src where dst is nil, has the given number of samples.
func copyRows(dst, src any, rows []int, samples int) any {
	switch s := src.(type) {
	case []bool:
		return copySlice(dst, s, rows, samples)
	case []uint8:
		return copySlice(dst, s, rows, samples)
	case []uint16:
		return copySlice(dst, s, rows, samples)
	case []uint32:
		return copySlice(dst, s, rows, samples)
	case []uint64:
		return copySlice(dst, s, rows, samples)
	case []int8:
		return copySlice(dst, s, rows, samples)
	case []int16:
		return copySlice(dst, s, rows, samples)
	case []int32:
		return copySlice(dst, s, rows, samples)
	case []int64:
		return copySlice(dst, s, rows, samples)
	case []float32:
		return copySlice(dst, s, rows, samples)
	case []float64:
		return copySlice(dst, s, rows, samples)
	case [][]byte:
		return copySlice(dst, s, rows, samples)
	}
	return src
}

func copySlice[T any](dst any, src []T, rows []int, samples int) any {
	if dst == nil {
		width := len(src) / samples
		out := make([]T, 0, width*len(rows))
		for _, r := range rows {
			out = append(out, src[r*width:(r+1)*width]...)
		}
		return out
	}
	into := dst.([]T)
	width := len(into) / samples
	for i, r := range rows {
		copy(into[r*width:(r+1)*width], src[i*width:(i+1)*width])
	}
	return into
}
