package cloud_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/edgetwin/sedna/cloud"
	"github.com/edgetwin/sedna/cloud/twin"
	"github.com/edgetwin/sedna/lib/identity"
	"github.com/edgetwin/sedna/lib/serving/servingtest"
	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
	sedna "github.com/edgetwin/sedna/models/sedna/v1alpha1"
	"github.com/edgetwin/sedna/models/task"
)

// killedDir tells the child of TestKilled where its data directory is.
const killedDir = "SEDNA_TEST_KILLED_DIR"

// child runs a GlobalManager in a process of its own.
func child(t *testing.T, dir string) (m *manager, kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
	cmd.Env = append(os.Environ(), killedDir+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	t.Cleanup(kill)
	late := time.AfterFunc(3*patience, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		text, ok := strings.CutPrefix(lines.Text(), "ready ")
		if !ok {
			continue
		}
		var e cloud.Endpoints
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			t.Fatal(err)
		}
		return connect(t, dir, e), kill
	}
	t.Fatal("the child did not get ready")
	return nil, nil
}

// TestKilled kills the GlobalManager at random points while services are made
// and deleted, and has it bring everything to its end afterwards: nothing that
// was acknowledged is lost, nothing is there twice.
func TestKilled(t *testing.T) {
	if dir := os.Getenv(killedDir); dir != "" {
		err := cloud.Run(t.Context(), testConfig(dir), slog.New(slog.DiscardHandler), func(e cloud.Endpoints) {
			b, _ := json.Marshal(e)
			fmt.Printf("\nready %s\n", b)
		})
		t.Fatal(err)
	}
	t.Parallel()
	const ns = "killed"
	dir := t.TempDir()
	m, kill := child(t, dir)
	n := m.enrol("killed-edge", nodeDir(t))
	blobs := [][]byte{servingtest.Classifier(3, 1, true), servingtest.Classifier(3, 2, true)}
	m.create(newModel(ns, "small", m.upload(blobs[0])), newModel(ns, "big", m.upload(blobs[1])))

	kept, doomed := map[string]bool{}, map[string]bool{}
	for round := range 3 {
		chance := rand.New(rand.NewPCG(uint64(round), 7))
		killed := make(chan struct{})
		after := time.Duration(chance.IntN(250)) * time.Millisecond
		go func() {
			defer close(killed)
			time.Sleep(after) // the random point
			kill()
		}()
		for i := 0; ; i++ {
			name := fmt.Sprintf("s-%d-%d", round, i)
			if m.kube.Create(t.Context(), newService(ns, name, n.Name())) != nil {
				doomed[name] = true // perhaps made, nobody was told
				break
			}
			kept[name] = true
			if chance.IntN(3) > 0 {
				continue
			}
			kept[name], doomed[name] = false, true
			if m.kube.Delete(t.Context(), &sedna.JointInferenceService{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}) != nil {
				break
			}
		}
		<-killed
		t.Logf("round %d: killed after %s, %d services made so far", round, after, len(kept))
		m, kill = child(t, dir)
	}

	// What was in doubt at a kill is deleted now; the node plays its part.
	for name := range doomed {
		err := m.kube.Delete(t.Context(), &sedna.JointInferenceService{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}})
		if client.IgnoreNotFound(err) != nil {
			t.Fatal(err)
		}
	}
	for name, keep := range kept {
		if !keep {
			continue
		}
		d, doc := m.issued(ns, name, n.Name(), task.Active)
		if doc.Generation != 1 || doc.UID != string(d.UID) || d.Spec.NodeName != n.Name() {
			t.Errorf("%s: generation %d of %s on Device %s bound to %q", name, doc.Generation, doc.UID, d.UID, d.Spec.NodeName)
		}
		text, signature := signedText(m, ns, name, n.Name())
		if err := n.Keys().Verify(text, signature); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		m.report(n, d, task.Report{Phase: task.Running, Generation: doc.Generation, Seq: 1})
	}
	for name, keep := range kept {
		if keep {
			m.ready(ns, name, "True", sedna.ReasonServing)
		}
	}
	m.bury(n, ns, doomed)
	var list devices.DeviceList
	if err := m.kube.List(t.Context(), &list, client.InNamespace(ns)); err != nil {
		t.Fatal(err)
	}
	for _, d := range list.Items {
		if !kept[d.Labels[task.LabelName]] {
			t.Errorf("Device %s of %s is left", d.Name, d.Labels[task.LabelName])
		}
	}
	want := 0
	for name, keep := range kept {
		if keep {
			want++
			m.end(n, ns, name, 2)
		}
	}
	if len(list.Items) != want {
		t.Errorf("%d Devices for %d services", len(list.Items), want)
	}
	for _, b := range blobs {
		if !m.has(shaOf(b)) {
			t.Error("a blob is gone that a Model names")
		}
	}
	m.delete(newModel(ns, "small", ""), newModel(ns, "big", ""))
	for _, b := range blobs {
		m.eventually("the blobs swept", func() bool { return !m.has(shaOf(b)) })
	}
}

// bury confirms the end of services that are being deleted until they and their
// Devices are gone.
func (m *manager) bury(n *identity.Node, ns string, names map[string]bool) {
	m.t.Helper()
	confirmed := map[types.UID]bool{}
	m.eventually("the deleted services gone", func() bool {
		var services sedna.JointInferenceServiceList
		var tasks devices.DeviceList
		if err := errors.Join(m.kube.List(m.t.Context(), &services, client.InNamespace(ns)), m.kube.List(m.t.Context(), &tasks, client.InNamespace(ns))); err != nil {
			m.t.Fatal(err)
		}
		left := 0
		for _, j := range services.Items {
			if names[j.Name] {
				left++
			}
		}
		for _, d := range tasks.Items {
			if !names[d.Labels[task.LabelName]] {
				continue
			}
			left++
			doc, err := twin.Document(&d)
			if err != nil {
				m.t.Fatal(err)
			}
			if doc != nil && doc.State == task.Deleted && !confirmed[d.UID] {
				confirmed[d.UID] = true
				m.report(n, &d, task.Report{Phase: task.Stopped, Generation: doc.Generation, Seq: 1})
			}
		}
		return left == 0
	})
}
