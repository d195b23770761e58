package inference

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// writer writes a service's answers into its result property. While the bus is
// away only the newest waits.
type writer struct {
	m         *Manager
	stats     *stats
	namespace string
	spec      task.ResultProperty
	topic     string
	wake      chan struct{} // capacity 1: there is a value

	mu    sync.Mutex
	value json.RawMessage // not written yet; nil: none
	last  json.RawMessage // written last
	err   string          // why the last answer or write failed; empty once one is written
}

// writerOf gives the writer of a service: the one that there is where it fits,
// a new one, or nil for a service without a result property.
func (m *Manager) writerOf(s *service, st *stats, old *service) (*writer, error) {
	r := s.spec.Result
	switch {
	case r == nil:
		return nil, nil
	case len(m.cfg.Key) == 0:
		return nil, wire.E(wire.FailedPrecondition, "resultProperty", "this node has no key to sign writes with", "")
	case r.Value != "" && r.Value != task.ResultOutput && !s.classes():
		return nil, wire.E(wire.InvalidArgument, "resultProperty.value", "is "+r.Value+", and the model's answer is no classes", "use "+task.ResultOutput)
	case old != nil && old.writer != nil && old.writer.spec == *r:
		return old.writer, nil
	}
	return &writer{
		m: m, stats: st, namespace: s.spec.Namespace, spec: *r, wake: make(chan struct{}, 1),
		topic: wire.SensorSet(m.cfg.Node, s.spec.Namespace, r.Device, r.Property),
	}, nil
}

// take notes the value of an answer, in place of one that was not written yet.
func (w *writer) take(s *service, o *outcome) {
	value, err := s.value(o, w.spec.Value)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.err = err.Error()
		return
	}
	w.value = value
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// newest takes the value that waits.
func (w *writer) newest() json.RawMessage {
	w.mu.Lock()
	defer w.mu.Unlock()
	v := w.value
	w.value = nil
	return v
}

// writeGap is the least time between two writes of a property, the resolution
// of their timestamps.
const writeGap = time.Millisecond

// work writes until ctx ends.
func (w *writer) work(ctx context.Context) {
	defer w.m.stamps.forget(w.topic)
	wait := time.NewTimer(0)
	defer wait.Stop()
	delay := minRetry
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		}
		select {
		case <-ctx.Done():
			return
		case <-wait.C:
		}
		value := w.newest()
		if value == nil {
			wait.Reset(0)
			continue
		}
		if w.done(value, w.write(ctx, value)) {
			delay = minRetry
			wait.Reset(writeGap)
		} else {
			wait.Reset(delay)
			delay = min(2*delay, maxRetry)
		}
	}
}

// write publishes a value, signed now: signatures are good for a short time.
func (w *writer) write(ctx context.Context, value json.RawMessage) error {
	g := w.m.link.Load()
	if g == nil {
		return wire.E(wire.Unavailable, "", "no bus", "")
	}
	at := time.UnixMilli(w.m.stamps.next(w.topic))
	payload, err := json.Marshal(task.SignWrite(w.m.cfg.Key, w.m.cfg.Node, w.namespace, w.spec.Device, w.spec.Property, value, at))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, publishTime)
	defer cancel()
	return g.outbox.bus.Publish(ctx, w.topic, qosAtLeastOnce, false, payload)
}

// done notes how a write went; false when it is to be tried again.
func (w *writer) done(value json.RawMessage, err error) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		w.last, w.err = value, ""
		w.stats.writes.Add(1)
		return true
	}
	w.err = err.Error()
	if never := (*wire.Error)(nil); errors.As(err, &never) && never.Code != wire.Unavailable {
		w.m.cfg.Log.Warn("result property not written", "device", w.spec.Device, "property", w.spec.Property, "error", err)
		return true
	}
	if w.value == nil {
		w.value = value
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
	return false
}

// ResultStatus is the state of a service's result property.
type ResultStatus struct {
	Device    string          `json:"device"`
	Property  string          `json:"property"`
	Written   int64           `json:"written"`
	Value     json.RawMessage `json:"value,omitempty"` // that was written last
	LastError string          `json:"lastError,omitempty"`
}

func (w *writer) status() *ResultStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	return &ResultStatus{Device: w.spec.Device, Property: w.spec.Property, Written: w.stats.writes.Load(), Value: w.last, LastError: w.err}
}

// stamps gives the writes of each property times that grow, whoever writes.
type stamps struct {
	mu   sync.Mutex
	last map[string]int64 // milliseconds since 1970, by topic
}

func (s *stamps) next(topic string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := max(time.Now().UnixMilli(), s.last[topic]+1)
	s.last[topic] = at
	return at
}

// forget drops the time of a property that nobody writes any more, unless the
// clock was set back since.
func (s *stamps) forget(topic string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last[topic] < time.Now().UnixMilli() {
		delete(s.last, topic)
	}
}
