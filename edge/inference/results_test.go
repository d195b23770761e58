package inference

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/lib/bus/broker"
	"github.com/edgetwin/sedna/lib/engine"
	"github.com/edgetwin/sedna/lib/serving/servingtest"
	"github.com/edgetwin/sedna/models/oip"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// sensorSpec is the classifier of serviceSpec, fed by three properties.
func sensorSpec(t testing.TB) ServiceSpec {
	s := serviceSpec(t, "")
	s.HardExample = task.Algorithm{}
	s.Inputs = []task.Input{{Tensor: "x", Sources: []task.InputSource{{Device: "plc", Property: "a"}, {Device: "plc", Property: "b"}, {Device: "plc", Property: "c"}}}}
	return s
}

// write reads a signed write of property default/device/property.
func readWrite(t testing.TB, m bus.Message, device, property string) task.Write {
	t.Helper()
	if want := wire.SensorSet("edge-a", "default", device, property); m.Topic != want {
		t.Fatalf("on %s, want %s: %s", m.Topic, want, m.Payload)
	}
	var w task.Write
	if err := json.Unmarshal(m.Payload, &w); err != nil {
		t.Fatal(err)
	}
	if err := w.Verify(nodeKey.Public().(ed25519.PublicKey), "edge-a", "default", device, property, time.Now()); err != nil {
		t.Fatalf("%s: %v", m.Payload, err)
	}
	return w
}

// TestAnswersOfInputs: a real model on a real broker; the result and the signed
// write of the result property.
func TestAnswersOfInputs(t *testing.T) {
	p := newPlant(t, nil, nil)
	spec := sensorSpec(t)
	spec.Result = &task.ResultProperty{Device: "panel", Property: "state"}
	p.activate(spec)
	var before int64
	for i, c := range []struct {
		values [3]float64
		label  string
	}{{[3]float64{5, 0, 0}, "a"}, {[3]float64{0, 5, 0}, "b"}, {[3]float64{0, 0, 5}, "c"}} {
		for k, name := range []string{"c", "b", "a"} {
			p.sample("plc", name, c.values[2-k])
		}
		var result, write bus.Message
		for range 2 {
			if m := p.wait(); strings.HasSuffix(m.Topic, "/set") {
				write = m
			} else {
				result = m
			}
		}
		r := decodeResult(t, result)
		if id, err := uuid.Parse(r.ID); err != nil || id.Version() != 7 || r.ModelName != "svc" || r.ModelVersion != "1" {
			t.Errorf("%s", result.Payload)
		}
		if r.Parameters[ParamLabel] != c.label || r.Parameters[ParamScore].(float64) < 0.9 || r.Parameters[ParamSource] != SourceEdge {
			t.Errorf("%v", r.Parameters)
		}
		if r.Parameters[ParamMissing] != nil || result.QoS != 1 || write.QoS != 1 {
			t.Errorf("%+v", result)
		}
		w := readWrite(t, write, "panel", "state")
		if string(w.Value) != `"`+c.label+`"` || w.Timestamp <= before {
			t.Errorf("write %d: %s after %d", i, write.Payload, before)
		}
		before = w.Timestamp
	}
	eventually(t, "written", func() bool { s := p.status("svc").Result; return s.Written == 3 && string(s.Value) == `"c"` })
	for series, want := range map[string]float64{
		"sedna_input_readings_total": 9, "sedna_input_refused_total": 0, "sedna_input_dropped_total": 0, "sedna_result_writes_total": 3, "sedna_images_replaced_total": 0,
	} {
		if n := counter(t, p.reg, series+`{service="svc"}`); n != want || !strings.Contains(scrape(t, p.reg), series) {
			t.Errorf("%s is %v, want %v", series, n, want)
		}
	}
}

// TestBadReadings are counted and named, and the good ones go on.
func TestBadReadings(t *testing.T) {
	p := newPlant(t, nil, func(c *Config) { c.Limits.ReadingBytes = 1000 })
	spec := sensorSpec(t)
	spec.Inputs[0].Sources[2] = topicSource("lab/c", "$.c")
	p.activate(spec)
	topic := wire.Sensor("edge-a", "default", "plc", "a")
	p.sample("plc", "b", 1)
	for i, c := range []struct{ topic, payload, source, says string }{
		{topic, `{"value":"hot"}`, "inputs[0].sources[0]: plc.a", "hot"},
		{topic, `{"value":NaN}`, "inputs[0].sources[0]: plc.a", "JSON"},
		{topic, `21.5`, "inputs[0].sources[0]: plc.a", "nothing at"},
		{"lab/c", `{"c":[]}`, "inputs[0].sources[2]: lab/c", "empty"},
		{"lab/c", `{"c":[1,2]}`, "inputs[0].sources[2]: lab/c", "at most"},
		{"lab/c", `{"d":1}`, "inputs[0].sources[2]: lab/c", `$["c"]`},
		{"lab/c", `{"c":1,"d":"` + strings.Repeat("x", 1000) + `"}`, "too_large: inputs[0].sources[2]: lab/c", "at most 1000"},
	} {
		p.publish(c.topic, c.payload)
		eventually(t, "refused", func() bool { return p.status("svc").Inputs.Refused == int64(i+1) })
		if e := p.status("svc").Inputs.LastError; !strings.Contains(e, c.source) || !strings.Contains(e, c.says) {
			t.Errorf("%s: %q", c.payload, e)
		}
	}
	if n := counter(t, p.reg, `sedna_input_refused_total{service="svc"}`); n != 7 {
		t.Errorf("%v counted", n)
	}
	if n := counter(t, p.reg, `sedna_rejected_total{code="invalid_argument",door="mqtt"}`); n != 6 {
		t.Errorf("%v rejected", n)
	}
	p.publish("lab/c", `{"c":1}`)
	p.sample("plc", "a", 5)
	if r := p.result(); r.Parameters[ParamLabel] != "a" {
		t.Errorf("%v", r.Parameters)
	}
}

// TestFailingModel: errors of the model go to the error topic.
func TestFailingModel(t *testing.T) {
	e := &echo{inputs: []engine.TensorInfo{tensorInfo("x", oip.FP32, 1)}, fail: true}
	p := newPlant(t, e, nil)
	p.activate(feedSpec("svc", task.Input{Tensor: "x", Sources: []task.InputSource{topicSource("a", "")}}))
	p.publish("a", "1")
	m := p.wait()
	if m.Topic != wire.InferError("edge-a", "svc") || wire.ParseError(0, m.Payload).Code != wire.BadModel {
		t.Errorf("%s: %s", m.Topic, m.Payload)
	}
	if s := p.status("svc"); s.Requests.Errors != 1 || !strings.Contains(s.Inputs.LastError, "bad_model") {
		t.Errorf("%+v", s)
	}
}

// TestExchangeWhileReadingsCome: a new version takes over with the windows as
// they are, and neither it nor another service loses a reading of a topic that
// both follow.
func TestExchangeWhileReadingsCome(t *testing.T) {
	e := &echo{inputs: []engine.TensorInfo{tensorInfo("x", oip.FP64, -1, 3)}}
	p := newPlant(t, e, nil)
	spec := func(name, version string) ServiceSpec {
		s := feedSpec(name, task.Input{Tensor: "x", Sources: []task.InputSource{topicSource("a", "")}, Window: 3})
		s.Model.Version = version
		return s
	}
	p.activate(spec("changing", "1"), spec("steady", "1"))
	const readings = 300
	results := map[string][]float64{}
	versions := map[any]bool{}
	take := func() {
		r := p.result()
		results[r.ModelName] = append(results[r.ModelName], r.Outputs[0].Data.([]float64)[0])
		if r.ModelName == "changing" {
			versions[r.ModelVersion] = true
		}
	}
	for i := range readings {
		p.publish("a", fmt.Sprint(i))
		if i%50 == 49 {
			activate(t, p.Manager, spec("changing", fmt.Sprint(i)))
		}
		if i >= 2 { // no window is overtaken
			take()
			take()
		}
	}
	for name, sums := range results {
		if len(sums) != readings-2 {
			t.Fatalf("%s: %d answers", name, len(sums))
		}
		for i, sum := range sums {
			if want := float64(3*i + 3); sum != want {
				t.Fatalf("%s: answer %d is %v, want %v: a reading or the window is lost", name, i, sum, want)
			}
		}
	}
	if len(versions) < 6 {
		t.Errorf("versions %v answered", versions)
	}
	// Other inputs begin anew, and what only the old ones took is let go.
	other := spec("changing", "1")
	other.Inputs[0].Sources = []task.InputSource{topicSource("b", "")}
	p.activate(other)
	p.Deactivate("default", "steady")
	if routes := *p.router.routes.Load(); len(routes) != 1 || routes["b"] == nil {
		t.Errorf("routes %v", routes)
	}
	for i := range 3 {
		p.publish("a", "1000")
		p.publish("b", fmt.Sprint(i))
	}
	if r := p.result(); r.Outputs[0].Data.([]float64)[0] != 3 {
		t.Errorf("%v", r.Outputs)
	}
}

// TestBrokerRestart: readings and writes go on when the broker is back.
func TestBrokerRestart(t *testing.T) {
	p := newPlant(t, nil, nil)
	spec := sensorSpec(t)
	spec.Result = &task.ResultProperty{Device: "panel", Property: "state", Value: task.ResultClass}
	p.activate(spec)
	p.sample("plc", "c", 0)
	p.sample("plc", "b", 0)
	p.sample("plc", "a", 5)
	p.wait()
	p.wait()
	if err := p.broker.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the bus is away", func() bool { return !p.app.Connected() })
	var err error
	if p.broker, err = broker.Start(broker.Options{Addr: p.addr}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the bus is back", p.app.Connected)
	p.settle()
	p.sample("plc", "b", 7)
	p.sample("plc", "a", 0)
	var write bus.Message
	for range 2 {
		if m := p.wait(); strings.HasSuffix(m.Topic, "/set") {
			write = m
		} else if r := decodeResult(t, m); r.Parameters[ParamLabel] != "b" {
			t.Errorf("%v", r.Parameters)
		}
	}
	if w := readWrite(t, write, "panel", "state"); string(w.Value) != "1" {
		t.Errorf("%s", write.Payload)
	}
}

// TestPipeline: the answers of one service are the readings of another.
func TestPipeline(t *testing.T) {
	p := newPlant(t, nil, nil)
	first := sensorSpec(t)
	second := serviceSpec(t, "")
	second.Name, second.Model.Labels = "second", []string{"x", "y", "z"}
	second.Inputs = []task.Input{{Tensor: "x", Sources: []task.InputSource{topicSource("sedna/edge-a/infer/svc/result", "$.outputs[0].data")}}}
	p.activate(first, second)
	for _, name := range []string{"c", "b", "a"} {
		p.sample("plc", name, map[string]float64{"a": 0, "b": 5, "c": 0}[name])
	}
	for _, want := range []string{"b", "y"} {
		if r := p.result(); r.Parameters[ParamLabel] != want {
			t.Errorf("%s: %v", r.ModelName, r.Parameters)
		}
	}
	// An error on the same topic is no reading.
	p.publish(wire.InferResult("edge-a", "svc", "x"), `{"error":"no","code":"internal"}`)
	p.wait()
	eventually(t, "refused", func() bool { return p.status("second").Inputs.Refused == 1 })
}

// TestImagesOnTheBus: requests with an id, frames without.
func TestImagesOnTheBus(t *testing.T) {
	p := newPlant(t, nil, func(c *Config) { c.Limits.ImagePixels, c.Limits.ImageBytes = 100, 5000 })
	spec := imageSpec(t)
	spec.Result = &task.ResultProperty{Device: "panel", Property: "corner", Value: task.ResultScore}
	vector := serviceSpec(t, "")
	p.activate(spec, vector)
	dot := string(grayPNG(t, 2, 2, 0, 0, 255, 0))
	image := func(service string) string { return wire.InferImage("edge-a", service) }
	p.publish(wire.InferImageRequest("edge-a", "img", "mine"), dot)
	if m := p.wait(); m.Topic != wire.InferResult("edge-a", "img", "mine") || decodeResult(t, m).Parameters[ParamLabel] != "sw" {
		t.Errorf("%s: %s", m.Topic, m.Payload)
	}
	if s := p.status("img").Result; s.Written != 0 {
		t.Errorf("a request was written: %+v", s)
	}
	p.publish(image("img"), dot)
	for range 2 {
		m := p.wait()
		if strings.HasSuffix(m.Topic, "/set") {
			if w := readWrite(t, m, "panel", "corner"); len(w.Value) == 0 || w.Value[0] != '0' && w.Value[0] != '1' {
				t.Errorf("%s", m.Payload)
			}
			continue
		}
		if r := decodeResult(t, m); r.Parameters[ParamLabel] != "sw" || uuid.MustParse(r.ID).Version() != 7 {
			t.Errorf("%s: %s", m.Topic, m.Payload)
		}
	}
	for _, c := range []struct {
		name, topic, payload, answer string
		code                         wire.Code
	}{
		{"neither PNG nor JPEG", wire.InferImageRequest("edge-a", "img", "a"), "GIF89a", wire.InferResult("edge-a", "img", "a"), wire.UnsupportedMedia},
		{"broken", wire.InferImageRequest("edge-a", "img", "b"), dot[:40], wire.InferResult("edge-a", "img", "b"), wire.InvalidArgument},
		{"many pixels", wire.InferImageRequest("edge-a", "img", "c"), string(grayPNG(t, 11, 10)), wire.InferResult("edge-a", "img", "c"), wire.TooLarge},
		{"many bytes", wire.InferImageRequest("edge-a", "img", "d"), dot + strings.Repeat(" ", 5000), wire.InferResult("edge-a", "img", "d"), wire.TooLarge},
		{"bad id", wire.InferImageRequest("edge-a", "img", "a b"), dot, wire.InferError("edge-a", "img"), wire.InvalidArgument},
		{"empty id", wire.InferImageRequest("edge-a", "img", ""), dot, wire.InferError("edge-a", "img"), wire.InvalidArgument},
		{"unknown service", wire.InferImageRequest("edge-a", "none", "e"), dot, wire.InferResult("edge-a", "none", "e"), wire.NotFound},
		{"frame for an unknown service", image("none"), dot, wire.InferError("edge-a", "none"), wire.NotFound},
		{"empty frame", image("img"), "", wire.InferError("edge-a", "img"), wire.UnsupportedMedia},
		{"no model for images", image("svc"), dot, wire.InferError("edge-a", "svc"), wire.FailedPrecondition},
	} {
		p.publish(c.topic, c.payload)
		if m := p.wait(); m.Topic != c.answer || wire.ParseError(0, m.Payload).Code != c.code {
			t.Errorf("%s: %s: %s", c.name, m.Topic, m.Payload)
		}
	}
	// Retained images are for nobody. They reach who subscribes afterwards.
	for _, topic := range []string{image("img"), wire.InferImageRequest("edge-a", "img", "kept")} {
		if err := p.app.Publish(t.Context(), topic, 1, true, []byte(dot)); err != nil {
			t.Fatal(err)
		}
		for m := p.wait(); strings.HasSuffix(m.Topic, "/set"); m = p.wait() { // taken by who was there
		}
	}
	late := newManager(t, nil)
	activate(t, late, imageSpec(t))
	serveBus(t, late, busClient(t, p.addr, "late"))
	eventually(t, "retained", func() bool {
		return counter(t, late.cfg.Metrics, `sedna_rejected_total{code="stale",door="mqtt"}`) == 2
	})
	if s := late.Models()[0].Requests; s.Edge+s.Errors != 0 {
		t.Errorf("retained images were answered: %+v", s)
	}
}

// TestNewestFrame: of frames that come while one is inferred the newest is next.
func TestNewestFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spec := feedSpec("img")
		spec.Model.Preprocess = &task.Preprocess{Width: 1, Height: 1, Channels: "GRAY", Layout: "FLAT", Scale: 1}
		s := newBench(t, []engine.TensorInfo{tensorInfo("x", oip.FP32, 1)}, spec)
		defer s.stop()
		s.e.hold = make(chan struct{})
		for i := 1; i <= 9; i++ {
			s.read(wire.InferImage("edge-a", "img"), string(grayPNG(t, 1, 1, byte(i))))
		}
		close(s.e.hold)
		synctest.Wait()
		s.expect("1", "9")
		s.read(wire.InferImage("edge-a", "img"), string(grayPNG(t, 1, 1, 10)))
		s.expect("10")
		if n := s.services["img"].stats.replaced.Load(); n != 7 {
			t.Errorf("%d replaced", n)
		}
	})
}

// TestCameraPosts: with its device the answer to an image goes onto the bus too.
func TestCameraPosts(t *testing.T) {
	e := newPlant(t, nil, nil)
	spec := imageSpec(t)
	spec.Result = &task.ResultProperty{Device: "panel", Property: "corner"}
	plain := imageSpec(t)
	plain.Name, plain.Model.Postprocess, plain.Model.Labels = "plain", "none", nil
	plain.Result = &task.ResultProperty{Device: "panel", Property: "number"}
	e.activate(spec, plain)
	server := serve(t, e.Manager)
	dot := grayPNG(t, 2, 2, 255, 0, 0, 0)
	if code, body := call(t, "POST", server.URL+"/v1/services/img/image?id=quiet", "image/png", dot); code != http.StatusOK {
		t.Fatalf("%d %s", code, body)
	}
	code, body := call(t, "POST", server.URL+"/v1/services/img/image?device=default/cam", "image/png", dot)
	var answer ImageAnswer
	if err := json.Unmarshal(body, &answer); code != http.StatusOK || err != nil || len(answer.Predictions) != 4 || answer.Predictions[0].Label != "nw" {
		t.Fatalf("%d %s", code, body)
	}
	for range 2 {
		m := e.wait()
		if strings.HasSuffix(m.Topic, "/set") {
			if w := readWrite(t, m, "panel", "corner"); string(w.Value) != `"nw"` {
				t.Errorf("%s", m.Payload)
			}
		} else if r := decodeResult(t, m); r.ID != answer.ID || r.Parameters[ParamDevice] != "default/cam" || r.Parameters[ParamLabel] != "nw" {
			t.Errorf("%s: %s", m.Topic, m.Payload)
		}
	}
	// A model whose answer is no classes has no predictions, which is no fault of
	// the camera.
	code, body = call(t, "POST", server.URL+"/v1/services/plain/image?device=default/cam", "image/png", dot)
	if code != http.StatusOK || !strings.Contains(string(body), `"predictions":[]`) {
		t.Errorf("%d %s", code, body)
	}
	for range 2 {
		if m := e.wait(); strings.HasSuffix(m.Topic, "/set") {
			if w := readWrite(t, m, "panel", "number"); w.Value[0] == '"' {
				t.Errorf("%s", m.Payload)
			}
		}
	}
	for _, device := range []string{"cam", "default/", "/cam", "a/b/c", "default/CAM"} {
		code, body := call(t, "POST", server.URL+"/v1/services/img/image?device="+device, "image/png", dot)
		if code != http.StatusBadRequest || !strings.Contains(string(body), `"field":"device"`) {
			t.Errorf("%s: %d %s", device, code, body)
		}
	}
	if len(e.answers) != 0 {
		t.Errorf("more on the bus: %+v", <-e.answers)
	}
	// Without a bus a camera gets its answer all the same.
	alone := newManager(t, func(c *Config) { c.Key = nodeKey })
	activate(t, alone, spec)
	if code, body := call(t, "POST", serve(t, alone).URL+"/v1/services/img/image?device=default/cam", "image/png", dot); code != http.StatusOK {
		t.Errorf("%d %s", code, body)
	}
}

// TestResultProperty: while the bus is away the newest waits, and it is signed
// when it goes; times grow however fast answers come.
func TestResultProperty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spec := feedSpec("svc", task.Input{Tensor: "x", Sources: []task.InputSource{topicSource("a", "")}})
		spec.Result = &task.ResultProperty{Device: "d", Property: "p"}
		s := newBench(t, []engine.TensorInfo{tensorInfo("x", oip.FP32, 1)}, spec)
		defer s.stop()
		writes := func() (list []task.Write) {
			for _, p := range s.take() {
				if strings.HasSuffix(p.topic, "/set") {
					list = append(list, readWrite(t, bus.Message{Topic: p.topic, Payload: p.payload}, "d", "p"))
				}
			}
			return list
		}
		s.fakeBus.fail(bus.ErrOffline)
		for i := 1; i <= 5; i++ {
			s.read("a", fmt.Sprint(i, ".5"))
		}
		time.Sleep(time.Hour)
		if st := s.Models()[0].Result; st.Written != 0 || st.LastError == "" {
			t.Errorf("%+v", st)
		}
		s.fakeBus.fail(nil)
		time.Sleep(maxRetry)
		synctest.Wait()
		first := writes()
		if len(first) != 1 || string(first[0].Value) != "5.5" || time.Since(time.UnixMilli(first[0].Timestamp)) > maxRetry {
			t.Fatalf("%+v", first)
		}
		for i := range 20 { // in no time at all
			s.read("a", fmt.Sprint(i+1))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		last := writes()
		if n := len(last); n == 0 || n > 2 || string(last[n-1].Value) != "20" {
			t.Errorf("%+v", last)
		}
		if all := append(first, last...); !slices.IsSortedFunc(all, func(a, b task.Write) int { return int(a.Timestamp - b.Timestamp) }) || all[0].Timestamp == all[1].Timestamp {
			t.Errorf("times do not grow: %+v", all)
		}
		if st := s.Models()[0].Result; st.LastError != "" || st.Written != int64(1+len(last)) {
			t.Errorf("%+v", st)
		}
	})
}

func TestStamps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := stamps{last: map[string]int64{}}
		now := time.Now().UnixMilli()
		if a, b, other := s.next("a"), s.next("a"), s.next("b"); a != now || b != now+1 || other != now {
			t.Errorf("%d %d %d at %d", a, b, other, now)
		}
		s.forget("a") // its time is not over yet
		if a := s.next("a"); a != now+2 {
			t.Errorf("%d at %d", a, now)
		}
		time.Sleep(time.Second)
		s.forget("a")
		if a := s.next("a"); a != now+1000 || len(s.last) != 2 {
			t.Errorf("%d of %d properties", a, len(s.last))
		}
	})
}

// TestValues: what the result property can take of an answer.
func TestValues(t *testing.T) {
	m := newManager(t, nil)
	spec := serviceSpec(t, "")
	activate(t, m, spec)
	unlabelled := spec
	unlabelled.Name, unlabelled.Model.Labels = "unlabelled", nil
	activate(t, m, unlabelled)
	numbers := spec
	numbers.Name, numbers.Model.Labels, numbers.ModelPath = "numbers", nil, servingtest.File(t, servingtest.Classifier(1, 2, false))
	activate(t, m, numbers)
	for _, c := range []struct {
		service, what string
		outputs       []oip.Tensor
		want          string // empty: an error
	}{
		{"svc", "", scores(0.1, 0.7, 0.2), `"b"`},
		{"svc", "label", scores(0.1, 0.7, 0.2), `"b"`},
		{"svc", "class", scores(0.1, 0.7, 0.2), `1`},
		{"svc", "score", scores(0.1, 0.7, 0.2), `0.7`},
		{"svc", "output", scores(0.1, 0.7, 0.2), `0.1`},
		{"unlabelled", "", scores(0.1, 0.2, 0.7), `"2"`},
		{"numbers", "", scores(-3), `-3`},
		{"numbers", "label", scores(-3), ``},
		{"svc", "output", []oip.Tensor{{Name: "n", Datatype: oip.Bytes, Data: [][]byte{[]byte("x")}}}, ``},
		{"svc", "output", []oip.Tensor{{Name: "n", Datatype: oip.Int64, Data: []int64{-7, 2}}}, `-7`},
		{"svc", "output", []oip.Tensor{{Name: "n", Datatype: oip.Uint8, Data: []uint8{7}}}, `7`},
		{"svc", "output", []oip.Tensor{{Name: "n", Datatype: oip.Bool, Data: []bool{true}}}, `true`},
		{"svc", "output", []oip.Tensor{{Name: "n", Datatype: oip.FP16, Data: []uint16{0x3e00}}}, `1.5`},
		{"svc", "output", []oip.Tensor{{Name: "n", Datatype: oip.FP64, Data: []float64{}}}, ``},
		{"svc", "output", nil, ``},
	} {
		_, l, err := m.lease(c.service)
		if err != nil {
			t.Fatal(err)
		}
		got, err := l.Value.value(&outcome{resp: &oip.InferResponse{Outputs: c.outputs}, samples: 1}, c.what)
		if (err != nil) != (c.want == "") || string(got) != c.want {
			t.Errorf("%s %s of %v: %s, %v", c.service, c.what, c.outputs, got, err)
		}
		l.Release()
	}
}

func scores(v ...float32) []oip.Tensor {
	return []oip.Tensor{{Name: "y", Datatype: oip.FP32, Shape: []int64{1, int64(len(v))}, Data: v}}
}
