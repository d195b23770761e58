package devices_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/mapper/budget"
	"github.com/edgetwin/sedna/mapper/devices"
	"github.com/edgetwin/sedna/mapper/dmi"
	"github.com/edgetwin/sedna/mapper/drivers/simulated"
	pb "github.com/edgetwin/sedna/models/dmi"
	"github.com/edgetwin/sedna/models/wire"
)

// memoryBus keeps what is published; it has no network, so that time can be
// simulated.
type memoryBus struct {
	mu        sync.Mutex
	away      bool
	published []bus.Message
	at        []time.Time
	subs      map[string]func(bus.Message)
	connect   []func()
}

func (b *memoryBus) Publish(_ context.Context, topic string, qos byte, retained bool, payload []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.away {
		return bus.ErrOffline
	}
	b.published = append(b.published, bus.Message{Topic: topic, Payload: payload, QoS: qos, Retained: retained})
	b.at = append(b.at, time.Now())
	return nil
}

func (b *memoryBus) Subscribe(filter string, _ byte, h func(bus.Message)) {
	if b.subs == nil {
		b.subs = map[string]func(bus.Message){}
	}
	b.subs[filter] = h
}
func (b *memoryBus) OnConnect(f func()) { b.connect = append(b.connect, f) }
func (b *memoryBus) Connected() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.away
}

func (b *memoryBus) send(topic, payload string) {
	for f, h := range b.subs {
		if bus.Match(f, topic) {
			h(bus.Message{Topic: topic, Payload: []byte(payload)})
		}
	}
}

// take gives and forgets what was published on topics that begin with prefix.
func (b *memoryBus) take(prefix string) []bus.Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []bus.Message
	for _, m := range b.published {
		if strings.HasPrefix(m.Topic, prefix) {
			out = append(out, m)
		}
	}
	b.published, b.at = nil, nil
	return out
}

// fake is a driver whose behaviour a test decides.
type fake struct {
	mu       sync.Mutex
	setup    devices.Setup
	err      error // of Connect and Read
	panics   bool
	value    any
	reading  error
	writeErr error
	calls    []string
	made     int
	open     int
	times    []time.Time // of Connect
}

func (f *fake) factory(s devices.Setup) (devices.Driver, error) {
	var c struct {
		Address string `conf:"address"`
	}
	if err := s.Protocol.Decode(&c); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.setup = s
	f.made++
	f.open++
	return f, nil
}

func (f *fake) Connect(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.times = append(f.times, time.Now())
	if f.panics {
		panic("a bug")
	}
	return f.err
}

func (f *fake) Read(_ context.Context, names []string) (map[string]devices.Reading, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	if len(names) > 0 {
		f.calls = append(f.calls, "read "+strings.Join(names, ","))
	}
	out := map[string]devices.Reading{}
	for _, n := range names {
		if f.value != nil || f.reading != nil {
			out[n] = devices.Reading{Value: f.value, Err: f.reading}
		}
	}
	return out, nil
}

func (f *fake) Write(_ context.Context, name string, v any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprintf("write %s=%v", name, v))
	return f.writeErr
}

func (f *fake) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open--
	return nil
}

func (f *fake) set(edit func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	edit()
}

func (f *fake) take() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.calls
	f.calls = nil
	return c
}

type world struct {
	t      *testing.T
	bus    *memoryBus
	fake   *fake
	engine *devices.Engine
	h      dmi.Handler
	cancel context.CancelFunc
	done   chan error
}

// start runs an engine within a synctest bubble.
func start(t *testing.T, edit func(*devices.Config)) *world {
	t.Helper()
	w := &world{t: t, bus: &memoryBus{}, fake: &fake{value: 1.5}, done: make(chan error, 1)}
	c := devices.Config{Node: "n1", Bus: w.bus, Metrics: metrics.New(), Budget: budget.New(1000, 1000),
		Drivers: map[string]devices.Factory{"fake": w.fake.factory, simulated.Protocol: simulated.New}}
	if edit != nil {
		edit(&c)
	}
	var err error
	if w.engine, err = devices.New(c); err != nil {
		t.Fatal(err)
	}
	if w.h, err = w.engine.Handler("fake"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	w.cancel = cancel
	go func() { w.done <- w.engine.Run(ctx) }()
	synctest.Wait()
	w.h.UpsertModel(model())
	return w
}

func (w *world) stop() {
	w.cancel()
	<-w.done
	if w.fake.open != 0 {
		w.t.Errorf("%d drivers are open at the end", w.fake.open)
	}
}

func model() *pb.DeviceModel {
	return &pb.DeviceModel{Namespace: "default", Name: "m", Spec: &pb.DeviceModelSpec{Properties: []*pb.ModelProperty{
		{Name: "t", Type: "DOUBLE", AccessMode: "ReadOnly", Minimum: "-40", Maximum: "125", Unit: "C"},
		{Name: "on", Type: "BOOLEAN", AccessMode: "ReadWrite"},
		{Name: "level", Type: "INT", AccessMode: "ReadWrite", Minimum: "0", Maximum: "10"},
		{Name: "text", Type: "STRING", AccessMode: "ReadOnly"},
	}}}
}

func wrap(t testing.TB, v map[string]any) *pb.CustomizedValue {
	t.Helper()
	out := &pb.CustomizedValue{Data: map[string]*anypb.Any{}}
	for k, v := range v {
		var m proto.Message
		switch v := v.(type) {
		case string:
			m = wrapperspb.String(v)
		case bool:
			m = wrapperspb.Bool(v)
		case int:
			m = wrapperspb.Int64(int64(v))
		case float64:
			m = wrapperspb.Double(v)
		default:
			t.Fatalf("%T", v)
		}
		a, err := anypb.New(m)
		if err != nil {
			t.Fatal(err)
		}
		out.Data[k] = a
	}
	return out
}

func property(name string, edit ...func(*pb.DeviceProperty)) *pb.DeviceProperty {
	p := &pb.DeviceProperty{Name: name, Desired: &pb.TwinProperty{}, Visitors: &pb.VisitorConfig{ProtocolName: "fake"}}
	for _, e := range edit {
		e(p)
	}
	return p
}

func device(name string, props ...*pb.DeviceProperty) *pb.Device {
	return &pb.Device{Namespace: "default", Name: name, Spec: &pb.DeviceSpec{
		DeviceModelReference: "m", Protocol: &pb.ProtocolConfig{ProtocolName: "fake"}, Properties: props}}
}

func (w *world) upsert(d *pb.Device) {
	w.t.Helper()
	if err := w.h.Upsert(d); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) state(name, want, problem string) {
	w.t.Helper()
	for _, s := range w.engine.Status() {
		if s.Name == name {
			if s.State != want || !strings.Contains(s.Problem, problem) || (problem == "") != (s.Problem == "") {
				w.t.Errorf("%s is %s (%s), expected %s (%s)", name, s.State, s.Problem, want, problem)
			}
			return
		}
	}
	w.t.Errorf("no device %s", name)
}

func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

const sensorT = "sedna/n1/sensor/default/d/t"

func TestCyclesReadingsAndReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, nil)
		defer w.stop()
		w.upsert(device("d",
			property("t", func(p *pb.DeviceProperty) { p.CollectCycle, p.ReportCycle, p.ReportToCloud = 250, 1000, true }),
			property("text", func(p *pb.DeviceProperty) { p.CollectCycle = 1000 }),
		))
		pass(9900 * time.Millisecond)
		w.state("d", "online", "")
		calls := w.fake.take()
		// Properties that are due together are read together.
		if n := len(calls); n != 40 || calls[0] != "read t,text" || calls[1] != "read t" || calls[4] != "read t,text" {
			t.Errorf("%d calls: %v", n, calls[:min(n, 6)])
		}
		var sensor, twins, states int
		for _, m := range w.bus.take("") {
			switch {
			case m.Topic == sensorT:
				sensor++
				var s devices.Sample
				if err := json.Unmarshal(m.Payload, &s); err != nil || s.Device != "d" || s.Property != "t" || s.Value != 1.5 || s.Type != "DOUBLE" || s.Unit != "C" || s.Timestamp == 0 || m.QoS != 0 {
					t.Fatalf("%s", m.Payload)
				}
			case m.Topic == wire.TwinUpdate("default", "d"):
				twins++
				var u wire.TwinMessage
				if err := json.Unmarshal(m.Payload, &u); err != nil || *u.Twin["t"].Actual.Value != "1.5" || u.Twin["t"].Metadata.Type != "float" || len(u.Twin) != 1 {
					t.Fatalf("%s", m.Payload)
				}
			case m.Topic == wire.StateUpdate("default", "d"):
				states++
				if !strings.Contains(string(m.Payload), `"online"`) {
					t.Errorf("%s", m.Payload)
				}
			}
		}
		// The first report is sent twice: KubeEdge loses it.
		if sensor != 40 || twins != 11 || states != 1 {
			t.Errorf("%d readings, %d reports, %d states", sensor, twins, states)
		}
	})
}

func TestDeadDeviceIsRetriedAloneWithBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, nil)
		defer w.stop()
		sim, err := w.engine.Handler(simulated.Protocol)
		if err != nil {
			t.Fatal(err)
		}
		sim.UpsertModel(model())
		neighbour := device("neighbour", &pb.DeviceProperty{Name: "t", Visitors: &pb.VisitorConfig{ProtocolName: simulated.Protocol, ConfigData: wrap(t, map[string]any{"value": 20})}})
		neighbour.Spec.Protocol.ProtocolName = simulated.Protocol
		if err := sim.Upsert(neighbour); err != nil {
			t.Fatal(err)
		}
		w.fake.set(func() { w.fake.err = errors.New("no route") })
		w.upsert(device("d", property("t")))
		pass(10 * time.Minute)
		w.state("d", "offline", "no route")
		w.state("neighbour", "online", "")
		n := len(w.fake.times)
		if n < 12 || n > 18 {
			t.Errorf("%d tries in ten minutes", n)
		}
		if first, last := w.fake.times[1].Sub(w.fake.times[0]), w.fake.times[n-1].Sub(w.fake.times[n-2]); first < time.Second || first > 1200*time.Millisecond || last < time.Minute || last > 72*time.Second {
			t.Errorf("back-off %v … %v", first, last)
		}
		if got := len(w.bus.take("sedna/n1/sensor/default/neighbour/t")); got < 600 || got > 601 {
			t.Errorf("the neighbour was read %d times", got)
		}
		w.fake.set(func() { w.fake.err = nil })
		pass(75 * time.Second)
		w.state("d", "online", "")
		// It fails again and comes back soon: the back-off has begun anew.
		w.fake.set(func() { w.fake.err = errors.New("again") })
		pass(time.Second)
		w.state("d", "offline", "again")
		w.fake.set(func() { w.fake.err = nil })
		pass(2500 * time.Millisecond)
		w.state("d", "online", "")
	})
}

func TestPanicsAreADevicesOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, nil)
		defer w.stop()
		w.fake.set(func() { w.fake.panics = true })
		w.upsert(device("d", property("t")))
		pass(time.Second)
		w.state("d", "unhealthy", "panicked: a bug")
		w.fake.set(func() { w.fake.panics = false })
		pass(3 * time.Second)
		w.state("d", "online", "")
	})
}

func TestDesiredIsWrittenOncePerChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, nil)
		defer w.stop()
		desire := func(v string) func(*pb.DeviceProperty) {
			return func(p *pb.DeviceProperty) { p.Desired.Value, p.ReportToCloud = v, true }
		}
		w.fake.set(func() { w.fake.value = nil })
		writes := func() (out []string) {
			pass(30 * time.Second)
			for _, c := range w.fake.take() {
				if strings.HasPrefix(c, "write") {
					out = append(out, c)
				}
			}
			return out
		}
		expect := func(want ...string) {
			t.Helper()
			if got := writes(); !slices.Equal(got, want) {
				t.Errorf("got %v, expected %v", got, want)
			}
		}
		w.upsert(device("d", property("level", desire("3")), property("on", desire("true"))))
		expect("write level=3", "write on=true")
		// An unrelated change writes nothing and restarts nothing.
		w.upsert(device("d", property("level", desire("3"), func(p *pb.DeviceProperty) { p.CollectCycle = 500 }), property("on", desire("true"))))
		expect()
		w.upsert(device("d", property("level", desire("4")), property("on", desire("true"))))
		expect("write level=4")
		if w.fake.made != 1 {
			t.Errorf("%d drivers were made", w.fake.made)
		}
		// Out of range, of the wrong type: said once, not written.
		w.upsert(device("d", property("level", desire("11")), property("on", desire("true"))))
		expect()
		w.state("d", "unhealthy", "out of range")
		w.upsert(device("d", property("level", desire("5")), property("on", desire("maybe"))))
		expect("write level=5")
		w.state("d", "unhealthy", "BOOLEAN")
		// Refused by the device: not repeated.
		w.fake.set(func() { w.fake.writeErr = wire.E(wire.InvalidArgument, "", "stuck", "") })
		w.upsert(device("d", property("level", desire("6")), property("on", desire("false"))))
		expect("write level=6", "write on=false")
		w.state("d", "unhealthy", "stuck")
		// The link breaks: repeated until it is taken.
		w.fake.set(func() { w.fake.writeErr = errors.New("broken pipe") })
		w.upsert(device("d", property("level", desire("7")), property("on", desire("false"))))
		if got := writes(); len(got) < 3 || got[0] != "write level=7" {
			t.Errorf("%v", got)
		}
		w.state("d", "offline", "broken pipe")
		w.fake.set(func() { w.fake.writeErr, w.fake.value = nil, 7 })
		w.bus.take("")
		if got := writes(); len(got) == 0 || got[len(got)-1] != "write level=7" {
			t.Errorf("%v", got)
		}
		var u wire.TwinMessage
		for _, m := range w.bus.take(wire.TwinUpdate("default", "d")) {
			if json.Unmarshal(m.Payload, &u) != nil {
				t.Fatalf("%s", m.Payload)
			}
		}
		if lv := u.Twin["level"]; lv == nil || lv.Expected == nil || *lv.Expected.Value != "7" || *lv.Actual.Value != "7" {
			t.Errorf("observedDesired was not echoed: %+v", u.Twin["level"])
		}
		expect()
		// Another address may be another device: what is desired is written.
		d := device("d", property("level", desire("7")), property("on", desire("false")))
		d.Spec.Protocol.ConfigData = wrap(t, map[string]any{"address": "other"})
		w.upsert(d)
		expect("write level=7", "write on=false")
		if w.fake.made != 2 {
			t.Errorf("%d drivers were made", w.fake.made)
		}
	})
}

func TestReadOnlyIsNotWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, nil)
		defer w.stop()
		w.upsert(device("d", property("t", func(p *pb.DeviceProperty) { p.Desired.Value = "5" })))
		pass(time.Second)
		w.state("d", "unhealthy", "ReadOnly")
		for _, c := range w.fake.take() {
			if strings.HasPrefix(c, "write") {
				t.Error(c)
			}
		}
	})
}

func TestBadConfigurationIsSaidNotRun(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*pb.Device)
		want string
	}{
		"unknown setting": {func(d *pb.Device) { d.Spec.Protocol.ConfigData = wrap(t, map[string]any{"adress": "x"}) }, "protocol.configData.adress: there is no such setting"},
		"not a wrapper": {func(d *pb.Device) {
			d.Spec.Protocol.ConfigData = &pb.CustomizedValue{Data: map[string]*anypb.Any{"address": {TypeUrl: "x/y"}}}
		}, "protocol.configData.address"},
		"no such property": {func(d *pb.Device) { d.Spec.Properties[0].Name = "volume" }, "properties[volume]: the DeviceModel has no such property"},
		"bad name":         {func(d *pb.Device) { d.Spec.Properties[0].Name = "a/b" }, "properties[a/b].name"},
		"twice":            {func(d *pb.Device) { d.Spec.Properties = append(d.Spec.Properties, property("t")) }, "named twice"},
		"negative cycle":   {func(d *pb.Device) { d.Spec.Properties[0].CollectCycle = -1 }, "properties[t].collectCycle"},
		"long cycle":       {func(d *pb.Device) { d.Spec.Properties[0].ReportCycle = 1 << 60 }, "properties[t].reportCycle"},
		"other protocol":   {func(d *pb.Device) { d.Spec.Properties[0].Visitors.ProtocolName = "x" }, "properties[t].visitors.protocolName"},
		"no model":         {func(d *pb.Device) { d.Spec.DeviceModelReference = "none" }, "model \"none\" is not known"},
		"push topic": {func(d *pb.Device) {
			d.Spec.Properties[0].PushMethod = &pb.PushMethod{Mqtt: &pb.PushMethodMQTT{Topic: "$hw/x"}}
		}, "pushMethod.mqtt.topic"},
		"push host": {func(d *pb.Device) {
			d.Spec.Properties[0].PushMethod = &pb.PushMethod{Http: &pb.PushMethodHTTP{Hostname: "ftp://x", Port: 1}}
		}, "pushMethod.http"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := start(t, nil)
				defer w.stop()
				d := device("d", property("t"))
				c.edit(d)
				w.upsert(d)
				pass(10 * time.Second)
				w.state("d", "unhealthy", c.want)
				if got := w.bus.take(wire.StateUpdate("default", "d")); len(got) != 1 || !strings.Contains(string(got[0].Payload), "unhealthy") {
					t.Errorf("%d states", len(got))
				}
				// Put right, it runs.
				w.upsert(device("d", property("t")))
				pass(2 * time.Minute)
				w.state("d", "online", "")
			})
		})
	}
}

func TestModelThatComesLateOrChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, nil)
		defer w.stop()
		w.h.RemoveModel("default", "m")
		w.upsert(device("d", property("t")))
		pass(time.Second)
		w.state("d", "unhealthy", "not known")
		w.h.UpsertModel(model())
		pass(time.Second)
		w.state("d", "online", "")
		m := model()
		m.Spec.Properties[0].Maximum = "1"
		w.h.UpsertModel(m)
		pass(2 * time.Second)
		w.state("d", "unhealthy", "1.5 is out of range, expected -40 to 1")
		if w.fake.made != 1 {
			t.Errorf("%d drivers were made", w.fake.made)
		}
		// The model's removal comes before the device's.
		w.h.RemoveModel("default", "m")
		pass(2 * time.Second)
		w.state("d", "unhealthy", "out of range")
		w.h.Remove("default", "d")
		w.h.Remove("default", "d")
		pass(time.Second)
		if s := w.engine.Status(); len(s) != 0 || w.fake.open != 0 {
			t.Errorf("%v, %d open", s, w.fake.open)
		}
	})
}

func TestBadReadings(t *testing.T) {
	for name, c := range map[string]struct {
		value any
		err   error
		want  string
	}{
		"error": {nil, errors.New("illegal address"), "t: illegal address"},
		"text":  {"hot", nil, "expected a value of type DOUBLE"},
		"range": {300, nil, "out of range"},
		"nan":   {"NaN", nil, "not finite"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := start(t, nil)
				defer w.stop()
				w.fake.set(func() { w.fake.value, w.fake.reading = c.value, c.err })
				w.upsert(device("d", property("t")))
				pass(10 * time.Second)
				w.state("d", "unhealthy", c.want)
				if got := w.bus.take("sedna/"); len(got) != 0 {
					t.Errorf("%s", got[0].Payload)
				}
				w.fake.set(func() { w.fake.value, w.fake.reading = 20, nil })
				pass(time.Second)
				w.state("d", "online", "")
			})
		})
	}
}

func TestTheBudgetCoalesces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(10, 2)
		w := start(t, func(c *devices.Config) { c.Budget = b })
		defer w.stop()
		for i := range 50 {
			w.upsert(device(fmt.Sprint("d", i), property("t", func(p *pb.DeviceProperty) { p.ReportCycle, p.ReportToCloud = 1000, true })))
		}
		pass(60 * time.Second)
		var n int
		per := map[string]int{}
		for _, m := range w.bus.take("$hw/") {
			n++
			per[m.Topic]++
		}
		if n < 590 || n > 605 {
			t.Errorf("%d updates in a minute at 10 a second", n)
		}
		for topic, n := range per {
			if strings.HasSuffix(topic, "twin/update") && (n < 8 || n > 14) {
				t.Errorf("%s: %d reports, expected fair turns", topic, n)
			}
		}
		// A task does not wait behind them.
		since := time.Now()
		if err := b.Wait(t.Context(), budget.Task); err != nil || time.Since(since) > 100*time.Millisecond {
			t.Errorf("a task waited %v", time.Since(since))
		}
	})
}

func TestStatesAreToldAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, nil)
		defer w.stop()
		states := func() int { return len(w.bus.take(wire.StateUpdate("default", "d"))) }
		w.upsert(device("d", property("t")))
		pass(10 * time.Second)
		if n := states(); n != 1 {
			t.Errorf("%d", n)
		}
		for _, f := range w.bus.connect {
			f()
		}
		pass(time.Second)
		if n := states(); n != 1 {
			t.Errorf("%d after a reconnect", n)
		}
		w.h.Sync([]*pb.DeviceModel{model()}, []*pb.Device{device("d", property("t"))})
		pass(10 * time.Second)
		if n := states(); n != 1 {
			t.Errorf("%d after a registration", n)
		}
		pass(6 * time.Minute)
		if n := states(); n != 1 {
			t.Errorf("%d in six minutes", n)
		}
		// A device that flaps is told of at most every five seconds.
		for i := range 100 {
			w.fake.set(func() { w.fake.reading = map[bool]error{true: errors.New("x")}[i%2 == 0] })
			pass(time.Second)
		}
		if n := states(); n < 8 || n > 21 {
			t.Errorf("%d states of a device that flaps for 100 s", n)
		}
		w.h.Sync(nil, nil)
		pass(time.Second)
		if s := w.engine.Status(); len(s) != 0 {
			t.Errorf("%v", s)
		}
	})
}

// What is sent can be lost behind the bus: it is said again with the state, as
// long as the device is there.
func TestReadingsAreToldAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, nil)
		defer w.stop()
		w.fake.set(func() { w.fake.value = nil })
		w.upsert(device("d", property("t", func(p *pb.DeviceProperty) { p.ReportToCloud = true })))
		pass(time.Second)
		w.fake.setup.Emit("t", devices.Reading{Value: 7})
		pass(time.Second)
		twins := func() int { return len(w.bus.take(wire.TwinUpdate("default", "d"))) }
		if n := twins(); n != 2 {
			t.Errorf("the first report was sent %d times", n)
		}
		pass(time.Minute)
		if n := twins(); n != 0 {
			t.Errorf("%d reports of nothing new", n)
		}
		pass(5 * time.Minute)
		if n := twins(); n != 1 {
			t.Errorf("%d in five minutes", n)
		}
		w.h.Sync([]*pb.DeviceModel{model()}, []*pb.Device{device("d", property("t", func(p *pb.DeviceProperty) { p.ReportToCloud = true }))})
		pass(10 * time.Second)
		if n := twins(); n != 1 {
			t.Errorf("%d after edgecore came back", n)
		}
		w.fake.set(func() { w.fake.err = errors.New("gone") })
		pass(20 * time.Minute)
		if n := twins(); n != 0 {
			t.Errorf("%d reports of a device that is gone", n)
		}
	})
}

func TestEmittedReadings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, nil)
		defer w.stop()
		w.fake.set(func() { w.fake.value = nil })
		w.upsert(device("d", property("t", func(p *pb.DeviceProperty) { p.CollectCycle = 1000 }), property("text")))
		pass(100 * time.Millisecond)
		for i := range 100 {
			w.fake.setup.Emit("t", devices.Reading{Value: i})
			w.fake.setup.Emit("text", devices.Reading{Value: fmt.Sprint("nr ", i)})
			w.fake.setup.Emit("nonsense", devices.Reading{Value: i})
			pass(100 * time.Millisecond)
		}
		pass(time.Second)
		all := w.bus.take("sedna/")
		per := map[string][]string{}
		for _, m := range all {
			per[m.Topic] = append(per[m.Topic], string(m.Payload))
		}
		if n := len(per["sedna/n1/sensor/default/d/text"]); n != 100 {
			t.Errorf("%d of 100 came through", n)
		}
		if got := per[sensorT]; len(got) != 11 || !strings.Contains(got[10], `"value":99,`) {
			t.Errorf("%d, thinned out to one a second: %v", len(got), got)
		}
		if len(per) != 2 {
			t.Errorf("%d topics", len(per))
		}
	})
}

func TestLocalWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, func(c *devices.Config) { c.LocalWrites = true })
		defer w.stop()
		result := property("text", func(p *pb.DeviceProperty) { p.Visitors, p.ReportToCloud = &pb.VisitorConfig{}, true })
		w.upsert(device("d", property("level"), property("t"), result))
		pass(time.Second)
		w.bus.take("")
		w.fake.take()
		for prop, payload := range map[string]string{"level": `{"value":4}`, "t": `{"value":1}`, "none": `{"value":1}`, "on": `x`} {
			w.bus.send("sedna/n1/sensor/default/d/"+prop+"/set", payload)
		}
		w.bus.send("sedna/n1/sensor/default/d/level/set", `{"value":"many"}`)
		w.bus.send("sedna/n1/sensor/default/other/level/set", `{"value":4}`)
		w.bus.send("sedna/n1/sensor/default/d/text/set", `{"value":"two words"}`)
		pass(100 * time.Millisecond)
		if got := w.fake.take(); len(got) != 2 || got[0] != "write level=4" || got[1] != "read level" {
			t.Errorf("%v", got)
		}
		var sensor, twin string
		for _, m := range w.bus.take("") {
			switch m.Topic {
			case "sedna/n1/sensor/default/d/text":
				sensor = string(m.Payload)
			case wire.TwinUpdate("default", "d"):
				twin = string(m.Payload)
			}
		}
		if !strings.Contains(sensor, `"value":"two words"`) || !strings.Contains(twin, `"value":"two_words"`) {
			t.Errorf("%s\n%s", sensor, twin)
		}
	})
}

func TestBusAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, nil)
		defer w.stop()
		w.bus.mu.Lock()
		w.bus.away = true
		w.bus.mu.Unlock()
		w.upsert(device("d", property("t", func(p *pb.DeviceProperty) { p.ReportToCloud = true })))
		pass(time.Minute)
		w.state("d", "online", "")
		w.bus.mu.Lock()
		w.bus.away = false
		w.bus.mu.Unlock()
		for _, f := range w.bus.connect {
			f()
		}
		pass(100 * time.Millisecond)
		if got := w.bus.take("$hw/"); len(got) != 3 {
			t.Errorf("%d updates after the bus came back, expected the state and the newest reading, which is the first and goes twice", len(got))
		}
	})
}

func TestRemovedAndMadeAgainDoesNotOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, nil)
		defer w.stop()
		for range 20 {
			w.upsert(device("d", property("t")))
			w.h.Remove("default", "d")
		}
		w.upsert(device("d", property("t")))
		pass(time.Second)
		w.fake.mu.Lock()
		if w.fake.open != 1 {
			t.Errorf("%d drivers are open", w.fake.open)
		}
		w.fake.mu.Unlock()
		w.state("d", "online", "")
	})
}

func TestLimitsOfAnEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, func(c *devices.Config) { c.Limits.Devices, c.Limits.Properties = 2, 2 })
		defer w.stop()
		w.upsert(device("a", property("t")))
		w.upsert(device("b", property("t"), property("on"), property("level")))
		if err := w.h.Upsert(device("c", property("t"))); !wire.IsCode(err, wire.ResourceExhausted) {
			t.Error(err)
		}
		pass(time.Second)
		w.state("a", "online", "")
		w.state("b", "unhealthy", "3 properties, at most 2")
	})
	for name, c := range map[string]devices.Config{"nothing": {}, "no bus": {Node: "n"}, "no drivers": {Node: "n", Bus: &memoryBus{}},
		"no metrics": {Node: "n", Bus: &memoryBus{}, Drivers: map[string]devices.Factory{"x": simulated.New}}} {
		if _, err := devices.New(c); !wire.IsCode(err, wire.InvalidArgument) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
