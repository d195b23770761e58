package task

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/lib/faults"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/mapper/budget"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

const (
	doorMQTT = metrics.DoorMQTT
	doorTwin = metrics.DoorTwin

	propPhase   = "phase"
	stateOnline = "online"
	eventPrefix = "sedna-" // of the event ids of our updates
)

// reported takes a report off the bus.
func (b *Bridge) reported(m bus.Message) {
	if door, err := b.accept(m); err != nil {
		_ = b.c.Metrics.Reject(door, err)
		b.c.Log.Warn("report refused", "topic", m.Topic, "err", err)
		return
	}
	wake(b.wakeReports)
}

// accept checks a report and keeps it if it is the device's newest. It names
// the door at which it refuses.
func (b *Bridge) accept(m bus.Message) (door string, err error) {
	ns, name, leaf, ok := wire.ParseTask(b.c.Node, m.Topic)
	if !ok || leaf != "reported" {
		return doorMQTT, wire.E(wire.InvalidArgument, "topic", "not a report's topic", "")
	}
	if m.Retained {
		return doorMQTT, wire.E(wire.InvalidArgument, "", "a retained report is not news", "")
	}
	props, seq, err := DecodeReport(m.Payload, b.c.Limits)
	if err != nil {
		return doorMQTT, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	d := b.devices[key{ns, name}]
	if d == nil {
		return doorTwin, wire.E(wire.NotFound, "", fmt.Sprintf("no device %.80s/%.80s here", ns, name), "")
	}
	for k := range props {
		if !d.declared[k] {
			return doorTwin, wire.E(wire.InvalidArgument, k, "the device has no such property", "")
		}
	}
	signed := b.c.NodeKey != nil && d.uid != ""
	if signed {
		if err := task.VerifyProperties(b.c.NodeKey, d.uid, props); err != nil {
			return doorTwin, err
		}
	}
	if err := d.take(props, seq); err != nil {
		return doorTwin, err
	}
	// Unsigned it ends no document that is in force: anybody can publish.
	if props[propPhase] == task.Stopped && (signed || d.deleted) {
		d.ended(time.Now().Add(b.c.Limits.ClearAfter))
		wake(b.wakeDesired)
	}
	return doorTwin, nil
}

// take keeps the report if it is newer than what is known. Told again what
// the cloud has acknowledged last, it passes that on once: the LocalController
// answers so to a raised nonce.
func (d *device) take(props map[string]string, seq int64) error {
	switch {
	case seq < d.nonce.Acked || (d.report != nil && seq < d.report.seq):
		return wire.E(wire.Stale, task.PropSeq, "a newer report is known", "")
	case d.report != nil && seq == d.report.seq && maps.Equal(props, d.report.props):
		return nil
	}
	d.report = &report{props: props, seq: seq, once: seq == d.nonce.Acked}
	return nil
}

// reportLoop sends what is due, within the rate.
func (b *Bridge) reportLoop(ctx context.Context) {
	for {
		send, wait := b.nextReport(time.Now())
		if send == nil {
			if !b.sleep(ctx, b.wakeReports, wait) {
				return
			}
			continue
		}
		if b.c.Budget.Wait(ctx, budget.Task) != nil {
			return
		}
		if err := send(ctx); err != nil && ctx.Err() == nil {
			b.c.Log.Debug("report not sent, trying on", "err", err)
			if !b.sleep(ctx, nil, publishRetry) {
				return
			}
		}
	}
}

// nextReport gives the way to send the most urgent update, or how long to wait
// for the next (0: until woken). Reports go before states.
func (b *Bridge) nextReport(now time.Time) (send func(context.Context) error, wait time.Duration) {
	if !b.c.Bus.Connected() {
		return nil, 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var first key
	var due time.Time
	found := false
	for k, d := range b.devices {
		if d.report != nil && (!found || d.report.due.Before(due)) {
			first, due, found = k, d.report.due, true
		}
	}
	if found && !due.After(now) {
		return func(ctx context.Context) error { return b.sendReport(ctx, first) }, 0
	}
	for k, d := range b.devices {
		if d.announce {
			return func(ctx context.Context) error { return b.sendState(ctx, k) }, 0
		}
	}
	if found {
		wait = due.Sub(now)
	}
	return nil, wait
}

// sendReport sends the device's newest report, which may be newer than the one
// that was due.
func (b *Bridge) sendReport(ctx context.Context, k key) error {
	b.mu.Lock()
	d := b.devices[k]
	if d == nil || d.report == nil {
		b.mu.Unlock()
		return nil
	}
	r := d.report
	b.mu.Unlock()
	payload, err := twinUpdate(r, time.Now())
	if err != nil {
		return err
	}
	if err := b.publish(ctx, wire.TwinUpdate(k.ns, k.name), false, payload); err != nil {
		return err
	}
	b.m.sent.Inc()
	b.mu.Lock()
	defer b.mu.Unlock()
	if d := b.devices[k]; d != nil && d.report == r && (r.once || faults.Off(faults.Resend)) {
		d.report = nil
	}
	r.due = time.Now().Add(min(b.c.Limits.ResendAfter<<min(r.tries, 16), b.c.Limits.ResendAtMost))
	r.tries++
	return nil
}

func (b *Bridge) sendState(ctx context.Context, k key) error {
	payload, err := json.Marshal(wire.StateMessage{EventID: eventPrefix + "state", Timestamp: time.Now().UnixMilli(), State: stateOnline})
	if err != nil {
		return err
	}
	if err := b.publish(ctx, wire.StateUpdate(k.ns, k.name), false, payload); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if d := b.devices[k]; d != nil {
		d.announce = false
	}
	return nil
}

func twinUpdate(r *report, now time.Time) ([]byte, error) {
	m := wire.TwinMessage{EventID: eventPrefix + strconv.FormatInt(r.seq, 10), Timestamp: now.UnixMilli(), Twin: map[string]*wire.MsgTwin{}}
	for k, v := range r.props {
		m.Twin[k] = &wire.MsgTwin{Actual: &wire.TwinVal{Value: &v}, Metadata: &wire.TwinTyp{Type: "string"}}
	}
	return json.Marshal(m)
}

// answered listens for updates that edgecore refuses. Sending again is left to
// the back-off: the device may become known later.
func (b *Bridge) answered(m bus.Message) {
	if m.Topic != wire.TwinRejected {
		ns, name, _, ok := wire.ParseDevice(m.Topic)
		b.mu.Lock()
		known := ok && b.devices[key{ns, name}] != nil
		b.mu.Unlock()
		if !known {
			return
		}
	}
	var answer wire.TwinMessage
	if len(m.Payload) > b.c.Limits.Payload || json.Unmarshal(m.Payload, &answer) != nil {
		_ = b.c.Metrics.Reject(doorMQTT, wire.E(wire.InvalidArgument, "", "not an answer to a twin update", ""))
		return
	}
	if answer.Code != 0 {
		b.m.refused.WithLabelValues(strconv.Itoa(answer.Code)).Inc()
		b.c.Log.Warn("edgecore refuses a twin update", "topic", m.Topic, "code", answer.Code, "reason", fmt.Sprintf("%.200s", answer.Reason))
	}
}
