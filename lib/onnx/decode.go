package onnx

import (
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// Decode reads a ModelProto. It allocates no more than a small multiple of
// len(b) and keeps no reference to b. Errors wrap ErrMalformed, ErrLimit or
// ErrUnsupported and name the node or tensor.
func Decode(b []byte, lim Limits) (*Model, error) {
	d := &decoder{lim: lim.WithDefaults()}
	if len(b) > d.lim.MaxBytes {
		return nil, overLimit("%d bytes, at most %d", len(b), d.lim.MaxBytes)
	}
	m := &Model{}
	graphs := 0
	err := walk(b, func(f field) (err error) {
		switch f.num {
		case 1:
			m.IRVersion, err = f.int()
		case 2:
			m.Producer, err = d.name(f)
		case 3:
			m.ProducerVersion, err = d.name(f)
		case 4:
			m.Domain, err = d.name(f)
		case 5:
			m.ModelVersion, err = f.int()
		case 6:
			m.Doc, err = d.text(f)
		case 7:
			graphs++
			err = d.graph(f, &m.Graph)
		case 8:
			err = d.opset(f, m)
		case 14:
			err = d.metadata(f, m)
		case 20, 25:
			err = unsupported("training information or model-local functions")
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if graphs != 1 {
		return nil, malformed("%d graphs, expected 1", graphs)
	}
	return m, nil
}

// DecodeTensor reads one TensorProto, as ONNX's test data are stored.
func DecodeTensor(b []byte, lim Limits) (Tensor, error) {
	d := &decoder{lim: lim.WithDefaults()}
	if len(b) > d.lim.MaxBytes {
		return Tensor{}, overLimit("%d bytes, at most %d", len(b), d.lim.MaxBytes)
	}
	return d.tensor(b)
}

type decoder struct {
	lim    Limits
	total  int64 // elements seen so far
	values int   // value infos seen so far
	items  int   // inputs, outputs and attributes of nodes seen so far
}

// field is one protobuf field: bytes for length-delimited ones, else n.
type field struct {
	num   protowire.Number
	typ   protowire.Type
	bytes []byte
	n     uint64
}

// walk calls visit for each field of a message. Groups, which ONNX does not
// use, are skipped.
func walk(b []byte, visit func(field) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return malformed("%v", protowire.ParseError(n))
		}
		b = b[n:]
		f := field{num: num, typ: typ}
		switch typ {
		case protowire.VarintType:
			f.n, n = protowire.ConsumeVarint(b)
		case protowire.Fixed32Type:
			var v uint32
			v, n = protowire.ConsumeFixed32(b)
			f.n = uint64(v)
		case protowire.Fixed64Type:
			f.n, n = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return malformed("field %d: %v", num, protowire.ParseError(n))
		}
		b = b[n:]
		if typ == protowire.StartGroupType {
			continue
		}
		if err := visit(f); err != nil {
			return err
		}
	}
	return nil
}

func (f field) want(t protowire.Type) error {
	if f.typ != t {
		return malformed("field %d has wire type %d, expected %d", f.num, f.typ, t)
	}
	return nil
}

func (f field) int() (int64, error) {
	return int64(f.n), f.want(protowire.VarintType)
}

func (f field) float() (float32, error) {
	return math.Float32frombits(uint32(f.n)), f.want(protowire.Fixed32Type)
}

func (d *decoder) name(f field) (string, error) { return str(f, d.lim.MaxName) }
func (d *decoder) text(f field) (string, error) { return str(f, d.lim.MaxText) }

func str(f field, limit int) (string, error) {
	if err := f.want(protowire.BytesType); err != nil {
		return "", err
	}
	if len(f.bytes) > limit {
		return "", overLimit("string of %d bytes, at most %d", len(f.bytes), limit)
	}
	return string(f.bytes), nil
}

// grow appends v unless the list already has as many entries as allowed.
func grow[T any](list []T, v T, limit int, what string) ([]T, error) {
	if len(list) >= limit {
		return nil, overLimit("more than %d %s", limit, what)
	}
	return append(list, v), nil
}

func (d *decoder) opset(f field, m *Model) error {
	if err := f.want(protowire.BytesType); err != nil {
		return err
	}
	var o Opset
	err := walk(f.bytes, func(f field) (err error) {
		switch f.num {
		case 1:
			o.Domain, err = d.name(f)
		case 2:
			o.Version, err = f.int()
		}
		return err
	})
	if err != nil {
		return err
	}
	m.Opsets, err = grow(m.Opsets, o, d.lim.MaxMetadata, "opset imports")
	return err
}

func (d *decoder) metadata(f field, m *Model) error {
	if err := f.want(protowire.BytesType); err != nil {
		return err
	}
	var key, value string
	err := walk(f.bytes, func(f field) (err error) {
		switch f.num {
		case 1:
			key, err = d.name(f)
		case 2:
			value, err = d.text(f)
		}
		return err
	})
	if err != nil {
		return err
	}
	if m.Metadata == nil {
		m.Metadata = map[string]string{}
	}
	m.Metadata[key] = value
	if len(m.Metadata) > d.lim.MaxMetadata {
		return overLimit("more than %d metadata entries", d.lim.MaxMetadata)
	}
	return nil
}

func (d *decoder) graph(f field, g *Graph) error {
	if err := f.want(protowire.BytesType); err != nil {
		return err
	}
	return walk(f.bytes, func(f field) (err error) {
		switch f.num {
		case 1:
			err = d.node(f, g)
		case 2:
			g.Name, err = d.name(f)
		case 5:
			err = d.initializer(f, g)
		case 10:
			g.Doc, err = d.text(f)
		case 11:
			g.Inputs, err = d.value(f, g.Inputs)
		case 12:
			g.Outputs, err = d.value(f, g.Outputs)
		case 13:
			g.Values, err = d.value(f, g.Values)
		case 15:
			err = unsupported("sparse initializer")
		}
		return err
	})
}

func (d *decoder) initializer(f field, g *Graph) error {
	if err := f.want(protowire.BytesType); err != nil {
		return err
	}
	if len(g.Initializers) >= d.lim.MaxInitializers {
		return overLimit("more than %d initializers", d.lim.MaxInitializers)
	}
	t, err := d.tensor(f.bytes)
	g.Initializers = append(g.Initializers, t)
	return err
}

func (d *decoder) value(f field, list []ValueInfo) ([]ValueInfo, error) {
	if err := f.want(protowire.BytesType); err != nil {
		return nil, err
	}
	if d.values++; d.values > d.lim.MaxValues {
		return nil, overLimit("more than %d value infos", d.lim.MaxValues)
	}
	var v ValueInfo
	err := walk(f.bytes, func(f field) (err error) {
		switch f.num {
		case 1:
			v.Name, err = d.name(f)
		case 2:
			if err = f.want(protowire.BytesType); err == nil {
				err = d.valueType(f.bytes, &v)
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("value %q: %w", v.Name, err)
	}
	return append(list, v), nil
}

// valueType reads TypeProto -> Tensor -> TensorShapeProto -> Dimension. Types
// other than dense tensors leave v.Type Undefined.
func (d *decoder) valueType(b []byte, v *ValueInfo) error {
	const tensorType, elemType, shape, dim = 1, 1, 2, 1
	return walk(b, func(f field) error {
		if f.num != tensorType || f.typ != protowire.BytesType {
			return nil
		}
		return walk(f.bytes, func(f field) error {
			switch {
			case f.num == elemType:
				n, err := f.int()
				v.Type = DType(n)
				return err
			case f.num != shape || f.typ != protowire.BytesType:
				return nil
			}
			if v.Dims == nil {
				v.Dims = []Dim{}
			}
			return walk(f.bytes, func(f field) (err error) {
				if f.num != dim {
					return nil
				}
				if err = f.want(protowire.BytesType); err != nil {
					return err
				}
				one := Dim{Size: -1}
				if err = d.dim(f.bytes, &one); err != nil {
					return err
				}
				v.Dims, err = grow(v.Dims, one, d.lim.MaxRank, "dimensions")
				return err
			})
		})
	})
}

func (d *decoder) dim(b []byte, out *Dim) error {
	return walk(b, func(f field) (err error) {
		switch f.num {
		case 1:
			// Some exporters write 0 or -1 for "not known".
			if out.Size, err = f.int(); out.Size <= 0 {
				out.Size = -1
			}
		case 2:
			out.Param, err = d.name(f)
		}
		return err
	})
}
