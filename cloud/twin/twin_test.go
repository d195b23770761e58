package twin_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/edgetwin/sedna/cloud/controlplane/controlplanetest"
	"github.com/edgetwin/sedna/cloud/twin"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/manifests"
	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
	"github.com/edgetwin/sedna/models/task"
)

// world is one control plane with the controllers of package twin on it. The
// test plays the node: it reads documents from Devices and writes signed
// reports into DeviceStatuses, as cloudcore does.
type world struct {
	t       *testing.T
	old     bool          // cloudcore is of 1.22 or older: it writes into Devices
	clock   time.Duration // added to the node's clock
	c       client.WithWatch
	tasks   *twin.Tasks
	nodes   *twin.Nodes
	obs     *twin.Observer
	metrics *metrics.Registry
	changed chan event.TypedGenericEvent[*devices.Device]
	cloud   ed25519.PrivateKey
	node    ed25519.PrivateKey
}

type signer struct{ key ed25519.PrivateKey }

func (s signer) Sign(b []byte) string { return task.Sign(s.key, b) }

// newWorld starts the controllers; repairs come after 50 ms.
func newWorld(t *testing.T) *world {
	t.Helper()
	return startWorld(t, false, twin.Timings{
		RepairAfter: 50 * time.Millisecond, RepairMax: 100 * time.Millisecond, SilentAfter: time.Second, UnboundFor: unboundFor})
}

// unboundFor is how long a Device that is bound anew stays without a node.
const unboundFor = 300 * time.Millisecond

func startWorld(t *testing.T, old bool, timings twin.Timings) *world {
	t.Helper()
	crds, err := manifests.CRDs()
	if err != nil {
		t.Fatal(err)
	}
	if old {
		crds = slices.DeleteFunc(crds, func(c *apiextensionsv1.CustomResourceDefinition) bool { return c.Spec.Names.Kind == "DeviceStatus" })
	}
	api := controlplanetest.Start(t, crds...)
	scheme := runtime.NewScheme()
	if err := devices.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	skip := true
	mgr, err := ctrl.NewManager(api, ctrl.Options{
		Scheme: scheme, Metrics: server.Options{BindAddress: "0"}, Controller: config.Controller{SkipNameValidation: &skip},
	})
	if err != nil {
		t.Fatal(err)
	}
	direct, err := client.NewWithWatch(api, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	_, cloud, _ := ed25519.GenerateKey(nil)
	nodePub, node, _ := ed25519.GenerateKey(nil)
	w := &world{t: t, old: old, c: direct, metrics: metrics.New(), cloud: cloud, node: node,
		changed: make(chan event.TypedGenericEvent[*devices.Device], 1000)}
	w.tasks = &twin.Tasks{Client: mgr.GetClient(), Signer: signer{cloud}, Now: time.Now}
	w.nodes = &twin.Nodes{Client: mgr.GetClient(), Namespace: "sedna"}
	w.obs = twin.NewObserver(mgr.GetClient(), w.nodes, w.metrics)
	log := slog.New(slog.DiscardHandler)
	ctl := twin.NewController(w.tasks, w.nodes, w.obs, timings, w.changed, log)
	if err := ctl.SetupWithManager(mgr); err != nil {
		t.Fatal(err)
	}
	if err := twin.NewNodeController(w.tasks, w.nodes, w.obs, ctl, log).SetupWithManager(mgr); err != nil {
		t.Fatal(err)
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
	if err := w.nodes.Enrolled(ctx, "edge1", nodePub); err != nil {
		t.Fatal(err)
	}
	w.eventually(func() bool {
		ok, err := w.nodes.Exists(ctx, "edge1")
		return ok && err == nil
	}, "the node Device in the cache")
	return w
}

// eventually watches all Devices until ok holds.
func (w *world) eventually(ok func() bool, what string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	watch, err := w.c.Watch(ctx, &devices.DeviceList{})
	if err != nil {
		w.t.Fatal(err)
	}
	defer watch.Stop()
	again := time.NewTicker(20 * time.Millisecond) // caches lag behind the watch
	defer again.Stop()
	for !ok() {
		select {
		case <-watch.ResultChan():
		case <-again.C:
		case <-ctx.Done():
			w.t.Fatalf("did not see %s", what)
		}
	}
}

var owner = twin.Owner{Kind: task.KindJointInference, Namespace: "default", Name: "digits", UID: "job-uid"}

func want(threshold string) []twin.Want {
	return []twin.Want{{Role: task.RoleEdge, Node: "edge1", Spec: map[string]string{"threshold": threshold}}}
}

// sync calls Tasks.Sync until the cache shows what was written.
func (w *world) sync(want []twin.Want) {
	w.t.Helper()
	w.eventually(func() bool {
		_, err := w.tasks.Sync(w.t.Context(), owner, want)
		return err == nil
	}, "Sync without error")
}

func (w *world) device() *devices.Device {
	d := &devices.Device{}
	name := task.DeviceName(owner.Kind, owner.Namespace, owner.Name, task.RoleEdge, "edge1")
	if err := w.c.Get(w.t.Context(), client.ObjectKey{Namespace: "default", Name: name}, d); err != nil {
		return nil
	}
	return d
}

func (w *world) document() *task.Document {
	d := w.device()
	if d == nil {
		return nil
	}
	doc, err := twin.Document(d)
	if err != nil {
		w.t.Fatal(err)
	}
	return doc
}

func (w *world) nonce() task.Nonce {
	n, err := twin.NonceOf(w.device())
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// report writes properties as cloudcore does.
func (w *world) report(ns, device string, props map[string]string) {
	w.t.Helper()
	st := &devices.DeviceStatus{}
	st.Namespace, st.Name = ns, device
	for k, v := range props {
		st.Status.Twins = append(st.Status.Twins, devices.Twin{PropertyName: k, Reported: devices.TwinProperty{
			Value: v, Metadata: map[string]string{"timestamp": strconv.FormatInt(time.Now().Add(w.clock).UnixMilli(), 10), "type": "string"}}})
	}
	body, err := json.Marshal(map[string]any{"status": st.Status})
	if err != nil {
		w.t.Fatal(err)
	}
	if w.old {
		d := &devices.Device{}
		d.Namespace, d.Name = ns, device
		if err := w.c.Patch(w.t.Context(), d, client.RawPatch("application/merge-patch+json", body)); err != nil {
			w.t.Fatal(err)
		}
		return
	}
	err = w.c.Patch(w.t.Context(), st.DeepCopy(), client.RawPatch("application/merge-patch+json", body))
	if client.IgnoreNotFound(err) == nil && err != nil {
		err = w.c.Create(w.t.Context(), st)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) taskReport(phase string, generation, seq int64, key ed25519.PrivateKey) {
	d := w.device()
	p := task.Report{Phase: phase, Generation: generation, Seq: seq}.Properties()
	task.SignProperties(key, string(d.UID), p)
	w.report(d.Namespace, d.Name, p)
}

func (w *world) beat(seq int64, hash string) {
	p := task.Beat{Version: "test", StateHash: hash, Seq: seq}.Properties()
	task.SignProperties(w.node, "edge1", p)
	w.report("sedna", task.NodeDeviceName("edge1"), p)
}

func (w *world) rejected(code string) float64 {
	families, err := w.metrics.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "sedna_rejected_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "code" && l.GetValue() == code {
					return m.GetCounter().GetValue()
				}
			}
		}
	}
	return 0
}

func TestTaskLife(t *testing.T) {
	w := newWorld(t)
	w.sync(want("0.5"))
	d := w.device()
	doc := w.document()
	if doc.Generation != 1 || doc.UID != string(d.UID) || d.Spec.NodeName != "edge1" {
		t.Fatalf("document %+v on device of uid %s, node %q", doc, d.UID, d.Spec.NodeName)
	}
	text, sig := "", ""
	for _, p := range d.Spec.Properties {
		switch p.Name {
		case task.PropTask:
			text = p.Desired.Value
		case task.PropSignature:
			sig = p.Desired.Value
		}
	}
	if err := task.NewKeys(w.cloud.Public().(ed25519.PublicKey)).Verify([]byte(text), sig); err != nil {
		t.Fatal(err)
	}

	t.Run("the same wish issues nothing", func(t *testing.T) {
		w.sync(want("0.5"))
		if g := w.document().Generation; g != 1 {
			t.Errorf("generation %d", g)
		}
	})
	t.Run("a report is acknowledged and passed on", func(t *testing.T) {
		w.taskReport(task.Running, 1, 4, w.node)
		w.eventually(func() bool { return w.nonce().Acked == 4 }, "nonce with acked seq 4")
		select {
		case e := <-w.changed:
			if e.Object.Name != d.Name {
				t.Errorf("news of %s", e.Object.Name)
			}
		case <-time.After(10 * time.Second):
			t.Error("no news for the job's controller")
		}
	})
	t.Run("a forged report changes nothing and is counted", func(t *testing.T) {
		_, stranger, _ := ed25519.GenerateKey(nil)
		w.taskReport(task.Failed, 1, 99, stranger)
		w.eventually(func() bool { return w.rejected("bad_signature") == 1 }, "one refusal")
		s, err := w.obs.State(t.Context(), d)
		if err != nil || s.Report == nil || s.Report.Phase != task.Running || w.nonce().Acked != 4 {
			t.Errorf("state %+v, %v, nonce %v", s.Report, err, w.nonce())
		}
	})
	t.Run("a replayed report changes nothing", func(t *testing.T) {
		w.taskReport(task.Failed, 1, 3, w.node)
		w.eventually(func() bool { return w.rejected("stale") == 1 }, "one stale report")
	})
	t.Run("a changed wish raises the generation", func(t *testing.T) {
		w.sync(want("0.7"))
		if g := w.document().Generation; g != 2 {
			t.Errorf("generation %d", g)
		}
	})
	t.Run("deletion waits for the node", func(t *testing.T) {
		w.taskReport(task.Running, 2, 5, w.node)
		w.eventually(func() bool { return w.nonce().Acked == 5 }, "nonce with acked seq 5")
		w.sync(nil)
		w.eventually(func() bool { doc := w.document(); return doc != nil && doc.State == task.Deleted }, "a deletion document")
		if g := w.document().Generation; g != 3 {
			t.Errorf("generation %d", g)
		}
		w.taskReport(task.Running, 3, 6, w.node)
		w.eventually(func() bool { return w.nonce().Acked == 6 }, "nonce with acked seq 6")
		if w.device().DeletionTimestamp.IsZero() {
			t.Error("not being deleted")
		}
		w.taskReport(task.Stopped, 3, 7, w.node)
		w.eventually(func() bool { return w.device() == nil }, "the Device gone")
	})
	if n := testutil.CollectAndCount(w.metrics, "sedna_rejected_total"); n != 2 {
		t.Errorf("%d kinds of refusal counted, want bad_signature and stale", n)
	}
}

func TestRepair(t *testing.T) {
	w := newWorld(t)
	w.sync(want("0.5"))
	w.beat(1, task.StateHash(nil))

	// Nothing was ever heard of the Device: it is bound anew.
	watch, err := w.c.Watch(t.Context(), &devices.DeviceList{}, client.InNamespace("default"))
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()
	unbound, deadline := false, time.After(20*time.Second)
	for !unbound {
		select {
		case e := <-watch.ResultChan():
			if d, ok := e.Object.(*devices.Device); ok {
				doc, err := twin.Document(d)
				unbound = err == nil && doc != nil && d.Spec.NodeName == ""
			}
		case <-deadline:
			t.Fatal("the Device was never bound anew")
		}
	}
	since := time.Now()
	w.eventually(func() bool { return w.device().Spec.NodeName == "edge1" }, "the Device bound again")
	if gap := time.Since(since); gap < unboundFor/2 {
		t.Errorf("bound again after %v: cloudcore would lose it", gap)
	}
	n := w.nonce().N
	w.eventually(func() bool { return w.nonce().N > n }, "a raised nonce after the Device was bound")
	w.taskReport(task.Running, 1, 1, w.node)
	w.eventually(func() bool { return w.nonce().Acked == 1 }, "the report acknowledged")
	if g := w.document().Generation; g != 1 {
		t.Errorf("repair raised the generation to %d", g)
	}

	// What is known at the node and not confirmed is asked for by nonce.
	w.sync(want("0.7"))
	w.eventually(func() bool { return w.nonce().N >= 2 }, "nonce repairs")
}

// TestLostAcknowledgementIsRepeated: a node that did not hear of it goes on
// sending a report which the cloud has long acknowledged.
func TestLostAcknowledgementIsRepeated(t *testing.T) {
	w := newWorld(t)
	w.sync(want("0.5"))
	w.taskReport(task.Running, 1, 1, w.node)
	w.eventually(func() bool { return w.nonce().Acked == 1 }, "the report acknowledged")
	n := w.nonce().N
	w.eventually(func() bool {
		w.taskReport(task.Running, 1, 1, w.node)
		return w.nonce().N > n
	}, "the acknowledgement delivered again")
	w.taskReport(task.Running, 1, 2, w.node) // the node's answer to a raised nonce
	w.eventually(func() bool { return w.nonce().Acked == 2 }, "the new report acknowledged")
	n = w.nonce().N
	time.Sleep(200 * time.Millisecond) // nothing is to happen: there is no event to await
	if m := w.nonce().N; m != n {
		t.Errorf("nonce raised to %d without need", m)
	}
}

func TestHashMismatchAsksForAll(t *testing.T) {
	w := newWorld(t)
	w.sync(want("0.5"))
	w.taskReport(task.Running, 1, 1, w.node)
	w.eventually(func() bool { return w.nonce().Acked == 1 }, "the report acknowledged")
	before := w.nonce().N
	w.beat(1, "somethingelse")
	w.beat(2, "somethingelse")
	w.eventually(func() bool {
		w.beat(time.Now().UnixMilli(), "somethingelse")
		return w.nonce().N > before
	}, "a raised nonce")
}

// A node whose edgecore has lost its memory knows a task and not its Device:
// nothing that it reports arrives until the Device is bound anew.
func TestDeviceThatIsNotAnsweredForIsBoundAnew(t *testing.T) {
	w := newWorld(t)
	w.sync(want("0.5"))
	w.taskReport(task.Running, 1, 1, w.node)
	w.eventually(func() bool { return w.nonce().Acked == 1 }, "the report acknowledged")
	seq := int64(0)
	w.eventually(func() bool {
		seq++
		w.beat(seq, "somethingelse")
		return w.device().Spec.NodeName == ""
	}, "the Device taken off its node")
	w.eventually(func() bool { return w.device().Spec.NodeName == "edge1" }, "the Device bound again")
	w.taskReport(task.Failed, 1, 2, w.node)
	w.eventually(func() bool { return w.nonce().Acked == 2 }, "the report acknowledged")
}

// roll gives the roll that the node was told, nil for none, if it is signed.
func (w *world) roll() *task.Roll {
	var text, signature string
	for _, p := range w.nodeDevice().Spec.Properties {
		switch p.Name {
		case task.PropConfig:
			text = p.Desired.Value
		case task.PropSignature:
			signature = p.Desired.Value
		}
	}
	if text == "" {
		return nil
	}
	if err := task.NewKeys(w.cloud.Public().(ed25519.PublicKey)).Verify([]byte(text), signature); err != nil {
		w.t.Fatal(err)
	}
	var config struct {
		Generation int64
		Node       string
		Roll       *task.Roll
	}
	if err := json.Unmarshal([]byte(text), &config); err != nil || config.Generation < 1 || config.Node != "edge1" {
		w.t.Fatalf("%s: %v", text, err)
	}
	return config.Roll
}

// A node that has a task whose Device is gone cannot be told by a document of
// that Device: it is told which tasks there are.
func TestNodeIsToldItsRoll(t *testing.T) {
	w := newWorld(t)
	w.sync(want("0.5"))
	w.taskReport(task.Running, 1, 1, w.node)
	w.eventually(func() bool { return w.nonce().Acked == 1 }, "the report acknowledged")
	there := string(w.device().UID)
	same := task.StateHash([]task.TaskState{{UID: there, Generation: 1, Phase: task.Running}})
	w.beat(1, same)
	w.eventually(func() bool {
		n, err := twin.NonceOf(w.nodeDevice())
		return err == nil && n.Acked == 1
	}, "the beat acknowledged")
	if r := w.roll(); r != nil {
		t.Errorf("a node that agrees is told %+v", r)
	}
	seq := int64(1)
	more := task.StateHash([]task.TaskState{{UID: there, Generation: 1, Phase: task.Running}, {UID: "gone", Generation: 3, Phase: task.Running}})
	w.eventually(func() bool {
		seq++
		w.beat(seq, more)
		return w.roll() != nil
	}, "the roll")
	if r := w.roll(); !slices.Equal(r.Tasks, []string{there}) || r.StateHash != more {
		t.Errorf("%+v, the beats say %s", r, more)
	}
}

// A node that beats and does not take a document may think the task dead.
func TestNodeThatTakesNoDocumentIsToldItsRoll(t *testing.T) {
	w := newWorld(t)
	w.sync(want("0.5"))
	seq := int64(0)
	w.eventually(func() bool {
		seq++
		w.beat(seq, task.StateHash(nil))
		return w.roll() != nil
	}, "the roll")
	if r := w.roll(); !slices.Equal(r.Tasks, []string{string(w.device().UID)}) {
		t.Errorf("%+v", r)
	}
}

func TestNodeThatIsForgottenHoldsNothing(t *testing.T) {
	w := newWorld(t)
	w.sync(want("0.5"))
	node := &devices.Device{}
	node.Namespace, node.Name = "sedna", task.NodeDeviceName("edge1")
	if err := w.c.Delete(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	w.sync(nil)
	w.eventually(func() bool { return w.device() == nil }, "the Device gone without the node's word")
}

// KubeEdge up to 1.22 has no DeviceStatus: cloudcore writes into the Device.
func TestKubeEdge122WritesIntoTheDevice(t *testing.T) {
	w := startWorld(t, true, twin.Timings{})
	w.sync(want("0.5"))
	w.taskReport(task.Running, 1, 4, w.node)
	w.eventually(func() bool { return w.nonce().Acked == 4 }, "nonce with acked seq 4")
	w.beat(7, task.StateHash(nil))
	w.eventually(func() bool {
		n, err := twin.NonceOf(w.nodeDevice())
		return err == nil && n.Acked == 7
	}, "the beat acknowledged")
	if beat, _, err := twin.LastBeat(t.Context(), w.c, w.nodeDevice()); err != nil || beat == nil || beat.Seq != 7 {
		t.Errorf("last beat %+v, %v", beat, err)
	}
	w.sync(nil)
	w.taskReport(task.Stopped, 2, 5, w.node)
	w.eventually(func() bool { return w.device() == nil }, "the Device gone")
}

// cloudcore writes the edge's time next to what it reports.
func TestNodeWithAWrongClockIsRepaired(t *testing.T) {
	w := newWorld(t)
	w.clock = -24 * time.Hour
	w.sync(want("0.5"))
	w.taskReport(task.Running, 1, 1, w.node)
	w.eventually(func() bool { return w.nonce().Acked == 1 }, "the report acknowledged")
	w.sync(want("0.7"))
	w.beat(1, task.StateHash(nil))
	w.eventually(func() bool { return w.nonce().N >= 2 }, "nonce repairs")
}

// A node Device that was made while the link was down is never registered at
// the edge, and without beats nothing of the node is repaired.
func TestDeviceOfASilentNodeIsBoundAnew(t *testing.T) {
	w := newWorld(t)
	watch, err := w.c.Watch(t.Context(), &devices.DeviceList{}, client.InNamespace("sedna"))
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()
	unbound, deadline := false, time.After(20*time.Second)
	for !unbound {
		select {
		case e := <-watch.ResultChan():
			d, ok := e.Object.(*devices.Device)
			unbound = ok && d.Spec.NodeName == ""
		case <-deadline:
			t.Fatal("the node Device was never bound anew")
		}
	}
	w.eventually(func() bool { return w.nodeDevice().Spec.NodeName == "edge1" }, "the node Device bound again")
}

func (w *world) nodeDevice() *devices.Device {
	d := &devices.Device{}
	if err := w.c.Get(w.t.Context(), client.ObjectKey{Namespace: "sedna", Name: task.NodeDeviceName("edge1")}, d); err != nil {
		w.t.Fatal(err)
	}
	return d
}

// KubeEdge may write a report in steps: after a Device was bound anew, the
// first patch still has older values where the report's are empty.
func TestReportThatArrivesInSteps(t *testing.T) {
	w := newWorld(t)
	w.sync(want("0.5"))
	d := w.device()
	p := task.Report{Phase: task.Running, Generation: 1, Seq: 4}.Properties()
	task.SignProperties(w.node, string(d.UID), p)
	mixed := maps.Clone(p)
	mixed["model"] = "digits:v1:0123456789ab"
	w.report(d.Namespace, d.Name, mixed)
	w.eventually(func() bool { return w.rejected("bad_signature") == 1 }, "one refusal")
	w.report(d.Namespace, d.Name, p)
	w.eventually(func() bool { return w.nonce().Acked == 4 }, "nonce with acked seq 4")

	b := task.Beat{Version: "test", StateHash: task.StateHash(nil), Seq: 7}.Properties()
	task.SignProperties(w.node, "edge1", b)
	mixed = maps.Clone(b)
	mixed["version"] = "older"
	w.report("sedna", task.NodeDeviceName("edge1"), mixed)
	w.eventually(func() bool { return w.rejected("bad_signature") == 2 }, "two refusals")
	w.report("sedna", task.NodeDeviceName("edge1"), b)
	w.eventually(func() bool {
		n, err := twin.NonceOf(w.nodeDevice())
		return err == nil && n.Acked == 7
	}, "the beat acknowledged")
}

// What was delivered again while the link was down is not left to the back-off.
func TestBeatBringsARepairForward(t *testing.T) {
	const after = 2 * time.Second
	w := startWorld(t, false, twin.Timings{RepairAfter: after, UnboundFor: 10 * time.Millisecond})
	w.sync(want("0.5"))
	w.taskReport(task.Running, 1, 1, w.node)
	w.eventually(func() bool { return w.nonce().Acked == 1 }, "the report acknowledged")
	w.beat(1, task.StateHash(nil))
	w.sync(want("0.7"))
	w.eventually(func() bool { return w.nonce().N == 1 }, "a nonce repair")
	first := time.Now()
	seq := int64(1)
	w.eventually(func() bool {
		seq++
		w.beat(seq, task.StateHash(nil))
		return w.nonce().N == 2
	}, "another")
	if took := time.Since(first); took > 3*after/2 {
		t.Errorf("the next repair came %v after the first, as if no beat had come", took)
	}
}

// A Device that is bound while edgecore is away is not registered, and nothing
// but another binding helps: its back-off counts a binding and the raised nonce
// that follows as one.
func TestDeviceThatNeverReportedIsBoundAgainSoon(t *testing.T) {
	const after = time.Second
	w := startWorld(t, false, twin.Timings{RepairAfter: after, UnboundFor: 10 * time.Millisecond})
	w.beat(1, task.StateHash(nil))
	w.eventually(func() bool {
		n, err := twin.NonceOf(w.nodeDevice())
		return err == nil && n.Acked == 1
	}, "the beat acknowledged")
	w.sync(want("0.5"))
	w.eventually(func() bool { return w.device().Spec.NodeName == "" }, "the Device taken off its node")
	first := time.Now()
	w.eventually(func() bool { return w.nonce().N == 1 }, "the nonce raised")
	w.eventually(func() bool { return w.device().Spec.NodeName == "" }, "the Device taken off its node again")
	if took := time.Since(first); took > 7*after/2 {
		t.Errorf("bound anew %v after the first time, want %v", took, 5*after/2)
	}
}
