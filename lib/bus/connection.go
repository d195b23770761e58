package bus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/url"
	"slices"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// disconnectQuiesce is how long a DISCONNECT may take to leave, in
// milliseconds.
const disconnectQuiesce = 250

// run keeps one session after the other until the client is closed. Each
// session has a paho client of its own with an empty store: paho's own
// reconnect would send unacknowledged messages again, of states long past.
func (c *Client) run() {
	wait := c.o.MinBackoff
	failures := 0
	for c.ctx.Err() == nil {
		s, err := c.connect()
		if err == nil {
			failures = 0
			since := time.Now()
			err = c.serve(s)
			if c.ctx.Err() != nil {
				return
			}
			if time.Since(since) >= c.o.MaxBackoff {
				wait = c.o.MinBackoff
			}
			c.o.Log.Warn("broker lost", "broker", c.url.Redacted(), "err", err)
		} else if failures++; failures == 1 {
			c.o.Log.Warn("broker not reached, trying on", "broker", c.url.Redacted(), "err", err)
		}
		select {
		case <-c.ctx.Done():
			return
		case <-time.After(wait + time.Duration(rand.Int64N(int64(wait)/5+1))):
		}
		wait = min(2*wait, c.o.MaxBackoff)
	}
}

// connect dials and subscribes.
func (c *Client) connect() (*session, error) {
	ctx, cancel := context.WithTimeout(c.ctx, c.o.ConnectTimeout)
	defer cancel()
	s := &session{lost: make(chan struct{}), filters: map[string]struct{}{}}
	o := c.pahoOptions(s)
	release := func() bool { return true }
	o.SetCustomOpenConnectionFn(func(u *url.URL, _ paho.ClientOptions) (net.Conn, error) {
		conn, err := dial(ctx, u, c.o.TLS)
		if err == nil {
			release = context.AfterFunc(ctx, func() { _ = conn.Close() })
		}
		return conn, err
	})
	s.client = paho.NewClient(o)
	t := s.client.Connect()
	<-t.Done() // the dial and the handshake end with ctx
	release()
	if err := t.Error(); err != nil {
		return nil, err
	}
	if err := c.subscribe(ctx, s); err != nil {
		s.client.Disconnect(disconnectQuiesce)
		return nil, err
	}
	return s, nil
}

// serve announces the session and lives with it until it is lost.
func (c *Client) serve(s *session) error {
	c.mu.Lock()
	c.session = s
	up := c.onConnect
	c.mu.Unlock()
	c.o.Log.Info("broker connected", "broker", c.url.Redacted())
	defer func() {
		c.mu.Lock()
		c.session = nil
		down := c.onDisconnect
		c.mu.Unlock()
		s.client.Disconnect(disconnectQuiesce)
		for _, f := range down {
			f()
		}
	}()
	for _, f := range up {
		f()
	}
	for {
		select {
		case <-c.ctx.Done():
			return c.ctx.Err()
		case <-s.lost:
			return errors.New("connection closed")
		case <-c.kick:
			ctx, cancel := context.WithTimeout(c.ctx, c.o.ConnectTimeout)
			err := c.subscribe(ctx, s)
			cancel()
			if err != nil {
				return err
			}
		}
	}
}

// maxFilters is how many filters go into one packet.
const maxFilters = 256

// subscribe brings the session's filters to those that are wanted, and waits
// for the broker to confirm. A filter that the broker refuses is logged and
// left out until the next connect.
func (c *Client) subscribe(ctx context.Context, s *session) error {
	add, remove := c.changes(s)
	for packet := range slices.Chunk(slices.Sorted(maps.Keys(add)), maxFilters) {
		filters := make(map[string]byte, len(packet))
		for _, f := range packet {
			filters[f] = add[f]
		}
		t := s.client.SubscribeMultiple(filters, nil)
		if err := s.confirmed(ctx, t); err != nil {
			return err
		}
		if st, ok := t.(*paho.SubscribeToken); ok {
			for f, code := range st.Result() {
				if code >= 0x80 {
					c.o.Log.Error("broker refuses the subscription", "filter", f)
				}
			}
		}
	}
	for packet := range slices.Chunk(remove, maxFilters) {
		if err := s.confirmed(ctx, s.client.Unsubscribe(packet...)); err != nil {
			return err
		}
	}
	return nil
}

// changes lists what the session lacks, with the highest QoS that is wanted of
// it, and what nobody wants any more. The session is taken to have followed.
func (c *Client) changes(s *session) (add map[string]byte, remove []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wanted := map[string]byte{}
	for _, sub := range c.subs {
		sub.filters.Load().each(func(f string) { wanted[f] = max(wanted[f], sub.qos) })
	}
	add = map[string]byte{}
	for f, qos := range wanted {
		_, made := s.filters[f]
		if _, again := c.fresh[f]; again || !made {
			add[f] = qos
			s.filters[f] = struct{}{}
		}
	}
	for f := range s.filters {
		if _, ok := wanted[f]; !ok {
			remove = append(remove, f)
			delete(s.filters, f)
		}
	}
	clear(c.fresh)
	return add, remove
}

// confirmed waits for the broker's answer.
func (s *session) confirmed(ctx context.Context, t paho.Token) error {
	select {
	case <-t.Done():
		return nil
	case <-s.lost:
		return ErrOffline
	case <-ctx.Done():
		return fmt.Errorf("subscribe: %w", ctx.Err())
	}
}

func (c *Client) pahoOptions(s *session) *paho.ClientOptions {
	o := paho.NewClientOptions()
	o.Servers = []*url.URL{c.url}
	o.SetClientID(c.o.ClientID)
	o.SetCleanSession(c.o.CleanSession)
	o.SetUsername(c.o.Username)
	o.SetPassword(string(c.o.Password))
	o.SetProtocolVersion(4)
	o.SetKeepAlive(c.o.KeepAlive)
	o.SetPingTimeout(c.o.ConnectTimeout)
	o.SetConnectTimeout(c.o.ConnectTimeout)
	o.SetWriteTimeout(c.o.WriteTimeout)
	o.SetAutoReconnect(false)
	o.SetConnectRetry(false)
	// In order: dispatch only queues, so it is quick, and a goroutine per
	// message would lose the order.
	o.SetOrderMatters(true)
	o.SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) {
		c.dispatch(Message{Topic: m.Topic(), Payload: m.Payload(), QoS: m.Qos(), Retained: m.Retained()})
	})
	o.SetConnectionLostHandler(func(paho.Client, error) { close(s.lost) })
	return o
}

// dial opens the network connection; ctx bounds it.
func dial(ctx context.Context, u *url.URL, conf *tls.Config) (net.Conn, error) {
	switch u.Scheme {
	case "unix":
		return (&net.Dialer{}).DialContext(ctx, "unix", u.Path)
	case "tls":
		return (&tls.Dialer{Config: conf}).DialContext(ctx, "tcp", u.Host)
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", u.Host)
}
