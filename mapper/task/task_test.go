package task_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/lib/bus/broker"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/mapper/task"
	pb "github.com/edgetwin/sedna/models/dmi"
	model "github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

const (
	patience = 10 * time.Second
	quiet    = 150 * time.Millisecond // long enough for what must not come to come
)

type fixture struct {
	t       *testing.T
	broker  *broker.Broker
	bridge  *task.Bridge
	metrics *metrics.Registry
	key     ed25519.PrivateKey
	lc      *bus.Client // the LocalController's and edgecore's side
	desired chan bus.Message
	updates chan bus.Message
	states  chan bus.Message
	lcUp    chan struct{}
}

func start(t *testing.T, l task.Limits) *fixture {
	t.Helper()
	f := &fixture{t: t, metrics: metrics.New(), desired: make(chan bus.Message, 1000), updates: make(chan bus.Message, 1000), states: make(chan bus.Message, 1000), lcUp: make(chan struct{}, 10)}
	f.startBroker("127.0.0.1:0")
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	f.key = key
	f.lc = f.client("lc")
	f.lc.Subscribe(wire.TaskDesiredFilter("n1"), 1, func(m bus.Message) { f.desired <- m })
	f.lc.Subscribe(wire.TwinUpdateFilter, 1, func(m bus.Message) { f.updates <- m })
	f.lc.Subscribe(wire.StateUpdateFilter, 1, func(m bus.Message) { f.states <- m })
	f.lc.OnConnect(func() { f.lcUp <- struct{}{} })
	f.lc.Start(t.Context())
	wait(t, f.lcUp, "bus")
	// The broker looks for retained messages after it has confirmed a
	// subscription; when it has taken this, it is done with that.
	f.publish("settled", false, nil)
	b := f.client("mapper")
	if l.Settle == 0 {
		l.Settle = 30 * time.Millisecond
	}
	if l.Rate == 0 {
		l.Rate = 1000
	}
	if f.bridge, err = task.New(task.Config{Node: "n1", Bus: b, NodeKey: pub, Limits: l, Metrics: f.metrics}); err != nil {
		t.Fatal(err)
	}
	up := make(chan struct{}, 10)
	b.OnConnect(func() { up <- struct{}{} })
	b.Start(t.Context())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.bridge.Run(ctx) }()
	t.Cleanup(func() { cancel(); wait(t, done, "end of Run") })
	wait(t, up, "bus")
	return f
}

func (f *fixture) startBroker(addr string) {
	f.t.Helper()
	b, err := broker.Start(broker.Options{Addr: addr})
	if err != nil {
		f.t.Fatal(err)
	}
	f.broker = b
	f.t.Cleanup(func() { _ = b.Close() })
}

func (f *fixture) client(id string) *bus.Client {
	f.t.Helper()
	c, err := bus.New(bus.Options{URL: f.broker.Addr(), ClientID: id, CleanSession: true, MinBackoff: 10 * time.Millisecond, MaxBackoff: 50 * time.Millisecond})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(c.Close)
	return c
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

func silent[T any](t testing.TB, ch <-chan T, what string) {
	t.Helper()
	select {
	case v := <-ch:
		t.Fatalf("%s: got %v", what, v)
	case <-time.After(quiet):
	}
}

func device(name, uid, nonce string) *pb.Device {
	d := &pb.Device{Namespace: "default", Name: name, Spec: &pb.DeviceSpec{Protocol: &pb.ProtocolConfig{ProtocolName: "sedna"}}}
	for k, v := range map[string]string{"task": `{"uid":"` + uid + `","x":"<é>"}`, "signature": "k:s", "nonce": nonce} {
		d.Spec.Properties = append(d.Spec.Properties, &pb.DeviceProperty{Name: k, Desired: &pb.TwinProperty{Value: v}})
	}
	for _, k := range model.ReportKeys() {
		d.Spec.Properties = append(d.Spec.Properties, &pb.DeviceProperty{Name: k, Desired: &pb.TwinProperty{}})
	}
	return d
}

func (f *fixture) upsert(d *pb.Device) {
	f.t.Helper()
	if err := f.bridge.Upsert(d); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) publish(topic string, retained bool, payload []byte) {
	f.t.Helper()
	if err := f.lc.Publish(f.t.Context(), topic, 1, retained, payload); err != nil {
		f.t.Fatal(err)
	}
}

// report publishes a signed report of task uid.
func (f *fixture) report(name, uid string, seq int64) {
	f.t.Helper()
	p := model.Report{Phase: model.Running, Generation: 1, Seq: seq}.Properties()
	model.SignProperties(f.key, uid, p)
	b, _ := json.Marshal(p)
	f.publish(wire.TaskReported("n1", "default", name), false, b)
}

func seqOf(t testing.TB, m bus.Message) string {
	t.Helper()
	var u wire.TwinMessage
	if err := json.Unmarshal(m.Payload, &u); err != nil {
		t.Fatal(err)
	}
	if len(u.Twin) != len(model.ReportKeys()) || u.Twin["phase"].Metadata.Type != "string" {
		t.Fatalf("not the whole report: %s", m.Payload)
	}
	return *u.Twin["seq"].Actual.Value
}

func (f *fixture) wantDesired(name string, retainedTask bool) {
	f.t.Helper()
	m := wait(f.t, f.desired, "desired of "+name)
	if m.Topic != wire.TaskDesired("n1", "default", name) || (len(m.Payload) > 0) != retainedTask {
		f.t.Fatalf("%s %q", m.Topic, m.Payload)
	}
	if !retainedTask {
		return
	}
	var d model.Desired
	if err := json.Unmarshal(m.Payload, &d); err != nil || !strings.Contains(d.Task, "<é>") || d.Signature != "k:s" {
		f.t.Fatalf("%s: %v", m.Payload, err)
	}
}

func TestDesired(t *testing.T) {
	f := start(t, task.Limits{})
	f.bridge.Sync(nil, []*pb.Device{device("a", "u", "1:0")})
	f.wantDesired("a", true)
	if m := wait(t, f.states, "state"); m.Topic != wire.StateUpdate("default", "a") || !strings.Contains(string(m.Payload), `"online"`) {
		t.Fatalf("%s %s", m.Topic, m.Payload)
	}
	f.upsert(device("a", "u", "1:0")) // no change
	silent(t, f.desired, "published without a change")
	f.upsert(device("a", "u", "2:0"))
	f.wantDesired("a", true)

	topic := wire.TaskDesired("n1", "default", "a")
	for _, payload := range []string{"", `{"task":"forged"}`} {
		f.publish(topic, true, []byte(payload))
		if m := wait(t, f.desired, "the intruder's message"); string(m.Payload) != payload {
			t.Fatalf("%s", m.Payload)
		}
		f.wantDesired("a", true) // restored
	}
	silent(t, f.desired, "restored more than once")

	f.bridge.Remove("default", "a")
	f.wantDesired("a", false)
	f.bridge.Remove("default", "a")
	silent(t, f.desired, "cleared twice")
}

func TestStrayRetainedMessageIsCleared(t *testing.T) {
	f := start(t, task.Limits{})
	f.publish(wire.TaskDesired("n1", "default", "old"), true, []byte("left behind"))
	wait(t, f.desired, "the stray message")
	silent(t, f.desired, "cleared before edgecore told what there is")
	f.bridge.Sync(nil, nil)
	f.wantDesired("old", false)
	// What is missing in a later registration is gone.
	f.upsert(device("a", "u", ""))
	f.wantDesired("a", true)
	f.bridge.Sync(nil, nil)
	f.wantDesired("a", false)
}

func TestBusAway(t *testing.T) {
	f := start(t, task.Limits{ResendAfter: time.Hour})
	f.bridge.Sync(nil, []*pb.Device{device("a", "u", "1:0"), device("b", "u", "1:0")})
	wait(t, f.desired, "a")
	wait(t, f.desired, "b")
	addr := f.broker.Addr()
	_ = f.broker.Close()
	f.upsert(device("a", "u", "2:0"))
	f.upsert(device("a", "u", "3:0"))
	f.bridge.Remove("default", "b")
	f.startBroker(addr)
	wait(t, f.lcUp, "reconnect")
	for deadline := time.Now().Add(patience); ; {
		m := wait(t, f.desired, "desired after the bus returned")
		if strings.HasSuffix(m.Topic, "/a/desired") && strings.Contains(string(m.Payload), `"3:0"`) {
			break
		}
		if strings.Contains(string(m.Payload), `"2:0"`) || time.Now().After(deadline) {
			t.Fatalf("%s", m.Payload)
		}
	}
}

func TestReports(t *testing.T) {
	f := start(t, task.Limits{ResendAfter: 20 * time.Millisecond, ResendAtMost: 40 * time.Millisecond})
	f.upsert(device("a", "u", "1:0"))
	f.report("a", "u", 1)
	for range 3 { // until acknowledged
		if m := wait(t, f.updates, "twin update"); m.Topic != wire.TwinUpdate("default", "a") || seqOf(t, m) != "1" {
			t.Fatalf("%s %s", m.Topic, m.Payload)
		}
	}
	f.report("a", "u", 3)
	f.report("a", "u", 2) // late: seq 3 stays
	for seqOf(t, wait(t, f.updates, "twin update")) != "3" {
	}
	f.upsert(device("a", "u", "1:2")) // acknowledges less
	if s := seqOf(t, wait(t, f.updates, "twin update")); s != "3" {
		t.Fatal(s)
	}
	f.upsert(device("a", "u", "1:3"))
	drain(f.updates)
	silent(t, f.updates, "sent after it was acknowledged")
	f.report("a", "u", 3) // asked for again: passed on once
	if s := seqOf(t, wait(t, f.updates, "repetition")); s != "3" {
		t.Fatal(s)
	}
	silent(t, f.updates, "passed on twice")
	if n := f.rejected(metrics.DoorTwin, wire.Stale); n != 1 {
		t.Errorf("%v stale reports counted, want 1", n)
	}
	// A new life of the Device starts over.
	f.upsert(device("a", "u2", "0:0"))
	f.report("a", "u2", 1)
	if s := seqOf(t, wait(t, f.updates, "first report of the new life")); s != "1" {
		t.Fatal(s)
	}
}

func drain(ch chan bus.Message) {
	for {
		select {
		case <-ch:
		case <-time.After(quiet / 3):
			return
		}
	}
}

func (f *fixture) rejected(door string, code wire.Code) float64 {
	f.t.Helper()
	n := 0.0
	families, err := f.metrics.Gather()
	if err != nil {
		f.t.Fatal(err)
	}
	for _, fam := range families {
		if fam.GetName() != "sedna_rejected_total" {
			continue
		}
		for _, m := range fam.Metric {
			if m.Label[0].GetValue() == string(code) && m.Label[1].GetValue() == door {
				n += m.Counter.GetValue()
			}
		}
	}
	return n
}

func TestCoalescedWithinRate(t *testing.T) {
	f := start(t, task.Limits{Rate: 20, Burst: 1, ResendAfter: time.Hour})
	f.upsert(device("a", "u", "1:0"))
	wait(t, f.states, "state") // takes the burst
	for i := range 200 {
		f.report("a", "u", int64(i+1))
	}
	n := 0
	for last := ""; last != "200"; n++ {
		last = seqOf(t, wait(t, f.updates, "twin update"))
	}
	if n > 40 {
		t.Fatalf("%d updates for 200 reports of one device", n)
	}
}

func TestBadReports(t *testing.T) {
	f := start(t, task.Limits{})
	f.upsert(device("a", "u", "1:5"))
	good := func(edit func(map[string]string)) []byte {
		p := model.Report{Phase: model.Running, Seq: 7}.Properties()
		model.SignProperties(f.key, "u", p)
		edit(p)
		b, _ := json.Marshal(p)
		return b
	}
	set := func(k, v string) []byte { return good(func(p map[string]string) { p[k] = v }) }
	many := func(p map[string]string) {
		for i := range 100 {
			p[fmt.Sprint("k", i)] = "v"
		}
	}
	topic := wire.TaskReported("n1", "default", "a")
	for name, c := range map[string]struct {
		topic   string
		payload []byte
		door    string
		code    wire.Code
	}{
		"not json":       {topic, []byte("{"), metrics.DoorMQTT, wire.InvalidArgument},
		"empty":          {topic, nil, metrics.DoorMQTT, wire.InvalidArgument},
		"nested":         {topic, []byte(`{"seq":{"a":"b"}}`), metrics.DoorMQTT, wire.InvalidArgument},
		"number":         {topic, []byte(`{"seq":7}`), metrics.DoorMQTT, wire.InvalidArgument},
		"twice":          {topic, []byte(`{"seq":"7","seq":"8","sig":"x"}`), metrics.DoorMQTT, wire.InvalidArgument},
		"trailing":       {topic, append(set("seq", "7"), "{}"...), metrics.DoorMQTT, wire.InvalidArgument},
		"alphabet":       {topic, set("reason", "no spaces"), metrics.DoorMQTT, wire.InvalidArgument},
		"513 characters": {topic, set("detail", strings.Repeat("a", 513)), metrics.DoorMQTT, wire.InvalidArgument},
		"no seq":         {topic, set("seq", ""), metrics.DoorMQTT, wire.InvalidArgument},
		"negative seq":   {topic, set("seq", "-1"), metrics.DoorMQTT, wire.InvalidArgument},
		"unsigned":       {topic, set("sig", ""), metrics.DoorMQTT, wire.BadSignature},
		"oversized":      {topic, set("detail", strings.Repeat("a", 17<<10)), metrics.DoorMQTT, wire.TooLarge},
		"too many":       {topic, good(many), metrics.DoorMQTT, wire.TooLarge},
		"undeclared":     {topic, set("extra", "x"), metrics.DoorTwin, wire.InvalidArgument},
		"forged":         {topic, set("phase", "Succeeded"), metrics.DoorTwin, wire.BadSignature},
		"forged seq":     {topic, set("seq", "9223372036854775807"), metrics.DoorTwin, wire.BadSignature},
		"unknown device": {wire.TaskReported("n1", "default", "b"), set("seq", "7"), metrics.DoorTwin, wire.NotFound},
		"stale":          {topic, stale(f), metrics.DoorTwin, wire.Stale},
	} {
		before := f.rejected(c.door, c.code)
		f.publish(c.topic, false, c.payload)
		for deadline := time.Now().Add(patience); f.rejected(c.door, c.code) != before+1; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: not counted at %s as %s", name, c.door, c.code)
			}
		}
	}
	silent(t, f.updates, "a bad report was sent")
	f.report("a", "u", 7)
	if s := seqOf(t, wait(t, f.updates, "good report")); s != "7" {
		t.Fatal(s)
	}
}

func stale(f *fixture) []byte {
	p := model.Report{Phase: model.Running, Seq: 4}.Properties()
	model.SignProperties(f.key, "u", p)
	b, _ := json.Marshal(p)
	return b
}

func TestRefusalsOfEdgecoreAreCounted(t *testing.T) {
	f := start(t, task.Limits{})
	f.upsert(device("a", "u", ""))
	f.publish(wire.TwinUpdateResult("default", "a"), false, []byte(`{"event_id":"x","code":404,"reason":"update rejected"}`))
	f.publish(wire.TwinUpdateResult("default", "other"), false, []byte(`{"code":404}`))
	f.publish(wire.TwinRejected, false, []byte(`{"event_id":"","code":400,"reason":"alphabet"}`))
	f.publish(wire.TwinRejected, false, []byte(`nonsense`))
	for deadline := time.Now().Add(patience); f.rejected(metrics.DoorMQTT, wire.InvalidArgument) != 1; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not counted")
		}
	}
	want := `# HELP sedna_mapper_twin_refused_total Twin updates that edgecore refused, by its code.
# TYPE sedna_mapper_twin_refused_total counter
sedna_mapper_twin_refused_total{code="400"} 1
sedna_mapper_twin_refused_total{code="404"} 1
`
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if err = testutil.GatherAndCompare(f.metrics, strings.NewReader(want), "sedna_mapper_twin_refused_total"); err == nil {
			return
		}
	}
	t.Fatal(err)
}

func TestBadDevice(t *testing.T) {
	f := start(t, task.Limits{})
	if err := f.bridge.Upsert(device("a", "u", "nonsense")); !wire.IsCode(err, wire.InvalidArgument) {
		t.Fatal(err)
	}
	big := device("b", strings.Repeat("x", bus.DefaultMaxPayload), "")
	f.upsert(big)
	f.upsert(device("c", "u", ""))
	f.wantDesired("c", true) // one that does not fit stops no other
}

func FuzzDecodeReport(f *testing.F) {
	f.Add([]byte(`{"seq":"1","sig":"x","phase":"Running"}`))
	f.Add([]byte(`{"seq":{"a":[1,2]}}`))
	f.Add([]byte(`[]`))
	l := task.Limits{Payload: 4096, Properties: 16}
	f.Fuzz(func(t *testing.T, b []byte) {
		props, seq, err := task.DecodeReport(b, l)
		if err != nil {
			return
		}
		if len(props) > l.Properties || seq < 1 || props["sig"] == "" {
			t.Fatalf("%v %d", props, seq)
		}
		for k, v := range props {
			if !wire.TwinSafe(k, v) {
				t.Fatalf("%q=%q", k, v)
			}
		}
	})
}
