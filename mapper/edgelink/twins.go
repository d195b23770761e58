package edgelink

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/models/wire"
)

// publishTimeout bounds the broker's acknowledgement of one answer.
const publishTimeout = 5 * time.Second

// twins is edgecore's twin module: it takes updates from the bus and from DMI,
// answers on the bus, and hands on what the cloud may know.
type twins struct {
	e *Edge

	mu     sync.Mutex
	values map[key]map[string]*wire.MsgTwin // what edge parties wrote
}

func (t *twins) subscribe() {
	b := t.e.c.Bus
	on := func(filter string, h func(context.Context, key, []byte)) {
		b.Subscribe(filter, 1, func(m bus.Message) {
			ns, name, _, ok := wire.ParseDevice(m.Topic)
			if !ok || m.Retained {
				return
			}
			if len(m.Payload) > t.e.c.Limits.Payload {
				t.reject(wire.E(wire.TooLarge, "", "message is too large", ""))
				return
			}
			h(t.e.ctx, key{ns, name}, m.Payload)
		})
	}
	on(wire.TwinUpdateFilter, t.onUpdate)
	on(wire.TwinGetFilter, t.onGet)
	on(wire.StateUpdateFilter, t.onState)
}

func (t *twins) onUpdate(ctx context.Context, k key, payload []byte) {
	var u twinUpdate
	if json.Unmarshal(payload, &u) != nil {
		u.Twin = nil
	}
	t.update(ctx, k, u)
}

// update applies one message, answers it and sends it up.
func (t *twins) update(ctx context.Context, k key, u twinUpdate) {
	r := t.e.store.member(k)
	if r == nil {
		if t.e.c.AnswerUnknown {
			t.refuse(ctx, k, u.EventID, codeUnknown, errNoDevice)
		}
		return
	}
	if u.Twin == nil {
		t.refuse(ctx, k, u.EventID, codeBad, errNoTwin)
		return
	}
	if err := checkTwins(u.Twin); err != nil {
		t.refuse(ctx, k, u.EventID, codeBad, err)
		return
	}
	now := time.Now().UnixMilli()
	changes := t.apply(k, u.Twin, now)

	result := map[string]*wire.MsgTwin{}
	delta := twinDelta{EventID: uuid.NewString(), Timestamp: now, Twin: map[string]*wire.MsgTwin{}, Delta: map[string]string{}}
	up := map[string]wire.TwinPair{}
	for name, c := range changes {
		result[name] = c.Current
		if c.Current == nil {
			continue
		}
		if e := value(c.Current.Expected); c.Current.Expected != nil && e != value(c.Current.Actual) {
			delta.Twin[name], delta.Delta[name] = c.Current, e
		}
		if a := u.Twin[name].Actual; a != nil && a.Value != nil && r.declared[name] && !t.e.lose.loseEmpty(c) {
			up[name] = wire.TwinPair{Reported: *a.Value, ObservedDesired: value(c.Current.Expected)}
		}
	}
	if len(up) > 0 {
		t.e.uplink.send(&wire.Frame{Type: wire.FrameTwin, Namespace: k.ns, Name: k.name, UID: r.uid, Twins: up, Timestamp: now})
	}
	topic := wire.TwinUpdate(k.ns, k.name)
	t.answer(ctx, topic+"/result", twinAnswer{EventID: u.EventID, Timestamp: now, Twin: result})
	t.answer(ctx, topic+"/document", twinDocument{EventID: u.EventID, Timestamp: now, Twin: changes})
	if len(delta.Delta) > 0 {
		t.answer(ctx, topic+"/delta", delta)
	}
}

// apply merges the update into what is kept and gives the properties that it
// touches, before and after. A null twin is deleted.
func (t *twins) apply(k key, update map[string]*wire.MsgTwin, ms int64) map[string]twinChange {
	t.mu.Lock()
	defer t.mu.Unlock()
	kept := t.values[k]
	if kept == nil {
		kept = map[string]*wire.MsgTwin{}
		t.values[k] = kept
	}
	optional := true
	changes := map[string]twinChange{}
	for name, u := range update {
		last := kept[name]
		if u == nil {
			delete(kept, name)
			changes[name] = twinChange{Last: last}
			continue
		}
		current := &wire.MsgTwin{Optional: &optional, Metadata: &wire.TwinTyp{Type: "string"}}
		if last != nil {
			*current = *last
		}
		if v := valueAt(u.Expected, ms); v != nil {
			current.Expected = v
		}
		if v := valueAt(u.Actual, ms); v != nil {
			current.Actual = v
		}
		if u.Metadata != nil && u.Metadata.Type != "" {
			current.Metadata = u.Metadata
		}
		kept[name] = current
		changes[name] = twinChange{Last: last, Current: current}
	}
	return changes
}

// forget drops what was reported of a device that is gone.
func (t *twins) forget(k key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.values, k)
}

func (t *twins) onGet(ctx context.Context, k key, payload []byte) {
	var u twinUpdate
	if json.Unmarshal(payload, &u) != nil || t.e.store.member(k) == nil {
		return
	}
	answer := twinAnswer{EventID: u.EventID, Timestamp: time.Now().UnixMilli(), Twin: map[string]*wire.MsgTwin{}}
	t.mu.Lock()
	for name, v := range t.values[k] {
		answer.Twin[name] = v
	}
	t.mu.Unlock()
	t.answer(ctx, wire.TwinGetResult(k.ns, k.name), answer)
}

func (t *twins) onState(ctx context.Context, k key, payload []byte) {
	var m wire.StateMessage
	if json.Unmarshal(payload, &m) == nil {
		t.setState(ctx, k, m.State)
	}
}

// setState sends the state up and answers. States that KubeEdge does not know,
// and states of unknown devices, are dropped silently.
func (t *twins) setState(ctx context.Context, k key, state string) {
	r := t.e.store.member(k)
	if !wire.DeviceStates[state] || r == nil {
		return
	}
	now := time.Now()
	t.e.uplink.send(&wire.Frame{Type: wire.FrameState, Namespace: k.ns, Name: k.name, UID: r.uid, State: state, Timestamp: now.UnixMilli()})
	answer := stateAnswer{EventID: uuid.NewString(), Timestamp: now.UnixMilli(), Device: stateDevice{Name: k.name, State: state}}
	if state == "online" || state == "ok" {
		answer.Device.LastOnlineTime = now.UTC().Format(time.RFC3339)
	}
	t.answer(ctx, wire.StateUpdate(k.ns, k.name)+"/result", answer)
}

// refuse counts err and answers it.
func (t *twins) refuse(ctx context.Context, k key, eventID string, code int, err error) {
	t.reject(err)
	topic := wire.TwinUpdateResult(k.ns, k.name)
	if err == errAlphabet {
		topic, eventID = wire.TwinRejected, ""
	}
	t.answer(ctx, topic, refusal{EventID: eventID, Timestamp: time.Now().UnixMilli(), Code: code, Reason: wire.AsError(err).Message})
}

func (t *twins) reject(err error) { _ = t.e.c.Metrics.Reject(metrics.DoorTwin, err) }

// answer publishes; with the bus away nobody waits for the answer.
func (t *twins) answer(ctx context.Context, topic string, v any) {
	b, err := json.Marshal(v)
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, publishTimeout)
		defer cancel()
		err = t.e.c.Bus.Publish(ctx, topic, 1, false, b)
	}
	if err != nil {
		t.e.c.Log.Debug("answer not published", "topic", topic, "err", err)
	}
}
