package onnx

import (
	"cmp"
	"fmt"
	"slices"
)

// Opsets of the default domain that Compile takes. Most operators are
// understood since baseOpset, when broadcasting got its present form; the few
// that have not changed since are taken from older models too.
const (
	MinOpset  = 1
	MaxOpset  = 28
	baseOpset = 7
)

// meta is what is known of a value before a run.
type meta struct {
	typ   DType
	shape []int  // -1 where unknown; meaningful only if ranked
	rank  bool   // whether the rank is known
	konst *value // the value itself, when it is an initializer
}

func ranked(t DType, shape ...int) meta { return meta{typ: t, shape: shape, rank: true} }

// Compile checks a model and prepares it for running: names, order, types and,
// as far as they are static, shapes. Errors wrap ErrMalformed, ErrUnsupported,
// ErrShape or ErrLimit and name the node. The Program shares the model's
// initializers, which must not be changed afterwards.
func Compile(m *Model, lim Limits) (*Program, error) {
	c := &compiler{
		lim:   lim.WithDefaults(),
		graph: &m.Graph,
		slots: map[string]int{},
		prog:  &Program{},
	}
	if err := c.opsets(m.Opsets); err != nil {
		return nil, err
	}
	if err := c.values(); err != nil {
		return nil, err
	}
	if len(c.graph.Nodes) > c.lim.MaxNodes {
		return nil, overLimit("%d nodes, at most %d", len(c.graph.Nodes), c.lim.MaxNodes)
	}
	for i := range c.graph.Nodes {
		if err := c.node(i); err != nil {
			return nil, fmt.Errorf("%s: %w", label(&c.graph.Nodes[i], i), err)
		}
	}
	if err := c.outputs(); err != nil {
		return nil, err
	}
	c.prog.finish(c)
	return c.prog, nil
}

type compiler struct {
	lim   Limits
	graph *Graph
	opset int64
	slots map[string]int // value name -> slot
	metas []meta         // by slot
	prog  *Program
}

func label(n *Node, i int) string {
	return fmt.Sprintf("node %s (%s)", cmp.Or(n.Name, fmt.Sprint("#", i)), n.Op)
}

func defaultDomain(d string) bool { return d == "" || d == "ai.onnx" }

func (c *compiler) opsets(list []Opset) error {
	for _, o := range list {
		if defaultDomain(o.Domain) {
			c.opset = max(c.opset, o.Version)
		}
	}
	if len(list) == 0 {
		c.opset = DefaultOpset
	}
	if c.opset < MinOpset || c.opset > MaxOpset {
		return unsupported("opset %d of the default domain, expected %d to %d", c.opset, MinOpset, MaxOpset)
	}
	return nil
}

// define gives a new value a slot. Names are assigned once in ONNX.
func (c *compiler) define(name string, m meta) (int, error) {
	if name == "" {
		return 0, malformed("value without a name")
	}
	if _, taken := c.slots[name]; taken {
		return 0, malformed("value %q is defined twice", name)
	}
	slot := len(c.metas)
	c.slots[name] = slot
	c.metas = append(c.metas, m)
	return slot, nil
}

// values defines initializers and inputs. Before IR version 4 initializers
// were also listed as inputs; they are constants here all the same.
func (c *compiler) values() error {
	for i := range c.graph.Initializers {
		t := &c.graph.Initializers[i]
		if err := t.check(c.lim); err != nil {
			return fmt.Errorf("initializer %q: %w", t.Name, err)
		}
		v := valueOf(t)
		if _, err := c.define(t.Name, meta{typ: t.Type, shape: v.shape, rank: true, konst: v}); err != nil {
			return err
		}
	}
	symbols := map[string]int{}
	for _, v := range c.graph.Inputs {
		if slot, ok := c.slots[v.Name]; ok && c.metas[slot].konst != nil {
			continue
		}
		if v.Type.width() == 0 {
			return unsupported("input %q of type %v", v.Name, v.Type)
		}
		in := input{info: v}
		m := meta{typ: v.Type, rank: v.Dims != nil}
		for _, d := range v.Dims {
			if d.Size > c.lim.MaxElements {
				return overLimit("input %q of shape %v", v.Name, v.Shape())
			}
			symbol := -1
			if d.Size < 0 && d.Param != "" {
				s, ok := symbols[d.Param]
				if !ok {
					s = len(symbols)
					symbols[d.Param] = s
				}
				symbol = s
			}
			in.symbols = append(in.symbols, symbol)
			m.shape = append(m.shape, int(max(d.Size, -1)))
		}
		var err error
		if in.slot, err = c.define(v.Name, m); err != nil {
			return err
		}
		c.prog.inputs = append(c.prog.inputs, in)
	}
	c.prog.symbols = len(symbols)
	return nil
}

func (c *compiler) node(i int) error {
	n := &c.graph.Nodes[i]
	op, ok := operators[n.Op]
	if !ok || !defaultDomain(n.Domain) {
		if n.Domain != "" {
			return unsupported("operator %s of domain %s", n.Op, n.Domain)
		}
		return unsupported("operator %s", n.Op)
	}
	if since := cmp.Or(op.since, baseOpset); c.opset < since {
		return unsupported("operator %s before opset %d", n.Op, since)
	}
	if len(n.Inputs) < op.minIn || len(n.Inputs) > op.maxIn {
		return malformed("%d inputs, expected %d to %d", len(n.Inputs), op.minIn, op.maxIn)
	}
	if len(n.Outputs) < 1 || len(n.Outputs) > max(op.maxOut, 1) {
		return malformed("%d outputs, expected 1 to %d", len(n.Outputs), max(op.maxOut, 1))
	}
	if n.Outputs[0] == "" {
		return malformed("the first output has no name")
	}
	b := &builder{c: c, node: n, opset: c.opset}
	for i, name := range n.Inputs {
		slot := -1
		if name != "" {
			if slot, ok = c.slots[name]; !ok {
				return malformed("input %q is not defined by any earlier node", name)
			}
		} else if i < op.minIn {
			return malformed("input %d is missing", i)
		}
		b.in = append(b.in, slot)
	}
	for range n.Outputs {
		b.outMeta = append(b.outMeta, meta{})
	}
	// Slots are handed out before the kernel is built but are defined only
	// afterwards: a node cannot use its own output.
	next := len(c.metas)
	for i, name := range n.Outputs {
		if name == "" {
			b.out = append(b.out, -1)
			continue
		}
		b.out = append(b.out, next)
		next++
		if i > 0 && slices.Contains(n.Outputs[:i], name) {
			return malformed("output %q is named twice", name)
		}
	}
	k, err := op.build(b)
	if err != nil {
		return err
	}
	for i, name := range n.Outputs {
		if name == "" {
			continue
		}
		if _, err := c.define(name, b.outMeta[i]); err != nil {
			return err
		}
	}
	if k == nil { // a constant: its value is in the slot already
		return nil
	}
	c.prog.steps = append(c.prog.steps, step{kernel: k, label: label(n, i)})
	return nil
}

func (c *compiler) outputs() error {
	if len(c.graph.Outputs) == 0 {
		return malformed("the graph has no outputs")
	}
	for _, v := range c.graph.Outputs {
		slot, ok := c.slots[v.Name]
		if !ok {
			return malformed("output %q is not defined by any node", v.Name)
		}
		m := c.metas[slot]
		if v.Type != Undefined && v.Type != m.typ {
			return mismatch("output %q is declared %v but computed as %v", v.Name, v.Type, m.typ)
		}
		if v.Type = m.typ; v.Dims == nil && m.rank {
			v.Dims = []Dim{}
			for _, d := range m.shape {
				v.Dims = append(v.Dims, Dim{Size: int64(d)})
			}
		}
		if m.rank && !agree(v.Dims, m.shape) {
			return mismatch("output %q is declared %v but computed as %v", v.Name, v.Shape(), m.shape)
		}
		c.prog.outputs = append(c.prog.outputs, output{info: v, slot: slot})
	}
	return nil
}

func agree(dims []Dim, shape []int) bool {
	if len(dims) != len(shape) {
		return false
	}
	for i, d := range dims {
		if d.Size >= 0 && shape[i] >= 0 && d.Size != int64(shape[i]) {
			return false
		}
	}
	return true
}
