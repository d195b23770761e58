package upstream

import (
	"sync"
	"time"
)

// State is what a circuit lets through.
type State string

// States of a circuit.
const (
	Closed   State = "closed"    // all calls
	Open     State = "open"      // none; probes look for recovery
	HalfOpen State = "half-open" // one call at a time: the probe went well, the next call decides
)

// circuit counts failures in a row and decides which calls are let through.
type circuit struct {
	threshold int
	changed   func(State) // called with the lock held; must not block

	opened chan struct{} // capacity 1: it opened, probe

	mu        sync.Mutex // guards what follows
	state     State
	since     time.Time // of state
	failures  int       // in a row
	trial     bool      // half-open: a call is under way
	recovered bool      // a call went well since takeRecovered
	lastErr   string    // of the last failure
}

func newCircuit(threshold int, changed func(State)) *circuit {
	return &circuit{threshold: threshold, changed: changed, state: Closed, since: time.Now(), opened: make(chan struct{}, 1)}
}

// enter asks to make a call. When it is allowed exactly one of success,
// failure and abandon must follow.
func (c *circuit) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.state == Open, c.state == HalfOpen && c.trial:
		return false
	case c.state == HalfOpen:
		c.trial = true
	}
	return true
}

// success closes the circuit, also when the call was let through before it
// opened: the other side answers.
func (c *circuit) success() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failures, c.trial, c.recovered, c.lastErr = 0, false, true, ""
	c.set(Closed)
}

func (c *circuit) failure(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failures++
	c.trial = false
	c.lastErr = err.Error()
	if c.state == HalfOpen || c.failures >= c.threshold {
		c.set(Open)
	}
}

// abandon ends a call that says nothing about the other side.
func (c *circuit) abandon() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trial = false
}

// probed tells how a probe of the open circuit went.
func (c *circuit) probed(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != Open {
		return
	}
	if err != nil {
		c.lastErr = err.Error()
		return
	}
	c.set(HalfOpen)
}

func (c *circuit) set(s State) {
	if c.state == s {
		return
	}
	c.state, c.since = s, time.Now()
	if s == Open {
		select {
		case c.opened <- struct{}{}:
		default:
		}
	}
	c.changed(s)
}

func (c *circuit) isOpen() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state == Open
}

// takeRecovered tells whether a call went well since the last time it was
// asked.
func (c *circuit) takeRecovered() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.recovered
	c.recovered = false
	return r
}
