package onnx

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// Encode writes a ModelProto. Equal models give equal bytes: metadata are
// sorted by key and tensors are written as raw_data.
func Encode(m *Model) ([]byte, error) {
	var e encoder
	ir := m.IRVersion
	if ir == 0 {
		ir = DefaultIRVersion
	}
	opsets := m.Opsets
	if len(opsets) == 0 {
		opsets = []Opset{{Version: DefaultOpset}}
	}
	e.int(1, ir)
	e.str(2, m.Producer)
	e.str(3, m.ProducerVersion)
	e.str(4, m.Domain)
	e.int(5, m.ModelVersion)
	e.str(6, m.Doc)
	e.message(7, func(e *encoder) { e.graph(&m.Graph) })
	for _, o := range opsets {
		e.message(8, func(e *encoder) {
			e.str(1, o.Domain)
			e.int(2, o.Version)
		})
	}
	for _, k := range slices.Sorted(maps.Keys(m.Metadata)) {
		e.message(14, func(e *encoder) {
			e.str(1, k)
			e.str(2, m.Metadata[k])
		})
	}
	return e.b, e.err
}

// encoder appends protobuf fields; the first error sticks.
type encoder struct {
	b   []byte
	err error
}

func (e *encoder) int(num protowire.Number, v int64) {
	if v != 0 {
		e.intAlways(num, v)
	}
}

func (e *encoder) intAlways(num protowire.Number, v int64) {
	e.b = protowire.AppendTag(e.b, num, protowire.VarintType)
	e.b = protowire.AppendVarint(e.b, uint64(v))
}

func (e *encoder) str(num protowire.Number, s string) {
	if s != "" {
		e.strAlways(num, s)
	}
}

func (e *encoder) strAlways(num protowire.Number, s string) {
	e.b = protowire.AppendTag(e.b, num, protowire.BytesType)
	e.b = protowire.AppendString(e.b, s)
}

func (e *encoder) bytes(num protowire.Number, b []byte) {
	e.b = protowire.AppendTag(e.b, num, protowire.BytesType)
	e.b = protowire.AppendBytes(e.b, b)
}

func (e *encoder) message(num protowire.Number, write func(*encoder)) {
	var sub encoder
	write(&sub)
	if e.err == nil {
		e.err = sub.err
	}
	e.bytes(num, sub.b)
}

func (e *encoder) graph(g *Graph) {
	for i := range g.Nodes {
		e.message(1, func(e *encoder) { e.node(&g.Nodes[i]) })
	}
	e.str(2, g.Name)
	for i := range g.Initializers {
		e.message(5, func(e *encoder) { e.tensor(&g.Initializers[i]) })
	}
	e.str(10, g.Doc)
	for _, list := range []struct {
		num    protowire.Number
		values []ValueInfo
	}{{11, g.Inputs}, {12, g.Outputs}, {13, g.Values}} {
		for _, v := range list.values {
			e.message(list.num, func(e *encoder) { e.value(v) })
		}
	}
}

func (e *encoder) node(n *Node) {
	for _, s := range n.Inputs {
		e.strAlways(1, s) // an omitted optional input is an empty string
	}
	for _, s := range n.Outputs {
		e.strAlways(2, s)
	}
	e.str(3, n.Name)
	e.str(4, n.Op)
	for i := range n.Attributes {
		if raw := n.Attributes[i].Raw; raw != nil {
			e.bytes(5, raw)
			continue
		}
		e.message(5, func(e *encoder) { e.attribute(&n.Attributes[i]) })
	}
	e.str(7, n.Domain)
}

func (e *encoder) attribute(a *Attribute) {
	e.str(1, a.Name)
	switch a.Type {
	case AttrFloat:
		e.b = protowire.AppendTag(e.b, 2, protowire.Fixed32Type)
		e.b = protowire.AppendFixed32(e.b, math.Float32bits(a.F))
	case AttrInt:
		e.intAlways(3, a.I)
	case AttrString:
		e.bytes(4, a.S)
	case AttrTensor:
		if a.T == nil {
			e.err = malformed("attribute %q without its tensor", a.Name)
			return
		}
		e.message(5, func(e *encoder) { e.tensor(a.T) })
	case AttrFloats:
		for _, f := range a.Floats {
			e.b = protowire.AppendTag(e.b, 7, protowire.Fixed32Type)
			e.b = protowire.AppendFixed32(e.b, math.Float32bits(f))
		}
	case AttrInts:
		for _, i := range a.Ints {
			e.intAlways(8, i)
		}
	case AttrStrings:
		for _, s := range a.Strings {
			e.bytes(9, s)
		}
	default:
		e.err = unsupported("attribute %q of type %d", a.Name, a.Type)
	}
	e.int(20, int64(a.Type))
}

func (e *encoder) value(v ValueInfo) {
	e.str(1, v.Name)
	if v.Type == Undefined {
		return
	}
	e.message(2, func(e *encoder) {
		e.message(1, func(e *encoder) {
			e.int(1, int64(v.Type))
			if v.Dims == nil {
				return
			}
			e.message(2, func(e *encoder) {
				for _, d := range v.Dims {
					e.message(1, func(e *encoder) {
						if d.Size >= 0 {
							e.intAlways(1, d.Size)
						} else {
							e.str(2, d.Param)
						}
					})
				}
			})
		})
	})
}

func (e *encoder) tensor(t *Tensor) {
	n, ok := count(t.Shape)
	if !ok || !holds(t.Type, t.Data) || int64(length(t.Data)) != n {
		e.err = fmt.Errorf("tensor %q: %w", t.Name, malformed("%v of shape %v in %T of %d elements", t.Type, t.Shape, t.Data, length(t.Data)))
		return
	}
	for _, d := range t.Shape {
		e.intAlways(1, d)
	}
	e.int(2, int64(t.Type))
	e.str(8, t.Name)
	e.bytes(9, toRaw(t.Data))
}

func toRaw(data any) []byte {
	if d, ok := data.([]bool); ok {
		out := make([]byte, len(d))
		for i, v := range d {
			if v {
				out[i] = 1
			}
		}
		return out
	}
	// The remaining slices are all of fixed-size numbers, for which Append
	// has no error.
	out, _ := binary.Append(nil, binary.LittleEndian, data)
	return out
}
