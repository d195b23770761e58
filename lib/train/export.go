package train

import (
	"fmt"
	"slices"

	"github.com/edgetwin/sedna/lib/onnx"
)

// ExportOptions names what an exported model shows. Zero fields mean the
// defaults.
type ExportOptions struct {
	Name   string // of the graph; default "mlp"
	Input  string // default "input", shape [batch, features]
	Output string // class probabilities, shape [batch, classes]; default "probabilities"
	// Label, if not empty, names a second output: the most probable class as
	// int64, shape [batch].
	Label    string
	Metadata map[string]string
}

// Export makes an ONNX model that computes Probabilities. It shares no memory
// with the network.
func (n *Network) Export(opts ExportOptions) *onnx.Model {
	set := func(s *string, def string) {
		if *s == "" {
			*s = def
		}
	}
	set(&opts.Name, "mlp")
	set(&opts.Input, "input")
	set(&opts.Output, "probabilities")
	g := onnx.Graph{
		Name:    opts.Name,
		Inputs:  []onnx.ValueInfo{{Name: opts.Input, Type: onnx.Float32, Dims: onnx.Batched(int64(n.Features()))}},
		Outputs: []onnx.ValueInfo{{Name: opts.Output, Type: onnx.Float32, Dims: onnx.Batched(int64(n.Classes()))}},
	}
	add := func(op, name, out string, attrs []onnx.Attribute, in ...string) {
		g.Nodes = append(g.Nodes, onnx.Node{Op: op, Name: name, Inputs: in, Outputs: []string{out}, Attributes: attrs})
	}
	constant := func(name string, v []float32, shape ...int64) {
		g.Initializers = append(g.Initializers, onnx.New(name, shape, slices.Clone(v)))
	}
	last := opts.Input
	if n.Front != nil {
		constant("sedna.front.weight", n.Front, int64(n.Features()), int64(n.Layers[0].In))
		add("MatMul", "front", "sedna.front", nil, last, "sedna.front.weight")
		last = "sedna.front"
	}
	for i, l := range n.Layers {
		layer := fmt.Sprintf("sedna.layer%d", i)
		constant(layer+".weight", l.W, int64(l.In), int64(l.Out))
		constant(layer+".bias", l.B, int64(l.Out))
		add("Gemm", fmt.Sprint("layer", i), layer, nil, last, layer+".weight", layer+".bias")
		last = layer
		if i < len(n.Layers)-1 {
			add("Relu", fmt.Sprint("relu", i), layer+".relu", nil, last)
			last = layer + ".relu"
		}
	}
	axis := func(v int64) onnx.Attribute { return onnx.Attribute{Name: "axis", Type: onnx.AttrInt, I: v} }
	add("Softmax", "softmax", opts.Output, []onnx.Attribute{axis(1)}, last)
	if opts.Label != "" {
		drop := onnx.Attribute{Name: "keepdims", Type: onnx.AttrInt}
		add("ArgMax", "argmax", opts.Label, []onnx.Attribute{axis(1), drop}, opts.Output)
		g.Outputs = append(g.Outputs, onnx.ValueInfo{Name: opts.Label, Type: onnx.Int64, Dims: onnx.Batched()})
	}
	return &onnx.Model{Producer: "sedna", Metadata: opts.Metadata, Graph: g}
}

// FromONNX makes a network of a model that is a chain of Gemm nodes with Relu
// between them, optionally after a MatMul by a constant (the fixed front) and
// before a Softmax and ArgMax: what Export writes, and what other frameworks
// write for such networks. Errors wrap ErrNotMLP and name the node.
func FromONNX(m *onnx.Model) (*Network, error) {
	r := &reader{weights: map[string]*onnx.Tensor{}, net: &Network{}}
	for i := range m.Graph.Initializers {
		t := &m.Graph.Initializers[i]
		r.weights[t.Name] = t
	}
	for _, in := range m.Graph.Inputs {
		if r.weights[in.Name] == nil && r.last == "" {
			r.last = in.Name
		}
	}
	for i := range m.Graph.Nodes {
		n := &m.Graph.Nodes[i]
		if err := r.node(n); err != nil {
			return nil, fmt.Errorf("%w: node %q (%s): %w", ErrNotMLP, n.Name, n.Op, err)
		}
	}
	if len(r.net.Layers) == 0 || r.rectified {
		return nil, fmt.Errorf("%w: it does not end in a dense layer", ErrNotMLP)
	}
	return r.net, nil
}

// reader follows the chain from the model's input.
type reader struct {
	weights   map[string]*onnx.Tensor
	last      string // value that the next node must take
	width     int    // of that value, 0 while unknown
	rectified bool   // the last node was a ReLU
	ended     bool   // softmax was seen
	net       *Network
}

func (r *reader) node(n *onnx.Node) error {
	if len(n.Inputs) == 0 || len(n.Outputs) == 0 || n.Inputs[0] != r.last {
		return fmt.Errorf("does not continue the chain")
	}
	if r.ended && n.Op != "ArgMax" {
		return fmt.Errorf("comes after the softmax")
	}
	switch n.Op {
	case "MatMul":
		if r.net.Front != nil || len(r.net.Layers) > 0 || len(n.Inputs) != 2 {
			return fmt.Errorf("only a first product may have no bias")
		}
		w, shape, err := r.matrix(n.Inputs[1])
		if err != nil {
			return err
		}
		r.net.Front, r.width = w, shape[1]
	case "Gemm":
		if err := r.gemm(n); err != nil {
			return err
		}
		r.rectified = false
	case "Relu":
		if len(r.net.Layers) == 0 || r.rectified {
			return fmt.Errorf("does not follow a dense layer")
		}
		r.rectified = true
	case "Softmax":
		r.ended = true
	case "ArgMax":
		return nil
	case "Identity", "Dropout", "Flatten":
	default:
		return fmt.Errorf("operator not expected here")
	}
	r.last = n.Outputs[0]
	return nil
}

func (r *reader) gemm(n *onnx.Node) error {
	if len(r.net.Layers) > 0 && !r.rectified {
		return fmt.Errorf("two dense layers without ReLU between")
	}
	transB := false
	for _, a := range n.Attributes {
		switch {
		case a.Name == "transB":
			transB = a.I != 0
		case a.Name == "transA" && a.I == 0, (a.Name == "alpha" || a.Name == "beta") && a.F == 1:
		default:
			return fmt.Errorf("attribute %s", a.Name)
		}
	}
	if len(n.Inputs) != 3 {
		return fmt.Errorf("no bias")
	}
	w, shape, err := r.matrix(n.Inputs[1])
	if err != nil {
		return err
	}
	l := Layer{In: shape[0], Out: shape[1], W: w}
	if transB {
		l.In, l.Out = l.Out, l.In
		l.W = make([]float32, len(w))
		for i := range l.In {
			for j := range l.Out {
				l.W[i*l.Out+j] = w[j*l.In+i]
			}
		}
	}
	b := r.weights[n.Inputs[2]]
	if b == nil || len(b.Float32s()) != l.Out {
		return fmt.Errorf("bias %q is no constant float32 vector of %d", n.Inputs[2], l.Out)
	}
	l.B = slices.Clone(b.Float32s())
	if r.width != 0 && r.width != l.In {
		return fmt.Errorf("takes %d values but gets %d", l.In, r.width)
	}
	r.width = l.Out
	r.net.Layers = append(r.net.Layers, l)
	return nil
}

// matrix copies a constant float32 matrix.
func (r *reader) matrix(name string) ([]float32, [2]int, error) {
	t := r.weights[name]
	if t == nil || len(t.Shape) != 2 || t.Shape[0] < 1 || t.Shape[1] < 1 || int64(len(t.Float32s())) != t.Shape[0]*t.Shape[1] {
		return nil, [2]int{}, fmt.Errorf("%q is no constant float32 matrix", name)
	}
	return slices.Clone(t.Float32s()), [2]int{int(t.Shape[0]), int(t.Shape[1])}, nil
}
