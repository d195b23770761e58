package edge_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgetwin/sedna/edge"
	"github.com/edgetwin/sedna/edge/model"
	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/lib/daemon"
	"github.com/edgetwin/sedna/lib/engine/enginetest"
	"github.com/edgetwin/sedna/lib/unixsocket"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

const (
	node     = "edge1"
	patience = 20 * time.Second
	// helper makes the test binary a LocalController with the configuration
	// file that it names.
	helper = "EDGE_TEST_CONFIG"
)

func TestMain(m *testing.M) {
	if handled, code := model.LoadTestMain(os.Args[1:]); handled {
		os.Exit(code)
	}
	if file := os.Getenv(helper); file != "" {
		os.Exit(daemon.Run(context.Background(), program(), []string{"--config", file}, nil, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

func program() daemon.Program[edge.Config] {
	return daemon.Program[edge.Config]{
		Name: "localcontroller", Default: edge.DefaultConfig, Check: (*edge.Config).Check,
		Run: func(ctx context.Context, cfg edge.Config, log *slog.Logger, ready func(any)) error {
			return edge.Run(ctx, cfg, edge.Deps{Log: log, Ready: func(e edge.Endpoints) { ready(e) }})
		},
	}
}

func TestFromDocumentToAnswer(t *testing.T) {
	w := newWorld(t)
	url, stop := w.start(w.config())
	w.send("u1", 1, task.Active, w.push(enginetest.Doubler()))
	r := w.expect("u1", task.Running, 1)
	if !strings.HasPrefix(r.Model, "doubler:v1:") {
		t.Error(r.Model)
	}
	must(t, infer(url))
	if code, body := get(t, url+"/readyz"); code != http.StatusOK || !strings.Contains(body, `"ready":true`) || !strings.Contains(body, `"bus":{"connected":true}`) {
		t.Error(code, body)
	}
	if code, body := get(t, url+"/v1/tasks"); code != http.StatusOK || !strings.Contains(body, `"phase":"Running"`) {
		t.Error(code, body)
	}
	if code, body := get(t, url+"/v1/tasks/default/"+device()); code != http.StatusOK || !strings.Contains(body, `"document":{"schema"`) {
		t.Error(code, body)
	}
	if code, body := get(t, url+"/v1/tasks/default/none"); code != http.StatusNotFound || !strings.Contains(body, `"not_found"`) {
		t.Error(code, body)
	}
	if code, body := get(t, url+"/nowhere"); code != http.StatusNotFound || !strings.Contains(body, `"not_found"`) {
		t.Error(code, body)
	}
	if code, _ := get(t, url+"/healthz"); code != http.StatusOK {
		t.Error(code)
	}
	if code, body := get(t, url+"/v1/tasks", "Host", "evil.example"); code != http.StatusForbidden || !strings.Contains(body, `"permission_denied"`) {
		t.Error(code, body)
	}
	if code, body := get(t, url+"/metrics"); code != http.StatusOK || !strings.Contains(body, `sedna_tasks{phase="Running"} 1`) || !strings.Contains(body, "sedna_bus_connected 1") ||
		!strings.Contains(body, `sedna_rejected_total{code="permission_denied",door="http"} 1`) {
		t.Error(code, body)
	}
	// A corrupt model fails its load test; the first goes on.
	corrupt := enginetest.Doubler()
	for i := range corrupt {
		corrupt[i] ^= byte(i)
	}
	w.send("u1", 2, task.Active, w.push(corrupt))
	if r := w.expect("u1", task.Failed, 2); r.Reason != "BadModel" {
		t.Errorf("%+v", r)
	}
	must(t, infer(url))
	w.event("bad_model")
	w.send("u1", 3, task.Deleted, task.Model{})
	w.expect("u1", task.Stopped, 3)
	if err := infer(url); err == nil {
		t.Error("a deleted service answers")
	}
	stop()
}

// TestNewSigningKey has the cloud sign with a key that came after the node had
// joined: the node refuses, asks for the keys over its own link, and takes the
// document when it comes again.
func TestNewSigningKey(t *testing.T) {
	w := newWorld(t)
	w.start(w.config())
	w.event("CloudReachable")
	m := w.push(enginetest.Doubler())
	must(t, w.keys.Rotate())
	w.send("u1", 1, task.Active, m)
	w.event(string(wire.BadSignature))
	for deadline := time.Now().Add(patience); ; {
		w.send("u1", 1, task.Active, m)
		select {
		case p := <-w.reports:
			if p["phase"] == task.Running {
				return
			}
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatal("the new key was not learnt")
		}
	}
}

func TestToken(t *testing.T) {
	w := newWorld(t)
	cfg := w.config()
	cfg.HTTP, cfg.Token = "0.0.0.0:0", "hunter2"
	url, _ := w.start(cfg)
	_, port, err := net.SplitHostPort(strings.TrimPrefix(url, "http://"))
	must(t, err)
	url = "http://127.0.0.1:" + port
	for _, c := range []struct {
		path, auth string
		code       int
		says       string
	}{
		{"/v1/tasks", "", http.StatusUnauthorized, `{"error":{"code":"unauthenticated"`},
		{"/v2", "", http.StatusUnauthorized, `{"error":"missing or wrong token","code":"unauthenticated"`},
		{"/v1/tasks", "Bearer hunter", http.StatusUnauthorized, "unauthenticated"},
		{"/v1/tasks", "hunter2", http.StatusUnauthorized, "unauthenticated"},
		{"/v1/tasks", "Bearer hunter2", http.StatusOK, "tasks"},
		{"/healthz", "", http.StatusOK, "ok"},
	} {
		if code, body := get(t, url+c.path, "Authorization", c.auth); code != c.code || !strings.Contains(body, c.says) {
			t.Errorf("%s with %q: %d %s", c.path, c.auth, code, body)
		}
	}
	big := strings.Repeat("x", 64<<10)
	if code, _ := get(t, url+"/healthz", "X-Big", big); code != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a header of %d bytes: %d", len(big), code)
	}
}

// TestSocket asks over the unix socket what HTTP asks a token for.
func TestSocket(t *testing.T) {
	w := newWorld(t)
	cfg := w.config()
	cfg.Token, cfg.Socket = "hunter2", filepath.Join(t.TempDir(), "lc.sock")
	local := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", cfg.Socket)
	}}}
	defer local.CloseIdleConnections()

	// What a process that was killed has left does not matter.
	dead, err := net.Listen("unix", cfg.Socket)
	must(t, err)
	dead.(*net.UnixListener).SetUnlinkOnClose(false)
	must(t, dead.Close())
	url, stop := w.start(cfg)
	if st, err := os.Stat(cfg.Socket); err != nil || st.Mode() != os.ModeSocket|0o600 {
		t.Fatal(st, err)
	}
	w.send("u1", 1, task.Active, w.push(enginetest.Doubler()))
	w.expect("u1", task.Running, 1)
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/v1/tasks", "/v2/models/digits", "/nowhere"} {
		want, body := get(t, url+path, "Authorization", "Bearer hunter2")
		resp, err := local.Get("http://localcontroller" + path)
		must(t, err)
		got, err := io.ReadAll(resp.Body)
		must(t, err)
		must(t, resp.Body.Close())
		if resp.StatusCode != want || path != "/metrics" && path != "/readyz" && string(got) != body {
			t.Errorf("%s: %d over HTTP, %d over the socket: %s", path, want, resp.StatusCode, got)
		}
		if code, _ := get(t, url+path); path != "/healthz" && code != http.StatusUnauthorized {
			t.Errorf("%s over HTTP without the token: %d", path, code)
		}
	}
	must(t, inferBy(local, "http://localcontroller"))

	// A second LocalController leaves the socket to the first.
	second := w.config()
	second.DataDir, second.IdentityDir, second.Socket = t.TempDir(), filepath.Join(w.dir, "identity"), cfg.Socket
	if err := edge.Run(t.Context(), second, edge.Deps{}); !errors.Is(err, unixsocket.ErrInUse) {
		t.Errorf("on a socket in use: %v", err)
	}
	must(t, inferBy(local, "http://localcontroller"))
	stop()
	if _, err := os.Stat(cfg.Socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after the end: %v", err)
	}
}

func TestConfigCheck(t *testing.T) {
	for key, change := range map[string]func(*edge.Config){
		"dataDir":        func(c *edge.Config) { c.DataDir = "" },
		"node":           func(c *edge.Config) { c.Node = "Edge 1" },
		"namespace":      func(c *edge.Config) { c.Namespace = "" },
		"beatSeconds":    func(c *edge.Config) { c.BeatSeconds = 0 },
		"http":           func(c *edge.Config) { c.HTTP = "9100" },
		"token":          func(c *edge.Config) { c.HTTP = ":9100" },
		"dataRoots[1]":   func(c *edge.Config) { c.DataRoots = []string{"/srv", "models"} },
		"enrolTokenFile": func(c *edge.Config) { c.EnrolToken, c.EnrolTokenFile = "token", "/etc/token" },
	} {
		c := edge.DefaultConfig()
		must(t, c.Check())
		change(&c)
		if err := c.Check(); err == nil || wire.AsError(err).Field != key {
			t.Errorf("%s: %v", key, err)
		}
	}
	w := newWorld(t)
	cfg := w.config()
	cfg.Node = "edge2"
	if err := edge.Run(t.Context(), cfg, edge.Deps{}); !wire.IsCode(err, wire.InvalidArgument) {
		t.Error(err)
	}
	cfg.IdentityDir = t.TempDir()
	if err := edge.Run(t.Context(), cfg, edge.Deps{}); !wire.IsCode(err, wire.NotFound) {
		t.Error(err)
	}
}

func TestKilledAndAlone(t *testing.T) {
	w := newWorld(t)
	cmd, url := w.process(w.config())
	w.send("u1", 1, task.Active, w.push(enginetest.Doubler()))
	w.expect("u1", task.Running, 1)
	must(t, infer(url))
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	must(t, w.cloud.Close())
	must(t, w.broker.Close())
	began := time.Now()
	cmd, url = w.process(w.config())
	var err error
	for time.Since(began) < patience {
		if err = infer(url); err == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	must(t, err)
	t.Logf("offline_ready_ms %d", time.Since(began).Milliseconds())
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid)); err == nil {
		for line := range strings.Lines(string(b)) {
			if strings.HasPrefix(line, "VmRSS") {
				t.Logf("resident: %s", strings.Join(strings.Fields(line), " "))
			}
		}
	}
	code, body := get(t, url+"/readyz")
	for code != http.StatusOK && time.Since(began) < patience {
		code, body = get(t, url+"/readyz")
	}
	if code != http.StatusOK || !strings.Contains(body, `"bus":{"connected":false}`) || !strings.Contains(body, `"cloud":{"connected":false}`) {
		t.Error(code, body)
	}
}

func TestDamagedDatabaseIsTold(t *testing.T) {
	w := newWorld(t)
	must(t, os.WriteFile(filepath.Join(w.dir, store.FileName), bytes.Repeat([]byte("rubbish "), 1000), 0o600))
	url, _ := w.start(w.config())
	w.event("Damaged")
	if code, body := get(t, url+"/readyz"); code != http.StatusOK || !strings.Contains(body, "sedna.db.damaged-") {
		t.Error(code, body)
	}
}
