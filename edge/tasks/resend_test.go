package tasks_test

import (
	"context"
	"encoding/json"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgetwin/sedna/edge/model"
	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/edge/tasks"
	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

func TestBackoff(t *testing.T) {
	b := tasks.Backoff{Base: 2 * time.Second, Max: 5 * time.Minute}
	base := 2 * time.Second
	for n := 1; n <= 60; n++ {
		want := min(base<<min(n-1, 20), 5*time.Minute)
		if got := b.After(n, "k"); got < want || got > want+want/5 || got != b.After(n, "k") {
			t.Errorf("try %d: %v, want %v and up to a fifth", n, got, want)
		}
	}
	if b.After(3, "a") == b.After(3, "b") {
		t.Error("keys do not spread")
	}
}

// clockBus records when reports are published, inside a synctest bubble where
// no real connection can be.
type clockBus struct {
	mu        sync.Mutex
	connected bool
	desired   func(bus.Message)
	onConnect []func()
	sent      []time.Time
	last      map[string]string
}

func (b *clockBus) Publish(_ context.Context, _ string, _ byte, _ bool, payload []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.connected {
		return bus.ErrOffline
	}
	b.sent = append(b.sent, time.Now())
	b.last = nil
	return json.Unmarshal(payload, &b.last)
}

func (b *clockBus) Subscribe(_ string, _ byte, h func(bus.Message)) { b.desired = h }

func (b *clockBus) OnConnect(f func()) { b.onConnect = append(b.onConnect, f) }

func (b *clockBus) Connected() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.connected
}

func (b *clockBus) set(connected bool) {
	b.mu.Lock()
	b.connected = connected
	b.mu.Unlock()
	if connected {
		for _, f := range b.onConnect {
			f()
		}
	}
}

// take gives the times of sends since the last call, from start.
func (b *clockBus) take(start time.Time) (out []time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, at := range b.sent {
		out = append(out, at.Sub(start))
	}
	b.sent = nil
	return out
}

func TestResendUntilAcknowledged(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		s, err := store.Open(ctx, store.Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		lib, err := model.New(ctx, model.Options{Dir: dir, Store: s})
		if err != nil {
			t.Fatal(err)
		}
		c := &cloud{t: t, key: keyPair(t), nodeKey: keyPair(t), issued: time.Now()}
		b := &clockBus{connected: true}
		m := tasks.New(tasks.Options{
			Node: node, Key: c.nodeKey, Pinned: c.pins, Store: s, Models: lib, Server: &server{serving: map[string]tasks.Service{}}, Bus: b,
		})
		if err := m.Start(ctx); err != nil {
			t.Fatal(err)
		}
		defer func() {
			cancel()
			m.Close()
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}()
		send := func(d *task.Document, nonce string) {
			b.desired(bus.Message{Topic: wire.TaskDesired(node, ns, device("svc")), Payload: c.message(d, nonce)})
			synctest.Wait()
		}
		start := time.Now()
		doc := c.doc("svc", "u1", 1, task.Model{Name: "m", URL: "/nowhere", Format: "text"})
		send(doc, "0:0")
		time.Sleep(time.Hour)
		synctest.Wait()
		got := b.take(start)
		// At once, its successor (Failed: the path is under no data root) after
		// the gap or, when it was there first, in its place; then 5, 10, … s
		// apart and a bit, and every 5 minutes.
		if len(got) < 14 || len(got) > 20 || got[0] != 0 {
			t.Fatalf("sent at %v", got)
		}
		first := 1
		if got[1] <= time.Second {
			first = 2
		}
		wait := 5 * time.Second
		for i := first; i < len(got); i++ {
			if d := got[i] - got[i-1]; d < wait || d > wait+wait/5 {
				t.Errorf("send %d came %v after the one before, want %v", i, d, wait)
			}
			wait = min(2*wait, 5*time.Minute)
		}
		seq := b.last["seq"]
		if b.last["phase"] != task.Failed || b.last["reason"] != "PermissionDenied" {
			t.Error(b.last)
		}
		// Away, nothing is sent; back, at once.
		b.set(false)
		time.Sleep(time.Hour)
		start = time.Now()
		b.set(true)
		synctest.Wait()
		if got := b.take(start); len(got) != 1 || got[0] != 0 {
			t.Errorf("after the reconnect sent at %v", got)
		}
		// Acknowledged, never again.
		send(doc, "0:"+seq)
		time.Sleep(48 * time.Hour)
		synctest.Wait()
		if got := b.take(start); len(got) != 0 {
			t.Errorf("acknowledged, and sent at %v", got)
		}
		// The last report of a deleted task is sent for a day.
		start = time.Now()
		send(deleted(doc, 2), "0:"+seq)
		time.Sleep(72 * time.Hour)
		synctest.Wait()
		got = b.take(start)
		if n := len(got); n < 200 || got[0] != 0 || got[n-1] < 23*time.Hour || got[n-1] > 24*time.Hour {
			t.Errorf("%d sends of Stopped, the last after %v", len(got), got[len(got)-1])
		}
	})
}
