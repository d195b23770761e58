package hardexample

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
)

var (
	// ErrUnknownRule: no rule of that name is registered.
	ErrUnknownRule = errors.New("unknown hard example mining algorithm")
	// ErrParameter: a parameter is unknown to the rule, cannot be read or is
	// out of range.
	ErrParameter = errors.New("bad hard example mining parameter")
)

// Constructor makes a Miner. It reads what it knows from p, with p's methods,
// and returns p.Err(); parameters that it did not read are refused.
type Constructor func(p *Params) (Miner, error)

var (
	registryMu sync.RWMutex
	registry   = map[string]Constructor{
		"Threshold":    newThreshold,
		"CrossEntropy": newCrossEntropy,
		"IBT":          newIBT,
		"Random":       newRandom,
		"CloudOnly":    newCloudOnly,
		"EdgeOnly":     newEdgeOnly,
	}
)

// Register adds a rule under a new name. It is meant for init functions and
// panics when the name is empty or taken.
func Register(name string, c Constructor) {
	registryMu.Lock()
	defer registryMu.Unlock()
	if _, taken := registry[name]; taken || name == "" {
		panic("hardexample: name empty or taken: " + strconv.Quote(name))
	}
	registry[name] = c
}

// Names lists the registered rules in alphabetical order.
func Names() []string {
	registryMu.RLock()
	defer registryMu.RUnlock()
	return slices.Sorted(maps.Keys(registry))
}

// New makes the rule of that name with its parameters, as manifests give them:
//
//	Threshold     threshold (0.5), [0,2]
//	CrossEntropy  threshold_cross_entropy (0.5), [0,2]
//	IBT           threshold_img (0.5), threshold_box (0.5), [0,1]
//	Random        random_ratio (0.3), [0,1]; seed (1)
//	CloudOnly, EdgeOnly
//
// The first three also take budget, the share in [0,1] to be found hard: the
// threshold then follows the confidences and the one given is only where it
// starts; and empty (hard), which says what an output without any result is:
// hard or easy. Errors wrap ErrUnknownRule or ErrParameter.
func New(name string, params map[string]string) (Miner, error) {
	registryMu.RLock()
	c, ok := registry[name]
	registryMu.RUnlock()
	if !ok {
		return nil, fmt.Errorf("%w %q, expected one of %s", ErrUnknownRule, name, strings.Join(Names(), ", "))
	}
	p := &Params{values: params}
	m, err := c(p)
	if err == nil {
		err = p.unread()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return m, nil
}

// Params reads string parameters; the first error sticks.
type Params struct {
	values map[string]string
	known  []string
	err    error
}

// Err is the first error of the methods below.
func (p *Params) Err() error { return p.err }

// Float reads a number in [low,high].
func (p *Params) Float(name string, def, low, high float64) float64 {
	s, ok := p.text(name)
	if !ok {
		return def
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || !(v >= low && v <= high) { // NaN is in no range
		p.fail(name, s, fmt.Sprintf("a number from %v to %v", low, high))
		return def
	}
	return v
}

// Uint reads a non-negative integer.
func (p *Params) Uint(name string, def uint64) uint64 {
	s, ok := p.text(name)
	if !ok {
		return def
	}
	v, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		p.fail(name, s, "a non-negative integer")
		return def
	}
	return v
}

// Choice reads one of the options; the first is the default.
func (p *Params) Choice(name string, options ...string) string {
	s, ok := p.text(name)
	if !ok {
		return options[0]
	}
	if !slices.Contains(options, s) {
		p.fail(name, s, "one of "+strings.Join(options, ", "))
		return options[0]
	}
	return s
}

func (p *Params) text(name string) (string, bool) {
	p.known = append(p.known, name)
	s, ok := p.values[name]
	return strings.TrimSpace(s), ok
}

func (p *Params) fail(name, value, expected string) {
	if p.err == nil {
		p.err = fmt.Errorf("%w: %s is %q, expected %s", ErrParameter, name, value, expected)
	}
}

// unread refuses parameters that no method was asked for.
func (p *Params) unread() error {
	for _, name := range slices.Sorted(maps.Keys(p.values)) {
		if !slices.Contains(p.known, name) {
			known := "none"
			if len(p.known) > 0 {
				known = strings.Join(p.known, ", ")
			}
			return fmt.Errorf("%w: %s is not known, expected %s", ErrParameter, name, known)
		}
	}
	return nil
}

// miner completes a threshold rule with the parameters that all of them have.
func (p *Params) miner(r rule) (Miner, error) {
	m := &ruleMiner{rule: r, emptyIsEasy: p.Choice("empty", "hard", "easy") == "easy"}
	if share := p.Float("budget", math.NaN(), 0, 1); !math.IsNaN(share) {
		m.budget = newBudget(share)
	}
	return m, p.err
}
