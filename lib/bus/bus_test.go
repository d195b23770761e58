package bus_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/lib/bus/broker"
	"github.com/edgetwin/sedna/models/wire"
)

const patience = 10 * time.Second

func startBroker(t testing.TB, o broker.Options) *broker.Broker {
	t.Helper()
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	b, err := broker.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// client gives a started client that reconnects quickly, and a channel with one
// value per connect.
func client(t testing.TB, o bus.Options, setup ...func(*bus.Client)) (*bus.Client, <-chan struct{}) {
	t.Helper()
	if o.ClientID == "" {
		o.ClientID = t.Name()
	}
	o.CleanSession, o.MinBackoff, o.MaxBackoff = true, 10*time.Millisecond, 50*time.Millisecond
	c, err := bus.New(o)
	if err != nil {
		t.Fatal(err)
	}
	up := make(chan struct{}, 100)
	c.OnConnect(func() { up <- struct{}{} })
	for _, f := range setup {
		f(c)
	}
	c.Start(t.Context())
	t.Cleanup(c.Close)
	return c, up
}

func wait[T any](t testing.TB, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("%s: waited %v", what, patience)
		panic("unreachable")
	}
}

func TestPublishSubscribeInOrder(t *testing.T) {
	b := startBroker(t, broker.Options{})
	got := make(chan bus.Message, 1000)
	c, up := client(t, bus.Options{URL: "tcp://" + b.Addr()}, func(c *bus.Client) {
		c.Subscribe("a/+/c", 1, func(m bus.Message) { got <- m })
	})
	wait(t, up, "connect")
	for i := range 500 {
		if err := c.Publish(t.Context(), "a/b/c", 1, false, fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 500 {
		m := wait(t, got, "message")
		if m.Topic != "a/b/c" || string(m.Payload) != fmt.Sprint(i) || m.QoS != 1 || m.Retained {
			t.Fatalf("message %d: %+v", i, m)
		}
	}
	// A subscription made while connected gets what the broker keeps.
	if err := c.Publish(t.Context(), "kept", 1, true, []byte("x")); err != nil {
		t.Fatal(err)
	}
	kept := make(chan bus.Message, 1)
	c.Subscribe("kept", 0, func(m bus.Message) { kept <- m })
	if m := wait(t, kept, "retained"); !m.Retained || string(m.Payload) != "x" {
		t.Fatalf("%+v", m)
	}
}

func TestOfflineAndReturn(t *testing.T) {
	b := startBroker(t, broker.Options{})
	addr := b.Addr()
	down := make(chan struct{}, 10)
	got := make(chan bus.Message, 10)
	c, up := client(t, bus.Options{URL: addr}, func(c *bus.Client) {
		c.OnDisconnect(func() { down <- struct{}{} })
		c.Subscribe("x", 1, func(m bus.Message) { got <- m })
	})
	wait(t, up, "connect")
	if !c.Connected() {
		t.Fatal("not connected after OnConnect")
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	wait(t, down, "disconnect")
	if err := c.Publish(t.Context(), "x", 1, false, []byte("lost")); !errors.Is(err, bus.ErrOffline) {
		t.Fatalf("publish while away: %v", err)
	}
	startBroker(t, broker.Options{Addr: addr})
	wait(t, up, "reconnect")
	if err := c.Publish(t.Context(), "x", 1, false, []byte("news")); err != nil {
		t.Fatal(err)
	}
	if m := wait(t, got, "message"); string(m.Payload) != "news" {
		t.Fatalf("got %q: what was published while away must not arrive", m.Payload)
	}
}

func TestSlowHandlerDropsOldest(t *testing.T) {
	b := startBroker(t, broker.Options{})
	entered, release, got := make(chan struct{}), make(chan struct{}), make(chan string, 100)
	var once sync.Once
	marks := make(chan bus.Message, 1)
	c, up := client(t, bus.Options{URL: b.Addr(), QueueSize: 4}, func(c *bus.Client) {
		c.Subscribe("slow", 1, func(m bus.Message) {
			once.Do(func() { close(entered); <-release })
			got <- string(m.Payload)
		})
		c.Subscribe("mark", 1, func(m bus.Message) { marks <- m })
	})
	wait(t, up, "connect")
	for i := range 20 {
		if err := c.Publish(t.Context(), "slow", 1, false, fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			wait(t, entered, "handler")
		}
	}
	if err := c.Publish(t.Context(), "mark", 1, false, nil); err != nil {
		t.Fatal(err)
	}
	wait(t, marks, "other subscription while the first is stuck")
	close(release)
	for _, want := range []string{"0", "16", "17", "18", "19"} {
		if m := wait(t, got, "message"); m != want {
			t.Fatalf("got %s, want %s", m, want)
		}
	}
	if c.Dropped() != 15 {
		t.Fatalf("dropped %d, want 15", c.Dropped())
	}
}

func TestPanickingHandler(t *testing.T) {
	b := startBroker(t, broker.Options{})
	got := make(chan string, 2)
	c, up := client(t, bus.Options{URL: b.Addr()}, func(c *bus.Client) {
		c.Subscribe("p", 1, func(m bus.Message) {
			if len(m.Payload) == 0 {
				panic("empty")
			}
			got <- string(m.Payload)
		})
	})
	wait(t, up, "connect")
	for _, p := range []string{"", "fine"} {
		if err := c.Publish(t.Context(), "p", 1, false, []byte(p)); err != nil {
			t.Fatal(err)
		}
	}
	if m := wait(t, got, "message after the panic"); m != "fine" {
		t.Fatal(m)
	}
}

func TestRefusals(t *testing.T) {
	for name, o := range map[string]bus.Options{
		"no client":   {URL: "tcp://127.0.0.1:1883"},
		"no host":     {URL: "tcp://", ClientID: "c"},
		"scheme":      {URL: "http://h", ClientID: "c"},
		"credentials": {URL: "tcp://u:p@h", ClientID: "c"},
		"empty":       {ClientID: "c"},
	} {
		if _, err := bus.New(o); !wire.IsCode(err, wire.InvalidArgument) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b := startBroker(t, broker.Options{})
	c, up := client(t, bus.Options{URL: b.Addr(), MaxPayload: 10}, func(c *bus.Client) {
		c.Subscribe("a/#/b", 1, func(bus.Message) {}) // ignored: mosquitto would hang up
	})
	wait(t, up, "connect")
	for _, topic := range []string{"", "a/+", "#", "a\x00"} {
		if err := c.Publish(t.Context(), topic, 1, false, nil); !wire.IsCode(err, wire.InvalidArgument) {
			t.Errorf("topic %q: %v", topic, err)
		}
	}
	if err := c.Publish(t.Context(), "a", 1, false, make([]byte, 11)); !wire.IsCode(err, wire.TooLarge) {
		t.Errorf("limit+1: %v", err)
	}
	if err := c.Publish(t.Context(), "a", 1, false, make([]byte, 10)); err != nil {
		t.Errorf("limit: %v", err)
	}
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		filter, topic string
		want          bool
	}{
		{"a/b", "a/b", true}, {"a/b", "a/b/c", false}, {"a/b/c", "a/b", false}, {"a/+", "a/b", true}, {"a/+", "a/", true},
		{"a/+", "a", false}, {"a/#", "a", true}, {"a/#", "a/b/c", true}, {"#", "a/b", true}, {"#", "$SYS/x", false},
		{"+/x", "$SYS/x", false}, {"$hw/+/x", "$hw/y/x", true}, {"a/+/c", "a//c", true}, {"a/b/#", "a", false},
	} {
		if got := bus.Match(c.filter, c.topic); got != c.want {
			t.Errorf("Match(%q, %q) = %v", c.filter, c.topic, got)
		}
	}
	for f, want := range map[string]bool{"": false, "a/#": true, "a/#/b": false, "a#": false, "+": true, "a+": false, "a/+/b": true, "a\x00": false} {
		if bus.ValidFilter(f) != want {
			t.Errorf("ValidFilter(%q) = %v", f, !want)
		}
	}
}

// TestCloseWhileHanging closes while the peer accepts and says nothing.
func TestCloseWhileHanging(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		if conn, err := l.Accept(); err == nil {
			accepted <- conn
		}
	}()
	c, err := bus.New(bus.Options{URL: l.Addr().String(), ClientID: "c", ConnectTimeout: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	c.Start(context.Background())
	defer wait(t, accepted, "dial").Close()
	done := make(chan struct{})
	go func() { c.Close(); close(done) }()
	wait(t, done, "close")
}

func TestBrokerDoors(t *testing.T) {
	for _, o := range []broker.Options{{Addr: "0.0.0.0:0"}, {Addr: ":0"}, {Addr: "nonsense"}, {Addr: "127.0.0.1:0", Username: "u"}} {
		if b, err := broker.Start(o); err == nil {
			_ = b.Close()
			t.Errorf("%+v was started", o)
		}
	}
	b := startBroker(t, broker.Options{Username: "u", Password: "secret*"})
	_, up := client(t, bus.Options{URL: b.Addr(), Username: "u", Password: "secret*"})
	wait(t, up, "connect with the password")
	bad, badUp := client(t, bus.Options{URL: b.Addr(), Username: "u", Password: "secret", ClientID: "bad", KeepAlive: time.Second})
	select {
	case <-badUp:
		t.Error("connected with a wrong password")
	case <-time.After(200 * time.Millisecond):
	}
	if err := bad.Publish(t.Context(), "x", 1, false, nil); !errors.Is(err, bus.ErrOffline) {
		t.Error(err)
	}
}

// TestPacketLimit sends a packet over the broker's limit: it hangs up, and the
// client comes back.
func TestPacketLimit(t *testing.T) {
	b := startBroker(t, broker.Options{MaxPacket: 1000})
	c, up := client(t, bus.Options{URL: b.Addr()})
	wait(t, up, "connect")
	if err := c.Publish(t.Context(), "x", 1, false, make([]byte, 2000)); !errors.Is(err, bus.ErrOffline) {
		t.Fatalf("oversized packet: %v", err)
	}
	wait(t, up, "reconnect")
	if err := c.Publish(t.Context(), "x", 1, false, bytes.Repeat([]byte("a"), 900)); err != nil {
		t.Fatal(err)
	}
}

func TestTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "broker"}, NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	b := startBroker(t, broker.Options{TLS: &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}})
	c, up := client(t, bus.Options{URL: "mqtts://" + b.Addr(), TLS: &tls.Config{RootCAs: pool}})
	wait(t, up, "connect")
	if err := c.Publish(t.Context(), "x", 1, false, nil); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkRoundTrip(b *testing.B) {
	br := startBroker(b, broker.Options{})
	c, up := client(b, bus.Options{URL: br.Addr()}, func(c *bus.Client) {
		c.Subscribe("bench", 1, func(bus.Message) {})
	})
	wait(b, up, "connect")
	payload := make([]byte, 256)
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := c.Publish(b.Context(), "bench", 1, false, payload); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}
