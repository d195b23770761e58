package hardexample

import (
	"math"
	"math/rand/v2"
	"sync"
)

// Decision is what a rule says of one output.
type Decision struct {
	Hard bool
	// Confidence is what the rule compared with its threshold, in [0,1] for
	// proper probabilities, for metrics. NaN when the rule has none or the
	// output is unsound.
	Confidence float64
}

// Miner judges outputs. It is safe for concurrent use; a rule with state
// (Random, a budget) gives the same decisions for the same sequence.
type Miner interface {
	Decide(o Output) Decision
}

var (
	_ Miner = (*ruleMiner)(nil)
	_ Miner = (*random)(nil)
	_ Miner = constant(false)
)

// rule is a Miner without state: a confidence and a threshold on it.
type rule struct {
	confidence func(o Output) float64
	hard       func(confidence float64) bool
}

// ruleMiner adds to a rule what holds for all: unsound outputs are hard, empty
// ones are what the policy says.
type ruleMiner struct {
	rule
	emptyIsEasy bool
	budget      *budget // nil: the rule's own threshold
}

func (m *ruleMiner) Decide(o Output) Decision {
	d := Decision{Hard: true, Confidence: math.NaN()}
	switch {
	case o.empty():
		d.Hard = !m.emptyIsEasy
	case o.sound():
		d.Confidence = m.confidence(o)
		d.Hard = m.hard(d.Confidence)
	}
	if m.budget != nil {
		d.Hard = m.budget.decide(d)
	}
	return d
}

// newThreshold: hard iff the mean score is under the threshold. 0 keeps all
// sound outputs, more than 1 sends all.
func newThreshold(p *Params) (Miner, error) {
	t := p.Float("threshold", 0.5, 0, 2)
	return p.miner(rule{
		confidence: func(o Output) float64 {
			var room [16]float64
			scores := o.scores(room[:])
			sum := 0.0
			for _, s := range scores {
				sum += s
			}
			return sum / float64(len(scores))
		},
		hard: func(c float64) bool { return c < t },
	})
}

// newCrossEntropy: hard iff 1 + Σ p·ln p / ln K is under the threshold. A
// single probability is one of two; detections count as one such question
// each, and the mean is taken.
func newCrossEntropy(p *Params) (Miner, error) {
	t := p.Float("threshold_cross_entropy", 0.5, 0, 2)
	return p.miner(rule{
		confidence: func(o Output) float64 {
			if k := len(o.Probabilities); k > 1 {
				sum := 0.0
				for _, p := range o.Probabilities {
					sum += pLogP(float64(p))
				}
				// Rounding may leave the uniform distribution below 0, which
				// a threshold of 0 must not send.
				return max(0, 1+sum/math.Log(float64(k)))
			}
			var room [16]float64
			scores := o.scores(room[:])
			sum := 0.0
			for _, s := range scores {
				sum += certainty(s)
			}
			return max(0, sum/float64(len(scores)))
		},
		hard: func(c float64) bool { return c < t },
	})
}

// newIBT: hard iff the share of scores at or under threshold_box is at least
// 1 - threshold_img. The confidence is the share over threshold_box.
func newIBT(p *Params) (Miner, error) {
	img := p.Float("threshold_img", 0.5, 0, 1)
	box := p.Float("threshold_box", 0.5, 0, 1)
	return p.miner(rule{
		confidence: func(o Output) float64 {
			var room [16]float64
			scores := o.scores(room[:])
			low := 0
			for _, s := range scores {
				if s <= box {
					low++
				}
			}
			return 1 - float64(low)/float64(len(scores))
		},
		hard: func(c float64) bool { return 1-c >= 1-img },
	})
}

// random is hard with a fixed probability, whatever the output.
type random struct {
	mu    sync.Mutex // guards rng
	rng   *rand.Rand
	ratio float64
}

func newRandom(p *Params) (Miner, error) {
	ratio := p.Float("random_ratio", 0.3, 0, 1)
	seed := p.Uint("seed", 1)
	return &random{rng: rand.New(rand.NewPCG(seed, 0)), ratio: ratio}, p.Err()
}

func (r *random) Decide(Output) Decision {
	r.mu.Lock()
	defer r.mu.Unlock()
	return Decision{Hard: r.rng.Float64() < r.ratio, Confidence: math.NaN()}
}

// constant always says the same.
type constant bool

func (c constant) Decide(Output) Decision {
	return Decision{Hard: bool(c), Confidence: math.NaN()}
}

func newCloudOnly(p *Params) (Miner, error) { return constant(true), p.Err() }
func newEdgeOnly(p *Params) (Miner, error)  { return constant(false), p.Err() }
