package onnx

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
)

// one compiles a graph of a single node whose inputs in0, in1, … are graph
// inputs, except those in konst, which are initializers.
func one(op string, opset int64, in []Tensor, konst map[int]bool, attrs ...Attribute) (*Program, []Tensor, error) {
	m := &Model{Opsets: []Opset{{Version: opset}}}
	n := Node{Op: op, Name: "n", Outputs: []string{"out"}, Attributes: attrs}
	var given []Tensor
	for i, t := range in {
		if t.Data == nil {
			n.Inputs = append(n.Inputs, "")
			continue
		}
		t.Name = "in" + string(rune('0'+i))
		n.Inputs = append(n.Inputs, t.Name)
		if konst[i] {
			m.Graph.Initializers = append(m.Graph.Initializers, t)
			continue
		}
		given = append(given, t)
		dims := make([]Dim, len(t.Shape))
		for j := range dims {
			dims[j] = Dim{Size: -1}
		}
		m.Graph.Inputs = append(m.Graph.Inputs, ValueInfo{Name: t.Name, Type: t.Type, Dims: dims})
	}
	m.Graph.Nodes = []Node{n}
	m.Graph.Outputs = []ValueInfo{{Name: "out"}}
	p, err := Compile(m, Limits{})
	return p, given, err
}

func f32(shape []int64, v ...float32) Tensor { return New("", shape, v) }
func i64(v ...int64) Tensor                  { return New("", []int64{int64(len(v))}, v) }
func intAttr(name string, v int64) Attribute { return Attribute{Name: name, Type: AttrInt, I: v} }
func dims(v ...int64) []int64                { return v }
func floatAttr(name string, v float32) Attribute {
	return Attribute{Name: name, Type: AttrFloat, F: v}
}
func intsAttr(name string, v ...int64) Attribute {
	return Attribute{Name: name, Type: AttrInts, Ints: v}
}

var inf = float32(math.Inf(1))

// vectors are results computed by hand from the operators' definitions.
var vectors = []struct {
	name  string
	op    string
	opset int64
	in    []Tensor
	attrs []Attribute
	want  Tensor
}{
	{"row bias", "Gemm", 17, []Tensor{f32(dims(2, 2), 1, 2, 3, 4), f32(dims(2, 2), 1, 0, 1, 1), f32(dims(2), 10, 20)}, nil, f32(dims(2, 2), 13, 22, 17, 24)},
	{"transB alpha beta", "Gemm", 17, []Tensor{f32(dims(1, 2), 1, 2), f32(dims(3, 2), 1, 1, 2, 0, 0, 3), f32(dims(1), 4)},
		[]Attribute{intAttr("transB", 1), floatAttr("alpha", 2), floatAttr("beta", .5)}, f32(dims(1, 3), 8, 6, 14)},
	{"transA column bias", "Gemm", 17, []Tensor{f32(dims(1, 2), 1, 2), f32(dims(1, 2), 3, 4), f32(dims(2, 1), 1, 2)},
		[]Attribute{intAttr("transA", 1)}, f32(dims(2, 2), 4, 5, 8, 10)},
	{"matrix", "MatMul", 17, []Tensor{f32(dims(1, 2), 1, 2), f32(dims(2, 2), 1, 2, 3, 4)}, nil, f32(dims(1, 2), 7, 10)},
	{"vectors", "MatMul", 17, []Tensor{f32(dims(2), 1, 2), f32(dims(2), 3, 4)}, nil, f32(dims(), 11)},
	{"batches broadcast", "MatMul", 17, []Tensor{f32(dims(2, 1, 1, 1), 2, 3), f32(dims(2, 1, 2), 1, 2, 3, 4)}, nil,
		f32(dims(2, 2, 1, 2), 2, 4, 6, 8, 3, 6, 9, 12)},
	{"three-dimensional by matrix", "MatMul", 17, []Tensor{f32(dims(2, 1, 2), 1, 2, 3, 4), f32(dims(2, 1), 1, 10)}, nil, f32(dims(2, 1, 1), 21, 43)},
	{"row and column", "Add", 17, []Tensor{f32(dims(2, 1), 1, 2), f32(dims(3), 10, 20, 30)}, nil, f32(dims(2, 3), 11, 21, 31, 12, 22, 32)},
	{"scalar", "Sub", 17, []Tensor{f32(dims(), 1), f32(dims(2), 1, 3)}, nil, f32(dims(2), 0, -2)},
	{"middle", "Mul", 17, []Tensor{f32(dims(2, 1, 2), 1, 2, 3, 4), f32(dims(2, 1), 1, 10)}, nil, f32(dims(2, 2, 2), 1, 2, 10, 20, 3, 4, 30, 40)},
	{"by zero", "Div", 17, []Tensor{f32(dims(2), 1, -1), f32(dims(), 0)}, nil, f32(dims(2), inf, -inf)},
	{"power", "Pow", 17, []Tensor{f32(dims(2), 2, 3), i64(3)}, nil, f32(dims(2), 8, 27)},
	{"negative slope", "LeakyRelu", 17, []Tensor{f32(dims(2), -2, 2)}, []Attribute{floatAttr("alpha", .5)}, f32(dims(2), -1, 2)},
	{"rectify", "Relu", 17, []Tensor{f32(dims(3), -1, 0, 2)}, nil, f32(dims(3), 0, 0, 2)},
	{"far out", "Sigmoid", 17, []Tensor{f32(dims(3), -200, 0, 200)}, nil, f32(dims(3), 0, .5, 1)},
	{"far out", "Tanh", 17, []Tensor{f32(dims(3), -100, 0, 100)}, nil, f32(dims(3), -1, 0, 1)},
	{"range", "Exp", 17, []Tensor{f32(dims(4), -200, 0, 1, 200)}, nil, f32(dims(4), 0, 1, math.E, inf)},
	{"large", "Softmax", 17, []Tensor{f32(dims(2, 2), 1000, 1000, 0, -1000)}, nil, f32(dims(2, 2), .5, .5, 1, 0)},
	{"old form is one row", "Softmax", 11, []Tensor{f32(dims(1, 2, 2), 3, 3, 3, 3)}, nil, f32(dims(1, 2, 2), .25, .25, .25, .25)},
	{"along axis 1", "Softmax", 13, []Tensor{f32(dims(1, 2, 2), 3, 3, 3, 3)}, []Attribute{intAttr("axis", 1)}, f32(dims(1, 2, 2), .5, .5, .5, .5)},
	{"uniform", "LogSoftmax", 17, []Tensor{f32(dims(1, 2), 7, 7)}, nil, f32(dims(1, 2), -math.Ln2, -math.Ln2)},
	{"copy and infer", "Reshape", 17, []Tensor{f32(dims(2, 1, 2), 1, 2, 3, 4), i64(0, -1)}, nil, f32(dims(2, 2), 1, 2, 3, 4)},
	{"to axis", "Flatten", 17, []Tensor{f32(dims(1, 2, 2), 1, 2, 3, 4)}, []Attribute{intAttr("axis", 2)}, f32(dims(2, 2), 1, 2, 3, 4)},
	{"reversed", "Transpose", 17, []Tensor{f32(dims(2, 3), 1, 2, 3, 4, 5, 6)}, nil, f32(dims(3, 2), 1, 4, 2, 5, 3, 6)},
	{"last", "Concat", 17, []Tensor{f32(dims(2, 1), 1, 2), f32(dims(2, 2), 3, 4, 5, 6)}, []Attribute{intAttr("axis", -1)}, f32(dims(2, 3), 1, 3, 4, 2, 5, 6)},
	{"axes as attribute", "Squeeze", 11, []Tensor{f32(dims(1, 2, 1), 1, 2)}, []Attribute{intsAttr("axes", 0)}, f32(dims(2, 1), 1, 2)},
	{"axes as input", "Unsqueeze", 13, []Tensor{f32(dims(2), 1, 2), i64(0, -1)}, nil, f32(dims(1, 2, 1), 1, 2)},
	{"first of equals", "ArgMax", 17, []Tensor{f32(dims(2, 3), 1, 5, 5, 9, 2, 3)}, []Attribute{intAttr("axis", 1), intAttr("keepdims", 0)}, i64(1, 0)},
	{"bounds as attributes", "Clip", 7, []Tensor{f32(dims(3), -5, 0, 5)}, []Attribute{floatAttr("min", -1), floatAttr("max", 1)}, f32(dims(3), -1, 0, 1)},
	{"lower bound omitted", "Clip", 17, []Tensor{f32(dims(2), -5, 5), {}, f32(dims(), 1)}, nil, f32(dims(2), -5, 1)},
	{"columns", "ReduceMean", 13, []Tensor{f32(dims(2, 2), 1, 2, 3, 4)}, []Attribute{intsAttr("axes", 0), intAttr("keepdims", 0)}, f32(dims(2), 2, 3)},
	{"axes as input", "ReduceMean", 18, []Tensor{f32(dims(2, 2), 1, 2, 3, 4), i64(1)}, nil, f32(dims(2, 1), 1.5, 3.5)},
	{"all", "ReduceSum", 13, []Tensor{f32(dims(2, 2), 1, 2, 3, 4)}, nil, f32(dims(1, 1), 10)},
	{"truncates", "Cast", 17, []Tensor{f32(dims(3), -1.9, 1.9, 3)}, []Attribute{intAttr("to", int64(Int64))}, i64(-1, 1, 3)},
	{"negative index", "Gather", 17, []Tensor{f32(dims(3), 1, 2, 3), i64(-1, 0)}, nil, f32(dims(2), 3, 1)},
	{"whole", "Shape", 17, []Tensor{f32(dims(2, 1), 1, 2)}, nil, i64(2, 1)},
	{"channels", "BatchNormalization", 15, []Tensor{f32(dims(1, 2), 3, 5), f32(dims(2), 2, 1), f32(dims(2), 0, 1), f32(dims(2), 1, 5), f32(dims(2), 4, 1)},
		[]Attribute{floatAttr("epsilon", 0)}, f32(dims(1, 2), 2, 1)},
	{"passes", "Dropout", 13, []Tensor{f32(dims(2), 1, 2)}, nil, f32(dims(2), 1, 2)},
	{"keeps", "Identity", 17, []Tensor{i64(4, 5)}, nil, i64(4, 5)},
	{"most negative", "Abs", 17, []Tensor{f32(dims(2), -3, 0)}, nil, f32(dims(2), 3, 0)},
	{"tanh form", "Gelu", 20, []Tensor{f32(dims(2), 0, 1)}, []Attribute{{Name: "approximate", Type: AttrString, S: []byte("tanh")}}, f32(dims(2), 0, .8411920)},
}

func TestVectors(t *testing.T) {
	for _, v := range vectors {
		// With every input dynamic, and with all but the first constant:
		// different kernels, and different checks at compile time.
		for _, konst := range []map[int]bool{nil, {1: true, 2: true, 3: true, 4: true}} {
			p, in, err := one(v.op, v.opset, v.in, konst, v.attrs...)
			if err != nil {
				t.Errorf("%s %s: %v", v.op, v.name, err)
				continue
			}
			// Twice: the second run reuses the first one's memory.
			for range 2 {
				out, err := p.Run(context.Background(), in)
				if err == nil {
					err = compare(out[0], v.want)
				}
				if err != nil {
					t.Errorf("%s %s, constants %v: %v", v.op, v.name, konst, err)
				}
			}
		}
	}
}

func TestRefused(t *testing.T) {
	a, b := f32(dims(2, 3), 1, 2, 3, 4, 5, 6), f32(dims(2, 2), 1, 2, 3, 4)
	for _, c := range []struct {
		name  string
		op    string
		opset int64
		in    []Tensor
		attrs []Attribute
		want  error
	}{
		{"unknown operator", "Conv", 17, []Tensor{a, b}, nil, ErrUnsupported},
		{"old opset", "Add", 6, []Tensor{b, b}, nil, ErrUnsupported},
		{"new opset", "Add", 99, []Tensor{b, b}, nil, ErrUnsupported},
		{"inner dimensions", "Gemm", 17, []Tensor{a, b}, nil, ErrShape},
		{"broadcast", "Add", 17, []Tensor{a, b}, nil, ErrShape},
		{"types", "Add", 17, []Tensor{a, i64(1)}, nil, ErrShape},
		{"too few inputs", "Add", 17, []Tensor{a}, nil, ErrMalformed},
		{"omitted input", "Add", 17, []Tensor{a, {}}, nil, ErrMalformed},
		{"attribute type", "Flatten", 17, []Tensor{a}, []Attribute{floatAttr("axis", 1)}, ErrMalformed},
		{"axis", "Softmax", 17, []Tensor{a}, []Attribute{intAttr("axis", 2)}, ErrShape},
		{"element count", "Reshape", 17, []Tensor{a, i64(4)}, nil, ErrShape},
		{"huge shape", "Reshape", 17, []Tensor{a, i64(1<<40, 1<<40)}, nil, ErrLimit},
		{"permutation", "Transpose", 17, []Tensor{a}, []Attribute{intsAttr("perm", 0, 0)}, ErrShape},
		{"integer division", "Div", 17, []Tensor{i64(1), i64(0)}, nil, ErrShape},
		{"index", "Gather", 17, []Tensor{a, i64(2)}, nil, ErrShape},
		{"training", "Dropout", 13, []Tensor{a, f32(dims(), .5), New("", dims(), []bool{true})}, nil, ErrUnsupported},
		{"cast to text", "Cast", 17, []Tensor{a}, []Attribute{intAttr("to", int64(String))}, ErrUnsupported},
	} {
		for _, konst := range []map[int]bool{{1: true, 2: true}, {0: true, 1: true, 2: true}} {
			p, in, err := one(c.op, c.opset, c.in, konst, c.attrs...)
			if err == nil {
				_, err = p.Run(context.Background(), in)
			}
			if !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", c.name, err, c.want)
			}
			if err != nil && !errors.Is(err, ErrUnsupported) && !strings.Contains(err.Error(), "node n") {
				t.Errorf("%s: %v does not name the node", c.name, err)
			}
		}
	}
}

func TestExp32(t *testing.T) {
	for x := float32(-88); x < 89; x += 0.0137 {
		want := math.Exp(float64(x))
		if want < 1.2e-38 || want > math.MaxFloat32 {
			continue
		}
		if rel := math.Abs(float64(exp32(x))-want) / want; rel > 3e-7 {
			t.Fatalf("exp32(%v) = %v, relative error %v", x, exp32(x), rel)
		}
	}
	for x := float32(-12); x < 12; x += 0.0037 {
		if d := math.Abs(float64(tanh32(x)) - math.Tanh(float64(x))); d > 2e-7 {
			t.Fatalf("tanh32(%v) is off by %v", x, d)
		}
	}
	if nan := float32(math.NaN()); exp32(nan) == exp32(nan) {
		t.Error("exp32(NaN) is a number")
	}
}

func TestHalf(t *testing.T) {
	for h := range 1 << 16 {
		f := fromHalf(uint16(h))
		if f != f {
			continue
		}
		if got := toHalf(f); got != uint16(h) {
			t.Fatalf("%#04x became %v and %#04x", h, f, got)
		}
	}
	for f, want := range map[float32]uint16{65519: 0x7bff, 65520: 0x7c00, 1e-8: 0, 0.1: 0x2e66, -inf: 0xfc00} {
		if got := toHalf(f); got != want {
			t.Errorf("toHalf(%v) = %#04x, want %#04x", f, got, want)
		}
	}
}
