package cloud_test

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/edgetwin/sedna/cloud"
	"github.com/edgetwin/sedna/cloud/twin"
	"github.com/edgetwin/sedna/lib/blob"
	"github.com/edgetwin/sedna/lib/config"
	"github.com/edgetwin/sedna/lib/identity"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/lib/serving/servingtest"
	"github.com/edgetwin/sedna/lib/storage/s3/s3test"
	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
	sedna "github.com/edgetwin/sedna/models/sedna/v1alpha1"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

const question = `{"inputs":[{"name":"x","datatype":"FP32","shape":[1,3],"data":[0,1,0]}]}`

func inferPath(service string) string { return "/v2/models/" + service + "/infer" }

// TestGlobalManager drives one GlobalManager through its doors, and at last
// starts it again.
func TestGlobalManager(t *testing.T) {
	t.Parallel()
	m := start(t, t.TempDir())
	for _, s := range []struct {
		name string
		test func(*manager)
	}{
		{"Tokens", testTokens}, {"Kubernetes", testKubernetes}, {"Revoked", testRevoked}, {"StolenCertificate", testStolenCertificate},
		{"Grants", testGrants}, {"Uploads", testUploads}, {"ModelWaitsForBlob", testModelWaitsForBlob}, {"Sweep", testSweep}, {"Metrics", testMetrics},
	} {
		t.Run(s.name, func(t *testing.T) { s.test(m.of(t)) })
	}
	t.Run("Restart", func(t *testing.T) { testRestart(t, m) })
}

// enrolAnswer asks for a certificate as a machine does that never was here.
func (m *manager) enrolAnswer(token, node string) answer {
	m.t.Helper()
	csr, err := identity.NodeCSR(nodeDir(m.t), node)
	if err != nil {
		m.t.Fatal(err)
	}
	body, err := json.Marshal(identity.EnrolRequest{Token: token, Node: node, CSR: string(csr)})
	if err != nil {
		m.t.Fatal(err)
	}
	return m.do(m.anonymous(), "POST", identity.EnrolPath, body)
}

func testTokens(m *manager) {
	good := m.token("token-edge")
	secret := strings.Replace(good, strings.Split(good, ".")[2], base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32)), 1)
	soon, err := cloud.CreateToken(m.dir, "token-edge", time.Nanosecond)
	if err != nil {
		m.t.Fatal(err)
	}
	for _, c := range []struct {
		name, token, node string
		code              wire.Code
	}{
		{"no token", "", "token-edge", wire.Unauthenticated},
		{"not a token", "sedna1.x.y.z", "token-edge", wire.Unauthenticated},
		{"another secret", secret, "token-edge", wire.Unauthenticated},
		{"another node's", good, "token-thief", wire.PermissionDenied},
		{"expired", soon, "token-edge", wire.TokenExpired},
		{"not a node's name", good, "../etc", wire.InvalidArgument},
	} {
		m.of(m.t).refused(metrics.DoorEnrol, c.code, func() answer {
			if c.code == wire.InvalidArgument {
				body, _ := json.Marshal(identity.EnrolRequest{Token: c.token, Node: c.node, CSR: "x"})
				return m.do(m.anonymous(), "POST", identity.EnrolPath, body)
			}
			return m.enrolAnswer(c.token, c.node)
		})
		if m.t.Failed() {
			m.t.Fatal(c.name)
		}
	}
	list := &devices.DeviceList{}
	if err := m.kube.List(m.t.Context(), list); err != nil || len(list.Items) != 0 {
		m.t.Errorf("refusals have left %d Devices, %v", len(list.Items), err)
	}
	// None of it has used the token up; using it does.
	if a := m.enrolAnswer(good, "token-edge"); a.status != http.StatusOK {
		m.t.Fatalf("good token: %d %s", a.status, a.body)
	}
	m.refused(metrics.DoorEnrol, wire.TokenUsed, func() answer { return m.enrolAnswer(good, "token-edge") })
	for _, name := range []string{"", "Edge1", "a/b", strings.Repeat("a", 64), "a..b"} {
		if text, err := cloud.CreateToken(m.dir, name, 0); !wire.IsCode(err, wire.InvalidArgument) {
			m.t.Errorf("token for %q: %q, %v", name, text, err)
		}
	}
	if _, err := cloud.CreateToken(m.t.TempDir(), "a", 0); err == nil {
		m.t.Error("a token was made where no GlobalManager is")
	}
}

func testKubernetes(m *manager) {
	n := m.enrol("kube-edge", nodeDir(m.t))
	for _, path := range []string{"/apis/sedna.io/v1alpha1/models", "/apis/devices.kubeedge.io/v1beta1/namespaces/sedna/devices", "/api"} {
		if a := m.do(n.HTTPClient(), "GET", m.at.API+path, nil); a.status != http.StatusForbidden {
			m.t.Errorf("a node's GET %s: %d", path, a.status)
		}
		if a := m.do(m.anonymous(), "GET", m.at.API+path, nil); a.status != http.StatusUnauthorized {
			m.t.Errorf("anonymous GET %s: %d", path, a.status)
		}
		if a := m.do(m.admin, "GET", m.at.API+path, nil); a.status != http.StatusOK {
			m.t.Errorf("the administrator's GET %s: %d", path, a.status)
		}
	}
	d, err := json.Marshal(newModel("default", "forged", strings.Repeat("a", 64)))
	if err != nil {
		m.t.Fatal(err)
	}
	if a := m.do(n.HTTPClient(), "POST", m.at.API+"/apis/sedna.io/v1alpha1/namespaces/default/models", d); a.status != http.StatusForbidden {
		m.t.Errorf("a node's POST: %d", a.status)
	}
	if info, err := os.Stat(m.at.Kubeconfig); err != nil || info.Mode().Perm() != 0o600 {
		m.t.Errorf("kubeconfig: %v, %v", info, err)
	}
}

// doors asks at every door for what only a valid node gets.
func (m *manager) doors(n *identity.Node, code wire.Code) {
	m.t.Helper()
	c := n.HTTPClient()
	m.refused(metrics.DoorBlob, code, func() answer { return m.do(c, "GET", blob.Path+strings.Repeat("a", 64), nil) })
	m.refused(metrics.DoorHTTP, code, func() answer { return m.do(c, "POST", inferPath("any"), []byte(question)) })
	m.refused(metrics.DoorEdgelink, code, func() answer { return m.do(c, "GET", wire.EdgelinkPath, nil) })
	before := m.rejected(metrics.DoorEnrol, code)
	certificate := n.Certificate()
	if err := identity.Renew(m.t.Context(), n); !wire.IsCode(err, code) {
		m.t.Errorf("renewal: %v, want %s", err, code)
	}
	if n := m.rejected(metrics.DoorEnrol, code) - before; n != 1 {
		m.t.Errorf("%d refused renewals counted", n)
	}
	if !certificate.Equal(n.Certificate()) {
		m.t.Error("the certificate has changed")
	}
}

func testRevoked(m *manager) {
	dir := nodeDir(m.t)
	n := m.enrol("revoked-edge", dir)
	if err := identity.Renew(m.t.Context(), n); err != nil {
		m.t.Fatal(err)
	}
	unused := m.token("revoked-edge")
	m.revoke("revoked-edge")
	m.refused(metrics.DoorEnrol, wire.Unauthenticated, func() answer { return m.enrolAnswer(unused, "revoked-edge") })
	m.eventually("the revocation", func() bool {
		return m.do(n.HTTPClient(), "GET", blob.Path+strings.Repeat("a", 64), nil).code == wire.Revoked
	})
	m.doors(n, wire.Revoked)

	// With a new token it is a node again, with the same key.
	n = m.enrol("revoked-edge", dir)
	m.eventually("the node taken back", func() bool {
		return m.do(n.HTTPClient(), "GET", blob.Path+strings.Repeat("a", 64), nil).code == wire.PermissionDenied
	})
	if err := identity.Renew(m.t.Context(), n); err != nil {
		m.t.Error(err)
	}

	// Forgotten is as good as revoked.
	m.delete(&devices.Device{ObjectMeta: metav1.ObjectMeta{Namespace: "sedna", Name: task.NodeDeviceName("revoked-edge")}})
	m.eventually("the node forgotten", func() bool {
		return m.do(n.HTTPClient(), "GET", blob.Path+strings.Repeat("a", 64), nil).code == wire.Revoked
	})
	m.doors(n, wire.Revoked)
}

func testStolenCertificate(m *manager) {
	stolen := m.enrol("stolen-edge", nodeDir(m.t))
	fresh := m.enrol("stolen-edge", nodeDir(m.t)) // another key
	m.eventually("the new key", func() bool {
		return m.do(fresh.HTTPClient(), "GET", blob.Path+strings.Repeat("a", 64), nil).code == wire.PermissionDenied
	})
	m.doors(stolen, wire.Revoked)
	if err := identity.Renew(m.t.Context(), fresh); err != nil {
		m.t.Errorf("the node itself: %v", err)
	}
	// A certificate of another CA ends the handshake, none is a stranger's.
	other, err := identity.OpenCA(m.t.TempDir(), nil)
	if err != nil {
		m.t.Fatal(err)
	}
	cert, key, err := other.ClientCert("sedna:admin", []string{identity.AdminOrganization}, time.Hour)
	if err != nil {
		m.t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		m.t.Fatal(err)
	}
	impostor := m.client(pair)
	if resp, err := impostor.Get(m.at.GlobalManager + "/metrics"); err == nil {
		resp.Body.Close()
		m.t.Errorf("another CA's administrator got %d", resp.StatusCode)
	}
	m.refused(metrics.DoorBlob, wire.Unauthenticated, func() answer {
		return m.do(m.anonymous(), "GET", blob.Path+strings.Repeat("a", 64), nil)
	})
	m.refused(metrics.DoorEdgelink, wire.Unauthenticated, func() answer { return m.do(m.anonymous(), "GET", wire.EdgelinkPath, nil) })
	m.refused(metrics.DoorHTTP, wire.Unauthenticated, func() answer { return m.do(m.anonymous(), "POST", inferPath("any"), []byte(question)) })
	m.refused(metrics.DoorHTTP, wire.Unauthenticated, func() answer { return m.do(m.anonymous(), "GET", "/metrics", nil) })
}

func testGrants(m *manager) {
	small, big := servingtest.Classifier(3, 1, true), servingtest.Classifier(3, 2, true)
	theirs := servingtest.Classifier(3, 3, true)
	one, two := m.enrol("grant-1", nodeDir(m.t)), m.enrol("grant-2", nodeDir(m.t))
	m.create(newModel("grants", "small", m.upload(small)), newModel("grants", "big", m.upload(big)), newModel("grants", "theirs", m.upload(theirs)))
	second := newService("grants", "second", "grant-2")
	second.Spec.EdgeWorker.Model.Name = "theirs"
	m.create(newService("grants", "first", "grant-1"), second)
	_, doc := m.issued("grants", "first", "grant-1", task.Active)
	m.issued("grants", "second", "grant-2", task.Active)
	for _, n := range []*identity.Node{one, two} { // the gate's cache follows
		own := map[string][]byte{"grant-1": small, "grant-2": theirs}[n.Name()]
		m.eventually("the node's own blob", func() bool {
			a := m.do(n.HTTPClient(), "GET", blob.Path+shaOf(own), nil)
			return a.status == http.StatusOK && bytes.Equal(a.body, own)
		})
	}
	for _, c := range []struct {
		n      *identity.Node
		method string
		path   string
		body   []byte
		door   string
	}{
		{one, "GET", blob.Path + shaOf(theirs), nil, metrics.DoorBlob},
		{one, "GET", blob.Path + shaOf(big), nil, metrics.DoorBlob}, // the cloud's own model
		{one, "GET", blob.Path + strings.Repeat("0", 64), nil, metrics.DoorBlob},
		{two, "GET", blob.Path + shaOf(small), nil, metrics.DoorBlob},
		{one, "PUT", blob.Path + shaOf(small), small, metrics.DoorBlob},
		{one, "PUT", blob.Path + shaOf([]byte("mine")), []byte("mine"), metrics.DoorBlob},
		{one, "POST", inferPath("grants.second"), []byte(question), metrics.DoorHTTP},
		{one, "GET", "/v2/models/grants.second", nil, metrics.DoorHTTP},
		{one, "POST", inferPath("no.such"), []byte(question), metrics.DoorHTTP},
		{two, "POST", inferPath("grants.first"), []byte(question), metrics.DoorHTTP},
		{one, "GET", "/metrics", nil, metrics.DoorHTTP},
	} {
		m.refused(c.door, wire.PermissionDenied, func() answer {
			a := m.do(c.n.HTTPClient(), c.method, c.path, c.body)
			if bytes.Contains(a.body, theirs[:64]) || bytes.Contains(a.body, []byte("outputs")) {
				m.t.Errorf("%s %s by %s was answered", c.method, c.path, c.n.Name())
			}
			return a
		})
		if m.t.Failed() {
			m.t.Fatalf("%s %s by %s", c.method, c.path, c.n.Name())
		}
	}
	if m.has(shaOf([]byte("mine"))) {
		m.t.Error("a node's upload is stored")
	}
	if a := m.do(one.HTTPClient(), "POST", inferPath("grants.first"), []byte(question)); a.status != http.StatusOK || !bytes.Contains(a.body, []byte("outputs")) {
		m.t.Errorf("a node's own service: %d %s", a.status, a.body)
	}
	for _, service := range []string{"grants.first", "grants.second"} {
		if a := m.do(m.admin, "POST", inferPath(service), []byte(question)); a.status != http.StatusOK {
			m.t.Errorf("the administrator asks %s: %d %s", service, a.status, a.body)
		}
	}
	m.refused(metrics.DoorHTTP, wire.NotFound, func() answer { return m.do(m.admin, "POST", inferPath("no.such"), []byte(question)) })
	for _, content := range [][]byte{small, big, theirs} {
		if a := m.do(m.admin, "GET", blob.Path+shaOf(content), nil); a.status != http.StatusOK || !bytes.Equal(a.body, content) {
			m.t.Errorf("the administrator's GET: %d", a.status)
		}
	}
	if err := one.Keys().Verify(signedText(m, "grants", "first", "grant-1")); err != nil {
		m.t.Errorf("document %d: %v", doc.Generation, err)
	}
	// What ends is not granted any more.
	m.end(one, "grants", "first", 1)
	m.refusedSoon(one, "GET", blob.Path+shaOf(small), nil)
	m.refusedSoon(one, "POST", inferPath("grants.first"), []byte(question))
	m.end(two, "grants", "second", 1)
}

// signedText gives the document of a task and its signature.
func signedText(m *manager, ns, service, node string) (text []byte, signature string) {
	m.t.Helper()
	d, _ := m.issued(ns, service, node, task.Active)
	for _, p := range d.Spec.Properties {
		switch p.Name {
		case task.PropTask:
			text = []byte(p.Desired.Value)
		case task.PropSignature:
			signature = p.Desired.Value
		}
	}
	return text, signature
}

func (m *manager) refusedSoon(n *identity.Node, method, path string, body []byte) {
	m.t.Helper()
	m.eventually(method+" "+path+" refused", func() bool { return m.do(n.HTTPClient(), method, path, body).code == wire.PermissionDenied })
}

func testUploads(m *manager) {
	content := bytes.Repeat([]byte("sedna"), 1000)
	sha := shaOf(content)
	tooLarge := make([]byte, maxBlob+1)
	for _, c := range []struct {
		name, sha string
		body      []byte
		code      wire.Code
	}{
		{"other bytes", sha, content[1:], wire.DigestMismatch},
		{"none", sha, nil, wire.DigestMismatch},
		{"over the limit", shaOf(tooLarge), tooLarge, wire.TooLarge},
		{"not a digest", "ABC", content, wire.InvalidArgument},
		{"a path", url.PathEscape("../../keys/x"), content, wire.InvalidArgument},
	} {
		m.refused(metrics.DoorBlob, c.code, func() answer { return m.do(m.admin, "PUT", blob.Path+c.sha, c.body) })
		if len(c.sha) == 64 && m.has(c.sha) {
			m.t.Errorf("%s: stored", c.name)
		}
		if m.t.Failed() {
			m.t.Fatal(c.name)
		}
	}
	m.refused(metrics.DoorBlob, wire.Unauthenticated, func() answer { return m.do(m.anonymous(), "PUT", blob.Path+sha, content) })
	if m.has(sha) {
		m.t.Error("a stranger's upload is stored")
	}
	atLimit := make([]byte, maxBlob)
	if a := m.do(m.admin, "PUT", blob.Path+shaOf(atLimit), atLimit); a.status != http.StatusCreated || !m.has(shaOf(atLimit)) {
		m.t.Errorf("at the limit: %d %s", a.status, a.body)
	}
}

func testModelWaitsForBlob(m *manager) {
	content := []byte("arrives later")
	m.create(newModel("waits", "late", shaOf(content)), newModel("waits", "other", strings.Repeat("e", 64)))
	m.modelReady("waits", "late", "False", sedna.ReasonNotStored)
	m.upload(content)
	m.modelReady("waits", "late", "True", sedna.ReasonAvailable)
	m.modelReady("waits", "other", "False", sedna.ReasonNotStored)
	// In parts.
	content = bytes.Repeat([]byte("in two parts"), 100)
	m.create(newModel("waits", "parts", shaOf(content)))
	m.modelReady("waits", "parts", "False", sedna.ReasonNotStored)
	const half = 600
	for _, part := range []struct{ span, text string }{{"bytes 0-599/1200", string(content[:half])}, {"bytes 600-1199/1200", string(content[half:])}} {
		req, err := http.NewRequestWithContext(m.t.Context(), "PUT", m.at.GlobalManager+blob.Path+shaOf(content), strings.NewReader(part.text))
		if err != nil {
			m.t.Fatal(err)
		}
		req.Header.Set("Content-Range", part.span)
		resp, err := m.admin.Do(req)
		if err != nil {
			m.t.Fatal(err)
		}
		resp.Body.Close()
	}
	m.modelReady("waits", "parts", "True", sedna.ReasonAvailable)
}

// testSweep relies on this: the blob of a Model that is deleted later goes
// later, so when it is gone, what is still there was spared.
func testSweep(m *manager) {
	// Somebody's own Device must not stop it, whatever its properties say.
	foreign := &devices.Device{ObjectMeta: metav1.ObjectMeta{Namespace: "sweep", Name: "washing-machine"}}
	foreign.Spec.Properties = []devices.DeviceProperty{{Name: task.PropTask, Desired: &devices.TwinProperty{Value: "boil"}}}
	m.create(foreign)
	n := m.enrol("sweep-edge", nodeDir(m.t))
	small, big := servingtest.Classifier(3, 4, true), servingtest.Classifier(3, 5, true)
	shared, fresh := []byte("two Models name this"), []byte("uploaded for a Model to come")
	gone := func(content []byte) {
		m.t.Helper()
		m.eventually("the blob gone", func() bool { return !m.has(shaOf(content)) })
	}
	for _, content := range [][]byte{small, big, shared, fresh} {
		m.upload(content)
	}
	models := map[string]*sedna.Model{}
	for name, content := range map[string][]byte{"small": small, "big": big, "shared-1": shared, "shared-2": shared} {
		models[name] = newModel("sweep", name, shaOf(content))
		m.create(models[name])
		m.modelReady("sweep", name, "True", sedna.ReasonAvailable)
	}
	marker := func() { // a sweep that saw all that was done before
		m.t.Helper()
		content := []byte(time.Now().String())
		o := newModel("sweep", "marker", m.upload(content))
		m.create(o)
		m.modelReady("sweep", "marker", "True", sedna.ReasonAvailable)
		m.delete(o)
		gone(content)
	}
	m.create(newService("sweep", "a", "sweep-edge"))
	m.issued("sweep", "a", "sweep-edge", task.Active)

	m.delete(models["small"], models["shared-1"])
	marker()
	for name, content := range map[string][]byte{"a task's": small, "another Model's": shared, "no Model's yet": fresh} {
		if !m.has(shaOf(content)) {
			m.t.Errorf("%s blob was swept", name)
		}
	}
	m.delete(models["shared-2"])
	gone(shared)
	m.end(n, "sweep", "a", 1)
	gone(small)
	// A Model that names another blob lets go of the one before.
	again := []byte("the second version")
	m.upload(again)
	before := models["big"].DeepCopy()
	models["big"].Spec.URL = task.BlobURLPrefix + shaOf(again)
	if err := m.kube.Patch(m.t.Context(), models["big"], client.MergeFrom(before)); err != nil {
		m.t.Fatal(err)
	}
	gone(big)
	if !m.has(shaOf(again)) || !m.has(shaOf(fresh)) {
		m.t.Error("too much was swept")
	}
}

func testMetrics(m *manager) {
	n := m.enrol("metrics-edge", nodeDir(m.t))
	m.refused(metrics.DoorHTTP, wire.PermissionDenied, func() answer { return m.do(n.HTTPClient(), "GET", "/metrics", nil) })
	for _, path := range []string{"/healthz", "/readyz"} {
		if a := m.do(m.anonymous(), "GET", path, nil); a.status != http.StatusOK {
			m.t.Errorf("%s: %d", path, a.status)
		}
	}
	for _, path := range []string{"/", "/v1", "/debug/pprof/", "/v1/blobs/"} {
		if a := m.do(m.anonymous(), "GET", path, nil); a.status != http.StatusNotFound {
			m.t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
}

// testRestart stops the GlobalManager in good order and starts it on what it
// left.
func testRestart(t *testing.T, first *manager) {
	m := first.of(t)
	small, big := servingtest.Classifier(3, 6, true), servingtest.Classifier(3, 7, true)
	n := m.enrol("restart-edge", nodeDir(t))
	revoked := m.enrol("restart-revoked", nodeDir(t))
	used, unused := m.token("restart-late"), m.token("restart-late")
	if a := m.enrolAnswer(used, "restart-late"); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	m.create(newModel("restart", "small", m.upload(small)), newModel("restart", "big", m.upload(big)), newService("restart", "a", "restart-edge"))
	d, doc := m.issued("restart", "a", "restart-edge", task.Active)
	m.report(n, d, task.Report{Phase: task.Running, Generation: doc.Generation, Seq: 5})
	m.ready("restart", "a", "True", sedna.ReasonServing)
	await(m, &devices.DeviceList{}, "restart", d.Name, "the report acknowledged", func(d *devices.Device) bool {
		nonce, err := twin.NonceOf(d)
		return err == nil && nonce.Acked == 5
	})
	m.revoke("restart-revoked")
	n.HTTPClient().CloseIdleConnections()
	text, signature := signedText(m, "restart", "a", "restart-edge")

	stopping := time.Now()
	if err := first.stop(); err != nil {
		t.Fatalf("stop: %v", err)
	}
	t.Logf("stopped in %s", time.Since(stopping))
	for _, at := range []string{first.at.API, first.at.GlobalManager} {
		l, err := net.Listen("tcp", strings.TrimPrefix(at, "https://"))
		if err != nil {
			t.Errorf("%s is not free: %v", at, err)
			continue
		}
		l.Close()
	}
	if _, err := os.Stat(filepath.Join(m.dir, "kubeconfig")); err != nil {
		t.Error(err)
	}

	m = start(t, m.dir)
	for _, node := range []*identity.Node{n, revoked} {
		if err := node.SetCloudURL(m.at.GlobalManager); err != nil {
			t.Fatal(err)
		}
	}
	if a := m.do(n.HTTPClient(), "GET", blob.Path+shaOf(small), nil); a.status != http.StatusOK || !bytes.Equal(a.body, small) {
		t.Errorf("blob: %d", a.status)
	}
	m.refused(metrics.DoorBlob, wire.Revoked, func() answer { return m.do(revoked.HTTPClient(), "GET", blob.Path+shaOf(small), nil) })
	m.refused(metrics.DoorEnrol, wire.TokenUsed, func() answer { return m.enrolAnswer(used, "restart-late") })
	if a := m.enrolAnswer(unused, "restart-late"); a.status != http.StatusOK {
		t.Errorf("a token from before: %d %s", a.status, a.body)
	}
	m.eventually("cloud inference again", func() bool {
		a := m.do(n.HTTPClient(), "POST", inferPath("restart.a"), []byte(question))
		return a.status == http.StatusOK
	})
	m.ready("restart", "a", "True", sedna.ReasonServing)
	again, signatureAgain := signedText(m, "restart", "a", "restart-edge")
	if !bytes.Equal(text, again) || signature != signatureAgain {
		t.Errorf("the document was issued anew:\n%s\n%s", text, again)
	}
	if err := identity.Renew(t.Context(), n); err != nil { // and pins the keys of now
		t.Fatal(err)
	}
	if err := n.Keys().Verify(again, signature); err != nil {
		t.Error(err)
	}
	// A report from before the restart is stale.
	m.report(n, d, task.Report{Phase: task.Failed, Generation: 1, Seq: 4})
	m.eventually("a stale report", func() bool { return m.rejected(metrics.DoorTwin, wire.Stale) == 1 })
	m.end(n, "restart", "a", 6)
	if err := m.stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// TestBlobsInS3 has a GlobalManager that lost its directory of blobs.
func TestBlobsInS3(t *testing.T) {
	server, dir := s3test.Start(t), t.TempDir()
	inS3 := func(c *cloud.Config) {
		o := server.Options()
		c.Blobs.S3 = cloud.S3{Endpoint: o.Endpoint, HTTP: o.HTTP, Bucket: s3test.Bucket, Prefix: "blobs/", AccessKey: o.AccessKey, SecretKey: config.Secret(o.SecretKey),
			CacheBytes: 1 << 20, PartSize: 5 << 20}
	}
	m := start(t, dir, inS3)
	sha := m.upload([]byte("a model"))
	m.create(newModel("default", "kept", sha))
	m.modelReady("default", "kept", "True", "Available")
	if err := m.stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "blobs")); err != nil {
		t.Fatal(err)
	}
	m = start(t, dir, inS3)
	if got := m.do(m.admin, http.MethodGet, "/v1/blobs/"+sha, nil); got.status != http.StatusOK || string(got.body) != "a model" {
		t.Errorf("%d %s", got.status, got.body)
	}
	bad := testConfig(t.TempDir())
	inS3(&bad)
	bad.Blobs.S3.Bucket = "missing"
	if err := cloud.Run(t.Context(), bad, slog.New(slog.DiscardHandler), nil); err == nil {
		t.Error("runs without its bucket")
	}
}

// TestNudges has a node that does not confirm its task.
func TestNudges(t *testing.T) {
	paths := make(chan string, 100)
	router := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { paths <- r.Method + " " + r.URL.Path }))
	defer router.Close()
	m := start(t, t.TempDir(), func(c *cloud.Config) {
		c.Nudge = cloud.Nudge{URL: router.URL + "/{node}/sedna/nudge/{node}/nudge", Every: time.Second}
	})
	n := m.enrol("cut-off", nodeDir(t))
	m.enrol("idle", nodeDir(t))
	m.create(newModel("default", "small", m.upload([]byte("small"))), newModel("default", "big", m.upload(servingtest.Classifier(3, 5, false))), newService("default", "digits", "cut-off"))
	d, doc := m.issued("default", "digits", "cut-off", task.Active)
	select {
	case got := <-paths:
		if got != "POST /cut-off/sedna/nudge/cut-off/nudge" {
			t.Error(got)
		}
	case <-time.After(patience):
		t.Fatal("the node was not nudged")
	}
	m.report(n, d, task.Report{Phase: task.Running, Generation: doc.Generation, Seq: 1})
	m.ready("default", "digits", "True", sedna.ReasonServing)
	for len(paths) > 0 {
		<-paths
	}
	select {
	case got := <-paths:
		t.Errorf("%s, and all is confirmed", got)
	case <-time.After(2500 * time.Millisecond):
	}
}

func TestCheck(t *testing.T) {
	for name, c := range map[string]struct {
		field  string // empty: it is good
		change func(*cloud.Config)
	}{
		"default":              {"", func(*cloud.Config) {}},
		"ports of the system":  {"", func(c *cloud.Config) { c.HTTP, c.Kubernetes.Addr = "127.0.0.1:0", "127.0.0.1:0" }},
		"a cluster":            {"", func(c *cloud.Config) { c.Kubernetes.Embedded, c.Kubernetes.Addr = false, "" }},
		"IPv6":                 {"", func(c *cloud.Config) { c.HTTP = "[::1]:9000" }},
		"no directory":         {"dataDir", func(c *cloud.Config) { c.DataDir = "" }},
		"no namespace":         {"namespace", func(c *cloud.Config) { c.Namespace = "" }},
		"a bad namespace":      {"namespace", func(c *cloud.Config) { c.Namespace = "Sedna/x" }},
		"no address":           {"http", func(c *cloud.Config) { c.HTTP = "" }},
		"no port":              {"http", func(c *cloud.Config) { c.HTTP = "localhost" }},
		"the API's address":    {"kubernetes.addr", func(c *cloud.Config) { c.Kubernetes.Addr = "localhost" }},
		"no blobs":             {"limits.blob", func(c *cloud.Config) { c.Limits.Blob = 0 }},
		"negative memory":      {"limits.modelMemory", func(c *cloud.Config) { c.Limits.ModelMemory = -1 }},
		"no inference":         {"limits.inferenceBody", func(c *cloud.Config) { c.Limits.InferenceBody = 0 }},
		"no grace":             {"limits.blobGrace", func(c *cloud.Config) { c.Limits.BlobGrace = 0 }},
		"a nudge":              {"", func(c *cloud.Config) { c.Nudge.URL = "http://cloudcore:9443/{node}/sedna/nudge/{node}/nudge" }},
		"a nudge for nobody":   {"nudge.url", func(c *cloud.Config) { c.Nudge.URL = "http://cloudcore:9443/nudge" }},
		"nudges all the time":  {"nudge.every", func(c *cloud.Config) { c.Nudge.Every = time.Millisecond }},
		"a negative quota":     {"limits.blobQuota", func(c *cloud.Config) { c.Limits.BlobQuota = -1 }},
		"a bucket":             {"", func(c *cloud.Config) { c.Blobs.S3.Bucket = "b" }},
		"a bucket, no cache":   {"blobs.s3.cacheBytes", func(c *cloud.Config) { c.Blobs.S3.Bucket, c.Blobs.S3.CacheBytes = "b", 0 }},
		"a bucket, small part": {"blobs.s3.partSize", func(c *cloud.Config) { c.Blobs.S3.Bucket, c.Blobs.S3.PartSize = "b", 5<<20-1 }},
		"a bucket, no grace":   {"limits.blobGrace", func(c *cloud.Config) { c.Blobs.S3.Bucket, c.Limits.BlobGrace = "b", 19*time.Minute }},
		"repairs all the time": {"repairAfter", func(c *cloud.Config) { c.RepairAfter = 0 }},
	} {
		cfg := cloud.DefaultConfig()
		c.change(&cfg)
		err := cfg.Check()
		if c.field == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if !wire.IsCode(err, wire.InvalidArgument) || wire.AsError(err).Field != c.field {
			t.Errorf("%s: %v, want the field %s", name, err, c.field)
		}
		if run := cloud.Run(t.Context(), cfg, nil, nil); !wire.IsCode(run, wire.InvalidArgument) {
			t.Errorf("%s: Run: %v", name, run)
		}
	}
}
