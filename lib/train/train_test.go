package train_test

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgetwin/sedna/lib/dataset/digits"
	"github.com/edgetwin/sedna/lib/onnx"
	"github.com/edgetwin/sedna/lib/train"
)

func digitsData(t testing.TB) (trainSet, testSet train.Data) {
	t.Helper()
	set, err := digits.Load()
	if err != nil {
		t.Fatal(err)
	}
	in, out := set.Split()
	return dataOf(set, in), dataOf(set, out)
}

func dataOf(set *digits.Dataset, indices []int) train.Data {
	x, y := set.Select(indices)
	return train.Data{X: x, Features: digits.Pixels, Y: y}
}

func network(t testing.TB, seed int64, widths ...int) *train.Network {
	t.Helper()
	n, err := train.New(seed, widths...)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func run(t testing.TB, m *onnx.Model, d train.Data) []onnx.Tensor {
	t.Helper()
	b, err := onnx.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	if m, err = onnx.Decode(b, onnx.Limits{}); err != nil {
		t.Fatal(err)
	}
	p, err := onnx.Compile(m, onnx.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	in := onnx.New(p.Inputs()[0].Name, []int64{int64(d.Len()), int64(d.Features)}, d.X)
	out, err := p.Run(context.Background(), []onnx.Tensor{in})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func near(a, b []float32) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if math.Abs(float64(a[i]-b[i])) > 1e-5 {
			return false
		}
	}
	return true
}

func TestDigits(t *testing.T) {
	in, out := digitsData(t)
	for _, c := range []struct {
		widths []int
		least  float64
	}{{[]int{64, 10}, .94}, {[]int{64, 32, 10}, .95}, {[]int{64, 32, 16, 10}, .94}} {
		n := network(t, 1, c.widths...)
		r, err := train.Train(t.Context(), n, in, train.Config{Epochs: 30, Momentum: .9, LearningRate: .05, WeightDecay: 1e-4})
		if err != nil {
			t.Fatal(err)
		}
		m, err := n.Evaluate(out)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%v: train %.4f, test %.4f", c.widths, r.Train.Accuracy, m.Accuracy)
		if m.Accuracy < c.least {
			t.Errorf("%v: accuracy %.4f, expected %.2f at least", c.widths, m.Accuracy, c.least)
		}
		want, err := n.Probabilities(out)
		if err != nil {
			t.Fatal(err)
		}
		got := run(t, n.Export(train.ExportOptions{Label: "label"}), out)
		if !near(got[0].Float32s(), want) {
			t.Errorf("%v: the exported model computes other probabilities", c.widths)
		}
		for i, label := range got[1].Int64s() {
			if int(label) != train.Best(want[i*10:(i+1)*10]) {
				t.Fatalf("%v: sample %d is labelled %d", c.widths, i, label)
			}
		}
	}
}

// TestGradient compares the gradient, seen as the step of plain descent, with
// differences of the loss.
func TestGradient(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	d := train.Data{Features: 3, X: make([]float32, 3*6), Y: []int{0, 1, 2, 1, 0, 2}}
	for i := range d.X {
		d.X[i] = float32(r.NormFloat64())
	}
	n := network(t, 5, 3, 4, 3)
	start := n.Weights()
	const rate = 1e-3
	cfg := train.Config{Epochs: 1, BatchSize: 6, LearningRate: rate}
	if _, err := train.Train(t.Context(), n, d, cfg); err != nil {
		t.Fatal(err)
	}
	after := n.Weights()
	loss := func(w []float32) float64 {
		if err := n.SetWeights(w); err != nil {
			t.Fatal(err)
		}
		m, err := n.Evaluate(d)
		if err != nil {
			t.Fatal(err)
		}
		return m.Loss
	}
	const h = 1e-2
	for i := range start {
		w := append([]float32(nil), start...)
		w[i] = start[i] + h
		up := loss(w)
		w[i] = start[i] - h
		slope := (up - loss(w)) / (2 * h)
		if got := float64(start[i]-after[i]) / rate; math.Abs(got-slope) > 3e-3 {
			t.Errorf("weight %d: gradient %.5f, loss differences say %.5f", i, got, slope)
		}
	}
}

func TestRepeatable(t *testing.T) {
	in, _ := digitsData(t)
	in = in.Head(200)
	weights := func(seed int64) []float32 {
		n := network(t, seed, 64, 16, 10)
		if _, err := train.Train(t.Context(), n, in, train.Config{Epochs: 3, Seed: seed}); err != nil {
			t.Fatal(err)
		}
		return n.Weights()
	}
	if !cmp.Equal(weights(1), weights(1)) {
		t.Error("one seed gave two networks")
	}
	if cmp.Equal(weights(1), weights(2)) {
		t.Error("two seeds gave one network")
	}
}

func TestWarmStart(t *testing.T) {
	in, out := digitsData(t)
	pool := digits.PoolWeights()
	n := network(t, 1, 16, 12, 10)
	if err := n.SetFront(pool); err != nil {
		t.Fatal(err)
	}
	if _, err := train.Train(t.Context(), n, in, train.Config{Epochs: 5}); err != nil {
		t.Fatal(err)
	}
	again, err := train.FromONNX(n.Export(train.ExportOptions{}))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(n, again); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
	before, err := again.Evaluate(out)
	if err != nil {
		t.Fatal(err)
	}
	r, err := train.Train(t.Context(), again, in, train.Config{Epochs: 5, LearningRate: .02, Proximal: .01})
	if err != nil {
		t.Fatal(err)
	}
	if after, err := again.Evaluate(out); err != nil || after.Loss >= before.Loss {
		t.Errorf("loss went from %.4f to %.4f (%+v), %v", before.Loss, after.Loss, r, err)
	}
	if !cmp.Equal(again.Front, pool) {
		t.Error("the front was trained")
	}
	p, err := n.Probabilities(out)
	if err != nil {
		t.Fatal(err)
	}
	if got := run(t, n.Export(train.ExportOptions{Input: "pixels", Output: "p"}), out); !near(got[0].Float32s(), p) {
		t.Error("the exported model with a front computes other probabilities")
	}
}

func TestFromONNXRefuses(t *testing.T) {
	n := network(t, 1, 4, 3, 2)
	for name, spoil := range map[string]func(*onnx.Model){
		"operator":     func(m *onnx.Model) { m.Graph.Nodes[1].Op = "Tanh" },
		"branch":       func(m *onnx.Model) { m.Graph.Nodes[2].Inputs[0] = "input" },
		"two in a row": func(m *onnx.Model) { m.Graph.Nodes[1].Op = "Identity" },
		"no bias":      func(m *onnx.Model) { m.Graph.Nodes[0].Inputs = m.Graph.Nodes[0].Inputs[:2] },
		"bias length":  func(m *onnx.Model) { m.Graph.Initializers[1] = onnx.New("sedna.layer0.bias", []int64{1}, []float32{1}) },
		"not constant": func(m *onnx.Model) { m.Graph.Nodes[0].Inputs[1] = "x" },
		"widths":       func(m *onnx.Model) { m.Graph.Nodes[2].Inputs[1] = "sedna.layer0.weight" },
		"ends in relu": func(m *onnx.Model) { m.Graph.Nodes = m.Graph.Nodes[:2] },
		"after softmax": func(m *onnx.Model) {
			m.Graph.Nodes = append(m.Graph.Nodes, onnx.Node{Op: "Relu", Inputs: []string{"probabilities"}, Outputs: []string{"r"}})
		},
		"empty": func(m *onnx.Model) { m.Graph.Nodes = nil },
		"scaled": func(m *onnx.Model) {
			m.Graph.Nodes[0].Attributes = []onnx.Attribute{{Name: "alpha", Type: onnx.AttrFloat, F: 2}}
		},
	} {
		m := n.Export(train.ExportOptions{})
		spoil(m)
		if _, err := train.FromONNX(m); !errors.Is(err, train.ErrNotMLP) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Weights stored the other way round, as PyTorch does.
	m := n.Export(train.ExportOptions{})
	for i := range 2 {
		w := &m.Graph.Initializers[2*i]
		k, o := w.Shape[0], w.Shape[1]
		turned := make([]float32, k*o)
		for a := range k {
			for b := range o {
				turned[b*k+a] = w.Float32s()[a*o+b]
			}
		}
		*w = onnx.New(w.Name, []int64{o, k}, turned)
		m.Graph.Nodes[2*i].Attributes = []onnx.Attribute{{Name: "transB", Type: onnx.AttrInt, I: 1}}
	}
	again, err := train.FromONNX(m)
	if err != nil || !cmp.Equal(n, again) {
		t.Errorf("transposed weights: %v", err)
	}
}

func TestEarlyStop(t *testing.T) {
	in, out := digitsData(t)
	n := network(t, 1, 64, 64, 10)
	best := math.Inf(1)
	r, err := train.Train(t.Context(), n, in.Head(100), train.Config{
		Epochs: 500, Patience: 5, Validation: out, Momentum: .9,
		Progress: func(e train.Epoch) error {
			best = min(best, e.Validation.Loss)
			return nil
		},
	})
	if err != nil || r.Epochs >= 500 {
		t.Fatalf("%d epochs, %v", r.Epochs, err)
	}
	if m, err := n.Evaluate(out); err != nil || m.Loss != best {
		t.Errorf("kept a loss of %v, the best was %v; %v", m.Loss, best, err)
	}
}

func TestStops(t *testing.T) {
	in, _ := digitsData(t)
	n := network(t, 1, 64, 10)
	stop := errors.New("stop")
	var seen []float32
	_, err := train.Train(t.Context(), n, in, train.Config{Progress: func(e train.Epoch) error {
		if e.Number == 2 {
			seen = n.Weights()
			return stop
		}
		return nil
	}})
	if !errors.Is(err, stop) || !cmp.Equal(seen, n.Weights()) {
		t.Errorf("progress: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := train.Train(ctx, n, in, train.Config{}); !errors.Is(err, context.Canceled) || !cmp.Equal(seen, n.Weights()) {
		t.Errorf("context: %v", err)
	}
	deep := network(t, 1, 64, 16, 10)
	if _, err := train.Train(t.Context(), deep, in, train.Config{LearningRate: 1e30}); !errors.Is(err, train.ErrDiverged) || !cmp.Equal(deep, network(t, 1, 64, 16, 10)) {
		t.Errorf("diverged: %v", err)
	}
}

func TestRefused(t *testing.T) {
	good := train.Data{Features: 2, X: []float32{1, 2}, Y: []int{1}}
	for name, d := range map[string]train.Data{
		"width": {Features: 1, X: []float32{1, 2}, Y: []int{0, 1}}, "label": {Features: 2, X: []float32{1, 2}, Y: []int{2}},
		"empty": {Features: 2}, "length": {Features: 2, X: []float32{1}, Y: []int{1}},
		"infinite": {Features: 2, X: []float32{1, float32(math.Inf(1))}, Y: []int{1}},
	} {
		if _, err := train.Train(t.Context(), network(t, 1, 2, 2), d, train.Config{}); !errors.Is(err, train.ErrData) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := train.Train(t.Context(), network(t, 1, 2, 2), good, train.Config{Validation: d}); name != "empty" && !errors.Is(err, train.ErrData) {
			t.Errorf("%s for validation: %v", name, err)
		}
	}
	for _, cfg := range []train.Config{
		{Epochs: -1}, {BatchSize: -1}, {LearningRate: -1}, {LearningRate: math.NaN()}, {Momentum: 1}, {WeightDecay: -1}, {Proximal: -1}, {Patience: 1},
	} {
		if _, err := train.Train(t.Context(), network(t, 1, 2, 2), good, cfg); !errors.Is(err, train.ErrConfig) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
	if _, err := train.New(1, 5); !errors.Is(err, train.ErrConfig) {
		t.Errorf("one width: %v", err)
	}
	if err := network(t, 1, 2, 2).SetWeights(make([]float32, 5)); err == nil || !strings.Contains(err.Error(), "expected 6") {
		t.Errorf("weights: %v", err)
	}
}

// BenchmarkTrain is the reference measurement: 1,437 samples, 50 epochs.
func BenchmarkTrain(b *testing.B) {
	set, err := digits.Load()
	if err != nil {
		b.Fatal(err)
	}
	first := make([]int, 1437)
	for i := range first {
		first[i] = i
	}
	d := dataOf(set, first)
	for name, widths := range map[string][]int{"softmax": {64, 10}, "mlp32": {64, 32, 10}, "mlp128": {64, 128, 10}} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				n := network(b, 1, widths...)
				if _, err := train.Train(b.Context(), n, d, train.Config{Momentum: .9}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
