package edgelink_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/coder/websocket"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/edgetwin/sedna/cloud/controlplane/controlplanetest"
	"github.com/edgetwin/sedna/cloud/edgelink"
	"github.com/edgetwin/sedna/lib/identity"
	"github.com/edgetwin/sedna/lib/losses"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/manifests"
	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
	"github.com/edgetwin/sedna/models/wire"
)

const (
	patience = 15 * time.Second
	quiet    = 300 * time.Millisecond
)

// world is one API server with edgelink on it; the tests play the nodes.
type world struct {
	api     client.WithWatch
	ca      *identity.CA
	metrics *metrics.Registry
	server  *edgelink.Server
	url     string
	revoked func(node string)
}

func newWorld(t *testing.T, lose losses.Set) *world {
	t.Helper()
	crds, err := manifests.CRDs()
	if err != nil {
		t.Fatal(err)
	}
	conf := controlplanetest.Start(t, crds...)
	scheme := runtime.NewScheme()
	if err := devices.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	api, err := client.NewWithWatch(conf, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{api: api, metrics: metrics.New()}
	// What was left while nothing watched is collected at the start.
	if err := api.Create(t.Context(), &devices.DeviceStatus{ObjectMeta: metav1.ObjectMeta{Namespace: "left", Name: "behind"}}); err != nil {
		t.Fatal(err)
	}
	objects, err := cache.New(conf, cache.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	cached, err := client.New(conf, client.Options{Scheme: scheme, Cache: &client.CacheOptions{Reader: objects}})
	if err != nil {
		t.Fatal(err)
	}
	if w.ca, err = identity.OpenCA(t.TempDir(), time.Now); err != nil {
		t.Fatal(err)
	}
	var gone = make(chan string, 10)
	w.revoked = func(node string) { gone <- node }
	var revoked []string
	w.server, err = edgelink.New(edgelink.Config{
		Client: cached, Cache: objects, Metrics: w.metrics, Lose: lose,
		Limits: edgelink.Limits{Links: 4, Ping: 50 * time.Millisecond},
		Node: nodeFunc(func(node string) bool {
			select {
			case n := <-gone:
				revoked = append(revoked, n)
			default:
			}
			return slices.Contains(revoked, node)
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- objects.Start(ctx) }()
	go func() { done <- w.server.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := wait(t, done, "end of edgelink"); err != nil {
				t.Error(err)
			}
		}
	})
	mux := http.NewServeMux()
	mux.Handle(wire.EdgelinkPath, w.server)
	serving, err := w.ca.ServerTLS("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: mux, TLSConfig: serving, ErrorLog: log.New(io.Discard, "", 0)}
	served := make(chan error, 1)
	go func() { served <- s.ServeTLS(l, "", "") }()
	t.Cleanup(func() { _ = s.Close(); wait(t, served, "end of the server") })
	w.url = "https://" + l.Addr().String()
	return w
}

func nodeFunc(revoked func(string) bool) func(*http.Request) (string, error) {
	var lock = make(chan struct{}, 1)
	return func(r *http.Request) (string, error) {
		node, ok := identity.NodeFrom(r)
		if !ok {
			return "", wire.E(wire.Unauthenticated, "", "no node's certificate", "")
		}
		lock <- struct{}{}
		defer func() { <-lock }()
		if revoked(node) {
			return "", wire.E(wire.Revoked, "", "revoked", "")
		}
		return node, nil
	}
}

// identify enrols a node.
func (w *world) identify(t *testing.T, name string) *identity.Node {
	t.Helper()
	dir := t.TempDir()
	csr, err := identity.NodeCSR(dir, name)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := w.ca.SignNode(csr, name)
	if err != nil {
		t.Fatal(err)
	}
	n, err := identity.SaveNode(dir, name, w.url, identity.Grant{Certificate: string(cert), CA: string(w.ca.CertPEM()), SigningKeys: [][]byte{make([]byte, 32)}})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// edge is a linked node with the frames that it got.
type edge struct {
	conn   *websocket.Conn
	frames chan *wire.Frame
	ended  chan websocket.StatusCode
}

func (w *world) dial(ctx context.Context, conf *tls.Config) (*websocket.Conn, *http.Response, error) {
	conf.NextProtos = []string{"http/1.1"}
	return websocket.Dial(ctx, w.url+wire.EdgelinkPath, &websocket.DialOptions{HTTPClient: &http.Client{Transport: &http.Transport{TLSClientConfig: conf}}})
}

func (w *world) link(t *testing.T, n *identity.Node) *edge {
	t.Helper()
	var conn *websocket.Conn
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		var err error
		if conn, _, err = w.dial(t.Context(), n.TLSConfig()); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	conn.SetReadLimit(wire.MaxFrame)
	e := &edge{conn: conn, frames: make(chan *wire.Frame, 1000), ended: make(chan websocket.StatusCode, 1)}
	t.Cleanup(func() { _ = conn.CloseNow() })
	go func() {
		for {
			_, b, err := conn.Read(context.Background())
			if err != nil {
				e.ended <- websocket.CloseStatus(err)
				return
			}
			f, err := wire.DecodeFrame(b)
			if err != nil {
				t.Errorf("the cloud sent %s: %v", b, err)
				return
			}
			e.frames <- f
		}
	}()
	return e
}

func (e *edge) send(t *testing.T, f wire.Frame) {
	t.Helper()
	b, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.conn.Write(t.Context(), websocket.MessageText, b); err != nil {
		t.Fatal(err)
	}
}

func (e *edge) next(t *testing.T, typ wire.FrameType, name string) *wire.Frame {
	t.Helper()
	f := wait(t, e.frames, string(typ)+" "+name)
	if f.Type != typ || f.Name != name {
		t.Fatalf("got %s %s %v, want %s %s", f.Type, f.Name, f.Devices, typ, name)
	}
	return f
}

func wait[T any](t testing.TB, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("%s: waited %v", what, patience)
		panic("unreachable")
	}
}

// eventually waits until f holds.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: waited %v", what, patience)
		}
	}
}

func (w *world) model(t *testing.T, ns, name string) {
	t.Helper()
	err := w.api.Create(t.Context(), &devices.DeviceModel{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec: devices.DeviceModelSpec{Properties: []devices.ModelProperty{{Name: "task", Type: "STRING", AccessMode: "ReadWrite"}}}})
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) device(t *testing.T, ns, name, node string) *devices.Device {
	t.Helper()
	d := &devices.Device{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Spec: devices.DeviceSpec{
		DeviceModelRef: &corev1.LocalObjectReference{Name: "m"}, NodeName: node, Protocol: devices.ProtocolConfig{ProtocolName: "sedna"},
		Properties: []devices.DeviceProperty{{Name: "task", Desired: &devices.TwinProperty{Value: "x"}}, {Name: "phase"}},
	}}
	if err := w.api.Create(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	return d
}

func (w *world) patch(t *testing.T, d *devices.Device, edit func()) {
	t.Helper()
	before := d.DeepCopy()
	edit()
	if err := w.api.Patch(t.Context(), d, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
}

// status gives the DeviceStatus; nil if there is none.
func (w *world) status(t *testing.T, ns, name string) *devices.DeviceStatus {
	t.Helper()
	st := &devices.DeviceStatus{}
	err := w.api.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: name}, st)
	if client.IgnoreNotFound(err) != nil {
		t.Fatal(err)
	}
	if err != nil {
		return nil
	}
	return st
}

func (w *world) rejected(t *testing.T, code wire.Code) (n float64) {
	t.Helper()
	families, err := w.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, fam := range families {
		if fam.GetName() != "sedna_rejected_total" {
			continue
		}
		for _, m := range fam.Metric {
			if m.Label[0].GetValue() == string(code) && m.Label[1].GetValue() == metrics.DoorEdgelink {
				n += m.Counter.GetValue()
			}
		}
	}
	return n
}
