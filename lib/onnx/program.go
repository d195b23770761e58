package onnx

import (
	"context"
	"fmt"
	"sync"
)

// Program is a compiled model. It is immutable and safe for concurrent use.
type Program struct {
	inputs  []input
	outputs []output
	steps   []step
	symbols int
	consts  []*value // by slot, nil where computed
	lim     Limits
	frames  sync.Pool // of *frame
	bytes   int64
}

type input struct {
	info    ValueInfo
	slot    int
	symbols []int // per dimension, -1 for none
}

type output struct {
	info ValueInfo
	slot int
}

type step struct {
	kernel kernel
	label  string
}

func (p *Program) finish(c *compiler) {
	p.lim = c.lim
	for _, m := range c.metas {
		p.consts = append(p.consts, m.konst)
		if m.konst != nil {
			p.bytes += int64(size(m.konst.shape)) * int64(m.typ.width())
		}
	}
	p.frames.New = func() any { return p.newFrame() }
}

// Inputs lists what Run takes. The caller must not change it.
func (p *Program) Inputs() []ValueInfo {
	infos := make([]ValueInfo, len(p.inputs))
	for i := range p.inputs {
		infos[i] = p.inputs[i].info
	}
	return infos
}

// Outputs lists what Run returns. The caller must not change it.
func (p *Program) Outputs() []ValueInfo {
	infos := make([]ValueInfo, len(p.outputs))
	for i := range p.outputs {
		infos[i] = p.outputs[i].info
	}
	return infos
}

// WeightBytes is the size of the initializers.
func (p *Program) WeightBytes() int64 { return p.bytes }

// Run computes all outputs, in the order of Outputs, from the inputs, which
// may come in any order. It neither changes nor keeps the inputs; the outputs
// belong to the caller. Errors wrap ErrInput, ErrShape or ErrLimit, or are the
// context's.
func (p *Program) Run(ctx context.Context, in []Tensor) ([]Tensor, error) {
	f := p.frames.Get().(*frame)
	defer p.release(f)
	f.ctx = ctx
	f.budget = p.lim.MaxRunElements
	f.most = min(p.lim.MaxElements, 1<<31-1)
	if err := p.bind(f, in); err != nil {
		return nil, err
	}
	for i := range p.steps {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := p.steps[i].kernel(f); err != nil {
			return nil, fmt.Errorf("%s: %w", p.steps[i].label, err)
		}
	}
	out := make([]Tensor, len(p.outputs))
	for i := range p.outputs {
		o := &p.outputs[i]
		out[i] = f.vals[o.slot].tensor(o.info.Name, o.info.Type)
	}
	return out, nil
}

// bind puts the inputs into the frame.
func (p *Program) bind(f *frame, in []Tensor) error {
	for i := range f.symbols {
		f.symbols[i] = -1
	}
	if len(in) != len(p.inputs) {
		return fmt.Errorf("%w: %d inputs, expected %d", ErrInput, len(in), len(p.inputs))
	}
	for i := range p.inputs {
		want := &p.inputs[i]
		t := lookup(in, want.info.Name)
		if t == nil {
			return fmt.Errorf("%w: %q is missing", ErrInput, want.info.Name)
		}
		if t.Type != want.info.Type {
			return fmt.Errorf("%w: %q is %v, expected %v", ErrInput, t.Name, t.Type, want.info.Type)
		}
		if err := t.check(p.lim); err != nil {
			return fmt.Errorf("%w: %q: %w", ErrInput, t.Name, err)
		}
		if !f.matches(t.Shape, want) {
			return fmt.Errorf("%w: %q has shape %v, expected %v", ErrInput, t.Name, t.Shape, want.info.Shape())
		}
		f.vals[want.slot].load(t)
	}
	return nil
}

// matches compares a shape with what is declared and binds symbols, so that
// dimensions of one symbol are equal across inputs.
func (f *frame) matches(shape []int64, want *input) bool {
	if want.info.Dims == nil {
		return true
	}
	if len(shape) != len(want.info.Dims) {
		return false
	}
	for i, d := range shape {
		if size := want.info.Dims[i].Size; size >= 0 && d != size {
			return false
		}
		s := want.symbols[i]
		if s < 0 {
			continue
		}
		if f.symbols[s] < 0 {
			f.symbols[s] = d
		}
		if f.symbols[s] != d {
			return false
		}
	}
	return true
}

func lookup(in []Tensor, name string) *Tensor {
	for i := range in {
		if in[i].Name == name {
			return &in[i]
		}
	}
	return nil
}
