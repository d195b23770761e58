package controllers_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/edgetwin/sedna/cloud/twin"
	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
	sedna "github.com/edgetwin/sedna/models/sedna/v1alpha1"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestJobs runs all tests of controllers in one world, at the same time.
func TestJobs(t *testing.T) {
	w := newWorld(t)
	for name, test := range map[string]func(*testing.T, *space){
		"Life": testLife, "ModelNotFound": testModelNotFound, "NodeNotFound": testNodeNotFound, "NodeForgotten": testNodeForgotten,
		"NeedsPodRuntime": testNeedsPodRuntime, "Unreadable": testUnreadable, "InvalidModel": testInvalidModel, "CloudModel": testCloudModel,
		"Failed": testFailed, "ForceDelete": testForceDelete, "Selector": testSelector, "LastLabelLost": testLastLabelLost,
		"Endpoint": testEndpoint, "ModelChange": testModelChange, "Predecessor": testPredecessor,
		"DeviceDeletedByHand": testDeviceDeletedByHand, "Namespaced": testNamespaced, "Repair": testRepair, "Orphan": testOrphan,
		"ManifestChange": testManifestChange, "InputsPerNode": testInputsPerNode, "Golden": testGolden, "PodsGolden": testPodsGolden, "PodsRefused": testPodsRefused,
		"ModelReady": testModelReady, "ModelVersions": testModelVersions, "ModelUse": testModelUse,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, w.space(t))
		})
	}
}

func testLife(t *testing.T, s *space) {
	n := s.enrol(t, "life-edge", nil)
	s.models()
	j := s.service("digits")
	j.Spec.EdgeWorker.NodeName = n.name
	s.create(j)

	got := s.ready("digits", "False", sedna.ReasonProgressing, "0 of 1 nodes")
	if got.Status.Phase != sedna.PhasePending || got.Status.Active != 0 || got.Status.StartTime == nil {
		t.Errorf("progressing: %+v", got.Status)
	}
	if len(got.Status.Nodes) != 1 || got.Status.Nodes[0].Phase != "Unknown" || got.Status.Nodes[0].LastReport != nil {
		t.Errorf("node before its first report: %+v", got.Status.Nodes)
	}
	s.settled("digits")
	d := s.serve(n, "digits")
	got = s.ready("digits", "True", sedna.ReasonServing, "1 of 1 nodes")
	want := sedna.NodeStatus{Name: n.name, Device: d.Name, Phase: task.Running, Generation: 1, DesiredGeneration: 1, Model: "small:1:aaaaaaaaaaaa"}
	node := got.Status.Nodes[0]
	if node.LastReport == nil || time.Since(node.LastReport.Time) > time.Minute {
		t.Errorf("last report at %v", node.LastReport)
	}
	node.LastReport = nil
	if node != want || got.Status.Phase != sedna.PhaseRunning || got.Status.Active != 1 || got.Status.Failed != 0 {
		t.Errorf("serving: %+v, want node %+v", got.Status, want)
	}
	s.settled("digits")
	if m, ok, _ := s.cloud.of(wire.Service(s.ns, "digits")); !ok || m.Name != "big" || m.SHA256 != digest("b") {
		t.Errorf("the cloud serves %+v", m)
	}

	s.delete(j)
	got = s.ready("digits", "False", sedna.ReasonStopping, "1 nodes", twin.AnnotationForceDelete)
	if got.Status.Phase != sedna.PhaseStopping {
		t.Errorf("stopping: phase %s", got.Status.Phase)
	}
	if _, ok, _ := s.cloud.of(wire.Service(s.ns, "digits")); ok {
		t.Error("the cloud still serves a service that is being deleted")
	}
	s.settled("digits")
	s.stopped(n, "digits")
	s.gone("digits")
	s.noDevice("digits", n.name)
}

func testModelNotFound(t *testing.T, s *space) {
	n := s.enrol(t, "modelless-edge", nil)
	j := s.service("a")
	j.Spec.EdgeWorker.NodeName = n.name
	s.create(j)
	s.ready("a", "False", sedna.ReasonModelNotFound, s.ns+"/small")
	s.settled("a")
	s.model("small", "a")
	s.ready("a", "False", sedna.ReasonModelNotFound, s.ns+"/big")
	s.noDevice("a", n.name)
	big := s.model("big", "b")
	s.serve(n, "a")
	s.ready("a", "True", sedna.ReasonServing)

	// What serves goes on serving when a Model goes.
	s.delete(big)
	got := s.ready("a", "False", sedna.ReasonModelNotFound, s.ns+"/big")
	if got.Status.Active != 1 || got.Status.Phase != sedna.PhaseRunning {
		t.Errorf("status %+v", got.Status)
	}
	if doc := s.document(s.issued("a", n.name, 1)); doc.Generation != 1 {
		t.Errorf("generation %d", doc.Generation)
	}
}

func testNodeNotFound(t *testing.T, s *space) {
	s.models()
	j := s.service("a")
	j.Spec.EdgeWorker.NodeName = "late-edge"
	s.create(j)
	s.ready("a", "False", sedna.ReasonNodeNotFound, `"late-edge"`, "sedna token create --node late-edge")
	s.settled("a")
	n := s.enrol(t, "late-edge", nil)
	s.serve(n, "a")
	s.ready("a", "True", sedna.ReasonServing)
}

func testNodeForgotten(t *testing.T, s *space) {
	s.models()
	n := s.enrol(t, "forgotten-edge", nil)
	j := s.service("a")
	j.Spec.EdgeWorker.NodeName = n.name
	s.create(j)
	first := s.serve(n, "a")
	s.ready("a", "True", sedna.ReasonServing)

	d := &devices.Device{ObjectMeta: metav1.ObjectMeta{Namespace: "sedna", Name: task.NodeDeviceName(n.name)}}
	s.delete(d)
	s.ready("a", "False", sedna.ReasonNodeNotFound)
	s.until("a", "no node that serves", func(j *sedna.JointInferenceService) bool {
		return len(j.Status.Nodes) == 0 && j.Status.Active == 0
	})
	s.noDevice("a", n.name)
	n = s.enrol(t, n.name, nil)
	if again := s.serve(n, "a"); again.UID == first.UID {
		t.Error("the task of the forgotten node lives on")
	}
	s.ready("a", "True", sedna.ReasonServing)
}

func template(t *testing.T, container string) *sedna.PodTemplate {
	t.Helper()
	p, err := sedna.NewPodTemplate(corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: container, Image: "i/" + container}}}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func testNeedsPodRuntime(t *testing.T, s *space) {
	s.enrol(t, "pod-edge", nil)
	s.models()
	for name, c := range map[string]struct {
		edge, cloud *sedna.PodTemplate
		words       []string
	}{
		"edge":  {edge: template(t, "little"), words: []string{"edgeWorker.template", `"little"`, "leave the template out"}},
		"cloud": {cloud: template(t, "large"), words: []string{"cloudWorker.template", `"large"`, "leave the template out"}},
		"both":  {edge: template(t, "little"), cloud: template(t, "large"), words: []string{"edgeWorker.template", `"little"`}},
	} {
		j := s.service(name)
		j.Spec.EdgeWorker.Template, j.Spec.CloudWorker.Template = c.edge, c.cloud
		j.Spec.EdgeWorker.NodeName = "pod-edge"
		s.create(j)
		s.ready(name, "False", sedna.ReasonNeedsPodRuntime, c.words...)
		s.settled(name)
		s.noDevice(name, "pod-edge")
	}
}

func testUnreadable(t *testing.T, s *space) {
	s.enrol(t, "unreadable-edge", nil)
	s.models()
	for name, c := range map[string]struct {
		spoil func(*sedna.EdgeWorker)
		words []string
	}{
		"template": {func(w *sedna.EdgeWorker) {
			w.Template = &sedna.PodTemplate{Object: sedna.Object{Raw: []byte(`{"spec":{"containers":[{"name":"w","image":"i","livenessProbe":{"httpGet":5}}]}}`)}}
		}, []string{"edgeWorker.template", "spec.containers[0].livenessProbe.httpGet", "expected an object"}},
		"plugin": {func(w *sedna.EdgeWorker) {
			w.HardExampleMining.Plugin = &sedna.Plugin{URL: "http://127.0.0.1:8000"}
		}, []string{"edgeWorker.hardExampleMining.plugin", "template"}},
	} {
		j := s.service(name)
		j.Spec.EdgeWorker.NodeName = "unreadable-edge"
		c.spoil(&j.Spec.EdgeWorker)
		s.create(j)
		s.ready(name, "False", sedna.ReasonInvalid, c.words...)
		s.settled(name)
		s.noDevice(name, "unreadable-edge")
	}
}

func testInvalidModel(t *testing.T, s *space) {
	n := s.enrol(t, "invalid-edge", nil)
	s.model("big", "b")
	small := s.model("small", "a")
	good := sedna.Preprocess{Width: 8, Height: 8, Mean: []string{"0.5"}, Std: []string{"0.5"}, Scale: "0.1"}
	s.change(small, func() { small.Spec.Preprocess = good.DeepCopy() })
	j := s.service("a")
	j.Spec.EdgeWorker.NodeName = n.name
	s.create(j)
	s.serve(n, "a")
	s.ready("a", "True", sedna.ReasonServing)

	for _, c := range []struct {
		field string
		spoil func(*sedna.ModelSpec)
	}{
		{"spec.preprocess.std[1]", func(m *sedna.ModelSpec) { m.Preprocess.Std = []string{"1", "0"} }},
		{"spec.preprocess.mean[0]", func(m *sedna.ModelSpec) { m.Preprocess.Mean = []string{string(bytes.Repeat([]byte("9"), 400))} }},
		{"spec.preprocess.scale", func(m *sedna.ModelSpec) { m.Preprocess.Scale = string(bytes.Repeat([]byte("9"), 400)) }},
		{"spec.sha256", func(m *sedna.ModelSpec) { m.SHA256 = digest("f") }},
	} {
		s.change(small, func() { c.spoil(&small.Spec) })
		s.ready("a", "False", sedna.ReasonInvalid, "Model "+s.ns+"/small", c.field)
		s.modelReady("small", "False", sedna.ReasonInvalid, c.field)
		s.change(small, func() { small.Spec.Preprocess, small.Spec.SHA256 = good.DeepCopy(), "" })
		s.ready("a", "True", sedna.ReasonServing)
	}
	if g := s.document(s.issued("a", n.name, 1)).Generation; g != 1 {
		t.Errorf("an invalid Model was issued: generation %d", g)
	}
}

func testCloudModel(t *testing.T, s *space) {
	n := s.enrol(t, "cloud-edge", nil)
	s.model("small", "a")
	big := s.model("unservable", "b")
	s.cloud.fail("unservable", wire.E(wire.BadModel, "", "not an ONNX file", ""))
	j := s.service("a")
	j.Spec.CloudWorker.Model.Name = "unservable"
	j.Spec.EdgeWorker.NodeName = n.name
	s.create(j)
	s.ready("a", "False", sedna.ReasonFailed, "cloudWorker", s.ns+"/unservable", "not an ONNX file")
	s.settled("a")
	s.cloud.fail("unservable", nil)
	s.change(big, func() { big.Spec.Version = "2" })
	s.serve(n, "a")
	s.ready("a", "True", sedna.ReasonServing)
}

func testFailed(t *testing.T, s *space) {
	one, two := s.enrol(t, "failed-1", map[string]string{"fails": "yes"}), s.enrol(t, "failed-2", map[string]string{"fails": "yes"})
	s.models()
	j := s.service("a")
	j.Spec.EdgeWorker.NodeSelector = map[string]string{"fails": "yes"}
	s.create(j)
	s.serve(one, "a")
	d := s.issued("a", two.name, 1)
	two.report(t, d, task.Report{Phase: task.Failed, Generation: 1, Reason: "BadModel", Detail: "cannot load: größer als der Speicher"})
	got := s.ready("a", "False", sedna.ReasonFailed, "failed-2", "BadModel", "größer als der Speicher")
	if got.Status.Phase != sedna.PhaseFailed || got.Status.Failed != 1 {
		t.Errorf("status %+v", got.Status)
	}
	s.settled("a")
	two.report(t, d, task.Report{Phase: task.Running, Generation: 1})
	if got = s.ready("a", "True", sedna.ReasonServing, "2 of 2"); got.Status.Failed != 0 || got.Status.Active != 2 {
		t.Errorf("status %+v", got.Status)
	}
}

func testForceDelete(t *testing.T, s *space) {
	n := s.enrol(t, "force-edge", nil)
	s.models()
	j := s.service("a")
	j.Spec.EdgeWorker.NodeName = n.name
	s.create(j)
	s.serve(n, "a")
	s.delete(j)
	s.ready("a", "False", sedna.ReasonStopping)
	s.change(j, func() { j.Annotations = map[string]string{twin.AnnotationForceDelete: "yes"} })
	s.gone("a")
	// The task is still to end at the node, should it return.
	d := s.device("a", n.name, "the deletion document", func(_ *devices.Device, doc *task.Document) bool { return doc != nil && doc.State == task.Deleted })
	s.change(d, func() { d.Annotations[twin.AnnotationForceDelete] = "yes" })
	s.noDevice("a", n.name)
}

func testSelector(t *testing.T, s *space) {
	site := func(v string) map[string]string { return map[string]string{"site": v} }
	s.models()
	j := s.service("a")
	j.Spec.EdgeWorker.NodeSelector = map[string]string{"site": "hall-1", "gpu": "no"}
	s.create(j)
	s.ready("a", "False", sedna.ReasonNodeNotFound, "nodeSelector")
	s.settled("a")

	one := s.enrol(t, "selected-1", map[string]string{"site": "hall-1", "gpu": "no"})
	other := s.enrol(t, "selected-other", map[string]string{"site": "hall-1", "gpu": "yes"})
	s.serve(one, "a")
	s.ready("a", "True", sedna.ReasonServing, "1 of 1")
	two := s.enrol(t, "selected-2", map[string]string{"gpu": "no"})
	two.label(t, site("hall-1"))
	s.ready("a", "False", sedna.ReasonProgressing, "1 of 2")
	s.serve(two, "a")
	got := s.ready("a", "True", sedna.ReasonServing, "2 of 2")
	if got.Status.Nodes[0].Name != one.name || got.Status.Nodes[1].Name != two.name {
		t.Errorf("nodes %+v", got.Status.Nodes)
	}
	s.noDevice("a", other.name)

	one.label(t, site(""))
	s.stopped(one, "a")
	s.noDevice("a", one.name)
	s.ready("a", "True", sedna.ReasonServing, "1 of 1")
	if doc := s.document(s.issued("a", two.name, 1)); doc.Generation != 1 {
		t.Errorf("the node that stays got generation %d", doc.Generation)
	}
	s.settled("a")
}

func testLastLabelLost(t *testing.T, s *space) {
	n := s.enrol(t, "lost-edge", map[string]string{"lost": "not-yet"})
	s.models()
	j := s.service("a")
	j.Spec.EdgeWorker.NodeSelector = map[string]string{"lost": "not-yet"}
	s.create(j)
	s.serve(n, "a")
	s.ready("a", "True", sedna.ReasonServing)
	n.label(t, map[string]string{"lost": ""})
	s.stopped(n, "a")
	s.noDevice("a", n.name)
	s.ready("a", "False", sedna.ReasonNodeNotFound)
	s.until("a", "no nodes", func(j *sedna.JointInferenceService) bool { return len(j.Status.Nodes) == 0 })
}

func testEndpoint(t *testing.T, s *space) {
	n := s.enrol(t, "endpoint-edge", nil)
	s.models()
	j := s.service("a")
	j.Spec.EdgeWorker.NodeName = n.name
	s.create(j)
	s.serve(n, "a")
	service := wire.Service(s.ns, "a")
	if _, ok, _ := s.cloud.of(service); !ok {
		t.Fatal("the cloud does not serve")
	}
	s.change(j, func() {
		j.Spec.CloudWorker.Endpoint = "https://triton.example:8000/"
		j.Spec.CloudWorker.Model.Name = "theirs" // no Model of ours
	})
	d := s.issued("a", n.name, 2)
	spec, err := s.document(d).JointInference()
	if err != nil || spec.Cloud.URL != "https://triton.example:8000" || spec.Cloud.Model != "theirs" {
		t.Errorf("cloud side %+v, %v", spec.Cloud, err)
	}
	if _, ok, removed := s.cloud.of(service); ok || removed == 0 {
		t.Errorf("the cloud still serves (%v), removed %d times", ok, removed)
	}
	s.change(j, func() { j.Spec.CloudWorker.Endpoint, j.Spec.CloudWorker.Model.Name = "", "big" })
	spec, err = s.document(s.issued("a", n.name, 3)).JointInference()
	if err != nil || spec.Cloud.URL != "/" || spec.Cloud.Model != service {
		t.Errorf("cloud side %+v, %v", spec.Cloud, err)
	}
	if _, ok, _ := s.cloud.of(service); !ok {
		t.Error("the cloud does not serve again")
	}
}

func testModelChange(t *testing.T, s *space) {
	n := s.enrol(t, "change-edge", nil)
	s.model("big", "b")
	small := s.model("small", "a")
	j := s.service("a")
	j.Spec.EdgeWorker.NodeName = n.name
	s.create(j)
	s.serve(n, "a")
	s.ready("a", "True", sedna.ReasonServing)

	s.change(small, func() { small.Spec.URL = task.BlobURLPrefix + digest("c") })
	s.issued("a", n.name, 2)
	s.ready("a", "False", sedna.ReasonProgressing)
	d := s.serve(n, "a")
	s.ready("a", "True", sedna.ReasonServing)
	// What does not touch the task issues nothing: metadata, status, the cloud's
	// own model, and looking again.
	s.change(small, func() { small.Labels = map[string]string{"touched": "yes"} })
	s.blobs.put(digest("c"), 5)
	s.modelReady("small", "True", sedna.ReasonAvailable, "")
	big := &sedna.Model{}
	if err := s.c.Get(t.Context(), client.ObjectKey{Namespace: s.ns, Name: "big"}, big); err != nil {
		t.Fatal(err)
	}
	s.change(big, func() { big.Spec.URL = task.BlobURLPrefix + digest("d") })
	s.modelReady("big", "False", sedna.ReasonNotStored, digest("d"))
	s.settled("a")
	if m, _, _ := s.cloud.of(wire.Service(s.ns, "a")); m.SHA256 != digest("d") {
		t.Errorf("the cloud serves %s", m.SHA256)
	}
	if doc := s.document(s.issued("a", n.name, 1)); doc.Generation != 2 || doc.UID != string(d.UID) {
		t.Errorf("generation %d of %s, want 2 of %s", doc.Generation, doc.UID, d.UID)
	}
}

func testManifestChange(t *testing.T, s *space) {
	n := s.enrol(t, "manifest-edge", nil)
	s.models()
	j := s.service("a")
	j.Spec.EdgeWorker.NodeName = n.name
	s.create(j)
	s.issued("a", n.name, 1)
	s.change(j, func() { j.Spec.EdgeWorker.HardExampleMining.Parameters[0].Value = "0.9" })
	d := s.issued("a", n.name, 2)
	spec, err := s.document(d).JointInference()
	if err != nil || spec.HardExample.Map()["threshold_cross_entropy"] != "0.9" {
		t.Errorf("%+v, %v", spec, err)
	}
	s.ready("a", "False", sedna.ReasonProgressing)
	// A report about the old document is not one about the new.
	n.report(t, d, task.Report{Phase: task.Running, Generation: 1})
	s.until("a", "the old generation running", func(j *sedna.JointInferenceService) bool {
		return j.Status.Active == 1 && meta.IsStatusConditionFalse(j.Status.Conditions, sedna.ConditionReady)
	})
	// Another node: the old one stops, the new one starts.
	m := s.enrol(t, "manifest-edge-2", nil)
	s.change(j, func() { j.Spec.EdgeWorker.NodeName = m.name })
	s.stopped(n, "a")
	s.serve(m, "a")
	s.noDevice("a", n.name)
	s.ready("a", "True", sedna.ReasonServing, "1 of 1")
}

func testPredecessor(t *testing.T, s *space) {
	n := s.enrol(t, "pre-edge", nil)
	s.models()
	j := s.service("a")
	j.Spec.EdgeWorker.NodeName = n.name
	s.create(j)
	old := s.serve(n, "a")
	s.ready("a", "True", sedna.ReasonServing)
	s.delete(j)
	s.ready("a", "False", sedna.ReasonStopping)
	s.change(j, func() { j.Annotations = map[string]string{twin.AnnotationForceDelete: "yes"} })
	s.gone("a")

	again := s.service("a")
	again.Spec.EdgeWorker.NodeName = n.name
	s.create(again)
	s.ready("a", "False", sedna.ReasonProgressing, "predecessor")
	s.settled("a")
	s.stopped(n, "a")
	d := s.device("a", n.name, "a new Device", func(d *devices.Device, doc *task.Document) bool { return d != nil && d.UID != old.UID && doc != nil })
	if doc := s.document(d); doc.Generation != 1 || doc.State != task.Active || doc.UID != string(d.UID) || d.Labels[task.LabelUID] != string(again.UID) {
		t.Errorf("document %+v on %s, labels %v", doc, d.UID, d.Labels)
	}
	n.report(t, d, task.Report{Phase: task.Running, Generation: 1})
	s.ready("a", "True", sedna.ReasonServing)
}

func testDeviceDeletedByHand(t *testing.T, s *space) {
	n := s.enrol(t, "hand-edge", nil)
	s.models()
	j := s.service("a")
	j.Spec.EdgeWorker.NodeName = n.name
	s.create(j)
	old := s.serve(n, "a")
	s.ready("a", "True", sedna.ReasonServing)
	s.delete(old)
	s.stopped(n, "a")
	s.device("a", n.name, "a new Device", func(d *devices.Device, doc *task.Document) bool {
		return d != nil && d.UID != old.UID && doc != nil && doc.Generation == 1
	})
}

// testNamespaced keeps services of one name in two namespaces apart.
func testNamespaced(t *testing.T, s *space) {
	n := s.enrol(t, "space-edge", nil)
	twice := []*space{s, {world: s.world, t: t, ns: s.ns + "-2"}}
	names := map[string]bool{}
	for _, s := range twice {
		s.models()
		j := s.service("same")
		j.Spec.EdgeWorker.NodeName = n.name
		s.create(j)
		d := s.serve(n, "same")
		names[d.Name] = true
		s.ready("same", "True", sedna.ReasonServing)
		service := s.ns + ".same"
		spec, err := s.document(d).JointInference()
		if err != nil || spec.Cloud.Model != service {
			t.Errorf("the node asks for %+v, %v", spec.Cloud, err)
		}
		if _, ok, _ := s.cloud.of(service); !ok {
			t.Errorf("the cloud does not serve %s", service)
		}
	}
	if len(names) != 2 {
		t.Errorf("the Devices have one name: %v", names)
	}
	j := twice[1].service("same")
	s.delete(j)
	twice[1].stopped(n, "same")
	twice[1].gone("same")
	if _, ok, _ := s.cloud.of(s.ns + ".same"); !ok {
		t.Error("the other namespace's service is not served any more")
	}
	s.ready("same", "True", sedna.ReasonServing)
}

// testRepair has a node that is there and does not confirm: that the Device is
// delivered again, and bound anew, is no change of the task.
func testRepair(t *testing.T, s *space) {
	n := s.enrol(t, "repair-edge", nil)
	s.models()
	n.beat(t)
	j := s.service("a")
	j.Spec.EdgeWorker.NodeName = n.name
	s.create(j)
	unbound := 0
	s.device("a", n.name, "the Device bound anew twice", func(d *devices.Device, doc *task.Document) bool {
		if doc != nil && doc.Generation != 1 {
			t.Fatalf("a repair raised the generation to %d", doc.Generation)
		}
		if doc != nil && d.Spec.NodeName == "" {
			unbound++
		}
		return unbound >= 2
	})
	s.device("a", n.name, "the Device bound", func(d *devices.Device, doc *task.Document) bool { return d.Spec.NodeName == n.name })
	s.serve(n, "a")
	s.ready("a", "True", sedna.ReasonServing)
	// A repair that was killed half way: whoever binds the Device again, the
	// service's controller or the Device's own, issues nothing.
	for range 30 {
		d := s.issued("a", n.name, 1)
		s.change(d, func() { d.Spec.NodeName = "" })
		s.device("a", n.name, "the Device bound", func(d *devices.Device, doc *task.Document) bool {
			if doc.Generation != 1 {
				t.Fatalf("binding anew raised the generation to %d", doc.Generation)
			}
			return d.Spec.NodeName == n.name
		})
	}
}

// testOrphan finds a Device whose service went before the cache showed it.
func testOrphan(t *testing.T, s *space) {
	n := s.enrol(t, "orphan-edge", nil)
	s.models()
	j := s.service("a")
	j.Spec.EdgeWorker.NodeName = n.name
	s.create(j)
	d := s.issued("a", n.name, 1)
	d.ObjectMeta = metav1.ObjectMeta{
		Namespace: s.ns, Name: task.DeviceName(task.KindJointInference, s.ns, "ghost", task.RoleEdge, n.name),
		Labels: d.Labels, Annotations: d.Annotations, Finalizers: d.Finalizers,
	}
	d.Labels[task.LabelName], d.Labels[task.LabelUID] = "ghost", "gone-with-the-service"
	s.create(d)
	s.stopped(n, "ghost")
	s.noDevice("ghost", n.name)
}

// testInputsPerNode has nodes that read sensors of their own.
func testInputsPerNode(t *testing.T, s *space) {
	nodes := []*node{s.enrol(t, "inputs-1", map[string]string{"line": "a"}), s.enrol(t, "inputs-2", map[string]string{"line": "a"})}
	s.models()
	j := s.service("watch")
	j.Spec.EdgeWorker.NodeSelector = map[string]string{"line": "a"}
	j.Spec.EdgeWorker.Inputs = []sedna.Input{{
		Tensor: "input", Window: 8, Stride: 2, MaxAge: &metav1.Duration{Duration: 1500 * time.Millisecond}, OnMissing: "last",
		Sources: []sedna.InputSource{{Device: "pump-{node}", Property: "vibration"}, {Topic: "plant/{node}/climate", JSONPath: "$.t"}},
	}}
	j.Spec.EdgeWorker.ResultProperty = &sedna.ResultProperty{Device: "pump-{node}", Property: "alarm", Value: "class"}
	s.create(j)
	for _, n := range nodes {
		spec, err := s.document(s.issued("watch", n.name, 1)).JointInference()
		if err != nil {
			t.Fatalf("the node would refuse it: %v", err)
		}
		want := task.JointInference{
			Inputs: []task.Input{{
				Tensor: "input", Window: 8, Stride: 2, MaxAgeMilliseconds: 1500, OnMissing: "last",
				Sources: []task.InputSource{{Device: "pump-" + n.name, Property: "vibration"}, {Topic: "plant/" + n.name + "/climate", JSONPath: "$.t"}},
			}},
			Result: &task.ResultProperty{Device: "pump-" + n.name, Property: "alarm", Value: "class"},
		}
		if !reflect.DeepEqual(spec.Inputs, want.Inputs) || !reflect.DeepEqual(spec.Result, want.Result) {
			t.Errorf("node %s: %+v, %+v", n.name, spec.Inputs, spec.Result)
		}
	}
}

func testGolden(t *testing.T, s *space) {
	text, err := os.ReadFile("../../examples/demo/manifests/digits.yaml")
	if err != nil {
		t.Fatal(err)
	}
	j := &sedna.JointInferenceService{}
	if err := yaml.UnmarshalStrict(text, j); err != nil {
		t.Fatal(err)
	}
	s.ns = j.Namespace
	n := s.enrol(t, j.Spec.EdgeWorker.NodeName, nil)
	small := s.model("digits-small", "a")
	s.change(small, func() {
		small.Spec.Labels, small.Spec.Postprocess = []string{"zero", "one"}, "none"
		small.Spec.Preprocess = &sedna.Preprocess{Width: 8, Height: 8, Channels: "GRAY", Layout: "FLAT", Scale: "0.0625"}
	})
	s.model("digits-big", "b")
	s.create(j)
	d := s.issued("digits", n.name, 1)
	var signed, signature string
	for _, p := range d.Spec.Properties {
		switch p.Name {
		case task.PropTask:
			signed = p.Desired.Value
		case task.PropSignature:
			signature = p.Desired.Value
		}
	}
	if err := task.NewKeys(s.signing.Public().(ed25519.PublicKey)).Verify([]byte(signed), signature); err != nil {
		t.Error(err)
	}
	doc := s.document(d)
	if doc.UID != string(d.UID) || time.Since(doc.IssuedAt) > time.Minute {
		t.Errorf("uid %s on Device %s, issued at %s", doc.UID, d.UID, doc.IssuedAt)
	}
	if _, err := doc.JointInference(); err != nil {
		t.Errorf("the node would refuse it: %v", err)
	}
	doc.UID, doc.IssuedAt = "UID", time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	doc.Generation = 1 // 2 if the first look came before the change of the Model
	got, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "digits-task.json")
	if *update {
		if err := os.WriteFile(golden, append(got, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(bytes.TrimSpace(want)), string(got)); diff != "" {
		t.Errorf("task document (-want +got), write it anew with -update if that is meant:\n%s", diff)
	}
}
