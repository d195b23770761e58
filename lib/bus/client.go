package bus

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"sync/atomic"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/edgetwin/sedna/models/wire"
)

// ErrOffline is what Publish returns when there is no broker, or when the
// connection broke before the broker acknowledged (the message may then have
// arrived or not). Nothing is sent again later.
var ErrOffline = errors.New("bus: not connected to the broker")

// Message is one message of a subscription. Payload must not be changed.
type Message struct {
	Topic    string
	Payload  []byte
	QoS      byte
	Retained bool // it was kept by the broker, and is not news
}

// Client is one connection to the broker, made again whenever it breaks. All
// methods may be called from any goroutine.
type Client struct {
	o       Options
	url     *url.URL
	dropped atomic.Uint64

	start  sync.Once
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // the connection's goroutine and one per subscription

	kick chan struct{} // capacity 1: subscriptions changed

	mu           sync.Mutex
	closed       bool
	session      *session // nil while offline
	subs         []*subscription
	fresh        map[string]struct{} // filters to be made, or made again, in this session
	onConnect    []func()
	onDisconnect []func()
}

// session is one life of the connection.
type session struct {
	client  paho.Client
	lost    chan struct{}       // closed when the connection is gone
	filters map[string]struct{} // subscribed to; of the connection's goroutine
}

// New checks the options. It does not dial.
func New(o Options) (*Client, error) {
	u, err := o.normalize()
	if err != nil {
		return nil, err
	}
	c := &Client{o: o, url: u, kick: make(chan struct{}, 1), fresh: map[string]struct{}{}}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c, nil
}

// Start dials in the background, and again with back-off whenever the
// connection fails, until ctx ends or Close is called. Only the first call
// counts.
func (c *Client) Start(ctx context.Context) {
	c.start.Do(func() {
		stop := context.AfterFunc(ctx, c.cancel)
		if !c.spawn(func() { defer stop(); c.run() }) {
			stop()
		}
	})
}

// spawn runs f on a goroutine that Close waits for; false after Close.
func (c *Client) spawn(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.wg.Go(f)
	return true
}

// Close disconnects and waits for handlers that are running. It must not be
// called from a handler.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.wg.Wait()
}

// Connected tells whether the broker is there and all subscriptions that were
// made before the connection came up are in force.
func (c *Client) Connected() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.session != nil
}

// Dropped counts the messages that were lost to full subscription queues or
// were larger than MaxPayload.
func (c *Client) Dropped() uint64 { return c.dropped.Load() }

// OnConnect adds a function that is called after each connect, when the
// subscriptions are in force. Functions are called one after the other and
// should not take long; they may publish and subscribe.
func (c *Client) OnConnect(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onConnect = append(c.onConnect, f)
}

// OnDisconnect adds a function that is called after each loss of connection.
func (c *Client) OnDisconnect(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onDisconnect = append(c.onDisconnect, f)
}

// Subscribe has h called for each message of filter, in the order of arrival,
// one at a time. The subscription is remembered and made again after each
// reconnect. While h is busy up to QueueSize messages wait; beyond that the
// oldest is dropped and counted. With QoS 1 a message can come twice. A filter
// that breaks MQTT's rules is logged and ignored.
func (c *Client) Subscribe(filter string, qos byte, h func(Message)) {
	c.Follow(qos, h)([]string{filter}, nil)
}

// Follow is Subscribe for a set of filters that changes: h is called for the
// messages of all of them, in the order of arrival over all, one at a time. A
// message that several of them match is one message. change takes filters in
// and out, in one step; it may be called from any goroutine, also from h. What
// is added although it is there is made again, so that the broker sends once
// more what it keeps. Messages that wait for h when their filter is removed
// still come.
func (c *Client) Follow(qos byte, h func(Message)) (change func(add, remove []string)) {
	s := &subscription{qos: min(qos, 2), handler: h, queue: make(chan Message, c.o.QueueSize), dropped: &c.dropped}
	s.filters.Store(newFilterSet(nil))
	if !c.spawn(func() { s.run(c.ctx, c) }) {
		return func(_, _ []string) {}
	}
	c.mu.Lock()
	c.subs = append(c.subs, s)
	c.mu.Unlock()
	wanted := map[string]struct{}{} // guarded by c.mu
	return func(add, remove []string) {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, f := range remove {
			delete(wanted, f)
		}
		for _, f := range add {
			if !ValidFilter(f) {
				c.o.Log.Error("not an MQTT filter, ignored", "filter", f)
				continue
			}
			wanted[f], c.fresh[f] = struct{}{}, struct{}{}
		}
		s.filters.Store(newFilterSet(wanted))
		select {
		case c.kick <- struct{}{}:
		default:
		}
	}
}

// Publish sends one message and waits: for QoS 1 and 2 until the broker has
// acknowledged it, for QoS 0 until it is on its way. Without a connection it
// returns ErrOffline at once. It is an error when ctx ends first; the message
// may have arrived then, and payload must not be changed afterwards.
func (c *Client) Publish(ctx context.Context, topic string, qos byte, retained bool, payload []byte) error {
	switch {
	case !ValidTopic(topic):
		return wire.E(wire.InvalidArgument, "topic", fmt.Sprintf("cannot publish to %.80q", topic), "")
	case qos > 2:
		return wire.E(wire.InvalidArgument, "qos", "expected 0, 1 or 2", "")
	case len(payload) > c.o.MaxPayload:
		return wire.E(wire.TooLarge, "payload", fmt.Sprintf("message of %d bytes, at most %d are sent", len(payload), c.o.MaxPayload), "")
	}
	c.mu.Lock()
	s := c.session
	c.mu.Unlock()
	if s == nil {
		return ErrOffline
	}
	// paho hands over to a writer that is gone when the connection breaks, and
	// then blocks for WriteTimeout: nobody has to wait for that.
	done := make(chan error, 1)
	if !c.spawn(func() {
		t := s.client.Publish(topic, qos, retained, payload)
		select {
		case <-t.Done():
			done <- t.Error()
		case <-s.lost:
		case <-ctx.Done():
		}
	}) {
		return ErrOffline
	}
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("publish %s: %w: %w", topic, ErrOffline, err)
		}
		return nil
	case <-s.lost:
		return fmt.Errorf("publish %s: %w", topic, ErrOffline)
	case <-ctx.Done():
		return fmt.Errorf("publish %s: %w", topic, ctx.Err())
	}
}

// dispatch hands a message of the broker to the subscriptions it is for.
func (c *Client) dispatch(m Message) {
	if len(m.Payload) > c.o.MaxPayload {
		c.dropped.Add(1)
		return
	}
	c.mu.Lock()
	subs := c.subs
	c.mu.Unlock()
	for _, s := range subs {
		if s.filters.Load().match(m.Topic) {
			s.put(m)
		}
	}
}
