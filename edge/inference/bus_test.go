package inference

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/lib/bus/broker"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/models/oip"
	"github.com/edgetwin/sedna/models/wire"
)

// busClient connects to the broker at addr.
func busClient(t testing.TB, addr, id string) *bus.Client {
	t.Helper()
	c, err := bus.New(bus.Options{URL: addr, ClientID: id, CleanSession: true, MinBackoff: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	connected := make(chan struct{}, 8)
	c.OnConnect(func() { connected <- struct{}{} })
	c.Start(t.Context())
	t.Cleanup(c.Close)
	select {
	case <-connected:
	case <-time.After(5 * time.Second):
		t.Fatal("no connection to the broker")
	}
	return c
}

// serveBus runs the gateway; the result waits until it has ended.
func serveBus(t testing.TB, m *Manager, b Bus) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := m.ServeBus(ctx, b); err != nil {
			t.Error(err)
		}
	})
	stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
	})
	t.Cleanup(stop)
	return stop
}

func payload(t testing.TB, r *oip.InferRequest) string {
	t.Helper()
	b, err := r.AppendJSON(nil)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestBusRequests sends good and bad requests through a real broker and
// compares topics and payloads of the answers with the golden file.
func TestBusRequests(t *testing.T) {
	br, err := broker.Start(broker.Options{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = br.Close() })
	reg := metrics.New()
	m := newManager(t, func(c *Config) {
		c.Metrics = reg
		c.Limits.BusPayload = 2048
	})
	activate(t, m, serviceSpec(t, ""))
	serveBus(t, m, busClient(t, br.Addr(), "gateway"))

	app := busClient(t, br.Addr(), "app")
	answers := make(chan bus.Message, 16)
	app.Subscribe("sedna/edge-a/infer/+/result/+", 1, func(m bus.Message) { answers <- m })
	app.Subscribe("sedna/edge-a/infer/+/error", 1, func(m bus.Message) { answers <- m })

	type answer struct {
		Topic   string          `json:"topic"`
		Payload json.RawMessage `json:"payload"`
	}
	send := func(service, text string) answer {
		t.Helper()
		for try := 0; ; try++ {
			if err := app.Publish(t.Context(), wire.InferRequest("edge-a", service), 1, false, []byte(text)); err != nil {
				t.Fatal(err)
			}
			select {
			case m := <-answers:
				return answer{m.Topic, m.Payload}
			case <-time.After(500 * time.Millisecond): // subscriptions may still be on their way
				if try == 10 {
					t.Fatalf("no answer to %.100s", text)
				}
			}
		}
	}
	send("svc", `{"id":"first"}`)

	good := payload(t, request("good", easyA))
	got := map[string]answer{}
	for _, c := range []struct{ name, service, text string }{
		{"good", "svc", good},
		{"explained", "svc", payload(t, with(request("explained", easyB), ParamExplain, true))},
		{"bad JSON with id", "svc", `{"id":"a1","inputs":[}`},
		{"bad JSON without id", "svc", `{"inputs":`},
		{"no JSON", "svc", "\x00\xff"},
		{"empty", "svc", ""},
		{"id missing", "svc", strings.Replace(good, `"id":"good",`, "", 1)},
		{"id with wildcard", "svc", strings.Replace(good, `"good"`, `"a/+"`, 1)},
		{"id too long", "svc", strings.Replace(good, `"good"`, `"`+strings.Repeat("x", 129)+`"`, 1)},
		{"unknown service", "other", strings.Replace(good, `"good"`, `"a2"`, 1)},
		{"wrong shape", "svc", `{"id":"a3","inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}]}`},
		{"wrong datatype", "svc", `{"id":"a4","inputs":[{"name":"x","shape":[1,3],"datatype":"INT64","data":[1,2,3]}]}`},
		{"shape and data differ", "svc", `{"id":"a5","inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,2]}]}`},
		{"NaN", "svc", `{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,NaN,3]}],"id":"a6"}`},
		{"too large", "svc", strings.Replace(good, `"good"`, `"a7"`, 1) + strings.Repeat(" ", 2048)},
	} {
		got[c.name] = send(c.service, c.text)
	}
	golden(t, "testdata/bus.json", got)

	if err := app.Publish(t.Context(), wire.InferRequest("edge-a", "svc"), 1, true, []byte(good)); err != nil {
		t.Fatal(err)
	}
	count := func(code wire.Code) string {
		return fmt.Sprintf("sedna_rejected_total{code=%q,door=\"mqtt\"}", code)
	}
	expected := map[string]float64{count(wire.NotFound): 1, count(wire.TooLarge): 1}
	for name, want := range expected {
		if n := counter(t, reg, name); n != want {
			t.Errorf("%s is %v, want %v", name, n, want)
		}
	}
	if n := counter(t, reg, count(wire.InvalidArgument)); n < 11 {
		t.Errorf("%v invalid requests counted", n)
	}
}

// TestRetainedRequestsAreIgnored: a request that the broker kept is no request.
func TestRetainedRequestsAreIgnored(t *testing.T) {
	br, err := broker.Start(broker.Options{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = br.Close() })
	app := busClient(t, br.Addr(), "app")
	answers := make(chan bus.Message, 16)
	app.Subscribe("sedna/edge-a/infer/#", 1, func(m bus.Message) {
		if !strings.HasSuffix(m.Topic, "/request") {
			answers <- m
		}
	})
	if err := app.Publish(t.Context(), wire.InferRequest("edge-a", "svc"), 1, true, []byte(payload(t, request("kept", easyA)))); err != nil {
		t.Fatal(err)
	}
	reg := metrics.New()
	m := newManager(t, func(c *Config) { c.Metrics = reg })
	activate(t, m, serviceSpec(t, ""))
	serveBus(t, m, busClient(t, br.Addr(), "gateway"))
	deadline := time.Now().Add(5 * time.Second)
	for counter(t, reg, `sedna_rejected_total{code="stale",door="mqtt"}`) == 0 {
		if time.Now().After(deadline) {
			t.Fatal("the retained request never came")
		}
		time.Sleep(10 * time.Millisecond)
	}
	select {
	case m := <-answers:
		t.Errorf("answered %s: %s", m.Topic, m.Payload)
	case <-time.After(50 * time.Millisecond):
	}
}

// TestBrokerGoesAway: results that were ready while the broker was away arrive
// when it is back.
func TestBrokerGoesAway(t *testing.T) {
	f := &fakeBus{}
	m := newManager(t, nil)
	activate(t, m, serviceSpec(t, ""))
	serveBus(t, m, f)
	f.fail(bus.ErrOffline)
	for i := range 20 {
		f.deliver(t, "svc", payload(t, request(fmt.Sprint("r", i), easyA)))
	}
	time.Sleep(50 * time.Millisecond)
	if n := len(f.take()); n != 0 {
		t.Fatalf("%d published without a broker", n)
	}
	f.fail(nil)
	topics := map[string]int{}
	deadline := time.Now().Add(10 * time.Second)
	for len(topics) < 20 {
		for _, p := range f.take() {
			topics[p.topic]++
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of 20 results came", len(topics))
		}
		time.Sleep(10 * time.Millisecond)
	}
	for topic, n := range topics {
		if n != 1 {
			t.Errorf("%s came %d times", topic, n)
		}
	}
}

// TestRedelivery: one result for a request that is delivered twice; a new one
// for the same id with another payload, and for what failed for a passing cause.
func TestRedelivery(t *testing.T) {
	f := &fakeBus{}
	m := newManager(t, nil)
	activate(t, m, serviceSpec(t, ""))
	stop := serveBus(t, m, f)
	same := payload(t, request("same", easyA))
	for range 5 {
		f.deliver(t, "svc", same)
	}
	f.deliver(t, "svc", payload(t, request("same", easyB)))
	f.deliver(t, "svc", same)
	f.deliver(t, "gone", same)
	f.deliver(t, "gone", same)
	stop()
	counts := map[string]int{}
	for _, p := range f.take() {
		counts[p.topic]++
	}
	if n := counts[wire.InferResult("edge-a", "svc", "same")]; n != 2 {
		t.Errorf("%d results, expected one for each payload", n)
	}
	if n := counts[wire.InferResult("edge-a", "gone", "same")]; n != 2 {
		t.Errorf("%d refusals of a service that may come yet", n)
	}
}

// TestBusQueueIsFull: what finds no place is answered with resource_exhausted;
// all that was taken before is answered.
func TestBusQueueIsFull(t *testing.T) {
	f := &fakeBus{}
	big := newBigModel(t)
	m := newManager(t, func(c *Config) { c.Limits.BusWorkers, c.Limits.BusQueue = 1, 2 })
	activate(t, m, serviceSpec(t, big.URL))
	entered, release := make(chan struct{}, 8), make(chan struct{})
	big.misbehave(func(w http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		<-release
		says(500, "")(w, r)
	})
	stop := serveBus(t, m, f)
	f.deliver(t, "svc", payload(t, request("working", hardA)))
	<-entered
	for i := range 5 {
		f.deliver(t, "svc", payload(t, request(fmt.Sprint("later", i), easyA)))
	}
	deadline := time.Now().Add(5 * time.Second)
	var refused []published
	for len(refused) < 3 {
		refused = append(refused, f.take()...)
		if time.Now().After(deadline) {
			t.Fatalf("%d refused", len(refused))
		}
		time.Sleep(5 * time.Millisecond)
	}
	for _, p := range refused {
		if e := wire.ParseError(0, p.payload); e.Code != wire.ResourceExhausted {
			t.Errorf("%s: %s", p.topic, p.payload)
		}
	}
	close(release)
	stop()
	if n := len(f.take()); n != 3 {
		t.Errorf("%d answered, 3 were taken", n)
	}
}

// TestResultTooLargeForTheBus: the caller is told instead of left waiting.
func TestResultTooLargeForTheBus(t *testing.T) {
	f := &fakeBus{most: 120}
	m := newManager(t, nil)
	activate(t, m, serviceSpec(t, ""))
	stop := serveBus(t, m, f)
	f.deliver(t, "svc", payload(t, request("big", easyA)))
	stop()
	got := f.take()
	if len(got) != 1 || wire.ParseError(0, got[0].payload).Code != wire.TooLarge {
		t.Errorf("%+v", got)
	}
}

func TestWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWindow(3, time.Minute)
		key := func(id string, hash uint64) requestKey { return requestKey{"svc", id, hash} }
		begin := func(id string, hash uint64, want bool) {
			t.Helper()
			if got := w.begin(key(id, hash)); got != want {
				t.Errorf("%s: %v", id, got)
			}
		}
		begin("a", 1, true)
		begin("a", 1, false)
		begin("a", 2, true)
		begin("a", 2, false)
		w.forget(key("a", 2))
		begin("a", 2, true)
		time.Sleep(2 * time.Minute)
		begin("a", 2, true) // too long ago
		for i := range 3 {
			begin(fmt.Sprint("b", i), 1, true)
		}
		begin("a", 2, true) // pushed out
		begin("b2", 1, false)
		if n := len(w.seen); n > 3 {
			t.Errorf("%d remembered", n)
		}
	})
}

// published is one publication of a fakeBus.
type published struct {
	topic   string
	payload []byte
}

// fakeBus is a bus whose broker the test plays.
type fakeBus struct {
	most int // bytes of a payload; 0 for any

	mu        sync.Mutex
	handler   func(bus.Message)
	followers []*follower
	err       error
	out       []published
}

// follower is one Follow of a fakeBus.
type follower struct {
	filters map[string]bool
	h       func(bus.Message)
}

func (f *fakeBus) Follow(_ byte, h func(bus.Message)) (change func(add, remove []string)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	to := &follower{map[string]bool{}, h}
	f.followers = append(f.followers, to)
	return func(add, remove []string) {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, topic := range remove {
			delete(to.filters, topic)
		}
		for _, topic := range add {
			to.filters[topic] = true
		}
	}
}

// send delivers a message to those that follow its topic, and gives their number.
func (f *fakeBus) send(m bus.Message) (takers int) {
	f.mu.Lock()
	var to []func(bus.Message)
	for _, one := range f.followers {
		for filter := range one.filters {
			if bus.Match(filter, m.Topic) {
				to = append(to, one.h)
				break
			}
		}
	}
	f.mu.Unlock()
	for _, h := range to {
		h(m)
	}
	return len(to)
}

func (f *fakeBus) Subscribe(_ string, _ byte, h func(bus.Message)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.handler = h
}

func (f *fakeBus) Publish(_ context.Context, topic string, _ byte, _ bool, payload []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.err != nil:
		return f.err
	case f.most > 0 && len(payload) > f.most:
		return wire.E(wire.TooLarge, "payload", "too large", "")
	}
	f.out = append(f.out, published{topic, payload})
	return nil
}

func (f *fakeBus) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *fakeBus) take() []published {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.out
	f.out = nil
	return out
}

// deliver hands a request to the gateway, once it has subscribed.
func (f *fakeBus) deliver(t testing.TB, service, text string) {
	t.Helper()
	for range 1000 {
		f.mu.Lock()
		h := f.handler
		f.mu.Unlock()
		if h != nil {
			h(bus.Message{Topic: wire.InferRequest("edge-a", service), Payload: []byte(text), QoS: 1})
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("nobody subscribed")
}

// counter reads one series of a registry, 0 when it is not there.
func counter(t testing.TB, reg *metrics.Registry, series string) float64 {
	t.Helper()
	for line := range strings.SplitSeq(scrape(t, reg), "\n") {
		if rest, ok := strings.CutPrefix(line, series+" "); ok {
			var v float64
			if _, err := fmt.Sscan(rest, &v); err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	return 0
}

// FuzzBusPayload: whatever comes, there is at most one answer, it is JSON, on a
// topic of the service, and a refusal carries a code.
func FuzzBusPayload(f *testing.F) {
	m := newManager(f, nil)
	activate(f, m, serviceSpec(f, ""))
	b, err := request("seed", easyA).AppendJSON(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"id":"a","parameters":{"sedna_route":"cloud","sedna_explain":1},"inputs":[{"name":"x","shape":[2,3],"datatype":"FP32","data":[[1,2,3],[NaN]]}]}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		g := &gateway{m: m, ctx: t.Context(), window: newWindow(4, time.Minute)}
		result, ok := g.infer(context.Background(), job{service: "svc", payload: payload})
		if !ok {
			t.Fatal("a first delivery was passed over")
		}
		if !json.Valid(result.payload) || !strings.HasPrefix(result.topic, "sedna/edge-a/infer/svc/") || strings.ContainsAny(result.topic, "+#\x00") {
			t.Fatalf("%q: %q", result.topic, result.payload)
		}
		if id, found := strings.CutPrefix(result.topic, "sedna/edge-a/infer/svc/result/"); found && !wire.RequestID.MatchString(id) {
			t.Fatalf("id %q", id)
		}
	})
}
