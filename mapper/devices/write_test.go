package devices_test

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/mapper/devices"
	pb "github.com/edgetwin/sedna/models/dmi"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

const levelSet = "sedna/n1/sensor/default/d/level/set"

// signer makes writes as the LocalController of n1 does.
type signer struct{ key ed25519.PrivateKey }

func newSigner(t *testing.T) (signer, ed25519.PublicKey) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return signer{key}, pub
}

func (s signer) sign(property, value string, at time.Time) string {
	b, _ := json.Marshal(task.SignWrite(s.key, "n1", "default", "d", property, json.RawMessage(value), at))
	return string(b)
}

// refusals counts what was refused at the bus, by code.
func refusals(t *testing.T, r *metrics.Registry) map[string]string {
	t.Helper()
	rec := httptest.NewRecorder()
	r.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	out := map[string]string{}
	for line := range strings.Lines(rec.Body.String()) {
		if rest, ok := strings.CutPrefix(line, `sedna_rejected_total{code="`); ok {
			code, rest, _ := strings.Cut(rest, `"`)
			_, n, _ := strings.Cut(rest, `door="mqtt"} `)
			out[code] = strings.TrimSpace(n)
		}
	}
	return out
}

func TestSignedWrites(t *testing.T) {
	ours, pub := newSigner(t)
	foreign, _ := newSigner(t)
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	for _, c := range []struct {
		name        string
		key         ed25519.PublicKey
		localWrites bool
		send        func(now time.Time) []string // to property level
		want        []string                     // what the driver is asked
		refused     string
	}{
		{name: "signed", key: pub, send: func(now time.Time) []string { return []string{ours.sign("level", "4", now)} }, want: []string{"write level=4"}},
		{name: "a number as text", key: pub, send: func(now time.Time) []string { return []string{ours.sign("level", `"7"`, now)} }, want: []string{"write level=7"}},
		{name: "delivered twice", key: pub, send: func(now time.Time) []string {
			w := ours.sign("level", "4", now)
			return []string{w, w}
		}, want: []string{"write level=4"}},
		{name: "newer", key: pub, send: func(now time.Time) []string {
			return []string{ours.sign("level", "4", now), ours.sign("level", "5", now.Add(ms(1)))}
		}, want: []string{"write level=4", "write level=5"}},
		{name: "older", key: pub, send: func(now time.Time) []string {
			return []string{ours.sign("level", "4", now), ours.sign("level", "5", now.Add(-ms(1)))}
		}, want: []string{"write level=4"}, refused: "stale"},
		{name: "a refused value is not tried again", key: pub, send: func(now time.Time) []string {
			w := ours.sign("level", `"many"`, now)
			return []string{w, w}
		}, refused: "invalid_argument"},
		{name: "at the edge of the skew", key: pub, send: func(now time.Time) []string { return []string{ours.sign("level", "4", now.Add(-task.MaxWriteSkew))} }, want: []string{"write level=4"}},
		{name: "too old", key: pub, send: func(now time.Time) []string {
			return []string{ours.sign("level", "4", now.Add(-task.MaxWriteSkew-ms(1)))}
		}, refused: "stale"},
		{name: "from the future", key: pub, send: func(now time.Time) []string {
			return []string{ours.sign("level", "4", now.Add(task.MaxWriteSkew+ms(1)))}
		}, refused: "stale"},
		{name: "another key", key: pub, send: func(now time.Time) []string { return []string{foreign.sign("level", "4", now)} }, refused: "bad_signature"},
		{name: "another property's", key: pub, localWrites: true, send: func(now time.Time) []string { return []string{ours.sign("on", "4", now)} }, refused: "bad_signature"},
		{name: "no key here", localWrites: true, send: func(now time.Time) []string { return []string{ours.sign("level", "4", now)} }, refused: "failed_precondition"},
		{name: "unsigned", key: pub, send: func(time.Time) []string { return []string{`{"value":4}`} }, refused: "permission_denied"},
		{name: "unsigned where that is allowed", key: pub, localWrites: true, send: func(time.Time) []string { return []string{`{"value":4}`} }, want: []string{"write level=4"}},
		{name: "unsigned does not hold back signed", key: pub, localWrites: true, send: func(now time.Time) []string {
			return []string{`{"value":4,"timestamp":99999999999999}`, ours.sign("level", "5", now)}
		}, want: []string{"write level=4", "write level=5"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				registry := metrics.New()
				w := start(t, func(conf *devices.Config) {
					conf.NodeKey, conf.LocalWrites, conf.Metrics = c.key, c.localWrites, registry
				})
				defer w.stop()
				w.upsert(device("d", property("level"), property("on")))
				pass(time.Second)
				w.fake.take()
				for _, payload := range c.send(time.Now()) {
					w.bus.send(levelSet, payload)
					synctest.Wait()
				}
				var got []string
				for _, call := range w.fake.take() {
					if strings.HasPrefix(call, "write") {
						got = append(got, call)
					}
				}
				if fmt.Sprint(got) != fmt.Sprint(c.want) {
					t.Errorf("the driver was asked %v, expected %v", got, c.want)
				}
				want := map[string]string{}
				if c.refused != "" {
					want[c.refused] = "1"
				}
				if counted := refusals(t, registry); fmt.Sprint(counted) != fmt.Sprint(want) {
					t.Errorf("counted %v, expected %v", counted, want)
				}
			})
		})
	}
}

// TestASignedWriteIsNotReplayed has a device configured anew between a write
// and its repetition.
func TestASignedWriteIsNotReplayed(t *testing.T) {
	ours, pub := newSigner(t)
	synctest.Test(t, func(t *testing.T) {
		registry := metrics.New()
		w := start(t, func(c *devices.Config) { c.NodeKey, c.Metrics = pub, registry })
		defer w.stop()
		w.upsert(device("d", property("level")))
		pass(time.Second)
		old := ours.sign("level", "4", time.Now())
		w.bus.send(levelSet, old)
		pass(time.Second)
		w.bus.send(levelSet, ours.sign("level", "5", time.Now()))
		d := device("d", property("level"), property("on"))
		d.Spec.Protocol.ConfigData = wrap(t, map[string]any{"address": "other"})
		w.upsert(d)
		pass(time.Second)
		w.fake.take()
		w.bus.send(levelSet, old)
		pass(100 * time.Millisecond)
		for _, call := range w.fake.take() {
			if strings.HasPrefix(call, "write") {
				t.Error(call)
			}
		}
		if got := refusals(t, registry); got["stale"] != "1" {
			t.Errorf("%v", got)
		}
	})
}

func TestRefusedWrites(t *testing.T) {
	for name, c := range map[string]struct {
		topic, payload string
		retained       bool
		code           wire.Code
	}{
		"no JSON":        {payload: "x", code: wire.InvalidArgument},
		"no value":       {payload: `{}`, code: wire.InvalidArgument},
		"null":           {payload: `{"value":null}`, code: wire.InvalidArgument},
		"object":         {payload: `{"value":{}}`, code: wire.InvalidArgument},
		"array":          {payload: `{"value":[4]}`, code: wire.InvalidArgument},
		"retained":       {payload: `{"value":4}`, retained: true, code: wire.InvalidArgument},
		"out of range":   {payload: `{"value":11}`, code: wire.InvalidArgument},
		"too large":      {payload: `{"value":"` + strings.Repeat("4", 64<<10) + `"}`, code: wire.TooLarge},
		"other device":   {topic: "sedna/n1/sensor/default/e/level/set", payload: `{"value":4}`, code: wire.NotFound},
		"other property": {topic: "sedna/n1/sensor/default/d/text/set", payload: `{"value":4}`, code: wire.NotFound},
		"read only":      {topic: "sedna/n1/sensor/default/d/t/set", payload: `{"value":4}`, code: wire.PermissionDenied},
	} {
		synctest.Test(t, func(t *testing.T) {
			registry := metrics.New()
			w := start(t, func(c *devices.Config) { c.LocalWrites, c.Metrics = true, registry })
			defer w.stop()
			w.upsert(device("d", property("level"), property("t")))
			pass(time.Second)
			w.fake.take()
			topic := c.topic
			if topic == "" {
				topic = levelSet
			}
			w.bus.subs[wire.SensorSetFilter("n1")](bus.Message{Topic: topic, Payload: []byte(c.payload), Retained: c.retained})
			pass(100 * time.Millisecond)
			if got := refusals(t, registry); got[string(c.code)] != "1" || len(got) != 1 {
				t.Errorf("%s: counted %v, expected %s", name, got, c.code)
			}
			if got := w.fake.take(); len(got) != 0 {
				t.Errorf("%s: %v", name, got)
			}
		})
	}
}

// TestFastWritesSpareTheBudget writes faster than reportCycle: each value is on
// the bus, and the cloud hears of the first at once and of the last in time.
func TestFastWritesSpareTheBudget(t *testing.T) {
	ours, pub := newSigner(t)
	synctest.Test(t, func(t *testing.T) {
		w := start(t, func(c *devices.Config) { c.NodeKey = pub })
		defer w.stop()
		cycle := func(p *pb.DeviceProperty) { p.ReportToCloud, p.ReportCycle = true, 10_000 }
		w.upsert(device("d", property("level", cycle), property("text", cycle, func(p *pb.DeviceProperty) { p.Visitors = nil })))
		w.fake.set(func() { w.fake.value = nil })
		pass(20 * time.Second)
		w.bus.take("")
		for i := range 50 { // five seconds
			w.bus.send("sedna/n1/sensor/default/d/text/set", ours.sign("text", fmt.Sprintf(`"v%d"`, i), time.Now()))
			w.bus.send(levelSet, ours.sign("level", fmt.Sprint(i%10), time.Now()))
			pass(100 * time.Millisecond)
		}
		pass(20 * time.Second)
		var samples int
		var told []string
		for _, m := range w.bus.take("") {
			switch m.Topic {
			case "sedna/n1/sensor/default/d/text":
				samples++
			case wire.TwinUpdate("default", "d"):
				var u wire.TwinMessage
				if json.Unmarshal(m.Payload, &u) != nil {
					t.Fatalf("%s", m.Payload)
				}
				if v := u.Twin["text"]; v != nil {
					told = append(told, *v.Actual.Value)
				}
			}
		}
		// The first report of a property goes twice: KubeEdge loses it.
		if want := "[v0 v0 v49]"; fmt.Sprint(told) != want || samples != 50 {
			t.Errorf("told %v, expected %s; %d of 50 samples", told, want, samples)
		}
		for _, s := range w.engine.Status() {
			if got := s.Properties["text"]; got.Value != "v49" || got.Type != devices.String || got.Timestamp == 0 {
				t.Errorf("%+v", s.Properties)
			}
		}
	})
}

// TestTheLastWordIsReported: what a device said within a report cycle and never
// again reaches the cloud at the cycle's end.
func TestTheLastWordIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, nil)
		defer w.stop()
		w.fake.set(func() { w.fake.value = nil })
		w.upsert(device("d", property("text", func(p *pb.DeviceProperty) { p.ReportToCloud, p.ReportCycle = true, 10_000 })))
		pass(time.Second)
		for _, v := range []string{"open", "ajar", "closed"} {
			w.fake.setup.Emit("text", devices.Reading{Value: v})
			pass(time.Second)
		}
		w.bus.take("")
		pass(20 * time.Second)
		var told []string
		for _, m := range w.bus.take(wire.TwinUpdate("default", "d")) {
			told = append(told, string(m.Payload))
		}
		if len(told) != 1 || !strings.Contains(told[0], `"value":"closed"`) {
			t.Errorf("%v", told)
		}
		// Not, however, after the device was away: it would look fresh.
		w.fake.setup.Emit("text", devices.Reading{Value: "open"})
		pass(time.Second)
		w.fake.setup.Emit("text", devices.Reading{Value: "late"})
		pass(time.Second)
		w.fake.set(func() { w.fake.err = fmt.Errorf("gone") })
		w.fake.setup.Wake()
		pass(time.Second)
		w.fake.set(func() { w.fake.err = nil })
		w.bus.take("")
		pass(30 * time.Second)
		w.state("d", "online", "")
		for _, m := range w.bus.take(wire.TwinUpdate("default", "d")) {
			if strings.Contains(string(m.Payload), "late") {
				t.Errorf("%s", m.Payload)
			}
		}
	})
}

// TestAPropertyGoesWhileItsReportWaits has the device fail right after.
func TestAPropertyGoesWhileItsReportWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, func(c *devices.Config) { c.LocalWrites = true })
		defer w.stop()
		w.upsert(device("d", property("level"), property("text", func(p *pb.DeviceProperty) { p.Visitors, p.ReportToCloud = nil, true })))
		pass(time.Second)
		for _, v := range []string{"a", "b"} {
			w.bus.send("sedna/n1/sensor/default/d/text/set", `{"value":"`+v+`"}`)
			pass(100 * time.Millisecond)
		}
		w.fake.set(func() { w.fake.value, w.fake.writeErr = 3, errors.New("broken pipe") })
		w.upsert(device("d", property("level", func(p *pb.DeviceProperty) { p.Desired.Value = "3" })))
		pass(time.Second)
		w.state("d", "offline", "broken pipe")
		w.fake.set(func() { w.fake.writeErr = nil })
		pass(time.Minute)
		w.state("d", "online", "")
		if w.fake.made != 1 {
			t.Errorf("%d drivers were made", w.fake.made)
		}
	})
}

func TestStatusCutsLongTexts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, nil)
		defer w.stop()
		w.fake.set(func() { w.fake.value = strings.Repeat("ä", 200) })
		w.upsert(device("d", property("text")))
		pass(time.Second)
		if got := w.engine.Status()[0].Properties["text"].Value; got != strings.Repeat("ä", 128) {
			t.Errorf("%d bytes", len(got.(string)))
		}
		w.upsert(device("d", property("t")))
		pass(time.Second)
		if got := w.engine.Status()[0].Properties; got["text"].Value != nil {
			t.Errorf("a property that is gone: %v", got)
		}
	})
}
