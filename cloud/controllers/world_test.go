package controllers_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/edgetwin/sedna/cloud/controllers"
	"github.com/edgetwin/sedna/cloud/controlplane/controlplanetest"
	"github.com/edgetwin/sedna/cloud/twin"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/manifests"
	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
	sedna "github.com/edgetwin/sedna/models/sedna/v1alpha1"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// patience is how long a test waits for an event that has to come.
const patience = 20 * time.Second

// world is one control plane with the job and twin controllers on it, which
// all tests share; each has a namespace and nodes of its own. The tests play
// the nodes, the blob store and the server of cloud models.
type world struct {
	c       client.WithWatch
	tasks   *twin.Tasks
	nodes   *twin.Nodes
	ji      *controllers.JointInference
	cloud   *cloudModels
	blobs   *blobs
	signing ed25519.PrivateKey
}

type signer struct{ key ed25519.PrivateKey }

func (s signer) Sign(b []byte) string { return task.Sign(s.key, b) }

// cloudModels remembers what it was told to serve; it refuses the models that
// are in broken.
type cloudModels struct {
	mu      sync.Mutex
	serving map[string]task.Model
	removed map[string]int
	broken  map[string]error // by name of the model
}

func (c *cloudModels) Serve(_ context.Context, service string, m task.Model) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.broken[m.Name]; err != nil {
		return err
	}
	c.serving[service] = m
	return nil
}

func (c *cloudModels) Remove(service string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.serving, service)
	c.removed[service]++
}

func (c *cloudModels) fail(model string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken[model] = err
}

func (c *cloudModels) of(service string) (m task.Model, ok bool, removed int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m, ok = c.serving[service]
	return m, ok, c.removed[service]
}

// blobs are the sizes of blobs that are stored.
type blobs struct {
	mu     sync.Mutex
	sizes  map[string]int64
	stored chan event.TypedGenericEvent[string]
	used   map[string]bool
	gone   chan struct{}
}

func (b *blobs) size(_ context.Context, sha string) (int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n, ok := b.sizes[sha]; ok {
		return n, nil
	}
	return 0, wire.E(wire.NotFound, "", "no blob", "")
}

func (b *blobs) put(sha string, size int64) {
	b.mu.Lock()
	b.sizes[sha] = size
	b.mu.Unlock()
	b.stored <- event.TypedGenericEvent[string]{Object: sha}
}

func newWorld(t *testing.T) *world {
	t.Helper()
	crds, err := manifests.CRDs()
	if err != nil {
		t.Fatal(err)
	}
	ctrl.SetLogger(logr.Discard()) // the tests stop the API under the controllers
	api := controlplanetest.Start(t, crds...)
	known := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{devices.AddToScheme, sedna.AddToScheme} {
		if err := add(known); err != nil {
			t.Fatal(err)
		}
	}
	again := true
	mgr, err := ctrl.NewManager(api, ctrl.Options{
		Scheme: known, Metrics: server.Options{BindAddress: "0"}, Controller: config.Controller{SkipNameValidation: &again},
	})
	if err != nil {
		t.Fatal(err)
	}
	direct, err := client.NewWithWatch(api, client.Options{Scheme: known})
	if err != nil {
		t.Fatal(err)
	}
	_, key, _ := ed25519.GenerateKey(nil)
	w := &world{
		c: direct, signing: key,
		cloud: &cloudModels{serving: map[string]task.Model{}, removed: map[string]int{}, broken: map[string]error{}},
		blobs: &blobs{sizes: map[string]int64{}, stored: make(chan event.TypedGenericEvent[string], 16), used: map[string]bool{}, gone: make(chan struct{}, 1)},
		tasks: &twin.Tasks{Client: mgr.GetClient(), Signer: signer{key}, Now: time.Now},
		nodes: &twin.Nodes{Client: mgr.GetClient(), Namespace: "sedna"},
	}
	obs := twin.NewObserver(mgr.GetClient(), w.nodes, metrics.New())
	changed := make(chan event.TypedGenericEvent[*devices.Device], 64)
	log := slog.New(slog.DiscardHandler)
	ctl := twin.NewController(w.tasks, w.nodes, obs, twin.Timings{
		RepairAfter: 20 * time.Millisecond, RepairMax: 40 * time.Millisecond, UnboundFor: 10 * time.Millisecond}, changed, log)
	w.ji = &controllers.JointInference{
		Jobs:  controllers.Jobs{Client: mgr.GetClient(), Tasks: w.tasks, Nodes: w.nodes, Obs: obs},
		Cloud: w.cloud, Changed: changed, Gone: w.blobs.kick,
	}
	for _, c := range []interface{ SetupWithManager(ctrl.Manager) error }{
		ctl, twin.NewNodeController(w.tasks, w.nodes, obs, ctl, log), w.ji,
		&controllers.Model{Client: mgr.GetClient(), Size: w.blobs.size, Stored: w.blobs.stored, Used: w.blobs.use, Gone: w.blobs.kick},
	} {
		if err := c.SetupWithManager(mgr); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	if !mgr.GetCache().WaitForCacheSync(ctx) {
		t.Fatal("cache did not sync")
	}
	return w
}

func (b *blobs) kick() {
	select {
	case b.gone <- struct{}{}:
	default:
	}
}

func (b *blobs) use(sha string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used[sha] = true
}

// node is an edge node that a test plays.
type node struct {
	w    *world
	name string
	key  ed25519.PrivateKey
	seq  int64
}

// enrol makes a node known to the cloud, with labels on its node Device.
func (w *world) enrol(t *testing.T, name string, labels map[string]string) *node {
	t.Helper()
	pub, key, _ := ed25519.GenerateKey(nil)
	if err := w.nodes.Enrolled(t.Context(), name, pub); err != nil {
		t.Fatal(err)
	}
	n := &node{w: w, name: name, key: key}
	if labels != nil {
		n.label(t, labels)
	}
	return n
}

// label sets labels of the node Device; an empty value removes one.
func (n *node) label(t *testing.T, labels map[string]string) {
	t.Helper()
	set := map[string]any{}
	for k, v := range labels {
		set[k] = v
		if v == "" {
			set[k] = nil
		}
	}
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": set}})
	if err != nil {
		t.Fatal(err)
	}
	d := &devices.Device{}
	d.Namespace, d.Name = "sedna", task.NodeDeviceName(n.name)
	if err := n.w.c.Patch(t.Context(), d, client.RawPatch(types.MergePatchType, body)); err != nil {
		t.Fatal(err)
	}
}

// report signs a report and writes it as cloudcore does.
func (n *node) report(t *testing.T, d *devices.Device, r task.Report) {
	t.Helper()
	n.seq++
	r.Seq = n.seq
	p := r.Properties()
	task.SignProperties(n.key, string(d.UID), p)
	n.w.write(t, d.Namespace, d.Name, p)
}

// beat tells of the node, so that repairs are worth their writes.
func (n *node) beat(t *testing.T) {
	t.Helper()
	n.seq++
	p := task.Beat{Version: "test", StateHash: "none", Seq: n.seq}.Properties()
	task.SignProperties(n.key, n.name, p)
	n.w.write(t, "sedna", task.NodeDeviceName(n.name), p)
}

func (w *world) write(t *testing.T, ns, name string, props map[string]string) {
	t.Helper()
	st := &devices.DeviceStatus{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
	for k, v := range props {
		st.Status.Twins = append(st.Status.Twins, devices.Twin{PropertyName: k, Reported: devices.TwinProperty{
			Value: v, Metadata: map[string]string{"timestamp": strconv.FormatInt(time.Now().UnixMilli(), 10), "type": "string"}}})
	}
	body, err := json.Marshal(map[string]any{"status": st.Status})
	if err != nil {
		t.Fatal(err)
	}
	err = w.c.Patch(t.Context(), st.DeepCopy(), client.RawPatch(types.MergePatchType, body))
	if client.IgnoreNotFound(err) == nil && err != nil {
		err = w.c.Create(t.Context(), st)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// await follows one object until ok holds; ok gets nil when it does not exist.
func await[T any, P interface {
	*T
	client.Object
}](t *testing.T, c client.WithWatch, list client.ObjectList, ns, name, what string, ok func(P) bool) P {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	// The watch begins with the object as it is; that there is none, Get tells.
	events, err := c.Watch(ctx, list, client.InNamespace(ns), client.MatchingFields{"metadata.name": name})
	if err != nil {
		t.Fatal(err)
	}
	defer events.Stop()
	last := P(new(T))
	if err := c.Get(ctx, client.ObjectKey{Namespace: ns, Name: name}, last); err != nil {
		last = nil
		if client.IgnoreNotFound(err) != nil {
			t.Fatal(err)
		}
	}
	for !ok(last) {
		select {
		case e := <-events.ResultChan():
			o, typed := e.Object.(P)
			if !typed {
				t.Fatalf("watch for %s: %v", what, e.Object)
			}
			if last = o; e.Type == watch.Deleted {
				last = nil
			}
		case <-ctx.Done():
			b, _ := json.MarshalIndent(last, "", " ")
			t.Fatalf("did not see %s; last %s", what, b)
		}
	}
	return last
}

// space is the namespace of one test.
type space struct {
	*world
	t  *testing.T
	ns string
}

func (w *world) space(t *testing.T) *space {
	name := strings.ToLower(t.Name()[strings.LastIndexByte(t.Name(), '/')+1:])
	return &space{world: w, t: t, ns: strings.ReplaceAll(name, "_", "-")}
}

func digest(c string) string { return strings.Repeat(c, 64) }

// model makes a Model whose blob is all c.
func (s *space) model(name, c string) *sedna.Model {
	s.t.Helper()
	m := &sedna.Model{ObjectMeta: metav1.ObjectMeta{Namespace: s.ns, Name: name},
		Spec: sedna.ModelSpec{URL: task.BlobURLPrefix + digest(c), Format: "onnx"}}
	if err := s.c.Create(s.t.Context(), m); err != nil {
		s.t.Fatal(err)
	}
	return m
}

// models makes the Models small and big.
func (s *space) models() {
	s.model("small", "a")
	s.model("big", "b")
}

// service gives a service that is not created yet.
func (s *space) service(name string) *sedna.JointInferenceService {
	j := &sedna.JointInferenceService{ObjectMeta: metav1.ObjectMeta{Namespace: s.ns, Name: name}}
	j.Spec.EdgeWorker.Model.Name, j.Spec.CloudWorker.Model.Name = "small", "big"
	j.Spec.EdgeWorker.HardExampleMining = sedna.Algorithm{Name: "CrossEntropy",
		Parameters: []sedna.Parameter{{Key: "threshold_cross_entropy", Value: "0.5"}}}
	return j
}

func (s *space) create(o client.Object) {
	s.t.Helper()
	if err := s.c.Create(s.t.Context(), o); err != nil {
		s.t.Fatal(err)
	}
}

func (s *space) delete(o client.Object) {
	s.t.Helper()
	if err := s.c.Delete(s.t.Context(), o); err != nil {
		s.t.Fatal(err)
	}
}

// change changes the spec or metadata of an object by a merge patch.
func (s *space) change(o client.Object, change func()) {
	s.t.Helper()
	before := o.DeepCopyObject().(client.Object)
	change()
	if err := s.c.Patch(s.t.Context(), o, client.MergeFrom(before)); err != nil {
		s.t.Fatal(err)
	}
}

// ready awaits the Ready condition with a reason and, in its message, all of
// the words.
func (s *space) ready(name, status, reason string, words ...string) *sedna.JointInferenceService {
	s.t.Helper()
	return s.until(name, fmt.Sprintf("Ready=%s %s %q", status, reason, words), func(j *sedna.JointInferenceService) bool {
		c := meta.FindStatusCondition(j.Status.Conditions, sedna.ConditionReady)
		if c == nil || string(c.Status) != status || c.Reason != reason || c.ObservedGeneration != j.Generation {
			return false
		}
		for _, word := range words {
			if !strings.Contains(c.Message, word) {
				return false
			}
		}
		return true
	})
}

func (s *space) until(name, what string, ok func(*sedna.JointInferenceService) bool) *sedna.JointInferenceService {
	s.t.Helper()
	return await(s.t, s.c, &sedna.JointInferenceServiceList{}, s.ns, name, what, func(j *sedna.JointInferenceService) bool { return j != nil && ok(j) })
}

func (s *space) gone(name string) {
	s.t.Helper()
	await(s.t, s.c, &sedna.JointInferenceServiceList{}, s.ns, name, "service "+name+" gone", func(j *sedna.JointInferenceService) bool { return j == nil })
}

// device awaits the task Device of a service on a node, in a state that ok
// takes.
func (s *space) device(service, node, what string, ok func(*devices.Device, *task.Document) bool) *devices.Device {
	s.t.Helper()
	name := task.DeviceName(task.KindJointInference, s.ns, service, task.RoleEdge, node)
	return await(s.t, s.c, &devices.DeviceList{}, s.ns, name, what, func(d *devices.Device) bool {
		if d == nil {
			return ok(nil, nil)
		}
		return ok(d, s.document(d))
	})
}

func (s *space) document(d *devices.Device) *task.Document {
	s.t.Helper()
	doc, err := twin.Document(d)
	if err != nil {
		s.t.Fatal(err)
	}
	return doc
}

// issued awaits a document of a generation or above.
func (s *space) issued(service, node string, generation int64) *devices.Device {
	s.t.Helper()
	return s.device(service, node, fmt.Sprintf("document %d of %s on %s", generation, service, node), func(_ *devices.Device, doc *task.Document) bool {
		return doc != nil && doc.State == task.Active && doc.Generation >= generation
	})
}

// serve has the node report Running for the latest document.
func (s *space) serve(n *node, service string) *devices.Device {
	s.t.Helper()
	d := s.issued(service, n.name, 1)
	n.report(s.t, d, task.Report{Phase: task.Running, Generation: s.document(d).Generation, Model: "small:1:aaaaaaaaaaaa"})
	return d
}

// stopped has the node confirm the deletion document of a service.
func (s *space) stopped(n *node, service string) {
	s.t.Helper()
	d := s.device(service, n.name, "a deletion document", func(_ *devices.Device, doc *task.Document) bool { return doc != nil && doc.State == task.Deleted })
	n.report(s.t, d, task.Report{Phase: task.Stopped, Generation: s.document(d).Generation})
}

// noDevice awaits that the Device of a task is gone.
func (s *space) noDevice(service, node string) {
	s.t.Helper()
	s.device(service, node, "the Device gone", func(d *devices.Device, _ *task.Document) bool { return d == nil })
}

// settled calls the reconciler many times over, and fails if that writes the
// service each time.
func (s *space) settled(name string) {
	s.t.Helper()
	key := client.ObjectKey{Namespace: s.ns, Name: name}
	version := func() string {
		j := &sedna.JointInferenceService{}
		if err := s.c.Get(s.t.Context(), key, j); err != nil {
			s.t.Fatal(err)
		}
		return j.ResourceVersion
	}
	// A reconciler that does not see the last write yet writes once more, with
	// the time of now; a few rounds later it does see it.
	var before, after string
	for range 10 {
		before = version()
		for range 20 {
			if _, err := s.ji.Reconcile(s.t.Context(), ctrl.Request{NamespacedName: key}); err != nil {
				s.t.Fatal(err)
			}
		}
		if after = version(); after == before {
			return
		}
	}
	s.t.Errorf("nothing changed, and the service is written again and again: resource version %s, then %s", before, after)
}
