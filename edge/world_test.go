package edge_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgetwin/sedna/edge"
	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/lib/blob"
	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/lib/bus/broker"
	"github.com/edgetwin/sedna/lib/identity"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// world is what surrounds a node: its cloud's keys and blobs, and a broker.
type world struct {
	t       testing.TB
	ca      *identity.CA
	keys    *identity.SigningKeys
	node    *identity.Node
	broker  *broker.Broker
	bus     *bus.Client
	cloud   *http.Server
	blobs   sync.Map // bytes by digest
	reports chan map[string]string
	events  chan store.Event
	dir     string // the node's data directory
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, reports: make(chan map[string]string, 1000), events: make(chan store.Event, 1000), dir: filepath.Join(t.TempDir(), "data")}
	ca, err := identity.OpenCA(t.TempDir(), nil)
	must(t, err)
	w.ca = ca
	w.keys, err = identity.OpenSigningKeys(t.TempDir())
	must(t, err)
	serverTLS, err := ca.ServerTLS("127.0.0.1")
	must(t, err)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", serverTLS)
	must(t, err)
	w.cloud = &http.Server{Handler: http.HandlerFunc(w.serveCloud)}
	go func() { _ = w.cloud.Serve(listener) }()
	t.Cleanup(func() { _ = w.cloud.Close() })
	csr, err := identity.NodeCSR(filepath.Join(w.dir, "identity"), node)
	must(t, err)
	grant, err := w.grant(csr)
	must(t, err)
	w.node, err = identity.SaveNode(filepath.Join(w.dir, "identity"), node, "https://"+listener.Addr().String(), grant)
	must(t, err)
	w.broker, err = broker.Start(broker.Options{Addr: "127.0.0.1:0"})
	must(t, err)
	t.Cleanup(func() { _ = w.broker.Close() })
	w.bus, err = bus.New(bus.Options{URL: w.broker.Addr(), ClientID: "world", CleanSession: true})
	must(t, err)
	up := make(chan struct{}, 10)
	w.bus.OnConnect(func() { up <- struct{}{} })
	w.bus.Subscribe(wire.TaskReportedFilter(node), 1, func(m bus.Message) {
		var p map[string]string
		if json.Unmarshal(m.Payload, &p) == nil && p["phase"] != "" {
			w.reports <- p
		}
	})
	w.bus.Subscribe(wire.Event(node, "+"), 1, func(m bus.Message) {
		var e store.Event
		if json.Unmarshal(m.Payload, &e) == nil {
			w.events <- e
		}
	})
	w.bus.Start(context.Background())
	t.Cleanup(w.bus.Close)
	<-up
	return w
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) grant(csr []byte) (identity.Grant, error) {
	cert, err := w.ca.SignNode(csr, node)
	g := identity.Grant{Certificate: string(cert), CA: string(w.ca.CertPEM())}
	for _, k := range w.keys.Public() {
		g.SigningKeys = append(g.SigningKeys, k)
	}
	return g, err
}

// serveCloud has blobs and renews certificates, for nodes with a certificate.
func (w *world) serveCloud(rw http.ResponseWriter, r *http.Request) {
	if len(r.TLS.PeerCertificates) == 0 && r.URL.Path != identity.EnrolPath {
		http.Error(rw, "who are you?", http.StatusUnauthorized)
		return
	}
	if r.URL.Path == identity.RenewPath || r.URL.Path == identity.EnrolPath {
		var req identity.EnrolRequest
		err := json.NewDecoder(r.Body).Decode(&req)
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
			return
		}
		g, err := w.grant([]byte(req.CSR))
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
			return
		}
		_ = json.NewEncoder(rw).Encode(g)
		return
	}
	b, ok := w.blobs.Load(strings.TrimPrefix(r.URL.Path, blob.Path))
	if !ok {
		http.NotFound(rw, r)
		return
	}
	http.ServeContent(rw, r, "", time.Time{}, bytes.NewReader(b.([]byte)))
}

func (w *world) config() edge.Config {
	cfg := edge.DefaultConfig()
	cfg.DataDir, cfg.HTTP, cfg.Bus.URL = w.dir, "127.0.0.1:0", "tcp://"+w.broker.Addr()
	return cfg
}

// start runs a LocalController in this process and gives its base URL.
func (w *world) start(cfg edge.Config) (url string, stop func()) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan edge.Endpoints, 1), make(chan error, 1)
	go func() { ended <- edge.Run(ctx, cfg, edge.Deps{Ready: func(e edge.Endpoints) { ready <- e }}) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				w.t.Errorf("run: %v", err)
			}
		case <-time.After(patience):
			w.t.Error("does not stop")
		}
	}
	w.t.Cleanup(stop)
	select {
	case e := <-ready:
		return "http://" + e.HTTP, stop
	case err := <-ended:
		stopped = true
		w.t.Fatalf("run: %v", err)
	case <-time.After(patience):
		w.t.Fatal("not ready")
	}
	return "", nil
}

func (w *world) push(b []byte) task.Model {
	sum := sha256.Sum256(b)
	digest := hex.EncodeToString(sum[:])
	w.blobs.Store(digest, b)
	return task.Model{Name: "doubler", Version: "v1", URL: task.BlobURLPrefix + digest, Format: "onnx"}
}

func (w *world) send(uid string, generation int64, state string, m task.Model) {
	w.t.Helper()
	d := &task.Document{
		Schema: task.Schema, State: state, UID: uid, Generation: generation, Kind: task.KindJointInference, Namespace: "default", Name: "digits",
		Role: task.RoleEdge, Node: node, IssuedAt: time.Now().UTC(),
	}
	if state == task.Active {
		var err error
		d.Spec, err = json.Marshal(task.JointInference{Model: m, HardExample: task.Algorithm{Name: "EdgeOnly"}})
		must(w.t, err)
	}
	b, err := d.Encode()
	must(w.t, err)
	payload, err := json.Marshal(task.Desired{Task: string(b), Signature: task.Sign(w.keys.Active(), b), Nonce: "0:0"})
	must(w.t, err)
	must(w.t, w.bus.Publish(w.t.Context(), wire.TaskDesired(node, "default", device()), 1, true, payload))
}

func device() string {
	return task.DeviceName(task.KindJointInference, "default", "digits", task.RoleEdge, node)
}

func (w *world) expect(uid, phase string, generation int64) task.Report {
	w.t.Helper()
	var seen []string
	for deadline := time.After(patience); ; {
		select {
		case p := <-w.reports:
			if task.VerifyProperties(w.node.Key().Public().(ed25519.PublicKey), uid, p) != nil {
				continue
			}
			r, err := task.ParseReport(p)
			must(w.t, err)
			if r.Phase == phase && r.Generation == generation {
				return r
			}
			seen = append(seen, fmt.Sprintf("%+v", r))
		case <-deadline:
			w.t.Fatalf("no report %s at %d; seen %s", phase, generation, strings.Join(seen, "\n"))
		}
	}
}

func (w *world) event(reason string) store.Event {
	w.t.Helper()
	for deadline := time.After(patience); ; {
		select {
		case e := <-w.events:
			if e.Reason == reason {
				return e
			}
		case <-deadline:
			w.t.Fatalf("no event %s", reason)
		}
	}
}

// infer asks the service over HTTP and tells whether it doubled.
func infer(url string) error { return inferBy(http.DefaultClient, url) }

func inferBy(client *http.Client, url string) error {
	resp, err := client.Post(url+"/v2/models/digits/infer", "application/json", strings.NewReader(`{"id":"a","inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}]}`))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || !strings.Contains(string(b), `"data":[2,4]`) {
		return fmt.Errorf("status %d: %s", resp.StatusCode, b)
	}
	return nil
}

func get(t testing.TB, url string, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	must(t, err)
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
			continue
		}
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(b)
}

// process starts the LocalController as a process and gives its base URL.
func (w *world) process(cfg edge.Config) (*exec.Cmd, string) {
	w.t.Helper()
	file := filepath.Join(w.t.TempDir(), "config.yaml")
	must(w.t, os.WriteFile(file, fmt.Appendf(nil, "dataDir: %s\nhttp: %s\nbus: {url: %q}\n", cfg.DataDir, cfg.HTTP, cfg.Bus.URL), 0o600))
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helper+"="+file)
	out, err := cmd.StdoutPipe()
	must(w.t, err)
	must(w.t, cmd.Start())
	w.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var e edge.Endpoints
		if text, ok := strings.CutPrefix(lines.Text(), "ready "); ok && json.Unmarshal([]byte(text), &e) == nil {
			return cmd, "http://" + e.HTTP
		}
	}
	w.t.Fatal("the process ended")
	return nil, ""
}
