package mqtt_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/lib/bus/broker"
	"github.com/edgetwin/sedna/mapper/devices"
	"github.com/edgetwin/sedna/mapper/drivers/mqtt"
	"github.com/edgetwin/sedna/models/wire"
)

const patience = 10 * time.Second

type emitted struct {
	name string
	devices.Reading
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

func setup(protocol map[string]any, writable bool, visitors map[string]map[string]any) (devices.Setup, chan emitted) {
	ch := make(chan emitted, 100)
	s := devices.Setup{Namespace: "default", Name: "d", Protocol: devices.NewSettings("protocol", protocol),
		Emit: func(n string, r devices.Reading) { ch <- emitted{n, r} }}
	for name, v := range visitors {
		s.Properties = append(s.Properties, devices.Property{Name: name, Kind: devices.Double, Writable: writable, Visitor: devices.NewSettings(name, v)})
	}
	return s, ch
}

// embedded and mosquitto start a broker and give its address and its end.
func embedded(t *testing.T) (string, func()) {
	t.Helper()
	b, err := broker.Start(broker.Options{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b.Addr(), func() { _ = b.Close() }
}

func mosquitto(t *testing.T) (string, func()) {
	t.Helper()
	program, err := exec.LookPath("mosquitto")
	if err != nil {
		t.Skip("mosquitto is not installed: only the embedded broker is tried")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	_ = l.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, program, "-p", port)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end := sync.OnceFunc(func() { cancel(); _ = cmd.Wait() })
	t.Cleanup(end)
	return addr, end
}

func connect(t *testing.T, addr string) (*bus.Client, chan bus.Message) {
	t.Helper()
	c, err := bus.New(bus.Options{URL: addr, ClientID: "app", CleanSession: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	seen, up := make(chan bus.Message, 100), make(chan struct{}, 1)
	c.Subscribe("act/#", 1, func(m bus.Message) { seen <- m })
	c.OnConnect(func() { up <- struct{}{} })
	c.Start(t.Context())
	wait(t, up, "bus")
	return c, seen
}

func TestReadingsAndWrites(t *testing.T) {
	for name, start := range map[string]func(*testing.T) (string, func()){"embedded": embedded, "mosquitto": mosquitto} {
		t.Run(name, func(t *testing.T) {
			addr, end := start(t)
			readAndWrite(t, addr, end)
		})
	}
}

func readAndWrite(t *testing.T, addr string, end func()) {
	app, seen := connect(t, addr)
	factory := mqtt.New(mqtt.Options{Node: "n1", URL: addr})
	open := func(s devices.Setup) devices.Driver {
		t.Helper()
		d, err := factory(s)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		return d
	}
	s, ch := setup(nil, false, map[string]map[string]any{
		"json":   {"topic": "lab/1", "jsonPath": "$.t[1]", "qos": int64(1), "maxAgeMilliseconds": int64(1)},
		"text":   {"topic": "lab/2", "format": "text"},
		"mapper": {"topic": "lab/3", "format": "mapper"},
		"level":  {"writeTopic": "act/1"}, "json set": {"writeTopic": "act/2", "writeFormat": "json", "writeRetained": true},
	})
	d := open(s)
	s2, ch2 := setup(map[string]any{"broker": "tcp://" + addr}, false, map[string]map[string]any{"a": {"topic": "lab/1", "jsonPath": "t[0]"}})
	d2 := open(s2)
	s3, ch3 := setup(nil, false, map[string]map[string]any{"a": {"topic": "lab/1"}})
	d3 := open(s3)

	// A subscription may come after the connection: until it is there, what is
	// published is not for us.
	for deadline := time.Now().Add(patience); len(ch) == 0 || len(ch2) == 0 || len(ch3) == 0; time.Sleep(5 * time.Millisecond) {
		if err := app.Publish(t.Context(), "lab/1", 1, false, []byte(`{"t":[20,21.5]}`)); err != nil || time.Now().After(deadline) {
			t.Fatal("no reading", err)
		}
	}
	if r := <-ch; r.name != "json" || fmt.Sprint(r.Value) != "21.5" || r.Err != nil {
		t.Errorf("%+v", r)
	}
	if r := <-ch2; r.name != "a" || fmt.Sprint(r.Value) != "20" {
		t.Errorf("%+v", r)
	}
	for len(ch) > 0 {
		<-ch
	}
	for topic, payload := range map[string]string{"lab/2": " 22.5", "lab/3": "time is 2026-01-02 15:04:05  lab/3: 23.5"} {
		if err := app.Publish(t.Context(), topic, 1, false, []byte(payload)); err != nil {
			t.Fatal(err)
		}
		r := wait(t, ch, topic)
		if v, err := devices.Double.Convert(r.Value); err != nil || (v != 22.5 && v != 23.5) {
			t.Errorf("%+v", r)
		}
	}
	if err := app.Publish(t.Context(), "lab/1", 1, false, []byte(`{`)); err != nil {
		t.Fatal(err)
	}
	if r := wait(t, ch, "bad JSON"); r.Err == nil {
		t.Errorf("%+v", r)
	}
	time.Sleep(2 * time.Millisecond)
	if got, err := d.Read(t.Context(), []string{"json", "text"}); err != nil || len(got) != 1 || got["json"].Err == nil {
		t.Errorf("%v, %v", got, err)
	}
	for name, value := range map[string]any{"level": 2.5, "json set": true} {
		if err := d.Write(t.Context(), name, value); err != nil {
			t.Fatal(err)
		}
		m := wait(t, seen, name)
		if s := m.Topic + " " + string(m.Payload); s != "act/1 2.5" && s != `act/2 {"value":true}` {
			t.Error(s)
		}
	}
	if err := d.Write(t.Context(), "text", 1.0); !wire.IsCode(err, wire.Unimplemented) {
		t.Error(err)
	}
	// Whose device has closed hears nothing more; others do.
	if err := d3.Close(); err != nil {
		t.Error(err)
	}
	for len(ch3) > 0 {
		<-ch3
	}
	if err := app.Publish(t.Context(), "lab/1", 1, false, []byte(`{"t":[1,2]}`)); err != nil {
		t.Fatal(err)
	}
	wait(t, ch, "reading")
	if len(ch3) != 0 {
		t.Error("a closed device heard a message")
	}
	// The broker goes.
	end()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if _, err := d.Read(t.Context(), nil); err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the device stays online without a broker")
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := d.Connect(ctx); err == nil {
		t.Error("connected to nothing")
	}
	for _, d := range []devices.Driver{d, d2} {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestRefusedConfigurations(t *testing.T) {
	factory := mqtt.New(mqtt.Options{Node: "n1", URL: "127.0.0.1:1"})
	for want, v := range map[string]map[string]any{
		"a.topic": {"topic": "lab/#"}, "a.jsonPath": {"topic": "x", "jsonPath": "a..b"}, "a.format": {"topic": "x", "format": "xml"},
		"a.qos": {"topic": "x", "qos": int64(3)}, "a.writeTopic": {"topic": "x", "writeTopic": "$hw/events/x"}, "a.nonsense": {"nonsense": "x"},
	} {
		s, _ := setup(nil, false, map[string]map[string]any{"a": v})
		var e *wire.Error
		if _, err := factory(s); !errors.As(err, &e) || e.Field != want {
			t.Errorf("%s: %v", want, err)
		}
	}
	for want, protocol := range map[string]map[string]any{"protocol.broker": {"broker": "http://x"}, "protocol.username": {"username": "x"}} {
		s, _ := setup(protocol, false, nil)
		var e *wire.Error
		if _, err := factory(s); !errors.As(err, &e) || e.Field != want || strings.Contains(err.Error(), "panic") {
			t.Errorf("%s: %v", want, err)
		}
	}
	s, _ := setup(nil, true, map[string]map[string]any{"a": {"topic": "x"}})
	if _, err := factory(s); err == nil {
		t.Error("a ReadWrite property without writeTopic")
	}
}
