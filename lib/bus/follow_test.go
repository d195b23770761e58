package bus_test

import (
	"fmt"
	"testing"

	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/lib/bus/broker"
)

// TestFollow takes filters in and out while messages come, over a restart of
// the broker.
func TestFollow(t *testing.T) {
	b := startBroker(t, broker.Options{})
	addr := b.Addr()
	got, marks := make(chan bus.Message, 100), make(chan bus.Message, 100)
	c, up := client(t, bus.Options{URL: addr, ClientID: "follower"}, func(c *bus.Client) {
		c.Subscribe("mark", 0, func(m bus.Message) { marks <- m })
		c.Subscribe("shared", 0, func(m bus.Message) { marks <- m })
	})
	wait(t, up, "connect")
	change := c.Follow(0, func(m bus.Message) { got <- m })
	// The publisher is the subscriber, so that the broker has the filters, which
	// are confirmed, before the messages.
	send := func(topics ...string) {
		t.Helper()
		for _, topic := range append(topics, "mark") {
			if err := c.Publish(t.Context(), topic, 1, false, []byte(topic)); err != nil {
				t.Fatal(err)
			}
		}
	}
	// settled waits until the broker has followed a change: a filter that was
	// added last is in force when what it keeps has come.
	if err := c.Publish(t.Context(), "kept", 1, true, []byte("k")); err != nil {
		t.Fatal(err)
	}
	settled := func() {
		t.Helper()
		change([]string{"kept"}, nil)
		if m := wait(t, got, "what the broker keeps"); m.Topic != "kept" || !m.Retained {
			t.Fatalf("%+v", m)
		}
	}
	expect := func(topics ...string) {
		t.Helper()
		for _, topic := range topics {
			if m := wait(t, got, topic); m.Topic != topic {
				t.Fatalf("got %s, want %s", m.Topic, topic)
			}
		}
		for m := wait(t, marks, "mark"); m.Topic != "mark"; m = wait(t, marks, "mark") {
		}
		if len(got) != 0 {
			t.Fatalf("more than expected: %+v", <-got)
		}
	}
	change([]string{"a", "b", "w/+", "shared", "bad/#/filter"}, nil)
	settled()
	send("b", "a", "c", "w/1", "shared", "b")
	expect("b", "a", "w/1", "shared", "b")

	change([]string{"c"}, []string{"a", "w/+", "shared", "never"})
	settled() // the broker sends again what it keeps
	send("a", "b", "c", "w/1", "shared")
	expect("b", "c")
	if n := len(marks); n != 0 {
		t.Fatalf("%d more", n)
	}

	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	startBroker(t, broker.Options{Addr: addr})
	wait(t, up, "reconnect")
	send("a", "b", "c")
	expect("b", "c")
}

// TestFollowMany is more filters than one packet takes.
func TestFollowMany(t *testing.T) {
	b := startBroker(t, broker.Options{})
	got := make(chan string, 1000)
	c, up := client(t, bus.Options{URL: b.Addr()})
	wait(t, up, "connect")
	topics := make([]string, 600)
	for i := range topics {
		topics[i] = fmt.Sprintf("many/%03d", i)
		if err := c.Publish(t.Context(), topics[i], 1, true, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	c.Follow(1, func(m bus.Message) { got <- m.Topic })(topics, nil)
	seen := map[string]bool{}
	for len(seen) < len(topics) {
		seen[wait(t, got, "retained")] = true
	}
}
