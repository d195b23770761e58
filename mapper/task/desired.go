package task

import (
	"context"
	"errors"
	"time"

	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/models/wire"
)

// maxStray bounds the desired topics that are remembered without a device.
const maxStray = 10000

// publishRetry is the pause after a publish that failed on a live connection.
const publishRetry = time.Second

// seen watches our own topics, where our publications come back too. What
// differs is looked at again after Settle.
func (b *Bridge) seen(m bus.Message) {
	ns, name, leaf, ok := wire.ParseTask(b.c.Node, m.Topic)
	if !ok || leaf != "desired" {
		return
	}
	k := key{ns, name}
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.topics[k]
	if r == nil {
		if len(m.Payload) == 0 || len(b.topics)-len(b.devices) >= maxStray {
			return
		}
		// Left from an earlier life of the node, or not ours at all.
		r = &retained{done: true}
		b.topics[k] = r
	}
	if before := r.disturbed(); r.see(m.Payload) && !before {
		r.checkAt = time.Now().Add(b.c.Limits.Settle)
		wake(b.wakeDesired)
	}
}

// publishLoop brings the broker's retained messages to what they should be.
func (b *Bridge) publishLoop(ctx context.Context) {
	for {
		p, wait := b.nextTopic(time.Now())
		if p == nil {
			if !b.sleep(ctx, b.wakeDesired, wait) {
				return
			}
			continue
		}
		err := b.publish(ctx, wire.TaskDesired(b.c.Node, p.key.ns, p.key.name), true, p.topic.payload)
		switch {
		case err == nil:
			b.m.published.Inc()
			if p.restoring {
				b.m.restored.Inc()
				b.c.Log.Warn("retained message was changed by somebody else, restored", "device", p.key.String())
			}
			b.settled(p)
		case ctx.Err() != nil:
			return
		case errors.Is(err, bus.ErrOffline):
			// connected wakes us.
			if !b.sleep(ctx, b.wakeDesired, publishRetry) {
				return
			}
		case wire.IsCode(err, wire.TooLarge):
			b.c.Log.Error("desired document does not fit on the bus", "device", p.key.String(), "err", b.c.Metrics.Reject(doorTwin, err))
			b.settled(p)
		default:
			b.c.Log.Warn("desired document not published, trying on", "device", p.key.String(), "err", err)
			if !b.sleep(ctx, nil, publishRetry) {
				return
			}
		}
	}
}

// publication is one retained message to publish.
type publication struct {
	key       key
	topic     *retained
	restoring bool // somebody else has changed it
	session   int  // the bus connection that it was meant for
}

// nextTopic gives a topic whose message has to be published, or how long to
// wait for the next one (0: until woken).
func (b *Bridge) nextTopic(now time.Time) (_ *publication, wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	connected := b.c.Bus.Connected()
	wait = b.clearEnded(now)
	for k, r := range b.topics {
		stray := b.devices[k] == nil && len(r.payload) == 0
		if stray && r.done && !r.disturbed() {
			delete(b.topics, k)
			continue
		}
		if !connected || (stray && !b.synced) {
			continue
		}
		left := r.checkAt.Sub(now)
		switch restoring := r.done && r.disturbed(); {
		case !r.done, restoring && left <= 0:
			r.done, r.mismatch, r.foreign = false, false, false
			return &publication{k, r, restoring, b.session}, 0
		case restoring && (wait == 0 || left < wait):
			wait = left
		}
	}
	return nil, wait
}

// clearEnded takes the documents of tasks that have ended off the bus, and gives
// the time until the next one is due (0: none). The lock is held.
func (b *Bridge) clearEnded(now time.Time) (wait time.Duration) {
	for k, d := range b.devices {
		if d.clearAt.IsZero() {
			continue
		}
		left := d.clearAt.Sub(now)
		if left <= 0 {
			d.clearAt, d.cleared = time.Time{}, true
			b.topics[k] = b.topics[k].successor(nil)
		} else if wait == 0 || left < wait {
			wait = left
		}
	}
	return wait
}

// settled notes that p is with the broker, unless it is outdated or the
// connection is another one by now.
func (b *Bridge) settled(p *publication) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.topics[p.key] == p.topic && b.session == p.session {
		p.topic.done = true
	}
}

func (b *Bridge) publish(ctx context.Context, topic string, retain bool, payload []byte) error {
	ctx, cancel := context.WithTimeout(ctx, b.c.Limits.Publish)
	defer cancel()
	return b.c.Bus.Publish(ctx, topic, 1, retain, payload)
}

// sleep waits for d (0: no limit) or a wake-up; false when ctx has ended.
func (b *Bridge) sleep(ctx context.Context, woken <-chan struct{}, d time.Duration) bool {
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
