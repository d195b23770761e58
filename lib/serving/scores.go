package serving

import (
	"context"
	"math"
	"strconv"

	"github.com/edgetwin/sedna/lib/engine"
	"github.com/edgetwin/sedna/models/oip"
)

// Rows is how many samples a request holds: the first dimension of its inputs
// where the model takes batches and they agree, else 1.
func (m *Model) Rows(req *oip.InferRequest) int {
	rows, _ := m.meta.Rows(req.Inputs)
	return rows
}

// Scores are the outputs that tell the classes apart, by sample.
type Scores struct {
	v    []float32
	size int // of one sample
}

// Scores finds the scores of the given number of samples in an answer, which
// may be that of another model: there it is the output of the same name, else
// the first of a floating type. ok is false when there are none.
func (m *Model) Scores(r *oip.InferResponse, samples int) (s Scores, ok bool) {
	if m.scores < 0 || samples < 1 {
		return Scores{}, false
	}
	t := r.Output(m.meta.Outputs[m.scores].Name)
	for i := 0; t == nil && i < len(r.Outputs); i++ {
		if d := r.Outputs[i].Datatype; d == oip.FP32 || d == oip.FP64 {
			t = &r.Outputs[i]
		}
	}
	if t == nil {
		return Scores{}, false
	}
	switch v := t.Data.(type) {
	case []float32:
		s.v = v
	case []float64:
		s.v = make([]float32, len(v))
		for i := range v {
			s.v[i] = float32(v[i])
		}
	}
	s.size = len(s.v) / samples
	return s, s.size > 0 && s.size*samples == len(s.v)
}

// Row is the scores of sample i. The caller must not change it.
func (s Scores) Row(i int) []float32 { return s.v[i*s.size : (i+1)*s.size] }

// Best is the class of sample i with the highest score, the first among
// equals, and its score; NaN is below all.
func (s Scores) Best(i int) (class int, score float64) { return best(s.Row(i)) }

func best[T float32 | float64](row []T) (int, float64) {
	at := 0
	for i, v := range row {
		if v > row[at] || row[at] != row[at] {
			at = i
		}
	}
	return at, float64(row[at])
}

// Label names a class: by the model's labels, else by its number. It is empty
// where the model's outputs are no classes.
func (m *Model) Label(class int) string {
	if m.spec.Postprocess == None || m.scores < 0 {
		return ""
	}
	if class < len(m.spec.Labels) {
		return m.spec.Labels[class]
	}
	return strconv.Itoa(class)
}

// scoresOutput is the first output of a floating type that is no scalar.
func scoresOutput(infos []engine.TensorInfo) int {
	for i, info := range infos {
		if (info.Datatype == engine.FP32 || info.Datatype == engine.FP64) && (info.Shape == nil || len(info.Shape) > 0) {
			return i
		}
	}
	return -1
}

// givesProbabilities tells whether the graph ends in a softmax of its own: for
// several unlike inputs the scores are distributions. Where the model cannot
// be tried, the answer is no.
func (m *Model) givesProbabilities(ctx context.Context) bool {
	const trials = 3
	for trial := range trials {
		in, ok := probe(m.session.Inputs(), trial)
		if !ok {
			return false
		}
		out, err := m.session.Infer(ctx, in)
		if err != nil || m.scores >= len(out) || !distributions(&out[m.scores]) {
			return false
		}
	}
	return true
}

// probe makes inputs whose values differ from each other and between trials.
func probe(infos []engine.TensorInfo, trial int) ([]engine.Tensor, bool) {
	in := make([]engine.Tensor, len(infos))
	for i, info := range infos {
		shape := make([]int64, len(info.Shape))
		for j, d := range info.Shape {
			shape[j] = max(d, 1)
		}
		n, ok := engine.Elements(shape)
		if info.Shape == nil || !ok || n > (engine.Limits{}).WithDefaults().MaxElements {
			return nil, false
		}
		data, err := engine.Zero(info.Datatype, int(n))
		if err != nil {
			return nil, false
		}
		value := func(k int) float64 { return float64((k*7+trial*3)%11) - 3 }
		switch v := data.(type) {
		case []float32:
			for k := range v {
				v[k] = float32(value(k))
			}
		case []float64:
			for k := range v {
				v[k] = value(k)
			}
		}
		in[i] = engine.Tensor{Name: info.Name, Datatype: info.Datatype, Shape: shape, Data: data}
	}
	return in, true
}

// distributions tells whether every row of t is positive and sums to 1.
func distributions(t *engine.Tensor) bool {
	columns := lastDimension(t.Shape)
	switch v := t.Data.(type) {
	case []float32:
		return sumToOne(v, columns)
	case []float64:
		return sumToOne(v, columns)
	}
	return false
}

func sumToOne[T float32 | float64](v []T, columns int) bool {
	const tolerance = 1e-3
	for ; columns > 0 && len(v) >= columns; v = v[columns:] {
		sum := 0.0
		for _, p := range v[:columns] {
			if !(p >= 0) {
				return false
			}
			sum += float64(p)
		}
		if !(math.Abs(sum-1) < tolerance) {
			return false
		}
	}
	return columns > 0
}

// softmax turns each row of t into probabilities, in place.
func softmax(t *engine.Tensor) {
	columns := lastDimension(t.Shape)
	switch v := t.Data.(type) {
	case []float32:
		softmaxRows(v, columns)
	case []float64:
		softmaxRows(v, columns)
	}
}

func softmaxRows[T float32 | float64](v []T, columns int) {
	for ; columns > 0 && len(v) >= columns; v = v[columns:] {
		row := v[:columns]
		_, top := best(row)
		sum := 0.0
		for i, x := range row {
			e := math.Exp(float64(x) - top)
			row[i] = T(e)
			sum += e
		}
		for i := range row {
			row[i] = T(float64(row[i]) / sum)
		}
	}
}

func lastDimension(shape []int64) int {
	if len(shape) == 0 {
		return 0
	}
	return int(shape[len(shape)-1])
}
