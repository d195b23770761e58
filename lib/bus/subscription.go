package bus

import (
	"context"
	"runtime/debug"
	"sync/atomic"
)

// subscription is one filter with its handler. Messages wait in a bounded
// queue between the broker's connection and the handler, so that a slow
// handler delays neither the connection nor other subscriptions.
type subscription struct {
	filter  string
	qos     byte
	handler func(Message)
	queue   chan Message
	dropped *atomic.Uint64
}

// put never blocks: when the queue is full the oldest waiting message makes
// room, because on a bus of state and of requests with deadlines the newest is
// worth most.
func (s *subscription) put(m Message) {
	for {
		select {
		case s.queue <- m:
			return
		default:
		}
		select {
		case <-s.queue:
			s.dropped.Add(1)
		default:
		}
	}
}

// run calls the handler, in order, until ctx ends.
func (s *subscription) run(ctx context.Context, c *Client) {
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-s.queue:
			s.call(m, c)
		}
	}
}

// call shields the other messages from a handler that panics on one.
func (s *subscription) call(m Message, c *Client) {
	defer func() {
		if p := recover(); p != nil {
			c.o.Log.Error("message handler panicked", "filter", s.filter, "topic", m.Topic, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	s.handler(m)
}
