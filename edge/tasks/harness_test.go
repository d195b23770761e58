package tasks_test

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgetwin/sedna/edge/model"
	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/edge/tasks"
	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/lib/bus/broker"
	"github.com/edgetwin/sedna/lib/engine"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

const (
	node     = "edge1"
	ns       = "default"
	patience = 20 * time.Second
)

// textEngine loads files that begin with "good".
type textEngine struct{}

func (textEngine) Name() string      { return "text" }
func (textEngine) Formats() []string { return []string{"text"} }
func (textEngine) Load(_ context.Context, path string, _ engine.Options) (engine.Session, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(string(b), "good") {
		return nil, fmt.Errorf("%w: no good", engine.ErrInvalidModel)
	}
	return session{}, nil
}

type session struct{}

func (session) Inputs() []engine.TensorInfo  { return nil }
func (session) Outputs() []engine.TensorInfo { return nil }
func (session) MemoryBytes() int64           { return 0 }
func (session) Close() error                 { return nil }
func (session) Infer(context.Context, []engine.Tensor) ([]engine.Tensor, error) {
	return nil, nil
}

func TestMain(m *testing.M) {
	engine.Register(textEngine{}, 0)
	if handled, code := model.LoadTestMain(os.Args[1:]); handled {
		os.Exit(code)
	}
	if dir := os.Getenv(killHelper); dir != "" {
		os.Exit(killable(dir))
	}
	os.Exit(m.Run())
}

// server holds what is served, as an inference manager does.
type server struct {
	mu       sync.Mutex
	serving  map[string]tasks.Service
	activate func(tasks.Service) error // may be nil
}

func (s *server) Activate(_ context.Context, v tasks.Service) error {
	s.mu.Lock()
	hook := s.activate
	s.mu.Unlock()
	if hook != nil {
		if err := hook(v); err != nil {
			return err
		}
	}
	if _, err := os.Stat(v.ModelPath); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serving[v.Namespace+"/"+v.Name] = v
	return nil
}

func (s *server) Deactivate(namespace, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.serving, namespace+"/"+name)
}

func (s *server) version(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.serving[ns+"/"+name].Model.Version
}

// cloud signs documents and sees reports, as a GlobalManager and a mapper do.
type cloud struct {
	t        testing.TB
	key      ed25519.PrivateKey
	broker   *broker.Broker
	bus      *bus.Client
	nodeKey  ed25519.PrivateKey
	models   string // a data root with model files
	got      chan report
	issued   time.Time
	fleeting bool // the broker does not keep what is sent
}

type report struct {
	ns, device string
	props      map[string]string
}

func keyPair(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newCloud(t testing.TB) *cloud {
	t.Helper()
	b, err := broker.Start(broker.Options{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	c := &cloud{t: t, key: keyPair(t), broker: b, nodeKey: keyPair(t), models: t.TempDir(), got: make(chan report, 10_000), issued: time.Now().UTC()}
	c.bus = connect(t, b.Addr(), "cloud", func(cl *bus.Client) {
		cl.Subscribe(wire.TaskReportedFilter(node), 1, func(m bus.Message) {
			ns, device, _, ok := wire.ParseTask(node, m.Topic)
			var props map[string]string
			if !ok || json.Unmarshal(m.Payload, &props) != nil {
				t.Errorf("report %s %q", m.Topic, m.Payload)
				return
			}
			for k, v := range props {
				if !wire.TwinSafe(k, v) {
					t.Errorf("KubeEdge would refuse %s=%q", k, v)
				}
			}
			c.got <- report{ns, device, props}
		})
	})
	return c
}

// connect gives a client that is connected with its subscriptions in force.
func connect(t testing.TB, addr, id string, subscribe func(*bus.Client)) *bus.Client {
	t.Helper()
	cl, err := bus.New(bus.Options{URL: "tcp://" + addr, ClientID: id, CleanSession: true, MinBackoff: 10 * time.Millisecond, MaxBackoff: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	up := make(chan struct{}, 100)
	cl.OnConnect(func() { up <- struct{}{} })
	if subscribe != nil {
		subscribe(cl)
	}
	cl.Start(context.Background())
	t.Cleanup(cl.Close)
	select {
	case <-up:
	case <-time.After(patience):
		t.Fatal("no broker")
	}
	return cl
}

func (c *cloud) pins() task.Keys { return task.NewKeys(c.key.Public().(ed25519.PublicKey)) }

// model puts a file under the data root and gives what names it.
func (c *cloud) model(version, content string) task.Model {
	c.t.Helper()
	path := filepath.Join(c.models, version)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		c.t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(content))
	return task.Model{Name: "m", Version: version, URL: path, SHA256: hex.EncodeToString(sum[:]), Format: "text"}
}

func (c *cloud) doc(name, uid string, generation int64, m task.Model) *task.Document {
	spec, err := json.Marshal(task.JointInference{Model: m, HardExample: task.Algorithm{Name: "Threshold"}, OnCloudError: task.AnswerLocally})
	if err != nil {
		c.t.Fatal(err)
	}
	return &task.Document{
		Schema: task.Schema, State: task.Active, UID: uid, Generation: generation, Kind: task.KindJointInference,
		Namespace: ns, Name: name, Role: task.RoleEdge, Node: node, IssuedAt: c.issued, Spec: spec,
	}
}

func deleted(d *task.Document, generation int64) *task.Document {
	v := *d
	v.State, v.Generation, v.Spec = task.Deleted, generation, nil
	return &v
}

func device(name string) string {
	return task.DeviceName(task.KindJointInference, ns, name, task.RoleEdge, node)
}

// message is a document signed and packed as a mapper puts it on the bus.
func (c *cloud) message(d *task.Document, nonce string) []byte {
	b, err := d.Encode()
	if err != nil {
		c.t.Fatal(err)
	}
	return packed(string(b), task.Sign(c.key, b), nonce)
}

func packed(text, signature, nonce string) []byte {
	b, err := json.Marshal(task.Desired{Task: text, Signature: signature, Nonce: nonce})
	if err != nil {
		panic(err)
	}
	return b
}

func (c *cloud) send(name string, payload []byte) {
	c.t.Helper()
	if err := c.bus.Publish(c.t.Context(), wire.TaskDesired(node, ns, device(name)), 1, !c.fleeting, payload); err != nil {
		c.t.Fatal(err)
	}
}

// expect waits for a report of a task in a phase and generation, checks its
// signature and gives it.
func (c *cloud) expect(name, uid, phase string, generation int64) task.Report {
	c.t.Helper()
	return c.expectThat(name, uid, phase+" at "+fmt.Sprint(generation), func(r task.Report) bool {
		return r.Phase == phase && r.Generation == generation
	})
}

func (c *cloud) expectThat(name, uid, what string, want func(task.Report) bool) task.Report {
	c.t.Helper()
	var seen []string
	deadline := time.After(patience)
	for {
		select {
		case r := <-c.got:
			if r.device != device(name) {
				continue
			}
			if err := task.VerifyProperties(c.nodeKey.Public().(ed25519.PublicKey), uid, r.props); err != nil {
				seen = append(seen, err.Error())
				continue
			}
			rep, err := task.ParseReport(r.props)
			if err != nil {
				c.t.Fatal(err)
			}
			if want(rep) {
				return rep
			}
			seen = append(seen, fmt.Sprintf("%+v", rep))
		case <-deadline:
			c.t.Fatalf("no report %s of %s; seen %s", what, name, strings.Join(seen, "\n"))
		}
	}
}

// edge is a node: real store, model files, bus and child processes.
type edge struct {
	t       testing.TB
	dir     string
	store   *store.Store
	library *model.Library
	server  *server
	manager *tasks.Manager
	beacon  *tasks.Beacon
	metrics *metrics.Registry
	bus     *bus.Client
	level   slog.LevelVar
	events  chan store.Event
	started time.Time
	stop    func()
}

type edgeOptions struct {
	limits tasks.Limits
	server *server
	fetch  model.Fetcher
	period time.Duration
	noBus  bool // the broker is away at the start
	max    int64
}

func (c *cloud) edge(t testing.TB, dir string, o edgeOptions) *edge {
	t.Helper()
	e := &edge{t: t, dir: dir, metrics: metrics.New(), server: o.server, events: make(chan store.Event, 10_000), started: time.Now()}
	if e.server == nil {
		e.server = &server{}
	}
	e.server.serving = map[string]tasks.Service{}
	var err error
	if e.store, err = store.Open(t.Context(), store.Options{Dir: dir, MaxBytes: o.max}); err != nil {
		t.Fatal(err)
	}
	e.library, err = model.New(t.Context(), model.Options{Dir: dir, Store: e.store, Fetch: o.fetch, DataRoots: []string{c.models}, Metrics: e.metrics, Events: e.event})
	if err != nil {
		t.Fatal(err)
	}
	e.bus, err = bus.New(bus.Options{URL: "tcp://" + c.broker.Addr(), ClientID: "lc", CleanSession: true, MinBackoff: 10 * time.Millisecond, MaxBackoff: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	pinned := c.pins
	e.beacon = tasks.NewBeacon(tasks.BeaconOptions{
		Node: node, Namespace: "sedna", Key: c.nodeKey, Pinned: pinned, Store: e.store, Bus: e.bus, DataDir: dir, Engines: []string{"text"},
		Period: o.period, Gap: 10 * time.Millisecond, LogLevel: &e.level, Metrics: e.metrics, Events: e.event,
	})
	if err := e.beacon.Restore(ctx); err != nil {
		t.Fatal(err)
	}
	e.manager = tasks.New(tasks.Options{
		Node: node, Key: c.nodeKey, Pinned: pinned, Store: e.store, Models: e.library, Server: e.server, Bus: e.bus, Limits: o.limits,
		Metrics: e.metrics, Events: e.event, Changed: e.beacon.Soon, NodeDesired: func(ns string, b []byte) { e.beacon.Desired(ctx, ns, b) },
	})
	if err := e.manager.Start(ctx); err != nil {
		t.Fatal(err)
	}
	up := make(chan struct{}, 100)
	e.bus.OnConnect(func() { up <- struct{}{} })
	var wg sync.WaitGroup
	wg.Go(func() { e.beacon.Run(ctx) })
	if !o.noBus {
		e.bus.Start(ctx)
		select {
		case <-up:
		case <-time.After(patience):
			t.Fatal("no broker")
		}
	}
	e.stop = sync.OnceFunc(func() {
		e.bus.Close()
		cancel()
		e.manager.Close()
		wg.Wait()
		if err := e.store.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(e.stop)
	return e
}

func (e *edge) event(v store.Event) { e.events <- v }

func (e *edge) await(what string, want func(store.Event) bool) store.Event {
	e.t.Helper()
	deadline := time.After(patience)
	var seen []store.Event
	for {
		select {
		case v := <-e.events:
			if want(v) {
				return v
			}
			seen = append(seen, v)
		case <-deadline:
			e.t.Fatalf("no event %s; seen %+v", what, seen)
		}
	}
}

func (e *edge) reason(reason string) store.Event {
	e.t.Helper()
	return e.await(reason, func(v store.Event) bool { return v.Reason == reason })
}

func (e *edge) rejected(code wire.Code) (sum float64) {
	e.t.Helper()
	families, err := e.metrics.Gather()
	if err != nil {
		e.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if f.GetName() == "sedna_rejected_total" && labels["code"] == string(code) && labels["door"] == metrics.DoorTwin {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// dump is all that the node remembers of tasks, to see that nothing changed.
func (e *edge) dump() string {
	e.t.Helper()
	var out []any
	err := e.store.View(e.t.Context(), func(tx *store.Tx) error {
		rows, err := tx.Tasks()
		dead, err2 := tx.Unsettled(time.Time{})
		models, err3 := tx.Models()
		events, err4 := tx.Events(1000)
		out = []any{rows, dead, models, events}
		return errors.Join(err, err2, err3, err4)
	})
	if err != nil {
		e.t.Fatal(err)
	}
	b, err := json.Marshal(out)
	if err != nil {
		e.t.Fatal(err)
	}
	return string(b)
}

func (e *edge) row(name string) (row *store.Task) {
	e.t.Helper()
	err := e.store.View(e.t.Context(), func(tx *store.Tx) (err error) {
		row, err = tx.Task(ns, device(name))
		return err
	})
	if err != nil {
		e.t.Fatal(err)
	}
	return row
}

func (e *edge) modelFiles() (n int) {
	e.t.Helper()
	entries, err := os.ReadDir(filepath.Join(e.dir, "models"))
	if err != nil {
		e.t.Fatal(err)
	}
	for _, v := range entries {
		if !v.IsDir() {
			n++
		}
	}
	return n
}
