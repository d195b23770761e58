package hardexample

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
)

var nan = float32(math.NaN())

func probs(p ...float32) Output { return Output{Probabilities: p} }

func boxes(scores ...float32) Output {
	var o Output
	for _, s := range scores {
		o.Detections = append(o.Detections, Detection{Score: s, Label: "x"})
	}
	return o
}

func must(t testing.TB, name string, kv ...string) Miner {
	t.Helper()
	params := map[string]string{}
	for i := 0; i < len(kv); i += 2 {
		params[kv[i]] = kv[i+1]
	}
	m, err := New(name, params)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestRules(t *testing.T) {
	none := math.NaN()
	for _, c := range []struct {
		rule   string
		params []string
		out    Output
		hard   bool
		conf   float64
	}{
		{"Threshold", nil, boxes(.4, .5), true, .45},
		{"Threshold", nil, boxes(.5, .5), false, .5},
		{"Threshold", []string{"threshold", "0.9"}, probs(.1, .8, .1), true, .8},
		{"Threshold", nil, Output{}, true, none},
		{"Threshold", []string{"empty", "easy"}, Output{}, false, none},
		{"Threshold", nil, boxes(.9, nan), true, none},
		{"Threshold", nil, boxes(.9, 1.1), true, none},
		{"Threshold", nil, boxes(1.0000005), false, 1.0000005},

		{"CrossEntropy", nil, probs(.25, .25, .25, .25), true, 0},
		{"CrossEntropy", nil, probs(1, 0, 0), false, 1},
		// 1 - H(.9,.1)/ln 2 = 1 - .325083/.693147
		{"CrossEntropy", nil, probs(.9, .1), false, .531004},
		{"CrossEntropy", nil, probs(.8, .2), true, .278072},
		{"CrossEntropy", nil, probs(1), false, 1},
		{"CrossEntropy", nil, probs(.5), true, 0},
		{"CrossEntropy", nil, boxes(.9, .5), true, .265502},
		{"CrossEntropy", nil, probs(0, 0), true, none},
		{"CrossEntropy", nil, probs(nan, 1), true, none},
		{"CrossEntropy", nil, probs(-.1, 1.1), true, none},
		{"CrossEntropy", nil, probs(float32(math.Inf(1)), 0), true, none},

		{"IBT", nil, boxes(.4, .9), true, .5},
		{"IBT", nil, boxes(.4, .9, .9), false, 2. / 3},
		{"IBT", []string{"threshold_box", ".3"}, boxes(.4, .9), false, 1},
		{"IBT", []string{"threshold_img", "0"}, boxes(.1, .9), false, .5},
		{"IBT", nil, probs(.6, .4), false, 1},
		{"IBT", nil, probs(.5, .5), true, 0},

		{"CloudOnly", nil, probs(1), true, none},
		{"EdgeOnly", nil, Output{}, false, none},
		{"Random", []string{"random_ratio", "1"}, probs(1), true, none},
		{"Random", []string{"random_ratio", "0"}, Output{}, false, none},
	} {
		d := must(t, c.rule, c.params...).Decide(c.out)
		same := math.Abs(d.Confidence-c.conf) < 1e-6 || math.IsNaN(d.Confidence) && math.IsNaN(c.conf)
		if d.Hard != c.hard || !same {
			t.Errorf("%s %v of %v: %+v, want %v %v", c.rule, c.params, c.out, d, c.hard, c.conf)
		}
	}
}

func TestParameters(t *testing.T) {
	for _, c := range []struct {
		rule, key, value, mentions string
	}{
		{"Threshold", "threshold", "x", "0 to 2"},
		{"Threshold", "threshold", "NaN", "0 to 2"},
		{"Threshold", "threshold", "", "0 to 2"},
		{"Threshold", "treshold", "1", "threshold, empty, budget"},
		{"CrossEntropy", "threshold_cross_entropy", "-0.1", "0 to 2"},
		{"IBT", "threshold_img", "1.1", "0 to 1"},
		{"IBT", "threshold_box", "Inf", "0 to 1"},
		{"Random", "random_ratio", "2", "0 to 1"},
		{"Random", "seed", "-1", "non-negative"},
		{"Random", "budget", "0.5", "random_ratio, seed"},
		{"CloudOnly", "x", "1", "none"},
		{"Threshold", "budget", "1.5", "0 to 1"},
		{"Threshold", "empty", "maybe", "hard, easy"},
	} {
		_, err := New(c.rule, map[string]string{c.key: c.value})
		if !errors.Is(err, ErrParameter) || !strings.Contains(err.Error(), c.key) || !strings.Contains(err.Error(), c.mentions) {
			t.Errorf("%s %s=%q: %v", c.rule, c.key, c.value, err)
		}
	}
	if _, err := New("BertRouter", nil); !errors.Is(err, ErrUnknownRule) || !strings.Contains(err.Error(), "CrossEntropy") {
		t.Errorf("unknown rule: %v", err)
	}
}

// randomOutputs are classifications and detections of random sharpness.
func randomOutputs(n int) []Output {
	r := rand.New(rand.NewPCG(3, 4))
	outs := make([]Output, n)
	for i := range outs {
		if i%2 == 0 {
			for range 1 + r.IntN(5) {
				outs[i].Detections = append(outs[i].Detections, Detection{Score: r.Float32()})
			}
			continue
		}
		k := 1 + r.IntN(9)
		sum, sharp := float32(0), r.Float64()*8
		for range k {
			v := float32(math.Exp(r.Float64() * sharp))
			outs[i].Probabilities = append(outs[i].Probabilities, v)
			sum += v
		}
		for j := range outs[i].Probabilities {
			outs[i].Probabilities[j] /= sum
		}
	}
	return outs
}

// TestMonotone: raising a threshold never makes a hard output easy; 0 keeps
// all at the edge and more than 1 sends all.
func TestMonotone(t *testing.T) {
	outs := randomOutputs(2000)
	for rule, keys := range map[string][]string{
		"Threshold": {"threshold"}, "CrossEntropy": {"threshold_cross_entropy"}, "IBT": {"threshold_img", "threshold_box"},
	} {
		for _, key := range keys {
			before := make([]bool, len(outs))
			for step := 0; step <= 10; step++ {
				m := must(t, rule, key, fmt.Sprint(float64(step)/10))
				count := 0
				for i, o := range outs {
					hard := m.Decide(o).Hard
					if before[i] && !hard {
						t.Fatalf("%s: %v became easy at %s=%v", rule, o, key, float64(step)/10)
					}
					before[i] = hard
					if hard {
						count++
					}
				}
				if step == 0 && rule != "IBT" && count != 0 {
					t.Errorf("%s at 0 sent %d", rule, count)
				}
			}
			if rule == "IBT" {
				continue
			}
			m := must(t, rule, key, "1.01")
			for _, o := range outs {
				if !m.Decide(o).Hard {
					t.Fatalf("%s above 1 kept %v", rule, o)
				}
			}
		}
	}
}

func TestRandomShareAndSeed(t *testing.T) {
	count := func(seed string) (n int, trace string) {
		m := must(t, "Random", "seed", seed)
		for range 10_000 {
			if m.Decide(Output{}).Hard {
				n++
				trace += "x"
			} else {
				trace += "."
			}
		}
		return n, trace
	}
	n, a := count("7")
	if n < 2850 || n > 3150 {
		t.Errorf("%d of 10,000 at ratio 0.3", n)
	}
	if _, b := count("7"); a != b {
		t.Error("one seed gave two sequences")
	}
	if _, b := count("8"); a == b {
		t.Error("two seeds gave one sequence")
	}
}

// share runs n outputs through m and returns the share found hard.
func share(m Miner, n int, next func() Output) float64 {
	hard := 0
	for range n {
		if m.Decide(next()).Hard {
			hard++
		}
	}
	return float64(hard) / float64(n)
}

func TestBudget(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	sources := map[string]func() Output{
		"uniform": func() Output { return boxes(r.Float32()) },
		"sharp":   func() Output { return boxes(1 - .001*r.Float32()) },
		"binary":  func() Output { return boxes(float32(r.IntN(2))) },
		"same":    func() Output { return boxes(.7) },
		"softmax": func() Output { p := r.Float32(); return probs(p, 1-p) },
	}
	for _, rule := range []string{"Threshold", "CrossEntropy", "IBT"} {
		for _, b := range []string{"0", "0.05", "0.3", "0.8", "1"} {
			m := must(t, rule, "budget", b)
			var want float64
			if _, err := fmt.Sscan(b, &want); err != nil {
				t.Fatal(err)
			}
			// Each source follows the one before: a drift of the
			// distribution, to be followed within 1,000 samples.
			for _, name := range []string{"uniform", "sharp", "softmax", "binary", "same", "uniform"} {
				share(m, 1000, sources[name])
				if got := share(m, 2000, sources[name]); math.Abs(got-want) > .02 {
					t.Errorf("%s, budget %s, %s: share is %.3f", rule, b, name, got)
				}
			}
		}
	}
}

// TestBudgetPrefersUncertain: what a budget sends is less confident than what
// it keeps.
func TestBudgetPrefersUncertain(t *testing.T) {
	m := must(t, "Threshold", "budget", "0.3")
	r := rand.New(rand.NewPCG(7, 8))
	var sent, kept, nSent, nKept float64
	for range 5000 {
		d := m.Decide(boxes(r.Float32()))
		if d.Hard {
			sent, nSent = sent+d.Confidence, nSent+1
		} else {
			kept, nKept = kept+d.Confidence, nKept+1
		}
	}
	if sent/nSent > .2 || kept/nKept < .6 {
		t.Errorf("mean confidence %.2f sent, %.2f kept", sent/nSent, kept/nKept)
	}
}

func TestUnsoundCountsTowardsBudget(t *testing.T) {
	m := must(t, "Threshold", "budget", "0.3")
	r, i := rand.New(rand.NewPCG(9, 10)), 0
	next := func() Output {
		if i++; i%5 == 0 {
			return boxes(nan)
		}
		return boxes(r.Float32())
	}
	share(m, 1000, next)
	if got := share(m, 2000, next); math.Abs(got-.3) > .02 {
		t.Errorf("share is %.3f", got)
	}
}

type always struct{}

func (always) Decide(Output) Decision { return Decision{Hard: true, Confidence: 0} }

func TestRegister(t *testing.T) {
	Register("test-always", func(p *Params) (Miner, error) {
		p.Float("level", 1, 0, 9)
		return always{}, p.Err()
	})
	if !must(t, "test-always", "level", "3").Decide(Output{}).Hard {
		t.Error("the registered rule was not used")
	}
	if _, err := New("test-always", map[string]string{"other": "1"}); !errors.Is(err, ErrParameter) {
		t.Errorf("unknown parameter: %v", err)
	}
	defer func() {
		if recover() == nil {
			t.Error("a taken name was registered again")
		}
	}()
	Register("IBT", newIBT)
}

func TestConcurrent(t *testing.T) {
	for _, m := range []Miner{must(t, "Random"), must(t, "IBT", "budget", "0.2")} {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 500 {
					m.Decide(boxes(.3, .9))
				}
			})
		}
		wg.Wait()
	}
}

func FuzzNew(f *testing.F) {
	f.Add("Threshold", "threshold", "0.5", float32(.5))
	f.Add("IBT", "budget", "1e-9", nan)
	f.Add("Random", "seed", "18446744073709551615", float32(2))
	f.Fuzz(func(t *testing.T, name, key, value string, score float32) {
		m, err := New(name, map[string]string{key: value})
		if err != nil {
			return
		}
		for range 40 {
			m.Decide(boxes(score))
			m.Decide(probs(score, 1-score))
		}
	})
}

func BenchmarkCrossEntropy(b *testing.B) {
	o := probs(.01, .02, .03, .04, .5, .1, .1, .1, .05, .05)
	for name, m := range map[string]Miner{"plain": must(b, "CrossEntropy"), "budget": must(b, "CrossEntropy", "budget", "0.3")} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				m.Decide(o)
			}
		})
	}
}
