package main

import (
	"context"
	"math/rand/v2"

	"github.com/edgetwin/sedna/lib/onnx"
	"github.com/edgetwin/sedna/lib/train"
)

// The model's window, as in the service's manifest.
const (
	window = 16 // rows
	stride = 4
)

// Classes of the model.
const (
	labels  = "normal,anomaly"
	anomaly = "anomaly"
)

// trainSamples and heldSamples are how many samples of pumps of their own the
// model is trained and tried on.
const (
	trainSamples = 60000
	heldSamples  = 20000
)

// score counts decisions that were held against the truth.
type score struct {
	TruePositives  int     `json:"true_positives"`
	FalsePositives int     `json:"false_positives"`
	FalseNegatives int     `json:"false_negatives"`
	TrueNegatives  int     `json:"true_negatives"`
	Precision      float64 `json:"precision"`
	Recall         float64 `json:"recall"`
}

// count takes one decision.
func (s *score) count(said, is bool) {
	switch {
	case said && is:
		s.TruePositives++
	case said:
		s.FalsePositives++
	case is:
		s.FalseNegatives++
	default:
		s.TrueNegatives++
	}
	if n := s.TruePositives + s.FalsePositives; n > 0 {
		s.Precision = float64(s.TruePositives) / float64(n)
	}
	if n := s.TruePositives + s.FalseNegatives; n > 0 {
		s.Recall = float64(s.TruePositives) / float64(n)
	}
}

// evaluation is how the model does on windows of a pump that it was not
// trained on.
type evaluation struct {
	All     score `json:"all"`
	Settled score `json:"settled"` // windows that lie in one state of the pump alone
}

// buildModel trains a network of 48-24-2 and tries it on windows of another
// pump. A window counts as an anomaly when the pump is faulty in its newest
// row, so windows at the very start of a fault, which hardly show it, and right
// after its end, which still show it, are in both sets.
func buildModel(ctx context.Context, seed int64) (*onnx.Model, evaluation, error) {
	var held evaluation
	net, err := train.New(seed, window*columns, 24, 2)
	if err != nil {
		return nil, held, err
	}
	if err := net.SetFront(features()); err != nil {
		return nil, held, err
	}
	data, _ := windows(rand.New(rand.NewPCG(uint64(seed), 1)), trainSamples)
	if _, err := train.Train(ctx, net, data, train.Config{
		Epochs: 30, LearningRate: 0.02, Momentum: 0.9, WeightDecay: 1e-4, Seed: seed,
	}); err != nil {
		return nil, held, err
	}
	test, settled := windows(rand.New(rand.NewPCG(uint64(seed), 2)), heldSamples)
	p, err := net.Probabilities(test)
	if err != nil {
		return nil, held, err
	}
	for i, y := range test.Y {
		said := train.Best(p[2*i:2*i+2]) == 1
		held.All.count(said, y == 1)
		if settled[i] {
			held.Settled.count(said, y == 1)
		}
	}
	m := net.Export(train.ExportOptions{Name: "pump-anomaly", Metadata: map[string]string{"labels": labels}})
	return m, held, nil
}

// windows cuts n samples of a pump, whose faults come and go, into windows, and
// tells which of them lie in one state alone. A
// mapper reads the pump without being in step with it: a row has the sample
// before in one of five values.
func windows(rng *rand.Rand, n int) (d train.Data, settled []bool) {
	d.Features = window * columns
	p := newPump(rng)
	var rows [][columns]float32
	before := p.step(none).row()
	now, left, since := none, 0, 0
	for i := range n {
		since++
		if left--; left < 0 {
			since = 0
			if now == none {
				now, left = fault(1+rng.IntN(2)), rate+rng.IntN(3*rate)
			} else {
				now, left = none, 2*rate+rng.IntN(4*rate)
			}
		}
		fresh := p.step(now).row()
		row := fresh
		for c := range row {
			if rng.IntN(5) == 0 {
				row[c] = before[c]
			}
		}
		before = fresh
		if rows = append(rows, row); len(rows) > window {
			rows = rows[1:]
		}
		if len(rows) < window || i%stride != 0 {
			continue
		}
		for _, r := range rows {
			d.X = append(d.X, r[:]...)
		}
		y := 0
		if now != none {
			y = 1
		}
		d.Y = append(d.Y, y)
		settled = append(settled, since >= window)
	}
	return d, settled
}

// features is the fixed front of the network, [window·columns, window·columns]:
// of each column its mean over the window, and the steps from row to row, in
// units that make them about as large as each other.
func features() []float32 {
	const n = window * columns
	level := [columns]float32{2, 20, 2}
	step := [columns]float32{0.3, 0.4, 0.1}
	w := make([]float32, n*n)
	for c := range columns {
		for r := range window {
			w[(r*columns+c)*n+c] = 1 / (window * level[c])
			if r > 0 {
				to := r*columns + c
				w[(r*columns+c)*n+to] = 1 / step[c]
				w[((r-1)*columns+c)*n+to] = -1 / step[c]
			}
		}
	}
	return w
}
