package inference

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/lib/bus/broker"
	"github.com/edgetwin/sedna/lib/engine"
	"github.com/edgetwin/sedna/lib/engine/enginetest"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/models/oip"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

var nodeKey = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))

// echo is an engine whose models take what the test says, and give the sum and
// the number of all elements. It shows the tensors that it gets.
type echo struct {
	inputs []engine.TensorInfo
	seen   chan []engine.Tensor
	hold   chan struct{} // closed, or nil: answers go on
	fail   bool          // on anything but zeros
}

func (e *echo) open(context.Context, string, string, engine.Options) (engine.Session, engine.Engine, error) {
	fake := &enginetest.Fake{
		EngineName: "echo", Format: []string{"onnx"}, In: e.inputs,
		Out: []engine.TensorInfo{{Name: "sum", Datatype: engine.FP64, Shape: []int64{-1, 1}}},
		Do: func(ctx context.Context, in []engine.Tensor) ([]engine.Tensor, error) {
			real := slices.ContainsFunc(in, func(t engine.Tensor) bool { return !zero(t.Data) })
			if real && e.fail {
				return nil, errors.New("broken")
			}
			if real && e.seen != nil {
				list := make([]engine.Tensor, len(in))
				for i, t := range in {
					t.Data = values(t.Data)
					list[i] = t
				}
				e.seen <- list
				if e.hold != nil {
					<-e.hold
				}
			}
			sum := 0.0
			for _, t := range in {
				for _, v := range values(t.Data) {
					sum += v
				}
			}
			return []engine.Tensor{engine.Of("sum", []int64{1, 1}, []float64{sum})}, nil
		},
	}
	s, err := fake.Load(context.Background(), "", engine.Options{})
	return s, fake, err
}

func zero(data any) bool {
	return !slices.ContainsFunc(values(data), func(v float64) bool { return v != 0 })
}

// values gives the elements of a tensor as numbers, in a slice of their own.
func values(data any) []float64 {
	var out []float64
	switch d := data.(type) {
	case []float32:
		for _, v := range d {
			out = append(out, float64(v))
		}
	case []float64:
		out = append(out, d...)
	case []int64:
		for _, v := range d {
			out = append(out, float64(v))
		}
	case []uint8:
		for _, v := range d {
			out = append(out, float64(v))
		}
	case []bool:
		for _, v := range d {
			if v {
				out = append(out, 1)
			} else {
				out = append(out, 0)
			}
		}
	}
	return out
}

func tensorInfo(name, datatype string, shape ...int64) engine.TensorInfo {
	return engine.TensorInfo{Name: name, Datatype: datatype, Shape: shape}
}

func topicSource(topic, path string) task.InputSource {
	return task.InputSource{Topic: topic, JSONPath: path}
}

func feedSpec(name string, inputs ...task.Input) ServiceSpec {
	return ServiceSpec{
		Namespace: "default", Name: name, Inputs: inputs,
		Model: task.Model{Name: "m", Version: "1", Format: "onnx", Postprocess: "none"},
	}
}

// plant is a Manager on a real broker, and a client beside it.
type plant struct {
	*Manager
	t       testing.TB
	addr    string
	broker  *broker.Broker
	app     *bus.Client
	answers chan bus.Message
	reg     *metrics.Registry
}

func newPlant(t testing.TB, e *echo, edit func(*Config)) *plant {
	t.Helper()
	br, err := broker.Start(broker.Options{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	p := &plant{t: t, addr: br.Addr(), broker: br, answers: make(chan bus.Message, 1024), reg: metrics.New()}
	t.Cleanup(func() { _ = p.broker.Close() })
	p.Manager = newManager(t, func(c *Config) {
		c.Key, c.Metrics = nodeKey, p.reg
		if e != nil {
			c.Open = e.open
		}
		if edit != nil {
			edit(c)
		}
	})
	p.app = busClient(t, p.addr, "app")
	p.app.Follow(1, func(m bus.Message) {
		if !strings.HasSuffix(m.Topic, "/image") && !strings.Contains(m.Topic, "/image/") && !strings.HasSuffix(m.Topic, "/request") {
			p.answers <- m
		}
	})([]string{"sedna/edge-a/infer/#", "sedna/edge-a/sensor/+/+/+/set"}, nil)
	serveBus(t, p.Manager, busClient(t, p.addr, "gateway"))
	return p
}

// activate activates services and waits until the broker delivers what they
// follow.
func (p *plant) activate(specs ...ServiceSpec) {
	p.t.Helper()
	for _, s := range specs {
		activate(p.t, p.Manager, s)
	}
	p.settle()
}

// settle has the router follow one more topic, of which the broker keeps a
// message: when that has come, all that was asked for before is in force.
func (p *plant) settle() {
	p.t.Helper()
	if err := p.app.Publish(p.t.Context(), "settle", 1, true, []byte("1")); err != nil {
		p.t.Fatal(err)
	}
	in, err := newInput("edge-a", "default", 0, task.Input{Tensor: "x", Sources: []task.InputSource{topicSource("settle", "")}},
		[]engine.TensorInfo{tensorInfo("x", oip.FP64, 1)})
	if err != nil {
		p.t.Fatal(err)
	}
	probe := &feed{m: p.Manager, entry: &entry{}, inputs: []*input{in}, topics: map[string][]place{"settle": {{}}}, wake: make(chan struct{}, 1)}
	p.router.exchange(nil, probe)
	defer p.router.exchange(probe, nil)
	eventually(p.t, "the bus delivers", func() bool { return probe.status().LastAgeMS != nil })
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not in 10 s", what)
		}
	}
}

func (p *plant) publish(topic, payload string) {
	p.t.Helper()
	if err := p.app.Publish(p.t.Context(), topic, 1, false, []byte(payload)); err != nil {
		p.t.Fatal(err)
	}
}

// sample publishes a reading as the mapper does.
func (p *plant) sample(device, property string, value any) {
	p.t.Helper()
	b, err := json.Marshal(map[string]any{"device": device, "property": property, "value": value, "type": "DOUBLE", "timestamp": 1})
	if err != nil {
		p.t.Fatal(err)
	}
	p.publish(wire.Sensor("edge-a", "default", device, property), string(b))
}

func (p *plant) wait() bus.Message {
	p.t.Helper()
	select {
	case m := <-p.answers:
		return m
	case <-time.After(10 * time.Second):
		p.t.Fatal("no answer")
		panic("unreachable")
	}
}

func (p *plant) result() *oip.InferResponse {
	p.t.Helper()
	return decodeResult(p.t, p.wait())
}

func decodeResult(t testing.TB, m bus.Message) *oip.InferResponse {
	t.Helper()
	r, err := oip.DecodeResponse(m.Payload, oip.Limits{})
	if err != nil {
		t.Fatalf("%s: %s: %v", m.Topic, m.Payload, err)
	}
	if !strings.HasSuffix(m.Topic, "/result/"+r.ID) {
		t.Fatalf("id %s on %s", r.ID, m.Topic)
	}
	return r
}

func (p *plant) status(service string) ModelStatus {
	p.t.Helper()
	for _, s := range p.Models() {
		if s.Service == service {
			return s
		}
	}
	p.t.Fatalf("no service %s", service)
	panic("unreachable")
}

func seen(t testing.TB, e *echo) []engine.Tensor {
	t.Helper()
	select {
	case in := <-e.seen:
		return in
	case <-time.After(10 * time.Second):
		t.Fatal("nothing inferred")
		panic("unreachable")
	}
}

// TestWindows sends readings through a real broker and looks at the tensors
// that the model gets.
func TestWindows(t *testing.T) {
	device := func(property string) task.InputSource { return task.InputSource{Device: "plc", Property: property} }
	type tensor struct {
		shape []int64
		data  []float64
	}
	for _, c := range []struct {
		name   string
		infos  []engine.TensorInfo
		inputs []task.Input
		// Each step is a topic or a property with a message; what it is to give
		// follows, one tensor for each of the model's inputs.
		steps [][2]string
		want  map[int][]tensor // by step
	}{
		{
			"one reading", []engine.TensorInfo{tensorInfo("x", oip.FP32, -1, 1)},
			[]task.Input{{Tensor: "x", Sources: []task.InputSource{device("t")}}},
			[][2]string{{"plc.t", "21.5"}, {"plc.t", "true"}, {"plc.t", "-1e3"}},
			map[int][]tensor{0: {{[]int64{1, 1}, []float64{21.5}}}, 1: {{[]int64{1, 1}, []float64{1}}}, 2: {{[]int64{1, 1}, []float64{-1000}}}},
		},
		{
			"window and stride, two sources of different pace", []engine.TensorInfo{tensorInfo("x", oip.FP32, -1, 3, 2)},
			[]task.Input{{Tensor: "x", Sources: []task.InputSource{device("fast"), device("slow")}, Window: 3, Stride: 2}},
			[][2]string{
				{"plc.fast", "1"}, // the other has not spoken: no row
				{"plc.slow", "10"}, {"plc.fast", "2"}, {"plc.fast", "3"}, {"plc.slow", "20"}, {"plc.slow", "30"},
				{"plc.fast", "4"}, {"plc.fast", "5"}, {"plc.slow", "40"}, {"plc.fast", "6"}, {"plc.fast", "7"}, {"plc.fast", "8"},
			},
			map[int][]tensor{
				6:  {{[]int64{1, 3, 2}, []float64{2, 10, 3, 10, 4, 30}}},
				9:  {{[]int64{1, 3, 2}, []float64{4, 30, 5, 30, 6, 40}}},
				11: {{[]int64{1, 3, 2}, []float64{6, 40, 7, 40, 8, 40}}},
			},
		},
		{
			"source by source", []engine.TensorInfo{tensorInfo("x", oip.FP64, -1, 2, 3)},
			[]task.Input{{Tensor: "x", Sources: []task.InputSource{device("a"), device("b")}, Window: 3, Stride: 3}},
			[][2]string{{"plc.b", "10"}, {"plc.a", "1"}, {"plc.a", "2"}, {"plc.b", "20"}, {"plc.a", "3"}},
			map[int][]tensor{4: {{[]int64{1, 2, 3}, []float64{1, 2, 3, 10, 10, 20}}}},
		},
		{
			"flat", []engine.TensorInfo{tensorInfo("x", oip.FP32, 4)},
			[]task.Input{{Tensor: "x", Sources: []task.InputSource{device("a"), device("b")}, Window: 2}},
			[][2]string{{"plc.b", "10"}, {"plc.a", "1"}, {"plc.a", "2"}},
			map[int][]tensor{2: {{[]int64{4}, []float64{1, 10, 2, 10}}}},
		},
		{
			"list at a JSON path beside a number as text", []engine.TensorInfo{tensorInfo("x", oip.FP32, -1, 2, 4)},
			[]task.Input{{Tensor: "x", Sources: []task.InputSource{topicSource("imu", "$.acc[0].xyz"), topicSource("lab/t", "")}, Window: 2}},
			[][2]string{{"lab/t", " 20.5\n"}, {"imu", `{"acc":[{"xyz":[1,2,true]}]}`}, {"imu", `{"acc":[{"xyz":[4, 5 ,6]}]}`}},
			map[int][]tensor{2: {{[]int64{1, 2, 4}, []float64{1, 2, 1, 20.5, 4, 5, 6, 20.5}}}},
		},
		{
			"several values of one message", []engine.TensorInfo{tensorInfo("x", oip.Int64, -1, 3)},
			[]task.Input{{Tensor: "x", Sources: []task.InputSource{topicSource("w", "$.a"), topicSource("w", "$['b c']"), topicSource("w", "n[-1]")}}},
			[][2]string{{"w", `{"a":1,"b c":2,"n":[0,3]}`}, {"w", `{"n":[6],"b c":5,"a":4}`}},
			map[int][]tensor{0: {{[]int64{1, 3}, []float64{1, 2, 3}}}, 1: {{[]int64{1, 3}, []float64{4, 5, 6}}}},
		},
		{
			"two tensors", []engine.TensorInfo{tensorInfo("x", oip.FP32, -1, 1), tensorInfo("y", oip.Uint8, -1, 2)},
			[]task.Input{{Tensor: "x", Sources: []task.InputSource{device("a")}}, {Tensor: "y", Sources: []task.InputSource{device("b")}, Window: 2}},
			[][2]string{{"plc.a", "1"}, {"plc.b", "2"}, {"plc.a", "3"}, {"plc.b", "4"}, {"plc.a", "5"}, {"plc.b", "6"}, {"plc.a", "7"}},
			map[int][]tensor{4: {{[]int64{1, 1}, []float64{5}}, {[]int64{1, 2}, []float64{2, 4}}}, 6: {{[]int64{1, 1}, []float64{7}}, {[]int64{1, 2}, []float64{4, 6}}}},
		},
		{
			"shape that the model leaves open", []engine.TensorInfo{tensorInfo("x", oip.FP32, -1, -1, -1)},
			[]task.Input{{Tensor: "x", Sources: []task.InputSource{topicSource("list", "")}, Window: 2}},
			[][2]string{{"list", "[1,2,3]"}, {"list", "[4,5,6]"}},
			map[int][]tensor{1: {{[]int64{1, 2, 3}, []float64{1, 2, 3, 4, 5, 6}}}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := &echo{inputs: c.infos, seen: make(chan []engine.Tensor, 16)}
			p := newPlant(t, e, nil)
			p.activate(feedSpec("svc", c.inputs...))
			for i, step := range c.steps {
				if property, ok := strings.CutPrefix(step[0], "plc."); ok {
					p.sample("plc", property, json.RawMessage(step[1]))
				} else {
					p.publish(step[0], step[1])
				}
				eventually(t, fmt.Sprint("reading ", i), func() bool { return p.status("svc").Inputs.Readings >= int64(i+1) })
				if c.want[i] == nil {
					continue
				}
				in := seen(t, e)
				for k, want := range c.want[i] {
					if diff := cmp.Diff(want.shape, in[k].Shape) + cmp.Diff(want.data, in[k].Data); diff != "" {
						t.Errorf("step %d, tensor %d (-want +got):\n%s", i, k, diff)
					}
				}
				p.result()
			}
			if s := p.status("svc").Inputs; len(e.seen) != 0 || len(p.answers) != 0 || s.Answers != int64(len(c.want)) || s.Refused != 0 || s.Dropped != 0 {
				t.Errorf("%d answers more, %+v", len(e.seen), s)
			}
		})
	}
}
