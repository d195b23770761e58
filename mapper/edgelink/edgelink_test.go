package edgelink_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/lib/bus/broker"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/mapper/dmi"
	"github.com/edgetwin/sedna/mapper/edgelink"
	pb "github.com/edgetwin/sedna/models/dmi"
	"github.com/edgetwin/sedna/models/wire"
)

const (
	patience = 10 * time.Second
	quiet    = 150 * time.Millisecond
)

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

func silent[T any](t testing.TB, ch <-chan T, what string) {
	t.Helper()
	select {
	case v := <-ch:
		t.Fatalf("%s: got %v", what, v)
	case <-time.After(quiet):
	}
}

// cloud is a bare WebSocket peer over TLS.
type cloud struct {
	*httptest.Server
	links  chan *websocket.Conn
	frames chan *wire.Frame
}

func startCloud(t *testing.T) *cloud {
	t.Helper()
	c := &cloud{links: make(chan *websocket.Conn, 10), frames: make(chan *wire.Frame, 1000)}
	c.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != wire.EdgelinkPath {
			http.NotFound(w, r)
			return
		}
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer conn.CloseNow()
		c.links <- conn
		for {
			_, b, err := conn.Read(r.Context())
			if err != nil {
				return
			}
			f, err := wire.DecodeFrame(b)
			if err != nil {
				t.Errorf("the edge sent %s: %v", b, err)
				return
			}
			c.frames <- f
		}
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *cloud) tls() *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(c.Certificate())
	return &tls.Config{RootCAs: pool}
}

func send(t *testing.T, conn *websocket.Conn, frames ...wire.Frame) {
	t.Helper()
	for _, f := range frames {
		b, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.Write(t.Context(), websocket.MessageText, b); err != nil {
			t.Fatal(err)
		}
	}
}

func device(name, uid, desired string) wire.Frame {
	b, _ := protojson.Marshal(&pb.Device{Namespace: "default", Name: name, Spec: &pb.DeviceSpec{
		DeviceModelReference: "m", Protocol: &pb.ProtocolConfig{ProtocolName: "sedna"},
		Properties: []*pb.DeviceProperty{{Name: "task", Desired: &pb.TwinProperty{Value: desired}}, {Name: "phase", Desired: &pb.TwinProperty{}}},
	}})
	return wire.Frame{Type: wire.FrameDevice, Namespace: "default", Name: name, UID: uid, Device: b}
}

func modelFrame() wire.Frame {
	b, _ := protojson.Marshal(&pb.DeviceModel{Namespace: "default", Name: "m", Spec: &pb.DeviceModelSpec{}})
	return wire.Frame{Type: wire.FrameModel, Namespace: "default", Name: "m", Model: b}
}

// recorder is a mapper that tells what it was told.
type recorder struct{ events chan string }

func (r recorder) Sync(models []*pb.DeviceModel, devices []*pb.Device) {
	r.events <- fmt.Sprintf("sync %d %d", len(models), len(devices))
}
func (r recorder) Upsert(d *pb.Device) error {
	r.events <- "upsert " + d.Name + " " + d.Spec.Properties[0].Desired.Value
	return nil
}
func (r recorder) Remove(_, name string)         { r.events <- "remove " + name }
func (r recorder) UpsertModel(m *pb.DeviceModel) { r.events <- "model " + m.Name }
func (r recorder) RemoveModel(_, name string)    { r.events <- "unmodel " + name }

func expect(t testing.TB, r recorder, want ...string) {
	t.Helper()
	for _, w := range want {
		if got := wait(t, r.events, w); got != w {
			t.Fatalf("got %q, want %q", got, w)
		}
	}
}

// edge is an edge half with a broker; stop ends it.
type edge struct {
	*edgelink.Edge
	dir    string
	broker *broker.Broker
	bus    *bus.Client // an edge party
	seen   chan bus.Message
	stop   func()
}

func startEdge(t *testing.T, dir, url string, conf *tls.Config, edit func(*edgelink.Config)) *edge {
	t.Helper()
	b, err := broker.Start(broker.Options{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	e := &edge{dir: dir, broker: b, seen: make(chan bus.Message, 1000)}
	newClient := func(id string) (*bus.Client, chan struct{}) {
		c, err := bus.New(bus.Options{URL: b.Addr(), ClientID: id, CleanSession: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		up := make(chan struct{}, 10)
		c.OnConnect(func() { up <- struct{}{} })
		return c, up
	}
	own, ownUp := newClient("edgelink")
	c := edgelink.Config{
		Node: "n1", Cloud: url, TLS: conf, DMISocket: filepath.Join(dir, "dmi.sock"), Database: filepath.Join(dir, "edge.db"),
		Bus: own, AnswerUnknown: true, Metrics: metrics.New(),
		Limits: edgelink.Limits{MinBackoff: 10 * time.Millisecond, MaxBackoff: 50 * time.Millisecond},
	}
	if edit != nil {
		edit(&c)
	}
	if e.Edge, err = edgelink.New(c); err != nil {
		t.Fatal(err)
	}
	own.Start(t.Context())
	var partyUp chan struct{}
	e.bus, partyUp = newClient("party")
	for _, f := range []string{"$hw/events/device/+/+/twin/update/+", "$hw/events/device/+/+/twin/get/result", "$hw/events/device/+/+/state/update/result", wire.TwinRejected} {
		e.bus.Subscribe(f, 1, func(m bus.Message) { e.seen <- m })
	}
	e.bus.Start(t.Context())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	stopped := false
	e.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := wait(t, done, "end of Run"); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(e.stop)
	wait(t, ownUp, "bus")
	wait(t, partyUp, "bus")
	return e
}

func startMapper(t *testing.T, dir string) recorder {
	t.Helper()
	r := recorder{make(chan string, 1000)}
	m, err := dmi.New(dmi.Config{Protocol: "sedna", Socket: filepath.Join(dir, "mapper.sock"), EdgeSocket: filepath.Join(dir, "dmi.sock"), Handler: r,
		Check: 20 * time.Millisecond, MinBackoff: 10 * time.Millisecond, MaxBackoff: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() { cancel(); wait(t, done, "end of the mapper") })
	return r
}

func TestDown(t *testing.T) {
	c, dir := startCloud(t), t.TempDir()
	startEdge(t, dir, c.URL, c.tls(), nil)
	r := startMapper(t, dir)
	expect(t, r, "sync 0 0")
	link := wait(t, c.links, "link")

	send(t, link, modelFrame(), device("a", "1", "x"), wire.Frame{Type: wire.FrameSynced, Devices: []string{"default/a"}})
	expect(t, r, "model m", "upsert a x")
	send(t, link, device("a", "1", "x")) // no change
	send(t, link, device("a", "1", "y"))
	expect(t, r, "model m", "upsert a y")
	send(t, link, device("b", "2", "z"))
	expect(t, r, "upsert b z")
	send(t, link, device("b", "3", "z")) // made anew under the same name
	expect(t, r, "remove b", "upsert b z")
	send(t, link, wire.Frame{Type: wire.FrameRemove, Namespace: "default", Name: "b"})
	expect(t, r, "remove b")
	send(t, link, wire.Frame{Type: wire.FrameRemove, Namespace: "default", Name: "a"})
	expect(t, r, "unmodel m", "remove a") // of the last device the model goes first

	// What is missing after a reconnect is removed.
	send(t, link, modelFrame(), device("a", "4", "x"))
	expect(t, r, "model m", "upsert a x")
	_ = link.CloseNow()
	link = wait(t, c.links, "new link")
	send(t, link, wire.Frame{Type: wire.FrameSynced})
	expect(t, r, "unmodel m", "remove a")
}

func TestRestartWithCloudAway(t *testing.T) {
	c, dir := startCloud(t), t.TempDir()
	e := startEdge(t, dir, c.URL, c.tls(), nil)
	r := startMapper(t, dir)
	expect(t, r, "sync 0 0")
	send(t, wait(t, c.links, "link"), modelFrame(), device("a", "1", "x"))
	expect(t, r, "model m", "upsert a x")
	e.stop()
	c.CloseClientConnections()
	c.Close()
	startEdge(t, dir, c.URL, c.tls(), nil)
	expect(t, r, "sync 1 1") // the mapper finds the new edgecore by itself
}

func TestUp(t *testing.T) {
	c, dir := startCloud(t), t.TempDir()
	e := startEdge(t, dir, c.URL, c.tls(), nil)
	r := startMapper(t, dir)
	expect(t, r, "sync 0 0")
	link := wait(t, c.links, "link")
	send(t, link, modelFrame(), device("a", "1", "x"))
	expect(t, r, "model m", "upsert a x")
	publish := func(topic, payload string) {
		t.Helper()
		if err := e.bus.Publish(t.Context(), topic, 1, false, []byte(payload)); err != nil {
			t.Fatal(err)
		}
	}
	answer := func(topic string, parts ...string) {
		t.Helper()
		m := wait(t, e.seen, topic)
		if m.Topic != topic {
			t.Fatalf("got %s %s, want %s", m.Topic, m.Payload, topic)
		}
		for _, p := range parts {
			if !strings.Contains(string(m.Payload), p) {
				t.Fatalf("%s: no %s in %s", topic, p, m.Payload)
			}
		}
	}
	update, result := wire.TwinUpdate("default", "a"), wire.TwinUpdateResult("default", "a")

	publish(update, `{"event_id":"e1","twin":{"phase":{"actual":{"value":"Running"},"metadata":{"type":"string"}},"undeclared":{"actual":{"value":"x"}}}}`)
	answer(result, `"event_id":"e1"`, `"actual":{"value":"Running","metadata":{"timestamp":`, `"optional":true`, `"undeclared"`)
	answer(update+"/document", `"phase":{"last":null,"current":{`)
	f := wait(t, c.frames, "twin frame")
	if f.Type != wire.FrameTwin || f.Name != "a" || f.UID != "1" || len(f.Twins) != 1 || f.Twins["phase"].Reported != "Running" {
		t.Fatalf("%+v", f)
	}
	publish(update, `{"event_id":"e2","twin":{"task":{"expected":{"value":"want"},"actual":{"value":"have"}}}}`)
	answer(result, `"event_id":"e2"`)
	answer(update + "/document")
	answer(update+"/delta", `"delta":{"task":"want"}`)
	if f := wait(t, c.frames, "twin frame"); f.Twins["task"] != (wire.TwinPair{Reported: "have", ObservedDesired: "want"}) {
		t.Fatalf("%+v", f)
	}
	publish("$hw/events/device/default/a/twin/get", `{"event_id":"g"}`)
	answer(wire.TwinGetResult("default", "a"), `"event_id":"g"`, `"value":"have"`)
	publish(wire.StateUpdate("default", "a"), `{"event_id":"s","state":"online"}`)
	answer(wire.StateUpdate("default", "a")+"/result", `"state":"online"`, `"lastOnlineTime"`)
	if f := wait(t, c.frames, "state frame"); f.Type != wire.FrameState || f.State != "online" {
		t.Fatalf("%+v", f)
	}

	// Refusals, in KubeEdge's form.
	for _, v := range []string{"no spaces", `{}`, "a+b", "a=", strings.Repeat("a", 513)} {
		b, _ := json.Marshal(v)
		publish(update, `{"event_id":"bad","twin":{"phase":{"actual":{"value":"fine"}},"task":{"actual":{"value":`+string(b)+`}}}}`)
		answer(wire.TwinRejected, `"event_id":""`, `"code":400`, "special letter")
	}
	publish(update, `{"event_id":"k","twin":{"a b":{"actual":{"value":"x"}}}}`)
	answer(wire.TwinRejected, `"code":400`)
	publish(update, `{"event_id":"m"}`)
	answer(result, `"code":400`, "key:twin does not exist")
	publish(update, `nonsense`)
	answer(result, `"code":400`)
	publish(update, `{"twin":{"phase":{"actual":{"value":"x"},"metadata":{"type":"String"}}}}`)
	answer(result, `"code":400`)
	publish(wire.TwinUpdate("default", "nobody"), `{"event_id":"n","twin":{"a":{"actual":{"value":"x"}}}}`)
	answer(wire.TwinUpdateResult("default", "nobody"), `"event_id":"n"`, `"code":404`)
	publish(wire.StateUpdate("default", "a"), `{"state":"excellent"}`)
	silent(t, e.seen, "answered an unknown state")
	silent(t, c.frames, "sent up")
	publish(update, `{"twin":{"phase":{"actual":{"value":"`+strings.Repeat("a", 512)+`"}}}}`)
	if f := wait(t, c.frames, "512 characters"); len(f.Twins["phase"].Reported) != 512 {
		t.Fatalf("%+v", f)
	}
}

func TestUnknownDevicesOnASharedBroker(t *testing.T) {
	c, dir := startCloud(t), t.TempDir()
	e := startEdge(t, dir, c.URL, c.tls(), func(c *edgelink.Config) { c.AnswerUnknown = false })
	wait(t, c.links, "link")
	if err := e.bus.Publish(t.Context(), wire.TwinUpdate("default", "other"), 1, false, []byte(`{"twin":{"a":{"actual":{"value":"bad value"}}}}`)); err != nil {
		t.Fatal(err)
	}
	silent(t, e.seen, "answered for another edge")
}

func TestUpIsLostOfflineAndLimited(t *testing.T) {
	c, dir := startCloud(t), t.TempDir()
	e := startEdge(t, dir, c.URL, c.tls(), func(c *edgelink.Config) { c.Limits.UpRate, c.Limits.UpBurst = 10, 5 })
	r := startMapper(t, dir)
	expect(t, r, "sync 0 0")
	link := wait(t, c.links, "link")
	send(t, link, modelFrame(), device("a", "1", "x"))
	expect(t, r, "model m", "upsert a x")
	report := func(v int) {
		if err := e.bus.Publish(t.Context(), wire.TwinUpdate("default", "a"), 1, false, fmt.Appendf(nil, `{"twin":{"phase":{"actual":{"value":"%d"}}}}`, v)); err != nil {
			t.Fatal(err)
		}
	}
	since := time.Now()
	for i := range 10 {
		report(i)
	}
	for i := range 10 {
		if f := wait(t, c.frames, "frame"); f.Twins["phase"].Reported != fmt.Sprint(i) {
			t.Fatalf("%+v", f)
		}
	}
	if d := time.Since(since); d < 400*time.Millisecond {
		t.Errorf("10 messages took %v at 10 a second and a burst of 5", d)
	}
	c.Config.Handler = http.NotFoundHandler()
	_ = link.CloseNow()
	for e.Connected() {
		time.Sleep(time.Millisecond)
	}
	report(100)
	silent(t, c.frames, "sent while offline")
}

func TestBadFramesEndTheLink(t *testing.T) {
	c, dir := startCloud(t), t.TempDir()
	startEdge(t, dir, c.URL, c.tls(), nil)
	r := startMapper(t, dir)
	expect(t, r, "sync 0 0")
	for _, text := range []string{
		`{`, `{"type":"nonsense"}`, `{"type":"twin","namespace":"a","name":"b","twins":{"a":{}}}`,
		`{"type":"device","namespace":"a","name":"b","device":{"name":"c"}}`, `{"type":"device","namespace":"a","name":"b","device":5}`,
		`{"type":"model","model":{"name":"A b"}}`, `{"type":"remove"}`,
	} {
		if err := wait(t, c.links, "link").Write(t.Context(), websocket.MessageText, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	link := wait(t, c.links, "link after all of it")
	_ = link.Write(t.Context(), websocket.MessageText, make([]byte, wire.MaxFrame+1))
	send(t, wait(t, c.links, "link"), modelFrame(), device("a", "1", "x"))
	expect(t, r, "model m", "upsert a x")
}

func TestDMIReports(t *testing.T) {
	c, dir := startCloud(t), t.TempDir()
	startEdge(t, dir, c.URL, c.tls(), func(c *edgelink.Config) { c.Limits.DMIBurst = 3 })
	r := startMapper(t, dir)
	expect(t, r, "sync 0 0")
	send(t, wait(t, c.links, "link"), modelFrame(), device("a", "1", "x"))
	expect(t, r, "model m", "upsert a x")
	conn, err := grpc.NewClient("unix:"+filepath.Join(dir, "dmi.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s := pb.NewDeviceManagerServiceClient(conn)
	status := func(twin *pb.Twin) error {
		_, err := s.ReportDeviceStatus(t.Context(), &pb.ReportDeviceStatusRequest{DeviceName: "a", DeviceNamespace: "default", ReportedDevice: &pb.DeviceStatus{Twins: []*pb.Twin{twin}}})
		return err
	}
	if err := status(&pb.Twin{PropertyName: "phase", ObservedDesired: &pb.TwinProperty{Value: "o"}, Reported: &pb.TwinProperty{Value: "r"}}); err != nil {
		t.Fatal(err)
	}
	if f := wait(t, c.frames, "frame"); f.Twins["phase"] != (wire.TwinPair{Reported: "r", ObservedDesired: "o"}) {
		t.Fatalf("%+v", f)
	}
	if err := status(&pb.Twin{PropertyName: "phase", Reported: &pb.TwinProperty{Value: "r"}}); err == nil {
		t.Error("a twin without observedDesired was taken")
	}
	if _, err := s.ReportDeviceStates(t.Context(), &pb.ReportDeviceStatesRequest{DeviceName: "a", DeviceNamespace: "default", State: "ok"}); err != nil {
		t.Error(err)
	}
	if f := wait(t, c.frames, "frame"); f.State != "ok" {
		t.Fatalf("%+v", f)
	}
	if err := status(&pb.Twin{}); err == nil || !strings.Contains(err.Error(), "too many request") {
		t.Errorf("over the limit: %v", err)
	}
	for _, m := range []*pb.MapperInfo{nil, {}, {Protocol: "p", Address: []byte("relative")}} {
		if _, err := s.MapperRegister(t.Context(), &pb.MapperRegisterRequest{WithData: true, Mapper: m}); err == nil {
			t.Errorf("%v was registered", m)
		}
	}
}

func TestStoreThatCannotBeReadIsPutAside(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "edge.db"), strings.Repeat("not a database", 1000))
	c := startCloud(t)
	startEdge(t, dir, c.URL, c.tls(), nil)
	r := startMapper(t, dir)
	expect(t, r, "sync 0 0")
	readFile(t, filepath.Join(dir, "edge.db.bad"))
}

// TestStoreDamagedInTheMiddleIsPutAside: it can be opened, and would fail at
// the next write.
func TestStoreDamagedInTheMiddleIsPutAside(t *testing.T) {
	dir := t.TempDir()
	c := startCloud(t)
	e := startEdge(t, dir, c.URL, c.tls(), nil)
	link := wait(t, c.links, "link")
	r := startMapper(t, dir)
	expect(t, r, "sync 0 0")
	send(t, link, modelFrame(), device("a", "1", "x"))
	expect(t, r, "model m", "upsert a x")
	e.stop()
	f, err := os.OpenFile(filepath.Join(dir, "edge.db"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte(strings.Repeat("rubbish ", 512)), 4096); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	startEdge(t, dir, c.URL, c.tls(), nil)
	link = wait(t, c.links, "link")
	expect(t, r, "sync 0 0")
	readFile(t, filepath.Join(dir, "edge.db.bad"))
	send(t, link, modelFrame(), device("a", "1", "x"))
	expect(t, r, "model m", "upsert a x")
}
