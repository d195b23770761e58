package bus

import (
	"context"
	"runtime/debug"
	"strings"
	"sync/atomic"
)

// subscription is a handler with the filters that it is for. Messages wait in
// a bounded queue between the broker's connection and the handler, so that a
// slow handler delays neither the connection nor other subscriptions.
type subscription struct {
	filters atomic.Pointer[filterSet]
	qos     byte
	handler func(Message)
	queue   chan Message
	dropped *atomic.Uint64
}

// filterSet does not change.
type filterSet struct {
	topics    map[string]struct{} // filters without wildcards
	wildcards []string
}

func newFilterSet(filters map[string]struct{}) *filterSet {
	set := &filterSet{topics: map[string]struct{}{}}
	for f := range filters {
		if strings.ContainsAny(f, "+#") {
			set.wildcards = append(set.wildcards, f)
		} else {
			set.topics[f] = struct{}{}
		}
	}
	return set
}

func (s *filterSet) match(topic string) bool {
	if _, ok := s.topics[topic]; ok {
		return true
	}
	for _, f := range s.wildcards {
		if Match(f, topic) {
			return true
		}
	}
	return false
}

// each calls f for all filters.
func (s *filterSet) each(f func(filter string)) {
	for t := range s.topics {
		f(t)
	}
	for _, w := range s.wildcards {
		f(w)
	}
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
			c.o.Log.Error("message handler panicked", "topic", m.Topic, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	s.handler(m)
}
