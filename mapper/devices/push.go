package devices

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/models/wire"
)

// targets are the brokers that devices push to; each has one connection.
type targets struct {
	e    *Engine
	http *http.Client

	mu      sync.Mutex
	clients map[string]*target // by address
}

type target struct {
	client *bus.Client
	users  int
}

func newTargets(e *Engine) *targets {
	return &targets{e: e, clients: map[string]*target{}, http: &http.Client{
		// A push that is redirected would go where nobody has said.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     &http.Transport{MaxIdleConnsPerHost: 2, MaxConnsPerHost: 8, IdleConnTimeout: time.Minute},
	}}
}

func (t *targets) acquire(address string) (*bus.Client, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if have := t.clients[address]; have != nil {
		have.users++
		return have.client, nil
	}
	if len(t.clients) >= t.e.c.Limits.PushTargets {
		return nil, wire.E(wire.ResourceExhausted, "pushMethod.mqtt.address", fmt.Sprintf("%d brokers are pushed to, which is the most", len(t.clients)), "")
	}
	sum := sha256.Sum256([]byte(t.e.c.Node + " " + address))
	c, err := bus.New(bus.Options{URL: address, ClientID: "sedna-push-" + hex.EncodeToString(sum[:6]), CleanSession: true, Log: t.e.c.Log})
	if err != nil {
		return nil, err
	}
	c.Start(t.e.ctx)
	t.clients[address] = &target{c, 1}
	return c, nil
}

func (t *targets) release(address string) {
	t.mu.Lock()
	have := t.clients[address]
	if have.users--; have.users > 0 {
		have = nil
	} else {
		delete(t.clients, address)
	}
	t.mu.Unlock()
	if have != nil {
		have.client.Close()
	}
}

func (t *targets) close() { t.http.CloseIdleConnections() }

// pusher pushes one device's readings; of each property the newest waits.
type pusher struct {
	e    *Engine
	log  func(string, ...any)
	wake chan struct{} // capacity 1

	mu      sync.Mutex
	pending map[string]pushed
	failing bool
}

type pushed struct {
	p       *property
	payload []byte
}

func newPusher(e *Engine, log func(string, ...any)) *pusher {
	return &pusher{e: e, log: log, wake: make(chan struct{}, 1), pending: map[string]pushed{}}
}

func (u *pusher) offer(p *property, payload []byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, waiting := u.pending[p.Name]; waiting {
		u.e.m.pushes.WithLabelValues("any", "dropped").Inc()
	}
	u.pending[p.Name] = pushed{p, payload}
	wake(u.wake)
}

func (u *pusher) take() map[string]pushed {
	u.mu.Lock()
	defer u.mu.Unlock()
	all := u.pending
	u.pending = map[string]pushed{}
	return all
}

// run pushes until ctx ends.
func (u *pusher) run(ctx context.Context) {
	clients := map[string]*bus.Client{}
	defer func() {
		for address := range clients {
			u.e.targets.release(address)
		}
	}()
	for sleep(ctx, u.wake, 0) {
		for _, x := range u.take() {
			if x.p.mqtt != nil {
				u.count("mqtt", u.mqtt(ctx, x, clients))
			}
			if x.p.http != nil {
				u.count("http", u.post(ctx, x))
			}
		}
	}
}

// count notes how a push went, and logs the first failure of a row.
func (u *pusher) count(method string, err error) {
	if err == nil {
		u.failing = false
		u.e.m.pushes.WithLabelValues(method, "done").Inc()
		return
	}
	u.e.m.pushes.WithLabelValues(method, "failed").Inc()
	if !u.failing {
		u.log("reading not pushed", "method", method, "err", err)
	}
	u.failing = true
}

func (u *pusher) mqtt(ctx context.Context, x pushed, clients map[string]*bus.Client) error {
	q := x.p.mqtt
	ctx, cancel := context.WithTimeout(ctx, u.e.c.Limits.Push)
	defer cancel()
	if q.address == "" {
		return u.e.c.Bus.Publish(ctx, q.topic, q.qos, q.retained, x.payload)
	}
	c := clients[q.address]
	if c == nil {
		var err error
		if c, err = u.e.targets.acquire(q.address); err != nil {
			return err
		}
		clients[q.address] = c
		// The first reading would be lost to a connection that is being made.
		for !c.Connected() && sleep(ctx, nil, 20*time.Millisecond) {
		}
	}
	return c.Publish(ctx, q.topic, q.qos, q.retained, x.payload)
}

func (u *pusher) post(ctx context.Context, x pushed) error {
	ctx, cancel := context.WithTimeout(ctx, x.p.http.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, x.p.http.url, bytes.NewReader(x.payload))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := u.e.targets.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10))
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("answered %s", res.Status)
	}
	return nil
}
