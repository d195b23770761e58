package devices

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/edgetwin/sedna/mapper/budget"
	"github.com/edgetwin/sedna/models/wire"
)

// Event ids of our updates, by which logs can be searched.
const (
	readingEvent = "sedna-reading"
	stateEvent   = "sedna-device-state"
)

// publishRetry is the pause after a publish that failed on a live connection.
const publishRetry = time.Second

// cell is what is to be said of one property.
type cell struct {
	kind     Kind
	reported string
	desired  string // what was written; empty: nothing
}

// stateEntry is what is to be said, and what was said, of a device's state.
type stateEntry struct {
	want, sent string    // empty: nothing yet
	at         time.Time // of the last one sent
}

// reporter sends readings and states to the cloud within the budget. Of each
// property it keeps only the newest reading; devices take turns.
type reporter struct {
	c    *Config
	m    *counters
	wake chan struct{} // capacity 1

	mu      sync.Mutex
	pending map[key]map[string]cell
	order   []key                   // of pending, the longest waiting first
	sent    map[key]map[string]cell // the last that was sent of each property
	states  map[key]*stateEntry
}

func newReporter(c *Config, m *counters) *reporter {
	return &reporter{c: c, m: m, wake: make(chan struct{}, 1), pending: map[key]map[string]cell{}, sent: map[key]map[string]cell{}, states: map[key]*stateEntry{}}
}

// add makes a device known; nothing is said of others.
func (r *reporter) add(k key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.states[k] = &stateEntry{}
}

// offer takes the newest reading of a property.
func (r *reporter) offer(k key, property string, v cell) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.states[k]; e != nil {
		r.put(k, property, v)
		if e.want != "" { // or else the first state is about to come, and goes first
			wake(r.wake)
		}
	}
}

func (r *reporter) put(k key, property string, v cell) {
	cells := r.pending[k]
	if cells == nil {
		cells = map[string]cell{}
		r.pending[k] = cells
		r.order = append(r.order, k)
	}
	if _, waiting := cells[property]; waiting {
		r.m.reportsDropped.Inc()
	}
	cells[property] = v
}

// state takes a device's state.
func (r *reporter) state(k key, state string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.states[k]; e != nil {
		e.want = state
		wake(r.wake)
	}
}

// repeatState has the state told again.
func (r *reporter) repeatState(k key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.states[k]; e != nil {
		e.sent = ""
		wake(r.wake)
	}
}

// forget drops what waits for a device that is gone.
func (r *reporter) forget(k key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.pending, k)
	delete(r.sent, k)
	delete(r.states, k)
}

// connected tells all states anew: the broker may have lost them.
func (r *reporter) connected() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.states {
		e.sent = ""
	}
	wake(r.wake)
}

// run sends until ctx ends.
func (r *reporter) run(ctx context.Context) {
	for {
		ready, wait := r.ready(time.Now())
		if !ready {
			if !sleep(ctx, r.wake, wait) {
				return
			}
			continue
		}
		if r.c.Budget.Wait(ctx, budget.Sensor) != nil {
			return
		}
		// What is sent is chosen only now: it is the newest then.
		if err := r.send(ctx, time.Now()); err != nil && ctx.Err() == nil {
			r.c.Log.Debug("reading not reported, trying on", "err", err)
			if !sleep(ctx, nil, publishRetry) {
				return
			}
		}
	}
}

// ready tells whether there is something to send, or how long to wait for the
// next state (0: until woken).
func (r *reporter) ready(now time.Time) (bool, time.Duration) {
	if !r.c.Bus.Connected() {
		return false, 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.order) > 0 && r.pending[r.order[0]] == nil {
		r.order = r.order[1:]
	}
	if len(r.order) > 0 {
		return true, 0
	}
	_, wait := r.nextState(now)
	return wait < 0, max(wait, 0)
}

// nextState gives a device whose state is due (wait is negative then), or the
// wait for the next one (0: there is none).
func (r *reporter) nextState(now time.Time) (k key, wait time.Duration) {
	for name, e := range r.states {
		if e.want == "" {
			continue
		}
		interval := r.c.Limits.StateRepeat
		if e.want != e.sent {
			interval = r.c.Limits.StateInterval
		}
		left := e.at.Add(interval).Sub(now)
		if e.at.IsZero() || left <= 0 {
			return name, -1
		}
		if wait == 0 || left < wait {
			wait = left
		}
	}
	return k, wait
}

// send sends one message: a state that is due, or the readings of the device
// that waits longest.
func (r *reporter) send(ctx context.Context, now time.Time) error {
	r.mu.Lock()
	if k, wait := r.nextState(now); wait < 0 {
		e := r.states[k]
		state := e.want
		r.mu.Unlock()
		return r.sendState(ctx, k, e, state, now)
	}
	for len(r.order) > 0 {
		k := r.order[0]
		r.order = r.order[1:]
		cells := r.pending[k]
		if cells == nil {
			continue
		}
		delete(r.pending, k)
		r.mu.Unlock()
		return r.sendReadings(ctx, k, cells, now)
	}
	r.mu.Unlock()
	return nil
}

func (r *reporter) sendState(ctx context.Context, k key, e *stateEntry, state string, now time.Time) error {
	payload, err := json.Marshal(wire.StateMessage{EventID: stateEvent, Timestamp: now.UnixMilli(), State: state})
	if err != nil {
		return err
	}
	if err := r.publish(ctx, wire.StateUpdate(k.ns, k.name), payload); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e.sent, e.at = state, now
	// Readings get lost on the way as states do. What a device said before it
	// went is not said again: it would look fresh.
	if state == online && r.states[k] == e {
		for name, v := range r.sent[k] {
			r.repeat(k, name, v)
		}
	}
	return nil
}

// repeat sends a reading once more, unless a newer one waits. Called with mu
// held.
func (r *reporter) repeat(k key, name string, v cell) {
	if _, newer := r.pending[k][name]; !newer {
		r.put(k, name, v)
	}
}

func (r *reporter) sendReadings(ctx context.Context, k key, cells map[string]cell, now time.Time) error {
	m := wire.TwinMessage{EventID: readingEvent, Timestamp: now.UnixMilli(), Twin: map[string]*wire.MsgTwin{}}
	for name, v := range cells {
		t := &wire.MsgTwin{Actual: &wire.TwinVal{Value: &v.reported}, Metadata: &wire.TwinTyp{Type: v.kind.twinType()}}
		if v.desired != "" && wire.TwinSafe(name, v.desired) {
			t.Expected = &wire.TwinVal{Value: &v.desired}
		}
		m.Twin[name] = t
	}
	payload, err := json.Marshal(m)
	if err == nil {
		err = r.publish(ctx, wire.TwinUpdate(k.ns, k.name), payload)
	}
	if err == nil {
		r.m.reports.Inc()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.states[k] == nil {
		return err // removed meanwhile
	}
	if r.sent[k] == nil {
		r.sent[k] = map[string]cell{}
	}
	for name, v := range cells {
		_, known := r.sent[k][name]
		if err == nil {
			r.sent[k][name] = v
		}
		// KubeEdge loses the first report of each property.
		if err != nil || !known {
			r.repeat(k, name, v)
		}
	}
	return err
}

func (r *reporter) publish(ctx context.Context, topic string, payload []byte) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.c.Limits.Publish)
	defer cancel()
	return r.c.Bus.Publish(ctx, topic, 1, false, payload)
}

// wake tells the loop that reads ch that there may be work.
func wake(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// sleep waits for d (0: no limit) or a wake-up; false when ctx has ended.
func sleep(ctx context.Context, woken <-chan struct{}, d time.Duration) bool {
	var timeout <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		timeout = t.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-woken:
	case <-timeout:
	}
	return true
}
