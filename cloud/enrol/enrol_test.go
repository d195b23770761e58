package enrol_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/edgetwin/sedna/cloud/enrol"
	"github.com/edgetwin/sedna/lib/identity"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// registry keeps nodes in memory.
type registry struct {
	mu      sync.Mutex
	nodes   map[string]ed25519.PublicKey
	revoked map[string]bool
	err     error
}

func (r *registry) Enrolled(_ context.Context, node string, pub ed25519.PublicKey) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return r.err
	}
	r.nodes[node] = pub
	delete(r.revoked, node)
	return nil
}

func (r *registry) Revoked(_ context.Context, node string, pub ed25519.PublicKey) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.revoked[node] || !pub.Equal(r.nodes[node]), r.err
}

func (r *registry) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.nodes)
}

// cloud is a GlobalManager's door, on a real TLS server.
type cloud struct {
	ca      *identity.CA
	keys    *identity.SigningKeys
	tokens  string
	nodes   *registry
	metrics *metrics.Registry
	url     string

	mu    sync.Mutex
	clock time.Time
}

func (c *cloud) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.clock
}

func (c *cloud) setClock(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clock = now
}

func start(t *testing.T, failures int) *cloud {
	t.Helper()
	dir := t.TempDir()
	c := &cloud{
		tokens:  filepath.Join(dir, "tokens"),
		nodes:   &registry{nodes: map[string]ed25519.PublicKey{}, revoked: map[string]bool{}},
		metrics: metrics.New(),
		clock:   time.Now().Add(-2 * identity.NodeLife),
	}
	var err error
	if c.ca, err = identity.OpenCA(filepath.Join(dir, "ca"), c.now); err != nil {
		t.Fatal(err)
	}
	c.setClock(time.Now())
	if c.keys, err = identity.OpenSigningKeys(filepath.Join(dir, "keys")); err != nil {
		t.Fatal(err)
	}
	h, err := enrol.New(enrol.Config{
		CA: c.ca, Keys: c.keys, TokenDir: c.tokens, Registry: c.nodes, Metrics: c.metrics,
		Epoch: func() int64 { return 7 }, Failures: failures, Now: c.now,
	})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	h.Routes(mux)
	mux.HandleFunc("GET /who", func(w http.ResponseWriter, r *http.Request) {
		node, _ := identity.NodeFrom(r)
		_, _ = io.WriteString(w, node)
		if identity.IsAdmin(r) {
			_, _ = io.WriteString(w, "admin")
		}
	})
	tlsConfig, err := c.ca.ServerTLS("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: mux, TLSConfig: tlsConfig, ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.ServeTLS(listener, "", "")
	}()
	t.Cleanup(func() {
		_ = srv.Close()
		<-done
	})
	c.url = "https://" + listener.Addr().String()
	return c
}

func (c *cloud) token(t *testing.T, node string) string {
	t.Helper()
	token, err := identity.CreateToken(c.tokens, c.ca.Pin(), node, 0, c.now())
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func (c *cloud) join(t *testing.T, node string) *identity.Node {
	t.Helper()
	n, err := identity.Enrol(t.Context(), c.url, c.token(t, node), node, filepath.Join(t.TempDir(), node))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.HTTPClient().CloseIdleConnections)
	return n
}

// refused checks that exactly these refusals were counted at the door.
func (c *cloud) refused(t *testing.T, want map[wire.Code]int) {
	t.Helper()
	var lines strings.Builder
	lines.WriteString("# HELP sedna_rejected_total Inputs refused, by the door they came to and the wire error code.\n# TYPE sedna_rejected_total counter\n")
	for code, n := range want {
		lines.WriteString(`sedna_rejected_total{code="` + string(code) + `",door="enrol"} ` + strconv.Itoa(n) + "\n")
	}
	if err := testutil.GatherAndCompare(c.metrics, strings.NewReader(lines.String()), "sedna_rejected_total"); err != nil {
		t.Error(err)
	}
}

func TestEnrolAndRenew(t *testing.T) {
	c := start(t, 0)
	n := c.join(t, "edge1")
	if n.Name() != "edge1" || n.CloudURL() != c.url || n.Epoch() != 7 {
		t.Errorf("joined as %s of %s, epoch %d", n.Name(), n.CloudURL(), n.Epoch())
	}
	if pub := n.Key().Public().(ed25519.PublicKey); !pub.Equal(c.nodes.nodes["edge1"]) {
		t.Error("the registry holds another key")
	}
	document := []byte("{}")
	if err := n.Keys().Verify(document, task.Sign(c.keys.Active(), document)); err != nil {
		t.Error(err)
	}
	if got := who(t, n.HTTPClient(), c.url); got != "edge1" {
		t.Errorf("the server sees %q", got)
	}

	if renewed, err := identity.MaybeRenew(t.Context(), n, c.now().Add(identity.NodeLife/2)); err != nil || renewed {
		t.Errorf("at half of its life: renewed %v, %v", renewed, err)
	}
	if err := c.keys.Rotate(); err != nil {
		t.Fatal(err)
	}
	signature := task.Sign(c.keys.Active(), document)
	if err := n.Keys().Verify(document, signature); !wire.IsCode(err, wire.BadSignature) {
		t.Errorf("a key that was not pinned: %v", err)
	}
	before := n.Certificate()
	if renewed, err := identity.MaybeRenew(t.Context(), n, c.now().Add(identity.NodeLife*3/4)); err != nil || !renewed {
		t.Fatalf("at three quarters of its life: renewed %v, %v", renewed, err)
	}
	if n.Certificate().Equal(before) || n.Keys().Verify(document, signature) != nil {
		t.Error("the certificate or the keys are the old ones")
	}
	if got := who(t, n.HTTPClient(), c.url); got != "edge1" {
		t.Errorf("after renewal the server sees %q", got)
	}
	c.refused(t, nil)
}

func who(t *testing.T, client *http.Client, url string) string {
	t.Helper()
	resp, err := client.Get(url + "/who")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.ProtoMajor != 2 {
		t.Errorf("spoke %s", resp.Proto)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestAnotherProcessRenewed(t *testing.T) {
	c := start(t, 0)
	dir := filepath.Join(t.TempDir(), "n")
	n, err := identity.Enrol(t.Context(), c.url, c.token(t, "edge1"), "edge1", dir)
	if err != nil {
		t.Fatal(err)
	}
	other, err := identity.LoadNode(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := identity.Renew(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	if who(t, other.HTTPClient(), c.url); !other.Certificate().Equal(n.Certificate()) {
		t.Error("a new connection presents the old certificate")
	}
	if err := other.SetCloudURL("https://elsewhere:1"); err != nil {
		t.Fatal(err)
	}
	if again, err := identity.LoadNode(dir); err != nil || again.CloudURL() != "https://elsewhere:1" || !again.Certificate().Equal(n.Certificate()) {
		t.Errorf("moved node: %v", err)
	}
	if err := other.SetCloudURL("http://elsewhere"); !wire.IsCode(err, wire.InvalidArgument) {
		t.Errorf("plain http: %v", err)
	}
	for _, client := range []*http.Client{n.HTTPClient(), other.HTTPClient()} {
		client.CloseIdleConnections()
	}
}

func TestEnrolRefusals(t *testing.T) {
	c := start(t, 0)
	used := c.token(t, "edge1")
	if _, err := identity.Enrol(t.Context(), c.url, used, "edge1", t.TempDir()); err != nil {
		t.Fatal(err)
	}
	expired, err := identity.CreateToken(c.tokens, c.ca.Pin(), "edge1", time.Minute, c.now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	good := c.token(t, "edge1")
	part := strings.Split(good, ".")
	wrong := strings.Join([]string{part[0], part[1], strings.Repeat("A", 43), part[3]}, ".")
	unknown := strings.Replace(good, part[1], "0000000000000000", 1)
	for _, x := range []struct {
		name, token, node string
		code              wire.Code
	}{
		{"wrong secret", wrong, "edge1", wire.Unauthenticated},
		{"unknown", unknown, "edge1", wire.Unauthenticated},
		{"used", used, "edge1", wire.TokenUsed},
		{"stolen after use", used, "edge9", wire.TokenUsed},
		{"expired", expired, "edge1", wire.TokenExpired},
		{"for another node", good, "edge2", wire.PermissionDenied},
	} {
		dir := filepath.Join(t.TempDir(), "n")
		if _, err := identity.Enrol(t.Context(), c.url, x.token, x.node, dir); !wire.IsCode(err, x.code) {
			t.Errorf("%s: got %v, want %s", x.name, err, x.code)
		}
		if _, err := identity.LoadNode(dir); !wire.IsCode(err, wire.NotFound) {
			t.Errorf("%s: left an identity: %v", x.name, err)
		}
	}
	c.refused(t, map[wire.Code]int{wire.Unauthenticated: 2, wire.TokenUsed: 2, wire.TokenExpired: 1, wire.PermissionDenied: 1})
	if c.nodes.count() != 1 {
		t.Errorf("%d nodes are registered", c.nodes.count())
	}
	if _, err := identity.Enrol(t.Context(), c.url, good, "edge1", t.TempDir()); err != nil {
		t.Errorf("the token that others tried in vain: %v", err)
	}
}

func TestEnrolOnlyAtTheCAOfTheToken(t *testing.T) {
	c, impostor := start(t, 0), start(t, 0)
	token := c.token(t, "edge1")
	if _, err := identity.Enrol(t.Context(), impostor.url, token, "edge1", t.TempDir()); !wire.IsCode(err, wire.Unauthenticated) {
		t.Errorf("another CA's server: %v", err)
	}
	impostor.refused(t, nil) // it has not even seen the token
	if _, err := identity.Enrol(t.Context(), strings.Replace(c.url, "127.0.0.1", "localhost", 1), token, "edge1", t.TempDir()); !wire.IsCode(err, wire.Unauthenticated) {
		t.Errorf("a name that the certificate does not cover: %v", err)
	}
	if _, err := identity.Enrol(t.Context(), strings.Replace(c.url, "https", "http", 1), token, "edge1", t.TempDir()); !wire.IsCode(err, wire.InvalidArgument) {
		t.Errorf("plain http: %v", err)
	}
	if _, err := identity.Enrol(t.Context(), "https://127.0.0.1:1", token, "edge1", t.TempDir()); !wire.IsCode(err, wire.Unavailable) {
		t.Errorf("nobody there: %v", err)
	}
	if _, err := identity.Enrol(t.Context(), c.url, token, "edge1", t.TempDir()); err != nil {
		t.Error(err)
	}
}

func TestJoinAgain(t *testing.T) {
	c := start(t, 0)
	dir := filepath.Join(t.TempDir(), "n")
	first, err := identity.Enrol(t.Context(), c.url, c.token(t, "edge1"), "edge1", dir)
	if err != nil {
		t.Fatal(err)
	}
	again, err := identity.Enrol(t.Context(), c.url+"/", c.token(t, "edge1"), "edge1", dir)
	if err != nil || !again.Key().Equal(first.Key()) {
		t.Errorf("the same node, a new token: %v", err)
	}
	if _, err := identity.Enrol(t.Context(), c.url, c.token(t, "edge2"), "edge2", dir); !wire.IsCode(err, wire.FailedPrecondition) {
		t.Errorf("another node in the same directory: %v", err)
	}
}

// post sends body to path with the given client certificate.
func (c *cloud) post(t *testing.T, path, body string, certs ...tls.Certificate) (int, *wire.Error, error) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.ca.CertPEM())
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: certs}}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Post(c.url+path, "application/json", strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil, err
	}
	return resp.StatusCode, wire.ParseError(resp.StatusCode, b), nil
}

func TestBadBodies(t *testing.T) {
	c := start(t, 100)
	csr, err := identity.NodeCSR(t.TempDir(), "edge1")
	if err != nil {
		t.Fatal(err)
	}
	token := c.token(t, "edge1")
	body := func(r identity.EnrolRequest) string {
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	fill := func(n int) string { return `{"token":"` + strings.Repeat("x", n-len(`{"token":""}`)) + `"}` }
	for _, x := range []struct {
		name, body string
		code       wire.Code
		field      string
	}{
		{"empty", "", wire.InvalidArgument, ""},
		{"not JSON", "token=1", wire.InvalidArgument, ""},
		{"wrong type", `{"token":1}`, wire.InvalidArgument, ""},
		{"bad node", body(identity.EnrolRequest{Token: token, Node: "../a", CSR: string(csr)}), wire.InvalidArgument, "node"},
		{"bad request", body(identity.EnrolRequest{Token: token, Node: "edge1", CSR: "x"}), wire.InvalidArgument, "csr"},
		{"request of another node", body(identity.EnrolRequest{Token: token, Node: "edge2", CSR: string(csr)}), wire.InvalidArgument, "csr"},
		{"no token", body(identity.EnrolRequest{Node: "edge1", CSR: string(csr)}), wire.Unauthenticated, "token"},
		{"largest", fill(enrol.MaxBody), wire.InvalidArgument, "node"},
		{"too large", fill(enrol.MaxBody + 1), wire.TooLarge, ""},
	} {
		status, e, err := c.post(t, identity.EnrolPath, x.body)
		if err != nil || e.Code != x.code || e.Field != x.field || status != x.code.Status() {
			t.Errorf("%s: got %d %v %v, want %s at %q", x.name, status, e, err, x.code, x.field)
		}
	}
	c.refused(t, map[wire.Code]int{wire.InvalidArgument: 7, wire.Unauthenticated: 1, wire.TooLarge: 1})
	if c.nodes.count() != 0 {
		t.Error("a node was registered")
	}
	if status, _, err := c.post(t, identity.EnrolPath, body(identity.EnrolRequest{Token: token, Node: "edge1", CSR: string(csr)})); status != http.StatusOK {
		t.Errorf("the token no longer works: %d %v", status, err)
	}
}

func TestRegistryFails(t *testing.T) {
	c := start(t, 1)
	c.nodes.err = errors.New("etcd: disk on fire")
	token := c.token(t, "edge1")
	_, err := identity.Enrol(t.Context(), c.url, token, "edge1", t.TempDir())
	if !wire.IsCode(err, wire.Unavailable) || strings.Contains(err.Error(), "fire") {
		t.Errorf("got %v, want unavailable without what is inside", err)
	}
	c.nodes.err = nil
	if _, err := identity.Enrol(t.Context(), c.url, token, "edge1", t.TempDir()); !wire.IsCode(err, wire.TokenUsed) {
		t.Errorf("the token was redeemed: %v", err)
	}
	c.setClock(c.now().Add(time.Minute))
	c.nodes.err = wire.E(wire.Conflict, "node", "there is one of that name", "")
	if _, err := identity.Enrol(t.Context(), c.url, c.token(t, "edge1"), "edge1", t.TempDir()); !wire.IsCode(err, wire.Conflict) {
		t.Errorf("a refusal by the registry: %v", err)
	}
}

func TestFailuresAreLimited(t *testing.T) {
	const allowed = 5
	c := start(t, allowed)
	good := c.token(t, "edge1")
	part := strings.Split(good, ".")
	wrong := strings.Join([]string{part[0], part[1], strings.Repeat("A", 43), part[3]}, ".")
	var wg sync.WaitGroup
	for range allowed + 3 {
		wg.Go(func() {
			if _, err := identity.Enrol(t.Context(), c.url, wrong, "edge1", t.TempDir()); err == nil {
				t.Error("a wrong token was taken")
			}
		})
	}
	wg.Wait()
	c.refused(t, map[wire.Code]int{wire.Unauthenticated: allowed, wire.ResourceExhausted: 3})
	if _, err := identity.Enrol(t.Context(), c.url, good, "edge1", t.TempDir()); !wire.IsCode(err, wire.ResourceExhausted) {
		t.Errorf("a good token from the same address: %v", err)
	}
	c.setClock(c.now().Add(time.Minute / allowed))
	if _, err := identity.Enrol(t.Context(), c.url, good, "edge1", t.TempDir()); err != nil {
		t.Errorf("after a while: %v", err)
	}
	if _, err := identity.Enrol(t.Context(), c.url, c.token(t, "edge2"), "edge2", t.TempDir()); err != nil {
		t.Errorf("success costs nothing: %v", err)
	}
}

func TestFailuresOfManyAddresses(t *testing.T) {
	c := start(t, 1)
	h, err := enrol.New(enrol.Config{CA: c.ca, Keys: c.keys, TokenDir: c.tokens, Registry: c.nodes, Failures: 1, Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	h.Routes(mux)
	fails := func(remote string) int {
		r := httptest.NewRequest(http.MethodPost, identity.EnrolPath, strings.NewReader("x"))
		r.RemoteAddr = remote
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		return w.Code
	}
	const busy = http.StatusTooManyRequests
	for _, x := range []struct {
		remote string
		want   int
	}{
		{"192.0.2.1:1", 400}, {"192.0.2.1:2", busy}, {"[::ffff:192.0.2.1]:3", busy}, {"192.0.2.2:1", 400},
		{"[2001:db8::1]:1", 400}, {"[2001:db8::2]:1", busy}, {"[2001:db8:0:1::1]:1", 400},
		{"[fe80::1%eth0]:1", 400}, {"[fe80::2%eth1]:1", busy},
		{"nonsense", 400}, {"other", busy},
	} {
		if got := fails(x.remote); got != x.want {
			t.Errorf("%s: got %d, want %d", x.remote, got, x.want)
		}
	}
	refused := 0
	for i := range 5000 {
		if fails(fmt.Sprintf("10.0.%d.%d:1", i/256, i%256)) == busy {
			refused++
		}
	}
	if refused < 800 {
		t.Errorf("%d of 5000 new addresses were refused: their number is not bounded", refused)
	}
	c.setClock(c.now().Add(time.Minute))
	if got := fails("10.9.9.9:1"); got != 400 {
		t.Errorf("a new address when all others are forgotten: %d", got)
	}
}

// nodeCert makes a client certificate as a node's would look, of any CA.
func nodeCert(t *testing.T, ca *identity.CA, node string) tls.Certificate {
	t.Helper()
	certPEM, keyPEM, err := ca.ClientCert("sedna:node:"+node, []string{identity.NodeOrganization}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func pairOf(n *identity.Node) tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{n.Certificate().Raw}, PrivateKey: n.Key()}
}

func TestRenewRefusals(t *testing.T) {
	c, stranger := start(t, 100), start(t, 100)
	n := c.join(t, "edge1")
	request := func(key ed25519.PrivateKey, cn, node string) string {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: cn}}, key)
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(identity.EnrolRequest{Node: node, CSR: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	_, otherKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	adminPEM, adminKey, err := c.ca.ClientCert("admin", []string{identity.AdminOrganization}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	admin, err := tls.X509KeyPair(adminPEM, adminKey)
	if err != nil {
		t.Fatal(err)
	}
	own := request(n.Key(), "sedna:node:edge1", "")
	for _, x := range []struct {
		name, body string
		certs      []tls.Certificate
		code       wire.Code
	}{
		{"no certificate", own, nil, wire.Unauthenticated},
		{"the administrator's", own, []tls.Certificate{admin}, wire.Unauthenticated},
		{"another kind of key", own, []tls.Certificate{nodeCert(t, c.ca, "edge1")}, wire.Unauthenticated},
		{"another key", request(otherKey, "sedna:node:edge1", ""), []tls.Certificate{pairOf(n)}, wire.PermissionDenied},
		{"another node", request(n.Key(), "sedna:node:edge2", "edge2"), []tls.Certificate{pairOf(n)}, wire.PermissionDenied},
		{"another node's request", request(n.Key(), "sedna:node:edge2", ""), []tls.Certificate{pairOf(n)}, wire.InvalidArgument},
	} {
		status, e, err := c.post(t, identity.RenewPath, x.body, x.certs...)
		if err != nil || e.Code != x.code || status != x.code.Status() {
			t.Errorf("%s: got %d %v %v, want %s", x.name, status, e, err, x.code)
		}
	}
	c.refused(t, map[wire.Code]int{wire.Unauthenticated: 3, wire.PermissionDenied: 2, wire.InvalidArgument: 1})

	if status, _, err := c.post(t, identity.RenewPath, own, nodeCert(t, stranger.ca, "edge1")); err == nil {
		t.Errorf("a stranger CA's certificate got %d", status)
	}

	c.nodes.revoked["edge1"] = true
	if err := identity.Renew(t.Context(), n); !wire.IsCode(err, wire.Revoked) {
		t.Errorf("revoked: %v", err)
	}
	again := c.join(t, "edge1") // with a new key
	if err := identity.Renew(t.Context(), n); !wire.IsCode(err, wire.Revoked) {
		t.Errorf("the key before the last enrolment: %v", err)
	}
	if err := identity.Renew(t.Context(), again); err != nil {
		t.Errorf("the new key: %v", err)
	}
	c.nodes.err = errors.New("away")
	if err := identity.Renew(t.Context(), again); !wire.IsCode(err, wire.Unavailable) {
		t.Errorf("no registry: %v", err)
	}
}

func TestExpiredCertificate(t *testing.T) {
	c := start(t, 0)
	now := c.now()
	c.setClock(now.Add(-identity.NodeLife - time.Hour))
	dir := t.TempDir()
	csr, err := identity.NodeCSR(dir, "edge1")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := c.ca.SignNode(csr, "edge1")
	if err != nil {
		t.Fatal(err)
	}
	n, err := identity.SaveNode(dir, "edge1", c.url, identity.Grant{Certificate: string(cert), CA: string(c.ca.CertPEM()), SigningKeys: [][]byte{c.keys.Public()[0]}})
	if err != nil {
		t.Fatal(err)
	}
	c.setClock(now)
	if _, err := n.HTTPClient().Get(c.url + "/who"); err == nil {
		t.Error("the handshake succeeded")
	}
	if err := identity.Renew(t.Context(), n); !wire.IsCode(err, wire.FailedPrecondition) {
		t.Errorf("renewal: %v", err)
	}
}

func TestSaveNodeRefusesWhatDoesNotHoldTogether(t *testing.T) {
	c, other := start(t, 0), start(t, 0)
	dir := t.TempDir()
	csr, err := identity.NodeCSR(dir, "edge1")
	if err != nil {
		t.Fatal(err)
	}
	sign := func(ca *identity.CA, csr []byte, node string) string {
		b, err := ca.SignNode(csr, node)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	otherCSR, err := identity.NodeCSR(t.TempDir(), "edge1")
	if err != nil {
		t.Fatal(err)
	}
	edge2, err := identity.NodeCSR(dir, "edge2")
	if err != nil {
		t.Fatal(err)
	}
	good := identity.Grant{Certificate: sign(c.ca, csr, "edge1"), CA: string(c.ca.CertPEM()), SigningKeys: [][]byte{c.keys.Public()[0]}}
	for name, x := range map[string]struct {
		field  string
		change func(*identity.Grant)
	}{
		"other CA":     {"certificate", func(g *identity.Grant) { g.CA = string(other.ca.CertPEM()) }},
		"no CA":        {"ca", func(g *identity.Grant) { g.CA = "" }},
		"not a CA":     {"ca", func(g *identity.Grant) { g.CA = g.Certificate }},
		"other key":    {"certificate", func(g *identity.Grant) { g.Certificate = sign(c.ca, otherCSR, "edge1") }},
		"other node":   {"certificate", func(g *identity.Grant) { g.Certificate = sign(c.ca, edge2, "edge2") }},
		"no cert":      {"certificate", func(g *identity.Grant) { g.Certificate = "x" }},
		"no keys":      {"signingKeys", func(g *identity.Grant) { g.SigningKeys = nil }},
		"short key":    {"signingKeys", func(g *identity.Grant) { g.SigningKeys = [][]byte{{1}} }},
		"many keys":    {"signingKeys", func(g *identity.Grant) { g.SigningKeys = make([][]byte, 9) }},
		"server's own": {"certificate", func(g *identity.Grant) { g.Certificate = serverCert(t, c.ca) }},
	} {
		g := good
		x.change(&g)
		if _, err := identity.SaveNode(dir, "edge1", c.url, g); !wire.IsCode(err, wire.InvalidArgument) || wire.AsError(err).Field != x.field {
			t.Errorf("%s: got %v, want field %s", name, err, x.field)
		}
	}
	if _, err := identity.LoadNode(dir); !wire.IsCode(err, wire.NotFound) {
		t.Errorf("something was saved: %v", err)
	}
	if _, err := identity.SaveNode(dir, "edge1", c.url, good); err != nil {
		t.Error(err)
	}
}

func serverCert(t *testing.T, ca *identity.CA) string {
	t.Helper()
	pair, err := ca.ServerCert("x")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestConfigIsChecked(t *testing.T) {
	if _, err := enrol.New(enrol.Config{}); err == nil {
		t.Error("an empty configuration was taken")
	}
}
