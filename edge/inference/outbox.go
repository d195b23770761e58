package inference

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/edgetwin/sedna/models/wire"
)

// message is one publication.
type message struct {
	topic   string
	payload []byte
}

const (
	senderCount    = 16               // publications that wait for the broker at a time
	outboxMessages = 4096             // that wait for a sender
	publishTime    = 10 * time.Second // for the broker to acknowledge
	minRetry       = 100 * time.Millisecond
	maxRetry       = 2 * time.Second
)

// outbox holds results until the broker has them. While the broker is away
// they wait, bounded in number and bytes: then put blocks, and with it the
// workers. A result whose acknowledgement was lost is published again, so that
// it can arrive twice.
type outbox struct {
	bus   Bus
	log   *slog.Logger
	queue chan message
	done  chan struct{} // closed by finish
	bytes *semaphore.Weighted
	most  int64
}

func newOutbox(b Bus, most int64, log *slog.Logger) *outbox {
	return &outbox{bus: b, log: log, queue: make(chan message, outboxMessages), done: make(chan struct{}), bytes: semaphore.NewWeighted(most), most: most}
}

func (o *outbox) weight(m message) int64 { return min(int64(len(m.payload)), o.most) }

// put waits for room; when ctx ends first the message is lost.
func (o *outbox) put(ctx context.Context, m message) {
	if o.bytes.Acquire(ctx, o.weight(m)) != nil {
		return
	}
	select {
	case o.queue <- m:
	case <-ctx.Done():
		o.bytes.Release(o.weight(m))
	}
}

// offer is put for who must not wait: without room the message is lost.
func (o *outbox) offer(m message) {
	if !o.bytes.TryAcquire(o.weight(m)) {
		return
	}
	select {
	case o.queue <- m:
	default:
		o.bytes.Release(o.weight(m))
	}
}

// finish has send return when the queue is empty. What is offered after it is
// lost.
func (o *outbox) finish() { close(o.done) }

// send publishes until finish or the end of ctx.
func (o *outbox) send(ctx context.Context) {
	for {
		select {
		case m := <-o.queue:
			o.publish(ctx, m)
			continue
		default:
		}
		select {
		case m := <-o.queue:
			o.publish(ctx, m)
		case <-o.done:
			return
		}
	}
}

// publish tries until the broker has the message or ctx ends. A message that
// the bus never takes, because it is too large, is replaced by the refusal.
func (o *outbox) publish(ctx context.Context, m message) {
	defer o.bytes.Release(o.weight(m))
	delay, replaced := minRetry, false
	for ctx.Err() == nil {
		attempt, cancel := context.WithTimeout(ctx, publishTime)
		err := o.bus.Publish(attempt, m.topic, qosAtLeastOnce, false, m.payload)
		cancel()
		var refused *wire.Error
		switch {
		case err == nil:
			return
		case errors.As(err, &refused) && !replaced:
			m.payload, replaced = refused.OIP(), true
			continue
		case refused != nil:
			o.log.Warn("result cannot be published", "topic", m.topic, "error", err)
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(delay):
		}
		delay = min(2*delay, maxRetry)
	}
}
