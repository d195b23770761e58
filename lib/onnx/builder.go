package onnx

import "maps"

// kernel computes a node's outputs in a frame. It must write every element of
// what it allocates there: scratch memory keeps the contents of earlier runs.
type kernel func(f *frame) error

// operator says how to build the kernel of a node.
type operator struct {
	since        int64 // first opset whose form of the operator is understood; 0 means baseOpset
	minIn, maxIn int
	maxOut       int // 0 means 1
	build        func(b *builder) (kernel, error)
}

// many is maxIn of a variadic operator.
const many = 1 << 30

// operators is every operator of the default domain that Compile knows.
var operators = merge(arithmeticOps, activationOps, matrixOps, shapeOps, moveOps, reduceOps, castOps, normOps)

func merge(lists ...map[string]operator) map[string]operator {
	all := map[string]operator{}
	for _, l := range lists {
		maps.Copy(all, l)
	}
	return all
}

// builder is what a build function sees of its node.
type builder struct {
	c       *compiler
	node    *Node
	opset   int64
	in, out []int // slots, -1 where omitted
	outMeta []meta
}

// has says whether optional input i is given.
func (b *builder) has(i int) bool { return i < len(b.in) && b.in[i] >= 0 }

// slot is the slot of input i, -1 when it is omitted.
func (b *builder) slot(i int) int {
	if !b.has(i) {
		return -1
	}
	return b.in[i]
}

func (b *builder) meta(i int) meta {
	if !b.has(i) {
		return meta{}
	}
	return b.c.metas[b.in[i]]
}

func (b *builder) set(i int, m meta) {
	m.konst = nil
	if i < len(b.outMeta) {
		b.outMeta[i] = m
	}
}

func (b *builder) attr(name string, t AttributeType) (*Attribute, error) {
	for i := range b.node.Attributes {
		a := &b.node.Attributes[i]
		if a.Name != name {
			continue
		}
		// Files of the first IR versions leave the type out.
		if a.Type != t && a.Type != 0 || a.Raw != nil {
			return nil, malformed("attribute %q has type %d, expected %d", name, a.Type, t)
		}
		return a, nil
	}
	return nil, nil
}

func (b *builder) int(name string, def int) (int, error) {
	a, err := b.attr(name, AttrInt)
	if a == nil || err != nil {
		return def, err
	}
	return int(a.I), nil
}

func (b *builder) float(name string, def float32) (float32, error) {
	a, err := b.attr(name, AttrFloat)
	if a == nil || err != nil {
		return def, err
	}
	return a.F, nil
}

// ints returns nil when the attribute is absent.
func (b *builder) ints(name string) ([]int, error) {
	a, err := b.attr(name, AttrInts)
	if a == nil || err != nil {
		return nil, err
	}
	return toInts(a.Ints), nil
}

// floatOnly refuses inputs that are neither float32 nor float64, or differ.
func (b *builder) floatOnly() (DType, error) {
	t := b.meta(0).typ
	if t != Float32 && t != Float64 {
		return t, unsupported("element type %v", t)
	}
	return t, b.sameType(0)
}

// sameType demands that all given inputs from the first on have one type.
func (b *builder) sameType(first int) error {
	t := b.meta(first).typ
	for i := first + 1; i < len(b.in); i++ {
		if b.has(i) && b.meta(i).typ != t {
			return mismatch("input %d is %v, expected %v", i, b.meta(i).typ, t)
		}
	}
	return nil
}

// int64s demands that input i, if given, holds int64.
func (b *builder) int64s(i int) error {
	if t := b.meta(i).typ; b.has(i) && t != Int64 {
		return mismatch("input %d is %v, expected int64", i, t)
	}
	return nil
}

// intsInput is a list that is an attribute in old opsets and input i since
// `since`. When it is known now, known is true and the list is returned, nil
// when it is absent; else it must be read from slot while running.
func (b *builder) intsInput(name string, i int, since int64) (list []int, known bool, slot int, err error) {
	if b.opset < since {
		list, err = b.ints(name)
		return list, true, -1, err
	}
	if !b.has(i) {
		return nil, true, -1, nil
	}
	if err := b.int64s(i); err != nil {
		return nil, false, -1, err
	}
	if k := b.meta(i).konst; k != nil {
		return toInts(get[int64](k)), true, -1, nil
	}
	return nil, false, b.in[i], nil
}

func toInts(v []int64) []int {
	out := make([]int, len(v))
	for i, x := range v {
		out[i] = int(x)
	}
	return out
}
