package mapper_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/lib/config"
	"github.com/edgetwin/sedna/lib/identity"
	"github.com/edgetwin/sedna/mapper"
	"github.com/edgetwin/sedna/models/wire"
)

const patience = 10 * time.Second

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

// join makes the identity of node n1, of a cloud that is away.
func join(t *testing.T, dir string) {
	t.Helper()
	ca, err := identity.OpenCA(t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := identity.NodeCSR(dir, "n1")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.SignNode(csr, "n1")
	if err != nil {
		t.Fatal(err)
	}
	_, err = identity.SaveNode(dir, "n1", "https://127.0.0.1:1", identity.Grant{Certificate: string(cert), CA: string(ca.CertPEM()), SigningKeys: [][]byte{make([]byte, 32)}})
	if err != nil {
		t.Fatal(err)
	}
}

func standalone(t *testing.T) mapper.Config {
	t.Helper()
	dir := t.TempDir()
	c := mapper.Default()
	c.Identity, c.DMISocket, c.Socket = filepath.Join(dir, "identity"), filepath.Join(dir, "dmi.sock"), filepath.Join(dir, "mapper.sock")
	c.HTTP, c.Broker = "127.0.0.1:0", mapper.Broker{Enabled: true, Listen: "127.0.0.1:0"}
	c.Edgelink = mapper.Edgelink{Enabled: true, Database: filepath.Join(dir, "edge.db")}
	return c
}

func TestRunsWithTheCloudAway(t *testing.T) {
	c := standalone(t)
	c.Token = "secret"
	join(t, c.Identity)
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan mapper.Endpoints, 1), make(chan error, 1)
	go func() {
		done <- mapper.Run(ctx, c, slog.New(slog.DiscardHandler), func(e mapper.Endpoints) { ready <- e })
	}()
	defer func() {
		cancel()
		if err := wait(t, done, "end of Run"); err != nil {
			t.Error(err)
		}
	}()
	e := wait(t, ready, "ready")
	if e.Node != "n1" {
		t.Errorf("%+v", e)
	}
	get := func(path, token string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+e.HTTP+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(b)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		code, body := get("/readyz", "")
		if code == http.StatusOK {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(body)
		}
	}
	if code, _ := get("/healthz", ""); code != http.StatusOK {
		t.Error(code)
	}
	if code, _ := get("/metrics", "wrong"); code != http.StatusUnauthorized {
		t.Error(code)
	}
	if code, body := get("/v1/devices", "secret"); code != http.StatusOK || body != "{\"devices\":[]}\n" {
		t.Error(code, body)
	}
	code, body := get("/metrics", "secret")
	for _, m := range []string{"sedna_mapper_devices 0", `sedna_rejected_total{code="unauthenticated",door="http"} 1`} {
		if code != http.StatusOK || !strings.Contains(body, m) {
			t.Errorf("no %s in the metrics", m)
		}
	}
	b, err := bus.New(bus.Options{URL: e.MQTT, ClientID: "app"})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	up := make(chan struct{}, 1)
	b.OnConnect(func() { up <- struct{}{} })
	b.Start(ctx)
	wait(t, up, "the embedded broker")
}

func TestRefusesToRun(t *testing.T) {
	for name, edit := range map[string]func(*mapper.Config){
		"not joined":  func(c *mapper.Config) { c.Identity += "-none" },
		"other node":  func(c *mapper.Config) { c.Node = "n2" },
		"bad node":    func(c *mapper.Config) { c.Node = "N 2" },
		"no socket":   func(c *mapper.Config) { c.Socket = "" },
		"open http":   func(c *mapper.Config) { c.HTTP = "0.0.0.0:0" },
		"bad http":    func(c *mapper.Config) { c.HTTP = "nonsense" },
		"open broker": func(c *mapper.Config) { c.Broker.Listen = "0.0.0.0:0" },
		"bad bus":     func(c *mapper.Config) { c.Broker.Enabled, c.Bus.URL = false, "http://x" },
		"plain cloud": func(c *mapper.Config) { c.Edgelink.Cloud = "http://x" },
		"no database": func(c *mapper.Config) { c.Edgelink.Database = "" },
		"socket is a file": func(c *mapper.Config) {
			c.Socket = filepath.Join(filepath.Dir(c.Socket), "file")
			if err := os.WriteFile(c.Socket, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		c := standalone(t)
		join(t, c.Identity)
		edit(&c)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if err := mapper.Run(ctx, c, slog.New(slog.DiscardHandler), func(mapper.Endpoints) {}); err == nil {
			t.Errorf("%s: it ran", name)
		}
		cancel()
	}
}

func TestConfigFromFileAndEnvironment(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mapper.yaml")
	text := "node: edge1\nbus:\n  url: tcp://10.0.0.1:1883\n  password: hidden\nedgelink:\n  enabled: true\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c := mapper.Default()
	if err := config.Load(file, &c, []string{"SEDNA_EDGELINK_CLOUD=https://cloud:9000"}); err != nil {
		t.Fatal(err)
	}
	if c.Node != "edge1" || c.Edgelink.Cloud != "https://cloud:9000" || !c.Edgelink.Enabled || c.DMISocket != "/etc/kubeedge/dmi.sock" {
		t.Errorf("%+v", c)
	}
	if shown := config.Describe(c); strings.Contains(shown, "hidden") {
		t.Error(shown)
	}
	if err := config.Load("", &c, []string{"SEDNA_BROKER_ENABLED=perhaps"}); !wire.IsCode(err, wire.InvalidArgument) {
		t.Error(err)
	}
}
