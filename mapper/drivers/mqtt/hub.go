package mqtt

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/lib/config"
	"github.com/edgetwin/sedna/models/wire"
)

// maxBrokers bounds the brokers that devices use at a time.
const maxBrokers = 32

// account is a broker with the user that connects to it.
type account struct {
	url, username string
	password      config.Secret
}

// hub keeps one connection per account for all devices of the process.
type hub struct {
	node string
	log  *slog.Logger

	mu    sync.Mutex
	links map[account]*link
	made  int // counts the links, for their client ids
}

// link is a connection that devices share. Filters stay subscribed until the
// last device has gone: the bus client cannot unsubscribe.
type link struct {
	h       *hub
	account account
	client  *bus.Client
	users   int // guarded by hub.mu

	mu        sync.Mutex
	listeners map[string][]*listener // by topic; a topic that was ever heard stays
}

// listener is one device's ear on a topic.
type listener struct {
	topic string
	hear  func(bus.Message)

	mu   sync.Mutex
	gone bool
}

func (h *hub) acquire(a account) (*link, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l := h.links[a]; l != nil {
		l.users++
		return l, nil
	}
	if len(h.links) >= maxBrokers {
		return nil, wire.E(wire.ResourceExhausted, "protocol.configData.broker", "too many different brokers are in use here", "")
	}
	h.made++
	c, err := bus.New(bus.Options{
		URL: a.url, Username: a.username, Password: a.password,
		ClientID: fmt.Sprintf("sedna-mqtt-%s-%d", h.node, h.made), CleanSession: true, Log: h.log,
	})
	if err != nil {
		return nil, err
	}
	l := &link{h: h, account: a, client: c, users: 1, listeners: map[string][]*listener{}}
	h.links[a] = l
	// The link lives until release.
	c.Start(context.Background())
	return l, nil
}

func (l *link) release() {
	l.h.mu.Lock()
	l.users--
	last := l.users == 0
	if last {
		delete(l.h.links, l.account)
	}
	l.h.mu.Unlock()
	if last {
		l.client.Close()
	}
}

// listen has hear called for messages of topic.
func (l *link) listen(topic string, qos byte, hear func(bus.Message)) *listener {
	x := &listener{topic: topic, hear: hear}
	l.mu.Lock()
	have, subscribed := l.listeners[topic]
	l.listeners[topic] = append(slices.Clip(have), x)
	l.mu.Unlock()
	if !subscribed {
		l.client.Subscribe(topic, qos, l.dispatch)
	}
	return x
}

// forget ends a listener, and waits for a call of it that is under way.
func (l *link) forget(x *listener) {
	x.mu.Lock()
	x.gone = true
	x.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.listeners[x.topic] = slices.DeleteFunc(slices.Clone(l.listeners[x.topic]), func(y *listener) bool { return y == x })
}

func (l *link) dispatch(m bus.Message) {
	l.mu.Lock()
	all := l.listeners[m.Topic]
	l.mu.Unlock()
	for _, x := range all {
		x.mu.Lock()
		if !x.gone {
			x.hear(m)
		}
		x.mu.Unlock()
	}
}
