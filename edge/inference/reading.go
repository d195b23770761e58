package inference

import (
	"bytes"
	"fmt"
	"math"
	"strconv"

	"github.com/edgetwin/sedna/lib/engine"
	"github.com/edgetwin/sedna/lib/jsonpath"
	"github.com/edgetwin/sedna/models/wire"
)

// sampleValue is where the mapper's samples have their value.
var sampleValue = mustCompile("$.value")

func mustCompile(path string) jsonpath.Path {
	p, err := jsonpath.Compile(path)
	if err != nil {
		panic(err) // the path is a constant
	}
	return p
}

// reader gets the values of one source out of messages.
type reader struct {
	document bool          // the value is at path in a JSON document; else the message is the value
	path     jsonpath.Path // used with document
	single   bool          // a list is no value
	datatype string        // of the tensor that the values are for
}

// read appends the values in a message to dst: one, or those of a list.
func (r *reader) read(dst []float64, payload []byte) ([]float64, error) {
	value := bytes.TrimSpace(payload)
	var err error
	if r.document || len(value) > 0 && value[0] == '[' {
		if value, err = r.path.Raw(value); err != nil {
			return dst, wire.E(wire.InvalidArgument, "", err.Error(), "")
		}
	}
	if r.single || len(value) == 0 || value[0] != '[' {
		return r.append(dst, value)
	}
	before := len(dst)
	jsonpath.Elements(value, func(element []byte) {
		if err == nil {
			dst, err = r.append(dst, element)
		}
	})
	switch {
	case err != nil:
		err = wire.E(wire.InvalidArgument, "", fmt.Sprintf("element %d: %s", len(dst)-before, wire.AsError(err).Message), "")
	case len(dst) == before:
		err = wire.E(wire.InvalidArgument, "", "the list is empty", "")
	}
	return dst, err
}

func (r *reader) append(dst []float64, text []byte) ([]float64, error) {
	v, ok := number(text)
	if !ok {
		want := "a number or a boolean"
		if !r.single {
			want += " or a list of them"
		}
		return dst, wire.E(wire.InvalidArgument, "", fmt.Sprintf("expected %s, got %.60q", want, text), "")
	}
	if !holds(r.datatype, v) {
		return dst, wire.E(wire.InvalidArgument, "", fmt.Sprintf("%.60s does not fit the model's %s", text, r.datatype), "")
	}
	return append(dst, v), nil
}

// number reads a decimal number or a boolean.
func number(text []byte) (v float64, ok bool) {
	switch string(text) {
	case "true":
		return 1, true
	case "false":
		return 0, true
	}
	for _, c := range text { // no hexadecimal, no underscores, no names
		if (c < '0' || c > '9') && c != '.' && c != '-' && c != '+' && c != 'e' && c != 'E' {
			return 0, false
		}
	}
	v, err := strconv.ParseFloat(string(text), 64)
	return v, err == nil
}

// maxExact is the last integer that float64, which windows are of, keeps apart
// from its neighbours.
const maxExact = 1<<53 - 1

// integers are the ranges of the datatypes that take whole numbers only.
var integers = map[string][2]float64{
	engine.Bool:   {0, 1},
	engine.Uint8:  {0, math.MaxUint8},
	engine.Uint16: {0, math.MaxUint16},
	engine.Uint32: {0, math.MaxUint32},
	engine.Uint64: {0, maxExact},
	engine.Int8:   {math.MinInt8, math.MaxInt8},
	engine.Int16:  {math.MinInt16, math.MaxInt16},
	engine.Int32:  {math.MinInt32, math.MaxInt32},
	engine.Int64:  {-maxExact, maxExact},
}

// maxHalf is the largest number of FP16.
const maxHalf = 65504

// holds tells whether a finite number can be an element of the datatype, up to
// the rounding of floating types.
func holds(datatype string, v float64) bool {
	switch datatype {
	case engine.FP64:
		return true
	case engine.FP32:
		return math.Abs(v) <= math.MaxFloat32
	case engine.FP16:
		return math.Abs(v) <= maxHalf
	}
	r, ok := integers[datatype]
	return ok && v >= r[0] && v <= r[1] && v == math.Trunc(v)
}
