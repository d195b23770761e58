package train

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"

	"gonum.org/v1/gonum/blas"
)

// Config says how to train. Zero fields mean the defaults.
type Config struct {
	Epochs       int     // passes over the data; default 50
	BatchSize    int     // samples per step; default 32
	LearningRate float64 // default 0.1
	Momentum     float64 // in [0,1); default 0
	WeightDecay  float64 // L2 penalty on weights, not biases; default 0
	Proximal     float64 // FedProx's mu: pull towards the starting weights; default 0
	Seed         int64   // order of the samples
	// Patience, if not 0, stops after that many epochs without a lower loss on
	// Validation, and the best weights are kept.
	Patience   int
	Validation Data
	// Progress, if not nil, is called after each epoch; an error stops the
	// training and is returned.
	Progress func(Epoch) error
}

// Epoch is what Progress hears.
type Epoch struct {
	Number     int // from 1
	Of         int
	Train      Metrics // running, while the weights changed
	Validation Metrics // zero without validation data
}

// Result is how a training ended.
type Result struct {
	Epochs int     // passes made
	Train  Metrics // on the training data, with the final weights
}

func (c Config) withDefaults() (Config, error) {
	if c.Epochs == 0 {
		c.Epochs = 50
	}
	if c.BatchSize == 0 {
		c.BatchSize = 32
	}
	if c.LearningRate == 0 {
		c.LearningRate = 0.1
	}
	positive := func(v float64) bool { return v > 0 && !math.IsInf(v, 0) }
	switch {
	case c.Epochs < 0 || c.BatchSize < 0 || c.Patience < 0:
		return c, fmt.Errorf("%w: epochs %d, batch size %d, patience %d, expected none negative", ErrConfig, c.Epochs, c.BatchSize, c.Patience)
	case !positive(c.LearningRate):
		return c, fmt.Errorf("%w: learning rate %v, expected more than 0", ErrConfig, c.LearningRate)
	case !(c.Momentum >= 0 && c.Momentum < 1):
		return c, fmt.Errorf("%w: momentum %v, expected 0 to under 1", ErrConfig, c.Momentum)
	case c.WeightDecay != 0 && !positive(c.WeightDecay), c.Proximal != 0 && !positive(c.Proximal):
		return c, fmt.Errorf("%w: weight decay %v, proximal %v, expected none negative", ErrConfig, c.WeightDecay, c.Proximal)
	case c.Patience > 0 && c.Validation.Len() == 0:
		return c, fmt.Errorf("%w: patience without validation data", ErrConfig)
	}
	return c, nil
}

// Train improves the network on data, in place. On an error, the context's
// included, the network is left as it was after the last complete epoch.
func Train(ctx context.Context, n *Network, data Data, cfg Config) (Result, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return Result{}, err
	}
	if err := data.check(n.Features(), n.Classes()); err != nil {
		return Result{}, err
	}
	if cfg.Validation.Len() > 0 {
		if err := cfg.Validation.check(n.Features(), n.Classes()); err != nil {
			return Result{}, fmt.Errorf("validation: %w", err)
		}
	}
	t := newTrainer(n, data, cfg)
	best, bestLoss, since := n.Weights(), math.Inf(1), 0
	done := 0
	for done < cfg.Epochs {
		before := n.Weights()
		e := Epoch{Number: done + 1, Of: cfg.Epochs}
		e.Train, err = t.epoch(ctx)
		if err != nil {
			return Result{Epochs: done}, keep(n, before, err)
		}
		done++
		if cfg.Validation.Len() > 0 {
			if e.Validation, err = n.Evaluate(cfg.Validation); err != nil {
				return Result{Epochs: done}, err
			}
		}
		if cfg.Progress != nil {
			if err := cfg.Progress(e); err != nil {
				return Result{Epochs: done}, err
			}
		}
		if cfg.Patience == 0 {
			continue
		}
		if since++; e.Validation.Loss < bestLoss {
			best, bestLoss, since = n.Weights(), e.Validation.Loss, 0
		}
		if since >= cfg.Patience {
			break
		}
	}
	if cfg.Patience > 0 {
		if err := n.SetWeights(best); err != nil {
			return Result{}, err
		}
	}
	m, err := n.Evaluate(data)
	return Result{Epochs: done, Train: m}, err
}

// keep puts weights back and passes the error on.
func keep(n *Network, weights []float32, err error) error {
	if back := n.SetWeights(weights); back != nil {
		return back
	}
	return err
}

// trainer is the state of one training.
type trainer struct {
	net   *Network
	data  Data // with the network's front applied
	cfg   Config
	rng   *rand.Rand
	order []int
	x     []float32 // samples of the current batch
	y     []int
	act   *activations
	delta [][]float32 // per layer: gradient of its output
	grads []Layer
	speed []Layer
	start *Network // for the proximal term
}

func newTrainer(n *Network, data Data, cfg Config) *trainer {
	batch := min(cfg.BatchSize, data.Len())
	t := &trainer{
		net: n, data: n.mapped(data), cfg: cfg,
		rng:   rand.New(rand.NewPCG(uint64(cfg.Seed), 0xba7c4)),
		order: make([]int, data.Len()),
		y:     make([]int, batch),
		act:   newActivations(n, batch),
	}
	for i := range t.order {
		t.order[i] = i
	}
	t.x = make([]float32, batch*t.data.Features)
	for _, l := range n.Layers {
		t.delta = append(t.delta, make([]float32, batch*l.Out))
		t.grads = append(t.grads, Layer{W: make([]float32, len(l.W)), B: make([]float32, len(l.B))})
		t.speed = append(t.speed, Layer{W: make([]float32, len(l.W)), B: make([]float32, len(l.B))})
	}
	if cfg.Proximal > 0 {
		t.start = n.Clone()
	}
	return t
}

// epoch passes once over the data in random order.
func (t *trainer) epoch(ctx context.Context) (Metrics, error) {
	t.rng.Shuffle(len(t.order), func(i, j int) { t.order[i], t.order[j] = t.order[j], t.order[i] })
	var sum Metrics
	classes := t.net.Classes()
	for from := 0; from < len(t.order); from += len(t.y) {
		if err := ctx.Err(); err != nil {
			return Metrics{}, err
		}
		batch := t.order[from:min(from+len(t.y), len(t.order))]
		width := t.data.Features
		for i, s := range batch {
			copy(t.x[i*width:], t.data.Row(s))
			t.y[i] = t.data.Y[s]
		}
		t.act.forward(t.net, t.x, len(batch))
		p := t.act.out[len(t.act.out)-1]
		m := measure(p[:len(batch)*classes], t.y[:len(batch)], classes)
		if math.IsNaN(m.Loss) {
			return Metrics{}, ErrDiverged
		}
		sum.Accuracy += m.Accuracy * float64(len(batch))
		sum.Loss += m.Loss * float64(len(batch))
		t.backward(len(batch))
		t.step()
	}
	n := float64(len(t.order))
	return Metrics{Accuracy: sum.Accuracy / n, Loss: sum.Loss / n}, nil
}

// backward computes the gradients of the mean loss over the batch.
func (t *trainer) backward(rows int) {
	last := len(t.net.Layers) - 1
	classes := t.net.Classes()
	d := t.delta[last][:rows*classes]
	copy(d, t.act.out[last][:rows*classes])
	for i := range rows {
		d[i*classes+t.y[i]]--
	}
	scale := 1 / float32(rows)
	for i := range d {
		d[i] *= scale
	}
	for k := last; k >= 0; k-- {
		l, g := t.net.Layers[k], t.grads[k]
		d := t.delta[k][:rows*l.Out]
		in := t.x
		if k > 0 {
			in = t.act.out[k-1]
		}
		in = in[:rows*l.In]
		multiply(blas.Trans, blas.NoTrans, matrix(in, l.In), matrix(d, l.Out), 0, matrix(g.W, l.Out))
		clear(g.B)
		for i := range rows {
			for j, v := range d[i*l.Out : (i+1)*l.Out] {
				g.B[j] += v
			}
		}
		if k == 0 {
			return
		}
		below := t.delta[k-1][:rows*l.In]
		multiply(blas.NoTrans, blas.Trans, matrix(d, l.Out), matrix(l.W, l.Out), 0, matrix(below, l.In))
		for i, v := range in {
			if v <= 0 { // ReLU passed nothing here
				below[i] = 0
			}
		}
	}
}

// step moves the weights against the gradients.
func (t *trainer) step() {
	rate, momentum := float32(t.cfg.LearningRate), float32(t.cfg.Momentum)
	decay, pull := float32(t.cfg.WeightDecay), float32(t.cfg.Proximal)
	move := func(w, g, s, start []float32, decay float32) {
		for i := range w {
			grad := g[i] + decay*w[i]
			if start != nil {
				grad += pull * (w[i] - start[i])
			}
			s[i] = momentum*s[i] - rate*grad
			w[i] += s[i]
		}
	}
	for k, l := range t.net.Layers {
		var startW, startB []float32
		if t.start != nil {
			startW, startB = t.start.Layers[k].W, t.start.Layers[k].B
		}
		move(l.W, t.grads[k].W, t.speed[k].W, startW, decay)
		move(l.B, t.grads[k].B, t.speed[k].B, startB, 0)
	}
}

// activations is the output of each layer for up to some number of samples.
type activations struct {
	out [][]float32
}

func newActivations(n *Network, rows int) *activations {
	a := &activations{}
	for _, l := range n.Layers {
		a.out = append(a.out, make([]float32, rows*l.Out))
	}
	return a
}

// forward computes the first rows samples of x.
func (a *activations) forward(n *Network, x []float32, rows int) {
	in := x
	for k, l := range n.Layers {
		out := a.out[k][:rows*l.Out]
		for i := range rows {
			copy(out[i*l.Out:], l.B)
		}
		multiply(blas.NoTrans, blas.NoTrans, matrix(in[:rows*l.In], l.In), matrix(l.W, l.Out), 1, matrix(out, l.Out))
		if k < len(n.Layers)-1 {
			for i, v := range out {
				out[i] = max(v, 0)
			}
		} else {
			for i := range rows {
				softmax(out[i*l.Out : (i+1)*l.Out])
			}
		}
		in = out
	}
}

func softmax(v []float32) {
	top := v[0]
	for _, x := range v {
		top = max(top, x)
	}
	var sum float32
	for i, x := range v {
		v[i] = float32(math.Exp(float64(x - top)))
		sum += v[i]
	}
	for i := range v {
		v[i] /= sum
	}
}
