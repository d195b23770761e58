package oip

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/edgetwin/sedna/models/wire"
)

// decoder reads one body.
type decoder struct {
	scanner
	lim Limits
}

func newDecoder(body []byte, lim Limits) (*decoder, error) {
	lim = lim.WithDefaults()
	if int64(len(body)) > lim.MaxBody {
		return nil, TooLarge(int64(len(body)), lim)
	}
	return &decoder{scanner{b: body}, lim}, nil
}

// TooLarge is the refusal of a body of n bytes, or of one that is longer than
// allowed and was not read to its end when n is 0.
func TooLarge(n int64, lim Limits) error {
	lim = lim.WithDefaults()
	if n == 0 {
		return wire.E(wire.TooLarge, "", fmt.Sprintf("body is longer than the %d bytes that are taken", lim.MaxBody), "")
	}
	return wire.E(wire.TooLarge, "", fmt.Sprintf("body of %d bytes, at most %d are taken", n, lim.MaxBody), "")
}

// DecodeRequest reads the JSON form of an inference request. It keeps no part
// of body. Unknown fields are passed over; null is the same as absent.
func DecodeRequest(body []byte, lim Limits) (*InferRequest, error) {
	d, err := newDecoder(body, lim)
	if err != nil {
		return nil, err
	}
	r := new(InferRequest)
	err = d.document(func(key []byte) (err error) {
		switch string(key) {
		case "id":
			if r.ID, err = d.text("id"); err == nil && r.ID != "" && !ValidID(r.ID) {
				err = BadID(r.ID)
			}
		case "parameters":
			r.Parameters, err = d.parameters("parameters")
		case "inputs":
			r.Inputs, err = d.tensors("inputs")
		case "outputs":
			r.Outputs, err = d.requested()
		default:
			err = d.skip(0)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(r.Inputs) == 0 {
		return nil, invalid("inputs", "missing, expected at least one tensor")
	}
	return r, nil
}

// BadID is the refusal of a request's id.
func BadID(id string) error {
	if id == "" {
		return invalid("id", "missing, expected to match %s", wire.RequestID)
	}
	return invalid("id", "is %.140q, expected to match %s", id, wire.RequestID)
}

// DecodeResponse reads the JSON form of an inference response, with the same
// limits and checks.
func DecodeResponse(body []byte, lim Limits) (*InferResponse, error) {
	d, err := newDecoder(body, lim)
	if err != nil {
		return nil, err
	}
	r := new(InferResponse)
	err = d.document(func(key []byte) (err error) {
		switch string(key) {
		case "model_name":
			r.ModelName, err = d.text("model_name")
		case "model_version":
			r.ModelVersion, err = d.text("model_version")
		case "id":
			r.ID, err = d.text("id")
		case "parameters":
			r.Parameters, err = d.parameters("parameters")
		case "outputs":
			r.Outputs, err = d.tensors("outputs")
		default:
			err = d.skip(0)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(r.Outputs) == 0 {
		return nil, invalid("outputs", "missing, expected at least one tensor")
	}
	return r, nil
}

// document reads the one object that a body is.
func (d *decoder) document(field func(key []byte) error) error {
	if err := d.object(field); err != nil {
		return err
	}
	if d.peek() != 0 || d.i < len(d.b) {
		return d.syntax("the end")
	}
	return nil
}

// text reads a string or null.
func (d *decoder) text(path string) (string, error) {
	if d.null() {
		return "", nil
	}
	if d.peek() != '"' {
		return "", d.wrong(path, "a string")
	}
	s, err := d.str()
	return string(s), err
}

// wrong is the error for a value of another kind than expected: a syntax error
// where it is no value at all.
func (d *decoder) wrong(path, want string) error {
	d.peek()
	at, token := d.i, d.token()
	if err := d.skip(0); err != nil {
		d.i = at
		return err
	}
	return invalid(path, "is %s, expected %s", token, want)
}

func (d *decoder) parameters(path string) (Parameters, error) {
	if d.null() {
		return nil, nil
	}
	if d.peek() != '{' {
		return nil, d.wrong(path, "an object")
	}
	p := Parameters{}
	err := d.object(func(key []byte) error {
		name := string(key)
		v, err := d.parameter()
		if err != nil || v == nil {
			return err
		}
		if p[name] = v; len(p) > d.lim.MaxParameters {
			return invalid(path, "has more than %d entries", d.lim.MaxParameters)
		}
		return nil
	})
	if len(p) == 0 {
		p = nil
	}
	return p, err
}

// parameter reads one value; nil for null.
func (d *decoder) parameter() (any, error) {
	c := d.peek()
	start := d.i
	if c == '"' {
		s, err := d.str()
		return string(s), err
	}
	if err := d.skip(0); err != nil {
		return nil, err
	}
	raw := d.b[start:d.i]
	switch c {
	case 't', 'f':
		return c == 't', nil
	case 'n':
		return nil, nil
	case '{', '[':
		return json.RawMessage(bytes.Clone(raw)), nil
	}
	n, _ := scanNumber(d.b, start)
	const most = 1<<63 - 1
	if n.integer && !n.long && n.mantissa <= most {
		v := int64(n.mantissa)
		if n.neg {
			v = -v
		}
		return v, nil
	}
	f, ok := n.float64(raw)
	if !ok {
		return nil, invalid("parameters", "%.24s is out of range", raw)
	}
	return f, nil
}

func (d *decoder) requested() ([]RequestedOutput, error) {
	if d.null() {
		return nil, nil
	}
	if d.peek() != '[' {
		return nil, d.wrong("outputs", "an array of objects")
	}
	var out []RequestedOutput
	err := d.array(func(i int) error {
		path := fmt.Sprintf("outputs[%d]", i)
		if i >= d.lim.MaxTensors {
			return invalid("outputs", "has more than %d entries", d.lim.MaxTensors)
		}
		if d.peek() != '{' {
			return d.wrong(path, "an object")
		}
		var o RequestedOutput
		err := d.object(func(key []byte) (err error) {
			switch string(key) {
			case "name":
				o.Name, err = d.text(path + ".name")
			case "parameters":
				o.Parameters, err = d.parameters(path + ".parameters")
			default:
				err = d.skip(0)
			}
			return err
		})
		if err == nil && o.Name == "" {
			err = invalid(path+".name", "missing")
		}
		out = append(out, o)
		return err
	})
	return out, err
}

// place is where a tensor stands, for messages: "inputs" and its index. The
// text is only made when a message needs it.
type place struct {
	list  string
	index int
}

func (p place) field(name string) string { return fmt.Sprintf("%s[%d].%s", p.list, p.index, name) }

func (d *decoder) tensors(list string) ([]Tensor, error) {
	if d.null() {
		return nil, nil
	}
	if d.peek() != '[' {
		return nil, d.wrong(list, "an array of tensors")
	}
	out := make([]Tensor, 0, 1)
	err := d.array(func(i int) error {
		if i >= d.lim.MaxTensors {
			return invalid(list, "has more than %d tensors", d.lim.MaxTensors)
		}
		out = append(out, Tensor{})
		return d.tensor(&out[i], place{list, i})
	})
	return out, err
}

func (d *decoder) tensor(t *Tensor, at place) error {
	if d.peek() != '{' {
		return d.wrong(fmt.Sprintf("%s[%d]", at.list, at.index), "an object")
	}
	later := -1 // where data starts that came before its shape and datatype
	err := d.object(func(key []byte) (err error) {
		switch string(key) {
		case "name":
			if d.peek() != '"' {
				return d.wrong(at.field("name"), "a string")
			}
			var s []byte
			s, err = d.str()
			t.Name = string(s)
		case "datatype":
			err = d.datatype(t, at)
		case "shape":
			t.Data = nil // of another shape, if the key is given twice
			t.Shape, err = d.shape(at)
		case "parameters":
			t.Parameters, err = d.parameters(at.field("parameters"))
		case "data":
			if t.Shape != nil && t.Datatype != "" {
				later = -1
				return d.data(t, at)
			}
			d.peek()
			later = d.i
			err = d.skip(0)
		default:
			err = d.skip(0)
		}
		return err
	})
	if err != nil {
		return err
	}
	switch {
	case t.Name == "":
		return invalid(at.field("name"), "missing")
	case t.Datatype == "":
		return invalid(at.field("datatype"), "missing, expected one of %s", datatypes)
	case t.Shape == nil:
		return invalid(at.field("shape"), "missing")
	case later >= 0:
		end := d.i
		d.i = later
		err := d.data(t, at)
		d.i = end
		return err
	case t.Data == nil:
		return invalid(at.field("data"), "missing")
	}
	return nil
}

func (d *decoder) datatype(t *Tensor, at place) error {
	if d.peek() != '"' {
		return d.wrong(at.field("datatype"), "a string")
	}
	s, err := d.str()
	if err != nil {
		return err
	}
	t.Data = nil // of another datatype, if the key is given twice
	if t.Datatype = canonical(s); t.Datatype == "" {
		return invalid(at.field("datatype"), "is %.40q, expected one of %s", s, datatypes)
	}
	return nil
}

var datatypes = strings.Join([]string{Bool, Uint8, Uint16, Uint32, Uint64, Int8, Int16, Int32, Int64, FP16, FP32, FP64, Bytes}, ", ")

// canonical gives the constant for a datatype's name, "" when there is none.
func canonical(s []byte) string {
	switch string(s) {
	case Bool:
		return Bool
	case Uint8:
		return Uint8
	case Uint16:
		return Uint16
	case Uint32:
		return Uint32
	case Uint64:
		return Uint64
	case Int8:
		return Int8
	case Int16:
		return Int16
	case Int32:
		return Int32
	case Int64:
		return Int64
	case FP16:
		return FP16
	case FP32:
		return FP32
	case FP64:
		return FP64
	case Bytes:
		return Bytes
	}
	return ""
}

// shape reads a list of dimensions; the result is never nil.
func (d *decoder) shape(at place) ([]int64, error) {
	if d.peek() != '[' {
		return nil, d.wrong(at.field("shape"), "an array of integers")
	}
	shape := make([]int64, 0, 4)
	elements := int64(1)
	err := d.array(func(i int) error {
		if i >= d.lim.MaxRank {
			return invalid(at.field("shape"), "has more than %d dimensions", d.lim.MaxRank)
		}
		d.peek()
		n, end := scanNumber(d.b, d.i)
		if end < 0 {
			return d.wrong(at.field("shape"), "dimensions that are integers")
		}
		if !n.integer || n.neg && n.mantissa != 0 {
			return invalid(at.field("shape"), "dimension %d is %s, expected an integer of 0 or more", i, d.token())
		}
		if n.long || n.mantissa > uint64(d.lim.MaxElements) {
			return invalid(at.field("shape"), "dimension %d is %s, at most %d elements are taken", i, d.token(), d.lim.MaxElements)
		}
		d.i = end
		shape = append(shape, int64(n.mantissa))
		// Both factors are at most MaxElements; zeros are left out so that
		// they do not hide what the other dimensions ask for.
		if n.mantissa > 0 {
			if elements > d.lim.MaxElements/int64(n.mantissa) {
				return invalid(at.field("shape"), "has more than the %d elements that are taken", d.lim.MaxElements)
			}
			elements *= int64(n.mantissa)
		}
		return nil
	})
	return shape, err
}

func invalid(field, format string, args ...any) error {
	return wire.E(wire.InvalidArgument, field, fmt.Sprintf(format, args...), "")
}

// shapeText prints a shape as JSON would.
func shapeText(shape []int64) string {
	return strings.ReplaceAll(fmt.Sprint(shape), " ", ",")
}
