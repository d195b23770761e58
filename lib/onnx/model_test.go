package onnx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
)

// sample uses every field that Encode writes.
func sample() *Model {
	m := mlp(3, 4, 2)
	m.IRVersion, m.Opsets = 8, []Opset{{Version: 17}, {Domain: "ai.onnx.ml", Version: 2}}
	m.Producer, m.ProducerVersion, m.Domain, m.ModelVersion, m.Doc = "p", "1", "d", 3, "doc"
	m.Metadata = map[string]string{"b": "2", "a": "1", "labels": "x,y"}
	m.Graph.Doc = "graph"
	m.Graph.Values = []ValueInfo{{Name: "h1", Type: Float32, Dims: []Dim{{Size: -1}, {Size: 4}}}, {Name: "?"}}
	t := New("t", []int64{}, []float64{1.5})
	m.Graph.Nodes[1].Attributes = []Attribute{
		{Name: "f", Type: AttrFloat, F: 0.5}, {Name: "i", Type: AttrInt, I: -1}, {Name: "zero", Type: AttrInt},
		{Name: "s", Type: AttrString, S: []byte("text")}, {Name: "t", Type: AttrTensor, T: &t},
		{Name: "fs", Type: AttrFloats, Floats: []float32{1, 2}}, {Name: "is", Type: AttrInts, Ints: []int64{0, 300}},
		{Name: "ss", Type: AttrStrings, Strings: [][]byte{[]byte("a"), {}}},
	}
	return m
}

func TestRoundTrip(t *testing.T) {
	m := sample()
	for i, extra := range []Tensor{
		New("u8", []int64{2}, []uint8{1, 2}), New("i8", []int64{1}, []int8{-1}), New("u16", []int64{1}, []uint16{9}),
		New("i16", []int64{1}, []int16{-9}), New("i32", []int64{1}, []int32{-7}), New("u32", []int64{1}, []uint32{7}),
		New("u64", []int64{1}, []uint64{1 << 63}), New("i64", []int64{0}, []int64{}), New("b", []int64{2}, []bool{true, false}),
	} {
		extra.Name = fmt.Sprint("x", i)
		m.Graph.Initializers = append(m.Graph.Initializers, extra)
	}
	b, err := Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(b, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(m, got); diff != "" {
		t.Errorf("decoded model differs (-want +got):\n%s", diff)
	}
	for range 20 { // map order must not show
		if again, err := Encode(m); err != nil || !bytes.Equal(b, again) {
			t.Fatalf("encoding is not deterministic: %v", err)
		}
	}
}

func TestEncodeDefaults(t *testing.T) {
	b, err := Encode(mlp(2, 2))
	if err != nil {
		t.Fatal(err)
	}
	m, err := Decode(b, Limits{})
	if err != nil || m.IRVersion != 8 || len(m.Opsets) != 1 || m.Opsets[0].Version != 17 {
		t.Errorf("ir %d, opsets %v, %v", m.IRVersion, m.Opsets, err)
	}
	bad := mlp(2, 2)
	bad.Graph.Initializers[0].Data = []float32{1}
	if _, err := Encode(bad); !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), `"w1"`) {
		t.Errorf("wrong element count: %v", err)
	}
}

// TestTensorFields reads the typed lists that exporters use instead of raw
// data, packed and not.
func TestTensorFields(t *testing.T) {
	head := func(typ DType, dims ...uint64) []byte {
		var b []byte
		for _, d := range dims {
			b = protowire.AppendVarint(protowire.AppendTag(b, 1, protowire.VarintType), d)
		}
		return protowire.AppendVarint(protowire.AppendTag(b, 2, protowire.VarintType), uint64(typ))
	}
	packed := func(b []byte, num protowire.Number, payload ...byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), payload)
	}
	minusOne := protowire.AppendVarint(nil, ^uint64(0))
	for _, c := range []struct {
		name string
		b    []byte
		want any
	}{
		{"packed floats", packed(head(Float32, 1), 4, 0, 0, 0x80, 0x3f), []float32{1}},
		{"single float", protowire.AppendFixed32(protowire.AppendTag(head(Float32, 1), 4, protowire.Fixed32Type), 0x3f800000), []float32{1}},
		{"doubles", packed(head(Float64, 1), 10, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f), []float64{1}},
		{"bool in int32", packed(head(Bool, 2), 5, 0, 1), []bool{false, true}},
		{"int8 in int32", packed(head(Int8, 1), 5, minusOne...), []int8{-1}},
		{"half in int32", packed(head(Float16, 1), 5, 0x80, 0x78), []uint16{0x3c00}},
		{"int64", packed(head(Int64, 1), 7, minusOne...), []int64{-1}},
		{"uint64", packed(head(Uint64, 1), 11, minusOne...), []uint64{1<<64 - 1}},
	} {
		got, err := DecodeTensor(c.b, Limits{})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if diff := cmp.Diff(c.want, got.Data); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
	for name, b := range map[string][]byte{
		"no data":       head(Float32, 2),
		"short raw":     packed(head(Float32, 2), 9, 0, 0, 0, 0),
		"external":      protowire.AppendVarint(protowire.AppendTag(head(Float32, 1), 14, protowire.VarintType), 1),
		"text":          head(String, 1),
		"huge":          packed(head(Float32, 1<<40), 9, 0),
		"negative":      packed(head(Float32, ^uint64(0)), 9),
		"product":       packed(head(Uint8, 1<<32, 1<<32), 9),
		"rank":          head(Float32, 1, 1, 1, 1, 1, 1, 1, 1, 1),
		"cut off":       {0x22, 0xff},
		"wrong wire":    protowire.AppendVarint(protowire.AppendTag(nil, 8, protowire.VarintType), 1),
		"partial float": packed(head(Float32, 1), 4, 0, 0),
	} {
		_, err := DecodeTensor(b, Limits{})
		if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrLimit) && !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestLimits decodes at each limit and one below what the model needs.
func TestLimits(t *testing.T) {
	m := sample()
	b, err := Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	exact := Limits{
		MaxBytes: len(b), MaxNodes: 4, MaxInitializers: 4, MaxValues: 4, MaxNodeItems: 8, MaxItems: 8 + 4 + 8,
		MaxElements: 12, MaxTotal: 12 + 4 + 8 + 2 + 1, MaxRank: 2, MaxName: 13, MaxText: 5, MaxMetadata: 3,
	}
	if _, err := Decode(b, exact); err != nil {
		t.Fatalf("at the limits: %v", err)
	}
	for name, lower := range map[string]func(*Limits){
		"bytes": func(l *Limits) { l.MaxBytes-- }, "nodes": func(l *Limits) { l.MaxNodes-- },
		"initializers": func(l *Limits) { l.MaxInitializers-- }, "values": func(l *Limits) { l.MaxValues-- },
		"node items": func(l *Limits) { l.MaxNodeItems-- }, "items": func(l *Limits) { l.MaxItems-- },
		"elements": func(l *Limits) { l.MaxElements-- }, "total": func(l *Limits) { l.MaxTotal-- },
		"rank": func(l *Limits) { l.MaxRank-- }, "name": func(l *Limits) { l.MaxName-- },
		"text": func(l *Limits) { l.MaxText-- }, "metadata": func(l *Limits) { l.MaxMetadata-- },
	} {
		l := exact
		lower(&l)
		if _, err := Decode(b, l); !errors.Is(err, ErrLimit) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGraphFaults(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*Graph)
		want  error
	}{
		"order":            {func(g *Graph) { g.Nodes[0], g.Nodes[1] = g.Nodes[1], g.Nodes[0] }, ErrMalformed},
		"own output":       {func(g *Graph) { g.Nodes[1].Inputs[0] = "r1" }, ErrMalformed},
		"defined twice":    {func(g *Graph) { g.Nodes[1].Outputs[0] = "h1" }, ErrMalformed},
		"shadows input":    {func(g *Graph) { g.Nodes[1].Outputs[0] = "input" }, ErrMalformed},
		"unnamed output":   {func(g *Graph) { g.Nodes[3].Outputs[0] = "" }, ErrMalformed},
		"no outputs":       {func(g *Graph) { g.Outputs = nil }, ErrMalformed},
		"unknown output":   {func(g *Graph) { g.Outputs[0].Name = "none" }, ErrMalformed},
		"declared shape":   {func(g *Graph) { g.Outputs[0].Dims[1].Size = 7 }, ErrShape},
		"declared type":    {func(g *Graph) { g.Outputs[0].Type = Int64 }, ErrShape},
		"weights to input": {func(g *Graph) { g.Inputs[0].Dims[1].Size = 5 }, ErrShape},
		"bias":             {func(g *Graph) { g.Initializers[1] = New("b1", []int64{3}, make([]float32, 3)) }, ErrShape},
		"text input":       {func(g *Graph) { g.Inputs[0].Type = String }, ErrUnsupported},
		"domain":           {func(g *Graph) { g.Nodes[0].Domain = "com.example" }, ErrUnsupported},
		"initializer":      {func(g *Graph) { g.Initializers[0].Data = []int64{} }, ErrMalformed},
	} {
		m := mlp(3, 4, 2)
		c.spoil(&m.Graph)
		if _, err := Compile(m, Limits{}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestBadInputs(t *testing.T) {
	p, err := Compile(mlp(3, 4, 2), Limits{MaxRunElements: 100})
	if err != nil {
		t.Fatal(err)
	}
	good := New("input", []int64{1, 3}, make([]float32, 3))
	for name, in := range map[string][]Tensor{
		"none": {}, "two": {good, good}, "name": {New("x", []int64{1, 3}, make([]float32, 3))},
		"type":  {New("input", []int64{1, 3}, make([]float64, 3))},
		"width": {New("input", []int64{1, 4}, make([]float32, 4))},
		"rank":  {New("input", []int64{3}, make([]float32, 3))},
		"data":  {{Name: "input", Type: Float32, Shape: []int64{1, 3}, Data: []float32{1}}},
	} {
		if _, err := p.Run(context.Background(), in); !errors.Is(err, ErrInput) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Each row makes 4+4+2+2 elements: 8 rows fit into 100, 9 do not.
	for rows, want := range map[int64]error{8: nil, 9: ErrLimit} {
		_, err := p.Run(context.Background(), []Tensor{New("input", []int64{rows, 3}, make([]float32, rows*3))})
		if !errors.Is(err, want) {
			t.Errorf("%d rows: %v, want %v", rows, err, want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := p.Run(ctx, []Tensor{good}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestSymbols: dimensions of one symbol must be equal across inputs.
func TestSymbols(t *testing.T) {
	m := &Model{Graph: Graph{
		Nodes:   []Node{{Op: "Add", Inputs: []string{"a", "b"}, Outputs: []string{"c"}}},
		Inputs:  []ValueInfo{{Name: "a", Type: Float32, Dims: Batched(1)}, {Name: "b", Type: Float32, Dims: Batched(1)}},
		Outputs: []ValueInfo{{Name: "c", Type: Float32}},
	}}
	p, err := Compile(m, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	two, one := New("a", []int64{2, 1}, []float32{1, 2}), New("b", []int64{1, 1}, []float32{1})
	if _, err := p.Run(context.Background(), []Tensor{two, one}); !errors.Is(err, ErrInput) {
		t.Errorf("batches of 2 and 1: %v", err)
	}
}

// TestConcurrentRuns shares a program between goroutines with different batch
// sizes; results must not mix.
func TestConcurrentRuns(t *testing.T) {
	p, err := Compile(mlp(8, 16, 4), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	run := func(batch int64, fill float32) Tensor {
		x := make([]float32, batch*8)
		for i := range x {
			x[i] = fill
		}
		out, err := p.Run(context.Background(), []Tensor{New("input", []int64{batch, 8}, x)})
		if err != nil {
			t.Error(err)
			return Tensor{}
		}
		return out[0]
	}
	var wg sync.WaitGroup
	for g := range int64(8) {
		want := run(g+1, float32(g))
		wg.Go(func() {
			for range 200 {
				if err := compare(run(g+1, float32(g)), want); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// FuzzDecode decodes, compiles and runs whatever it is given. None of it may
// panic, and limits keep it small.
func FuzzDecode(f *testing.F) {
	for _, m := range []*Model{sample(), mlp(2, 2)} {
		b, err := Encode(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	for _, v := range vectors {
		m := &Model{Opsets: []Opset{{Version: v.opset}}, Graph: Graph{Outputs: []ValueInfo{{Name: "out"}}}}
		n := Node{Op: v.op, Outputs: []string{"out"}, Attributes: v.attrs}
		for i, t := range v.in {
			t.Name = fmt.Sprint("in", i)
			n.Inputs = append(n.Inputs, t.Name)
			if t.Data != nil {
				m.Graph.Initializers = append(m.Graph.Initializers, t)
			} else {
				n.Inputs[i] = ""
			}
		}
		m.Graph.Nodes = []Node{n}
		b, err := Encode(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	lim := Limits{MaxBytes: 1 << 16, MaxNodes: 64, MaxElements: 1 << 12, MaxTotal: 1 << 14, MaxRunElements: 1 << 14}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b, lim)
		if err != nil {
			return
		}
		p, err := Compile(m, lim)
		if err != nil {
			return
		}
		var in []Tensor
		for _, info := range p.Inputs() {
			shape := info.Shape()
			n := int64(1)
			for i := range shape {
				shape[i] = max(shape[i], 1)
				n *= min(shape[i], 1<<12)
			}
			if n > 1<<12 {
				return
			}
			in = append(in, Tensor{Name: info.Name, Type: info.Type, Shape: shape, Data: zeros(info.Type, int(n))})
		}
		_, _ = p.Run(context.Background(), in)
		if again, err := Encode(m); err == nil {
			if _, err := Decode(again, Limits{}); err != nil {
				t.Errorf("what was encoded does not decode: %v", err)
			}
		}
	})
}

func zeros(t DType, n int) any {
	return fromRaw(t, make([]byte, n*t.width()))
}
