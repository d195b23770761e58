package devices_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/lib/bus/broker"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/mapper/devices"
	"github.com/edgetwin/sedna/mapper/drivers/simulated"
	pb "github.com/edgetwin/sedna/models/dmi"
)

const patience = 10 * time.Second

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

// connect gives a connected client of a broker of its own.
func connect(t *testing.T, start bool) (*bus.Client, string) {
	t.Helper()
	b, err := broker.Start(broker.Options{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	c, err := bus.New(bus.Options{URL: b.Addr(), ClientID: "test", CleanSession: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if start {
		up := make(chan struct{}, 1)
		c.OnConnect(func() { up <- struct{}{} })
		c.Start(t.Context())
		wait(t, up, "bus")
	}
	return c, "tcp://" + b.Addr()
}

func TestPush(t *testing.T) {
	node, _ := connect(t, false)
	local := make(chan bus.Message, 1000)
	node.Subscribe("local/#", 1, func(m bus.Message) { local <- m })
	far, address := connect(t, true)
	remote := make(chan bus.Message, 1000)
	far.Subscribe("far/#", 1, func(m bus.Message) { remote <- m })
	posts := make(chan string, 1000)
	var fail atomic.Bool
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if fail.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
		posts <- r.Method + " " + r.URL.String() + " " + r.Header.Get("Content-Type") + " " + string(b)
	}))
	defer srv.Close()
	u, _ := url.Parse(srv.URL)
	port, _ := strconv.ParseInt(u.Port(), 10, 64)

	e, err := devices.New(devices.Config{Node: "n1", Bus: node, Metrics: metrics.New(), Drivers: map[string]devices.Factory{simulated.Protocol: simulated.New}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	defer func() { cancel(); wait(t, done, "end of Run") }()
	node.Start(ctx)
	h, err := e.Handler(simulated.Protocol)
	if err != nil {
		t.Fatal(err)
	}
	h.UpsertModel(model())
	prop := func(name, value string, m *pb.PushMethod) *pb.DeviceProperty {
		return &pb.DeviceProperty{Name: name, CollectCycle: 20, PushMethod: m, Visitors: &pb.VisitorConfig{ConfigData: wrap(t, map[string]any{"value": value})}}
	}
	d := device("d",
		prop("t", "21.5", &pb.PushMethod{Mqtt: &pb.PushMethodMQTT{Address: address, Topic: "far/t", Qos: 1, Retained: true}}),
		prop("level", "7", &pb.PushMethod{Mqtt: &pb.PushMethodMQTT{Topic: "local/level"}}),
		prop("text", "hello", &pb.PushMethod{Http: &pb.PushMethodHTTP{Hostname: "127.0.0.1", Port: port, Requestpath: "/ingest?db=x", Timeout: 1000}}),
	)
	d.Spec.Protocol.ProtocolName = simulated.Protocol
	if err := h.Upsert(d); err != nil {
		t.Fatal(err)
	}
	for ch, want := range map[<-chan bus.Message]devices.Sample{
		remote: {Device: "d", Property: "t", Value: 21.5, Type: "DOUBLE", Unit: "C"}, local: {Device: "d", Property: "level", Value: 7.0, Type: "INT"},
	} {
		var s devices.Sample
		m := wait(t, ch, want.Property)
		if err := json.Unmarshal(m.Payload, &s); err != nil {
			t.Fatal(err)
		}
		if s.Timestamp, want.Timestamp = 0, 0; s != want {
			t.Errorf("%s", m.Payload)
		}
	}
	const head = `POST /ingest?db=x application/json {"device":"d","property":"text","value":"hello","type":"STRING",`
	if p := wait(t, posts, "post"); len(p) < len(head) || p[:len(head)] != head {
		t.Error(p)
	}
	// A target that fails is tried on with newer readings.
	fail.Store(true)
	wait(t, posts, "a failing post")
	fail.Store(false)
	for range 3 {
		wait(t, posts, "posts go on")
	}
	// The pushes of a device end with it.
	h.Remove("default", "d")
	for deadline := time.Now().Add(patience); ; {
		n := len(posts)
		time.Sleep(100 * time.Millisecond)
		if len(posts) == n {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("pushes go on after the removal")
		}
	}
}
