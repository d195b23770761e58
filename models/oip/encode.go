package oip

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/edgetwin/sedna/models/wire"
)

// AppendJSON appends the request's JSON form to b. Equal requests give equal
// bytes. It fails where JSON cannot carry a value: NaN, infinities, and BYTES
// that are not UTF-8.
func (r *InferRequest) AppendJSON(b []byte) ([]byte, error) {
	b = append(b, '{')
	if r.ID != "" {
		b = append(b, `"id":`...)
		b = appendString(b, r.ID)
		b = append(b, ',')
	}
	b, err := appendParameters(b, r.Parameters)
	if err != nil {
		return b, err
	}
	b = append(b, `"inputs":`...)
	if b, err = appendTensors(b, "inputs", r.Inputs); err != nil {
		return b, err
	}
	if len(r.Outputs) > 0 {
		b = append(b, `,"outputs":[`...)
		for i, o := range r.Outputs {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(b, '{')
			if b, err = appendParameters(b, o.Parameters); err != nil {
				return b, err
			}
			b = append(b, `"name":`...)
			b = appendString(b, o.Name)
			b = append(b, '}')
		}
		b = append(b, ']')
	}
	return append(b, '}'), nil
}

// AppendJSON appends the response's JSON form to b, as InferRequest's does.
func (r *InferResponse) AppendJSON(b []byte) ([]byte, error) {
	b = append(b, `{"model_name":`...)
	b = appendString(b, r.ModelName)
	if r.ModelVersion != "" {
		b = append(b, `,"model_version":`...)
		b = appendString(b, r.ModelVersion)
	}
	if r.ID != "" {
		b = append(b, `,"id":`...)
		b = appendString(b, r.ID)
	}
	b = append(b, ',')
	b, err := appendParameters(b, r.Parameters)
	if err != nil {
		return b, err
	}
	b = append(b, `"outputs":`...)
	if b, err = appendTensors(b, "outputs", r.Outputs); err != nil {
		return b, err
	}
	return append(b, '}'), nil
}

// appendParameters appends the field with its comma, sorted by name; nothing
// when there are none.
func appendParameters(b []byte, p Parameters) ([]byte, error) {
	if len(p) == 0 {
		return b, nil
	}
	var room [8]string
	names := slices.AppendSeq(room[:0], maps.Keys(p))
	slices.Sort(names)
	b = append(b, `"parameters":{`...)
	for i, name := range names {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, name)
		b = append(b, ':')
		switch v := p[name].(type) {
		case string:
			b = appendString(b, v)
		case bool:
			b = strconv.AppendBool(b, v)
		case int:
			b = strconv.AppendInt(b, int64(v), 10)
		case int64:
			b = strconv.AppendInt(b, v, 10)
		case float64:
			if v-v != 0 {
				return b, notFinite("parameters." + name)
			}
			b = appendFloat(b, v, 64)
		case json.RawMessage:
			b = append(b, v...)
		default:
			return b, wire.E(wire.Internal, "parameters."+name, fmt.Sprintf("holds a %T", v), "")
		}
	}
	return append(b, `},`...), nil
}

func appendTensors(b []byte, list string, tensors []Tensor) ([]byte, error) {
	b = append(b, '[')
	for i := range tensors {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = appendTensor(b, &tensors[i], place{list, i}); err != nil {
			return b, err
		}
	}
	return append(b, ']'), nil
}

func appendTensor(b []byte, t *Tensor, at place) ([]byte, error) {
	b = append(b, `{"name":`...)
	b = appendString(b, t.Name)
	b = append(b, `,"shape":`...)
	b = appendIntegers(b, t.Shape)
	b = append(b, `,"datatype":"`...)
	b = append(b, t.Datatype...)
	b = append(b, `",`...)
	b, err := appendParameters(b, t.Parameters)
	if err != nil {
		return b, err
	}
	b = append(b, `"data":`...)
	if b, err = appendData(b, t, at); err != nil {
		return b, err
	}
	return append(b, '}'), nil
}

func appendData(b []byte, t *Tensor, at place) ([]byte, error) {
	switch v := t.Data.(type) {
	case []float32:
		return appendFloats(b, v, 32, at)
	case []float64:
		return appendFloats(b, v, 64, at)
	case []uint16:
		if t.Datatype == FP16 {
			return appendHalves(b, v, at)
		}
		return appendIntegers(b, v), nil
	case []bool:
		return appendList(b, v, strconv.AppendBool), nil
	case [][]byte:
		return appendByteStrings(b, v, at)
	case []uint8:
		return appendIntegers(b, v), nil
	case []uint32:
		return appendIntegers(b, v), nil
	case []uint64:
		return appendList(b, v, func(b []byte, e uint64) []byte { return strconv.AppendUint(b, e, 10) }), nil
	case []int8:
		return appendIntegers(b, v), nil
	case []int16:
		return appendIntegers(b, v), nil
	case []int32:
		return appendIntegers(b, v), nil
	case []int64:
		return appendIntegers(b, v), nil
	}
	return b, wire.E(wire.Internal, at.field("data"), fmt.Sprintf("holds a %T", t.Data), "")
}

func appendList[T any](b []byte, v []T, element func([]byte, T) []byte) []byte {
	b = append(b, '[')
	for i, e := range v {
		if i > 0 {
			b = append(b, ',')
		}
		b = element(b, e)
	}
	return append(b, ']')
}

func appendIntegers[T uint8 | uint16 | uint32 | int8 | int16 | int32 | int64](b []byte, v []T) []byte {
	return appendList(b, v, func(b []byte, e T) []byte { return strconv.AppendInt(b, int64(e), 10) })
}

func appendFloats[T float32 | float64](b []byte, v []T, bits int, at place) ([]byte, error) {
	b = append(b, '[')
	for i, e := range v {
		if e-e != 0 {
			return b, notFinite(fmt.Sprintf("%s[%d]", at.field("data"), i))
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = appendFloat(b, float64(e), bits)
	}
	return append(b, ']'), nil
}

// appendFloat writes the shortest text that reads back as the same value;
// whole numbers below a million, which sensors send most, take a short cut.
func appendFloat(b []byte, f float64, bits int) []byte {
	const million = 1e6
	if whole := int64(f); -million < f && f < million && float64(whole) == f && (whole != 0 || !math.Signbit(f)) {
		return strconv.AppendInt(b, whole, 10)
	}
	format := byte('f')
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(b, f, format, -1, bits)
}

func appendHalves(b []byte, v []uint16, at place) ([]byte, error) {
	b = append(b, '[')
	for i, e := range v {
		f := HalfFloat(e)
		if f-f != 0 {
			return b, notFinite(fmt.Sprintf("%s[%d]", at.field("data"), i))
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = appendFloat(b, float64(f), 32)
	}
	return append(b, ']'), nil
}

func appendByteStrings(b []byte, v [][]byte, at place) ([]byte, error) {
	b = append(b, '[')
	for i, e := range v {
		if !utf8.Valid(e) {
			return b, wire.E(wire.FailedPrecondition, fmt.Sprintf("%s[%d]", at.field("data"), i), "is not UTF-8, which JSON cannot carry", "")
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, string(e))
	}
	return append(b, ']'), nil
}

// appendString writes s quoted; invalid UTF-8 in it becomes U+FFFD.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r < ' ':
			b = append(b, '\\', 'u', '0', '0', hex[r>>4], hex[r&0xf])
		case r < utf8.RuneSelf:
			b = append(b, s[i])
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}

func notFinite(field string) error {
	return wire.E(wire.BadModel, field, "is not a finite number, which JSON cannot carry", "")
}
