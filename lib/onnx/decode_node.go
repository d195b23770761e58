package onnx

import (
	"bytes"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

func (d *decoder) node(f field, g *Graph) error {
	if err := f.want(protowire.BytesType); err != nil {
		return err
	}
	if len(g.Nodes) >= d.lim.MaxNodes {
		return overLimit("more than %d nodes", d.lim.MaxNodes)
	}
	var n Node
	err := walk(f.bytes, func(f field) (err error) {
		if f.num == 1 || f.num == 2 || f.num == 5 {
			if d.items++; d.items > d.lim.MaxItems {
				return overLimit("more than %d inputs, outputs and attributes", d.lim.MaxItems)
			}
		}
		var s string
		switch f.num {
		case 1:
			if s, err = d.name(f); err == nil {
				n.Inputs, err = grow(n.Inputs, s, d.lim.MaxNodeItems, "inputs")
			}
		case 2:
			if s, err = d.name(f); err == nil {
				n.Outputs, err = grow(n.Outputs, s, d.lim.MaxNodeItems, "outputs")
			}
		case 3:
			n.Name, err = d.name(f)
		case 4:
			n.Op, err = d.name(f)
		case 5:
			err = d.attribute(f, &n)
		case 7:
			n.Domain, err = d.name(f)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("node %q (%s): %w", n.Name, n.Op, err)
	}
	g.Nodes = append(g.Nodes, n)
	return nil
}

func (d *decoder) attribute(f field, n *Node) error {
	if err := f.want(protowire.BytesType); err != nil {
		return err
	}
	whole := f.bytes
	var a Attribute
	raw := false
	err := walk(f.bytes, func(f field) (err error) {
		switch f.num {
		case 1:
			a.Name, err = d.name(f)
		case 2:
			a.F, err = f.float()
		case 3:
			a.I, err = f.int()
		case 4:
			var s string
			s, err = d.text(f)
			a.S = []byte(s)
		case 5:
			err = d.attributeTensor(f, &a)
		case 7:
			a.Floats, err = floats(a.Floats, f, d.lim.MaxNodeItems)
		case 8:
			a.Ints, err = ints(a.Ints, f, d.lim.MaxNodeItems)
		case 9:
			var s string
			if s, err = d.text(f); err == nil {
				a.Strings, err = grow(a.Strings, []byte(s), d.lim.MaxNodeItems, "strings")
			}
		case 20:
			var t int64
			t, err = f.int()
			a.Type = AttributeType(t)
		case 6, 10, 11, 14, 15, 21, 22, 23:
			raw = true
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("attribute %q: %w", a.Name, err)
	}
	if raw {
		a = Attribute{Name: a.Name, Type: a.Type, Raw: bytes.Clone(whole)}
	}
	n.Attributes, err = grow(n.Attributes, a, d.lim.MaxNodeItems, "attributes")
	return err
}

func (d *decoder) attributeTensor(f field, a *Attribute) error {
	if err := f.want(protowire.BytesType); err != nil {
		return err
	}
	t, err := d.tensor(f.bytes)
	a.T = &t
	return err
}

func floats(list []float32, f field, limit int) ([]float32, error) {
	if f.typ == protowire.Fixed32Type {
		return grow(list, math.Float32frombits(uint32(f.n)), limit, "floats")
	}
	if err := f.want(protowire.BytesType); err != nil {
		return nil, err
	}
	for b := f.bytes; len(b) > 0; {
		v, n := protowire.ConsumeFixed32(b)
		if n < 0 {
			return nil, malformed("packed floats: %v", protowire.ParseError(n))
		}
		var err error
		if list, err = grow(list, math.Float32frombits(v), limit, "floats"); err != nil {
			return nil, err
		}
		b = b[n:]
	}
	return list, nil
}

func doubles(list []float64, f field, limit int) ([]float64, error) {
	if f.typ == protowire.Fixed64Type {
		return grow(list, math.Float64frombits(f.n), limit, "doubles")
	}
	if err := f.want(protowire.BytesType); err != nil {
		return nil, err
	}
	for b := f.bytes; len(b) > 0; {
		v, n := protowire.ConsumeFixed64(b)
		if n < 0 {
			return nil, malformed("packed doubles: %v", protowire.ParseError(n))
		}
		var err error
		if list, err = grow(list, math.Float64frombits(v), limit, "doubles"); err != nil {
			return nil, err
		}
		b = b[n:]
	}
	return list, nil
}

func ints(list []int64, f field, limit int) ([]int64, error) {
	if f.typ == protowire.VarintType {
		return grow(list, int64(f.n), limit, "integers")
	}
	if err := f.want(protowire.BytesType); err != nil {
		return nil, err
	}
	for b := f.bytes; len(b) > 0; {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return nil, malformed("packed integers: %v", protowire.ParseError(n))
		}
		var err error
		if list, err = grow(list, int64(v), limit, "integers"); err != nil {
			return nil, err
		}
		b = b[n:]
	}
	return list, nil
}
