package inference

import (
	"encoding/json"
	"math"
	"strconv"

	"github.com/edgetwin/sedna/models/oip"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// verdict is what the answer for one sample says, where it is classes.
type verdict struct {
	class int
	label string
	score float64
}

// verdict reads an answer for one sample; false where it is no classes. A
// single number without a label is none.
func (s *service) verdict(r *oip.InferResponse) (verdict, bool) {
	scores, ok := s.model.Scores(r, 1)
	if !ok || s.model.Label(0) == "" || len(scores.Row(0)) < 2 && len(s.spec.Model.Labels) == 0 {
		return verdict{}, false
	}
	class, score := scores.Best(0)
	return verdict{class, s.model.Label(class), score}, true
}

// classes tells whether the model's answer may be classes, as far as the model
// says.
func (s *service) classes() bool { return s.model.Label(0) != "" }

// dress adds the best class to the parameters of an answer for one sample.
func (s *service) dress(o *outcome) {
	v, ok := s.verdict(o.resp)
	if !ok {
		return
	}
	o.resp.Parameters[ParamLabel] = v.label
	if finite(v.score) {
		o.resp.Parameters[ParamScore] = v.score
	}
}

// value is what an answer writes into the result property, one of
// task.Result…; empty is the label of classes, else the output.
func (s *service) value(o *outcome, what string) (json.RawMessage, error) {
	v, classes := s.verdict(o.resp)
	if what == "" {
		what = task.ResultOutput
		if classes {
			what = task.ResultLabel
		}
	}
	switch {
	case what == task.ResultOutput:
		return firstNumber(o.resp)
	case !classes:
		return nil, wire.E(wire.FailedPrecondition, "resultProperty.value", "is "+what+", and the answer is no classes", "use "+task.ResultOutput)
	case what == task.ResultLabel:
		return json.Marshal(v.label)
	case what == task.ResultClass:
		return strconv.AppendInt(nil, int64(v.class), 10), nil
	}
	return jsonNumber(v.score, 32)
}

// firstNumber is the first element of the first output.
func firstNumber(r *oip.InferResponse) (json.RawMessage, error) {
	if len(r.Outputs) > 0 {
		switch d := r.Outputs[0].Data.(type) {
		case []float32:
			return first(d, func(v float32) (json.RawMessage, error) { return jsonNumber(float64(v), 32) })
		case []float64:
			return first(d, func(v float64) (json.RawMessage, error) { return jsonNumber(v, 64) })
		case []uint16:
			if r.Outputs[0].Datatype == oip.FP16 {
				return first(d, func(v uint16) (json.RawMessage, error) { return jsonNumber(float64(oip.HalfFloat(v)), 32) })
			}
			return first(d, marshal)
		case []bool:
			return first(d, marshal)
		case []uint8:
			return first(d, marshal)
		case []uint32:
			return first(d, marshal)
		case []uint64:
			return first(d, marshal)
		case []int8:
			return first(d, marshal)
		case []int16:
			return first(d, marshal)
		case []int32:
			return first(d, marshal)
		case []int64:
			return first(d, marshal)
		}
	}
	return nil, noNumber()
}

func first[T any](d []T, text func(T) (json.RawMessage, error)) (json.RawMessage, error) {
	if len(d) == 0 {
		return nil, noNumber()
	}
	return text(d[0])
}

func marshal[T any](v T) (json.RawMessage, error) { return json.Marshal(v) }

func noNumber() error {
	return wire.E(wire.FailedPrecondition, "resultProperty.value", "the model's first output holds no number", "")
}

func jsonNumber(v float64, bits int) (json.RawMessage, error) {
	if !finite(v) {
		return nil, wire.E(wire.BadModel, "", "the model gave a value that is not a finite number", "")
	}
	return strconv.AppendFloat(nil, v, 'g', -1, bits), nil
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
