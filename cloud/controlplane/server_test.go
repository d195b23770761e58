package controlplane_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/edgetwin/sedna/cloud/controlplane"
	"github.com/edgetwin/sedna/cloud/controlplane/controlplanetest"
)

func TestRestartKeepsObjectsAndUpdatesCRDs(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	ca, dir := controlplanetest.NewCA(t), t.TempDir()
	crd := widgetCRD(t)

	s := controlplanetest.StartServer(t, ca, dir, crd)
	if _, err := widgetsIn(t, s.RESTConfig(), "a").Create(ctx, newWidget("kept", map[string]any{"size": int64(7)}), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := controlplane.Start(ctx, controlplanetest.Config(t, ca, dir)); !errors.Is(err, controlplane.ErrDirInUse) {
		t.Fatalf("second server on the directory: %v, want ErrDirInUse", err)
	}
	if info, err := os.Stat(filepath.Join(dir, "etcd")); err != nil || info.Mode().Perm() != 0o700 {
		t.Fatalf("etcd directory: %v, %v; want mode 0700", info, err)
	}
	if err := s.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(); err != nil {
		t.Fatalf("Wait after Stop: %v", err)
	}
	if conn, err := net.Dial("tcp", s.Addr()); err == nil {
		conn.Close()
		t.Fatal("the port is open after Stop")
	}

	crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"].Properties["colour"] = apiextensionsv1.JSONSchemaProps{
		Type: "string", Default: &apiextensionsv1.JSON{Raw: []byte(`"blue"`)},
	}
	crd.Labels = map[string]string{"sedna.io/part": "test"}
	s = controlplanetest.StartServer(t, ca, dir, crd)
	obj, err := widgetsIn(t, s.RESTConfig(), "a").Get(ctx, "kept", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if size, colour := field(t, obj, "spec", "size"), field(t, obj, "spec", "colour"); size != int64(7) || colour != "blue" {
		t.Fatalf("size %v colour %v, want 7 as stored and blue from the new default", size, colour)
	}
	before := crdVersion(t, s)
	if err := s.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	s = controlplanetest.StartServer(t, ca, dir, crd)
	if after := crdVersion(t, s); after != before {
		t.Fatalf("an unchanged CRD was written: resourceVersion %s, then %s", before, after)
	}
}

// TestLongPath has a data directory whose path is longer than a socket's may be.
func TestLongPath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long/", 30))
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	s := controlplanetest.StartServer(t, controlplanetest.NewCA(t), dir)
	sockets, err := filepath.Glob(filepath.Join(tmp, "sedna-etcd-*"))
	if err != nil || len(sockets) != 1 {
		t.Fatalf("temporary directories for a socket: %v, %v; want one", sockets, err)
	}
	if info, err := os.Stat(sockets[0]); err != nil || info.Mode().Perm() != 0o700 {
		t.Fatalf("%v, %v; want mode 0700", info, err)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(sockets[0]); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("the socket's directory after Stop: %v, want it gone", err)
	}
}

// TestQuiet starts and stops without a line of log. It does not run in parallel, because klog has one logger per process.
func TestQuiet(t *testing.T) {
	var log bytes.Buffer
	cfg := controlplanetest.Config(t, controlplanetest.NewCA(t), t.TempDir(), widgetCRD(t))
	cfg.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s, err := controlplane.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if log.Len() != 0 {
		t.Fatalf("logged:\n%s", log.String())
	}
}

// TestStoreDies has etcd end under the server: the owner must hear of it.
func TestStoreDies(t *testing.T) {
	t.Parallel()
	s, err := controlplane.Start(t.Context(), controlplanetest.Config(t, controlplanetest.NewCA(t), t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	s.KillStore()
	if err := s.Wait(); !errors.Is(err, controlplane.ErrStoreDied) {
		t.Fatalf("Wait: %v, want ErrStoreDied", err)
	}
}

func TestStartRefuses(t *testing.T) {
	t.Parallel()
	ca := controlplanetest.NewCA(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()

	for name, c := range map[string]struct {
		ctx    context.Context
		change func(*controlplane.Config)
		want   string
	}{
		"no directory":        {change: func(c *controlplane.Config) { c.Dir = "" }, want: "Dir"},
		"no certificate":      {change: func(c *controlplane.Config) { c.ServingCert = tls.Certificate{} }, want: "ServingCert"},
		"no client CA":        {change: func(c *controlplane.Config) { c.ClientCA = []byte("none") }, want: "ClientCA"},
		"nil CRD":             {change: func(c *controlplane.Config) { c.CRDs = []*apiextensionsv1.CustomResourceDefinition{nil} }, want: "CRDs[0]"},
		"port taken":          {change: func(c *controlplane.Config) { c.Addr = taken.Addr().String() }, want: "address already in use"},
		"cancelled":           {ctx: cancelled, want: "context canceled"},
		"unreadable database": {change: func(c *controlplane.Config) { spoil(t, c.Dir, "snap/db") }, want: "cannot open"},
		"unreadable log":      {change: func(c *controlplane.Config) { spoil(t, c.Dir, "wal/0000000000000000-0000000000000000.wal") }, want: "cannot open"},
		"invalid CRD": {change: func(c *controlplane.Config) {
			crd := widgetCRD(t)
			crd.Spec.Versions[0].Storage = false
			c.CRDs = []*apiextensionsv1.CustomResourceDefinition{crd}
		}, want: "widgets.test.sedna.io"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := controlplanetest.Config(t, ca, t.TempDir())
			if c.change != nil {
				c.change(&cfg)
			}
			if c.ctx == nil {
				c.ctx = t.Context()
			}
			s, err := controlplane.Start(c.ctx, cfg)
			if err == nil {
				s.Stop(t.Context())
				t.Fatal("started")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %q does not mention %q", err, c.want)
			}
		})
	}
}

func TestKubeconfig(t *testing.T) {
	ca := controlplanetest.NewCA(t)
	certPEM, keyPEM := ca.Client(t, "admin", "system:masters")
	data, err := controlplane.Kubeconfig("127.0.0.1:16443", ca.PEM, certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := clientcmd.RESTConfigFromKubeConfig(data)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Host != "https://127.0.0.1:16443" || string(cfg.CertData) != string(certPEM) || string(cfg.KeyData) != string(keyPEM) || string(cfg.CAData) != string(ca.PEM) {
		t.Fatalf("read back %+v", cfg)
	}
}

func crdVersion(t *testing.T, s *controlplane.Server) string {
	t.Helper()
	obj, err := crdClient(t, s.RESTConfig()).Get(t.Context(), "widgets.test.sedna.io", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return obj.GetResourceVersion()
}

// spoil leaves a file of etcd's that cannot be read.
func spoil(t *testing.T, dir, name string) {
	t.Helper()
	path := filepath.Join(dir, "etcd", "member", name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Repeat("neither of these ", 4096)), 0o600); err != nil {
		t.Fatal(err)
	}
}
