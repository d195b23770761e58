package oip

import (
	"fmt"
	"math"
)

// column collects the elements of one tensor.
type column interface {
	// row reads elements separated by commas, up to and with the closing
	// bracket. It stops with errTooMany at one element over most.
	row(d *decoder, most int) error
	len() int
	values() any
}

// elementError says what is wrong with the element that comes next.
type elementError struct{ message string }

func (e *elementError) Error() string { return e.message }

var errTooMany = &elementError{"too many elements"}

// data reads a tensor's data: one flat array, or arrays nested as its shape.
func (d *decoder) data(t *Tensor, at place) error {
	want := 1
	for _, n := range t.Shape {
		want *= int(n)
	}
	if d.peek() != '[' {
		return d.wrong(at.field("data"), "an array")
	}
	// Two bytes hold at most one element: a short body with a large shape
	// must not make us allocate for the shape.
	c := newColumn(t.Datatype, min(want, (len(d.b)-d.i)/2+1))
	d.i++
	var err error
	if nested := d.peek() == '[' && len(t.Shape) > 0; nested {
		err = d.nested(c, t.Shape, 0)
	} else {
		err = c.row(d, want)
	}
	if e, ok := err.(*elementError); ok {
		if e == errTooMany {
			return invalid(at.field("data"), "has more than the %d elements of shape %s", want, shapeText(t.Shape))
		}
		return invalid(fmt.Sprintf("%s[%d]", at.field("data"), c.len()), "%s", e.message)
	}
	if e, ok := err.(*nestingError); ok {
		return invalid(at.field("data"), "has %s, expected one flat array of %d or arrays nested as shape %s", e.message, want, shapeText(t.Shape))
	}
	if err != nil {
		return err
	}
	if c.len() != want {
		return invalid(at.field("data"), "has %d elements, expected %d for shape %s", c.len(), want, shapeText(t.Shape))
	}
	t.Data = c.values()
	return nil
}

// nestingError says how nested arrays differ from the shape.
type nestingError struct{ message string }

func (e *nestingError) Error() string { return e.message }

// nested reads the rest of an array of the given level, whose opening bracket
// has been taken.
func (d *decoder) nested(c column, shape []int64, level int) error {
	want := int(shape[level])
	if level == len(shape)-1 {
		before := c.len()
		err := c.row(d, before+want)
		if got := c.len() - before; err == errTooMany || err == nil && got != want {
			return &nestingError{fmt.Sprintf("a row of other than %d elements", want)}
		}
		return err
	}
	count := 0
	for !d.take(']') {
		if count > 0 && !d.take(',') {
			return d.syntax("',' or ']'")
		}
		if !d.take('[') {
			return &nestingError{fmt.Sprintf("%s where an array of level %d starts", d.token(), level+2)}
		}
		if count++; count > want {
			break
		}
		if err := d.nested(c, shape, level+1); err != nil {
			return err
		}
	}
	if count != want {
		return &nestingError{fmt.Sprintf("other than %d arrays at level %d", want, level+1)}
	}
	return nil
}

func newColumn(datatype string, capacity int) column {
	switch datatype {
	case Bool:
		return &bools{make([]bool, 0, capacity)}
	case Uint8:
		return &unsigned[uint8]{make([]uint8, 0, capacity), datatype, math.MaxUint8}
	case Uint16:
		return &unsigned[uint16]{make([]uint16, 0, capacity), datatype, math.MaxUint16}
	case Uint32:
		return &unsigned[uint32]{make([]uint32, 0, capacity), datatype, math.MaxUint32}
	case Uint64:
		return &unsigned[uint64]{make([]uint64, 0, capacity), datatype, math.MaxUint64}
	case Int8:
		return &signed[int8]{make([]int8, 0, capacity), datatype, math.MaxInt8}
	case Int16:
		return &signed[int16]{make([]int16, 0, capacity), datatype, math.MaxInt16}
	case Int32:
		return &signed[int32]{make([]int32, 0, capacity), datatype, math.MaxInt32}
	case Int64:
		return &signed[int64]{make([]int64, 0, capacity), datatype, math.MaxInt64}
	case FP16:
		return &halves{make([]uint16, 0, capacity)}
	case FP64:
		return &doubles{make([]float64, 0, capacity)}
	case Bytes:
		return &byteStrings{v: make([][]byte, 0, capacity), buf: []byte{}}
	}
	return &floats{make([]float32, 0, capacity)}
}

// more is called before each element: it tells whether one follows, and reads
// the separator. first says that the row has none yet.
func (d *decoder) more(first bool) (bool, error) {
	if !first && d.i+1 < len(d.b) && d.b[d.i] == ',' && d.b[d.i+1] > ' ' {
		d.i++
		return true, nil
	}
	return d.moreSpaced(first)
}

// moreSpaced is more where white space or the row's end can come.
func (d *decoder) moreSpaced(first bool) (bool, error) {
	switch c := d.peek(); {
	case c == ']':
		d.i++
		return false, nil
	case first:
		return true, nil
	case c == ',':
		d.i++
		d.peek()
		return true, nil
	}
	return false, d.syntax("',' or ']'")
}

// mismatch says that the next value is no element of the datatype.
func (d *decoder) mismatch(datatype string) error {
	d.peek()
	switch token := d.token(); token {
	case "NaN", "Infinity", "-Infinity", "null":
		return &elementError{"is " + token + ", expected a finite " + datatype + " number"}
	default:
		at := d.i
		if err := d.skip(0); err != nil {
			d.i = at
			return err
		}
		return &elementError{"is " + token + ", expected " + datatype}
	}
}

func (d *decoder) outOfRange(datatype string) error {
	return &elementError{"is " + d.token() + ", out of range for " + datatype}
}

type floats struct{ v []float32 }

func (c *floats) len() int    { return len(c.v) }
func (c *floats) values() any { return c.v }

// row is the hot path of the protocol: FP32 data. Plain decimals go by
// quickFloat32, all else by the general way.
func (c *floats) row(d *decoder, most int) error {
	for first := true; ; first = false {
		ok, err := d.more(first)
		if !ok {
			return err
		}
		if len(c.v) == most {
			return errTooMany
		}
		if f, end := quickFloat32(d.b, d.i); end > 0 {
			c.v = append(c.v, f)
			d.i = end
			continue
		}
		n, end := scanNumber(d.b, d.i)
		if end < 0 {
			return d.mismatch(FP32)
		}
		f, ok := n.float32(d.b[d.i:end])
		if !ok {
			return d.outOfRange(FP32)
		}
		c.v = append(c.v, f)
		d.i = end
	}
}

type doubles struct{ v []float64 }

func (c *doubles) len() int    { return len(c.v) }
func (c *doubles) values() any { return c.v }

func (c *doubles) row(d *decoder, most int) error {
	for first := true; ; first = false {
		ok, err := d.more(first)
		if !ok {
			return err
		}
		if len(c.v) == most {
			return errTooMany
		}
		n, end := scanNumber(d.b, d.i)
		if end < 0 {
			return d.mismatch(FP64)
		}
		f, ok := n.float64(d.b[d.i:end])
		if !ok {
			return d.outOfRange(FP64)
		}
		c.v = append(c.v, f)
		d.i = end
	}
}

type halves struct{ v []uint16 }

func (c *halves) len() int    { return len(c.v) }
func (c *halves) values() any { return c.v }

func (c *halves) row(d *decoder, most int) error {
	for first := true; ; first = false {
		ok, err := d.more(first)
		if !ok {
			return err
		}
		if len(c.v) == most {
			return errTooMany
		}
		n, end := scanNumber(d.b, d.i)
		if end < 0 {
			return d.mismatch(FP16)
		}
		const infinity = 0x7c00
		f, ok := n.float64(d.b[d.i:end])
		bits := HalfBits(f)
		if !ok || bits&infinity == infinity {
			return d.outOfRange(FP16)
		}
		c.v = append(c.v, bits)
		d.i = end
	}
}

type unsigned[T uint8 | uint16 | uint32 | uint64] struct {
	v        []T
	datatype string
	max      uint64
}

func (c *unsigned[T]) len() int    { return len(c.v) }
func (c *unsigned[T]) values() any { return c.v }

func (c *unsigned[T]) row(d *decoder, most int) error {
	for first := true; ; first = false {
		ok, err := d.more(first)
		if !ok {
			return err
		}
		if len(c.v) == most {
			return errTooMany
		}
		n, end := scanNumber(d.b, d.i)
		if end < 0 || !n.integer {
			return d.mismatch(c.datatype)
		}
		v, ok := n.integral(d.b[d.i:end])
		if !ok || v > c.max || n.neg && v != 0 {
			return d.outOfRange(c.datatype)
		}
		c.v = append(c.v, T(v))
		d.i = end
	}
}

type signed[T int8 | int16 | int32 | int64] struct {
	v        []T
	datatype string
	max      uint64
}

func (c *signed[T]) len() int    { return len(c.v) }
func (c *signed[T]) values() any { return c.v }

func (c *signed[T]) row(d *decoder, most int) error {
	for first := true; ; first = false {
		ok, err := d.more(first)
		if !ok {
			return err
		}
		if len(c.v) == most {
			return errTooMany
		}
		n, end := scanNumber(d.b, d.i)
		if end < 0 || !n.integer {
			return d.mismatch(c.datatype)
		}
		v, ok := n.integral(d.b[d.i:end])
		switch {
		case !ok, n.neg && v > c.max+1, !n.neg && v > c.max:
			return d.outOfRange(c.datatype)
		case n.neg:
			c.v = append(c.v, T(-v))
		default:
			c.v = append(c.v, T(v))
		}
		d.i = end
	}
}

type bools struct{ v []bool }

func (c *bools) len() int    { return len(c.v) }
func (c *bools) values() any { return c.v }

func (c *bools) row(d *decoder, most int) error {
	for first := true; ; first = false {
		ok, err := d.more(first)
		if !ok {
			return err
		}
		if len(c.v) == most {
			return errTooMany
		}
		switch {
		case d.literal("true"):
			c.v = append(c.v, true)
		case d.literal("false"):
			c.v = append(c.v, false)
		default:
			return d.mismatch(Bool)
		}
	}
}

// byteStrings shares one buffer among its elements.
type byteStrings struct {
	v   [][]byte
	buf []byte
}

func (c *byteStrings) len() int    { return len(c.v) }
func (c *byteStrings) values() any { return c.v }

func (c *byteStrings) row(d *decoder, most int) error {
	for first := true; ; first = false {
		ok, err := d.more(first)
		if !ok {
			return err
		}
		if len(c.v) == most {
			return errTooMany
		}
		if d.peek() != '"' {
			return d.mismatch(Bytes)
		}
		s, err := d.str()
		if err != nil {
			return err
		}
		start := len(c.buf)
		c.buf = append(c.buf, s...)
		c.v = append(c.v, c.buf[start:len(c.buf):len(c.buf)])
	}
}
