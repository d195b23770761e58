package cloud_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/edgetwin/sedna/cloud"
	"github.com/edgetwin/sedna/cloud/admin"
	"github.com/edgetwin/sedna/cloud/twin"
	"github.com/edgetwin/sedna/lib/blob"
	"github.com/edgetwin/sedna/lib/identity"
	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
	sedna "github.com/edgetwin/sedna/models/sedna/v1alpha1"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// patience is how long a test waits for an event that has to come.
const patience = 20 * time.Second

// maxBlob is the limit of the GlobalManagers here.
const maxBlob = 64 << 10

func testConfig(dir string) cloud.Config {
	c := cloud.DefaultConfig()
	c.DataDir, c.HTTP, c.Kubernetes.Addr = dir, "127.0.0.1:0", "127.0.0.1:0"
	c.Limits.Blob = maxBlob
	return c
}

// manager is a GlobalManager that runs, and its administrator.
type manager struct {
	t     *testing.T
	dir   string
	at    cloud.Endpoints
	kube  client.WithWatch
	rest  *rest.Config
	admin *http.Client
	stop  func() error // stops it in good order
}

// start runs a GlobalManager in this process until stop or the end of the test.
func start(t *testing.T, dir string, changes ...func(*cloud.Config)) *manager {
	t.Helper()
	cfg := testConfig(dir)
	for _, change := range changes {
		change(&cfg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan cloud.Endpoints, 1), make(chan error, 1)
	go func() {
		done <- cloud.Run(ctx, cfg, slog.New(slog.DiscardHandler), func(e cloud.Endpoints) { ready <- e })
	}()
	var ended bool
	stop := func() error {
		cancel()
		if ended {
			return nil
		}
		ended = true
		select {
		case err := <-done:
			return err
		case <-time.After(patience):
			return fmt.Errorf("the GlobalManager does not stop")
		}
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	select {
	case e := <-ready:
		m := connect(t, dir, e)
		m.stop = stop
		return m
	case err := <-done:
		ended = true
		t.Fatalf("the GlobalManager ended: %v", err)
	case <-time.After(3 * patience):
		t.Fatal("the GlobalManager does not get ready")
	}
	return nil
}

// connect makes the clients of an administrator from the kubeconfig.
func connect(t *testing.T, dir string, e cloud.Endpoints) *manager {
	t.Helper()
	cfg, err := clientcmd.BuildConfigFromFlags("", e.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	cfg.QPS = -1
	known := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{sedna.AddToScheme, devices.AddToScheme} {
		if err := add(known); err != nil {
			t.Fatal(err)
		}
	}
	kube, err := client.NewWithWatch(cfg, client.Options{Scheme: known})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cfg.CertData, cfg.KeyData)
	if err != nil {
		t.Fatal(err)
	}
	m := &manager{t: t, dir: dir, at: e, kube: kube, rest: cfg}
	m.admin = m.client(pair)
	return m
}

// client trusts the server and shows a certificate, if given one.
func (m *manager) client(certificates ...tls.Certificate) *http.Client {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(m.rest.CAData)
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, Certificates: certificates},
		ForceAttemptHTTP2: true,
	}
	m.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

// anonymous shows no certificate.
func (m *manager) anonymous() *http.Client { return m.client() }

// of gives the same GlobalManager for a subtest.
func (m *manager) of(t *testing.T) *manager {
	own := *m
	own.t = t
	return &own
}

func (m *manager) token(node string) string {
	m.t.Helper()
	text, err := cloud.CreateToken(m.dir, node, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	return text
}

// enrol makes a node of the directory's key.
func (m *manager) enrol(name, dir string) *identity.Node {
	m.t.Helper()
	n, err := identity.Enrol(m.t.Context(), m.at.GlobalManager, m.token(name), name, dir)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(n.HTTPClient().CloseIdleConnections)
	return n
}

// answer is what came back from a door.
type answer struct {
	status int
	code   wire.Code // of a refusal
	body   []byte
}

func (m *manager) do(c *http.Client, method, url string, body []byte) answer {
	m.t.Helper()
	if strings.HasPrefix(url, "/") {
		url = m.at.GlobalManager + url
	}
	req, err := http.NewRequestWithContext(m.t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		m.t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		m.t.Fatal(err)
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode}
	if a.body, err = io.ReadAll(resp.Body); err != nil {
		m.t.Fatal(err)
	}
	if a.status >= 400 {
		a.code = wire.ParseError(a.status, a.body).Code
	}
	return a
}

// refused wants a refusal with the code's own status, counted once at a door.
func (m *manager) refused(door string, code wire.Code, ask func() answer) {
	m.t.Helper()
	before := m.rejected(door, code)
	if a := ask(); a.code != code || a.status != code.Status() {
		m.t.Errorf("answered %d %s, want %s", a.status, a.body, code)
	}
	if n := m.rejected(door, code) - before; n != 1 {
		m.t.Errorf("%d refusals counted at door %s with code %s, want 1", n, door, code)
	}
}

// rejected reads sedna_rejected_total.
func (m *manager) rejected(door string, code wire.Code) int {
	m.t.Helper()
	a := m.do(m.admin, "GET", "/metrics", nil)
	if a.status != http.StatusOK {
		m.t.Fatalf("metrics: %d %s", a.status, a.body)
	}
	for line := range strings.Lines(string(a.body)) {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), fmt.Sprintf("sedna_rejected_total{code=%q,door=%q} ", code, door)); ok {
			n, err := strconv.Atoi(text)
			if err != nil {
				m.t.Fatal(err)
			}
			return n
		}
	}
	return 0
}

// await follows one object until ok holds; ok gets nil when it does not exist.
func await[T any, P interface {
	*T
	client.Object
}](m *manager, list client.ObjectList, ns, name, what string, ok func(P) bool) P {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), patience)
	defer cancel()
	events, err := m.kube.Watch(ctx, list, client.InNamespace(ns), client.MatchingFields{"metadata.name": name})
	if err != nil {
		m.t.Fatal(err)
	}
	defer events.Stop()
	last := P(new(T))
	if err := m.kube.Get(ctx, client.ObjectKey{Namespace: ns, Name: name}, last); err != nil {
		last = nil
		if client.IgnoreNotFound(err) != nil {
			m.t.Fatal(err)
		}
	}
	for !ok(last) {
		select {
		case e := <-events.ResultChan():
			o, typed := e.Object.(P)
			if !typed {
				m.t.Fatalf("watch for %s: %v", what, e.Object)
			}
			if last = o; e.Type == watch.Deleted {
				last = nil
			}
		case <-ctx.Done():
			b, _ := json.MarshalIndent(last, "", " ")
			m.t.Fatalf("did not see %s; last %s", what, b)
		}
	}
	return last
}

// eventually asks again until the answer is good: for what the GlobalManager's
// caches follow a moment later, of which it tells nobody.
func (m *manager) eventually(what string, ok func() bool) {
	m.t.Helper()
	late := time.After(patience)
	for !ok() {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-late:
			m.t.Fatalf("did not see %s", what)
		}
	}
}

func (m *manager) create(objects ...client.Object) {
	m.t.Helper()
	for _, o := range objects {
		if err := m.kube.Create(m.t.Context(), o); err != nil {
			m.t.Fatal(err)
		}
	}
}

func (m *manager) delete(objects ...client.Object) {
	m.t.Helper()
	for _, o := range objects {
		if err := m.kube.Delete(m.t.Context(), o); err != nil {
			m.t.Fatal(err)
		}
	}
}

// upload stores a blob as an administrator.
func (m *manager) upload(content []byte) (sha string) {
	m.t.Helper()
	info, err := blob.NewClient(m.at.GlobalManager, blob.Options{HTTP: m.admin}).Upload(m.t.Context(), bytes.NewReader(content))
	if err != nil {
		m.t.Fatal(err)
	}
	return info.SHA256
}

// has tells whether a blob is stored.
func (m *manager) has(sha string) bool {
	m.t.Helper()
	return m.do(m.admin, "HEAD", blob.Path+sha, nil).status == http.StatusOK
}

func shaOf(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

func newModel(ns, name, sha string) *sedna.Model {
	return &sedna.Model{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec: sedna.ModelSpec{URL: task.BlobURLPrefix + sha, Format: "onnx"}}
}

func newService(ns, name, node string) *sedna.JointInferenceService {
	j := &sedna.JointInferenceService{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
	j.Spec.EdgeWorker.NodeName = node
	j.Spec.EdgeWorker.Model.Name, j.Spec.CloudWorker.Model.Name = "small", "big"
	j.Spec.EdgeWorker.HardExampleMining.Name = "CloudOnly"
	return j
}

// modelReady awaits a Model's Ready condition.
func (m *manager) modelReady(ns, name, status, reason string) {
	m.t.Helper()
	await(m, &sedna.ModelList{}, ns, name, fmt.Sprintf("Model %s Ready=%s %s", name, status, reason), func(o *sedna.Model) bool {
		if o == nil {
			return false
		}
		c := meta.FindStatusCondition(o.Status.Conditions, sedna.ConditionReady)
		return c != nil && string(c.Status) == status && c.Reason == reason
	})
}

// ready awaits a service's Ready condition.
func (m *manager) ready(ns, name, status, reason string) *sedna.JointInferenceService {
	m.t.Helper()
	return await(m, &sedna.JointInferenceServiceList{}, ns, name, fmt.Sprintf("service %s Ready=%s %s", name, status, reason), func(j *sedna.JointInferenceService) bool {
		if j == nil {
			return false
		}
		c := meta.FindStatusCondition(j.Status.Conditions, sedna.ConditionReady)
		return c != nil && string(c.Status) == status && c.Reason == reason && c.ObservedGeneration == j.Generation
	})
}

// issued awaits the task Device of a service, with a document in a state.
func (m *manager) issued(ns, service, node, state string) (*devices.Device, *task.Document) {
	m.t.Helper()
	var doc *task.Document
	d := await(m, &devices.DeviceList{}, ns, deviceName(ns, service, node), state+" document of "+service, func(d *devices.Device) bool {
		if d == nil {
			return false
		}
		var err error
		if doc, err = twin.Document(d); err != nil {
			m.t.Fatal(err)
		}
		return doc != nil && doc.State == state
	})
	return d, doc
}

func deviceName(ns, service, node string) string {
	return task.DeviceName(task.KindJointInference, ns, service, task.RoleEdge, node)
}

// report signs a report with the node's key and writes it as cloudcore does.
func (m *manager) report(n *identity.Node, d *devices.Device, r task.Report) {
	m.t.Helper()
	p := r.Properties()
	task.SignProperties(n.Key(), string(d.UID), p)
	st := &devices.DeviceStatus{ObjectMeta: metav1.ObjectMeta{Namespace: d.Namespace, Name: d.Name}}
	for k, v := range p {
		st.Status.Twins = append(st.Status.Twins, devices.Twin{PropertyName: k, Reported: devices.TwinProperty{
			Value: v, Metadata: map[string]string{"timestamp": strconv.FormatInt(time.Now().UnixMilli(), 10), "type": "string"}}})
	}
	body, err := json.Marshal(map[string]any{"status": st.Status})
	if err != nil {
		m.t.Fatal(err)
	}
	err = m.kube.Patch(m.t.Context(), st.DeepCopy(), client.RawPatch(types.MergePatchType, body))
	if client.IgnoreNotFound(err) == nil && err != nil {
		err = m.kube.Create(m.t.Context(), st)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// end deletes a service, with the node confirming, and waits until it is gone.
func (m *manager) end(n *identity.Node, ns, service string, seq int64) {
	m.t.Helper()
	m.delete(&sedna.JointInferenceService{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: service}})
	d, doc := m.issued(ns, service, n.Name(), task.Deleted)
	m.report(n, d, task.Report{Phase: task.Stopped, Generation: doc.Generation, Seq: seq})
	await(m, &sedna.JointInferenceServiceList{}, ns, service, "service gone", func(j *sedna.JointInferenceService) bool { return j == nil })
	await(m, &devices.DeviceList{}, ns, deviceName(ns, service, n.Name()), "Device gone", func(d *devices.Device) bool { return d == nil })
}

// revoke withdraws a node's credentials with the administrator's command.
func (m *manager) revoke(node string) {
	m.t.Helper()
	root := &cobra.Command{Use: "sedna", SilenceUsage: true}
	root.AddCommand(admin.Commands()...)
	root.SetArgs([]string{"node", "revoke", node, "--data-dir", m.dir})
	if err := root.ExecuteContext(m.t.Context()); err != nil {
		m.t.Fatal(err)
	}
}

func nodeDir(t *testing.T) string { return filepath.Join(t.TempDir(), "node") }
