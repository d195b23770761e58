package edge_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgetwin/sedna/edge"
	"github.com/edgetwin/sedna/lib/config"
	"github.com/edgetwin/sedna/lib/identity"
	"github.com/edgetwin/sedna/models/wire"
)

// On a node with KubeEdge nobody runs `sedna join`.
func TestEnrolTokenGivesTheNodeItsIdentity(t *testing.T) {
	w := newWorld(t)
	token, err := identity.CreateToken(t.TempDir(), w.ca.Pin(), node, 0, time.Now())
	must(t, err)
	cfg := w.config()
	cfg.IdentityDir = filepath.Join(t.TempDir(), "identity")
	cfg.EnrolToken = config.Secret(token)

	for field, missing := range map[string]func(*edge.Config){
		"node":     func(c *edge.Config) { c.CloudURL = w.node.CloudURL() },
		"cloudURL": func(c *edge.Config) { c.Node = node },
	} {
		bad := cfg
		bad.Node, bad.CloudURL = "", ""
		missing(&bad)
		if err := edge.Run(context.Background(), bad, edge.Deps{}); !wire.IsCode(err, wire.InvalidArgument) {
			t.Errorf("without %s: %v", field, err)
		}
	}

	cfg.Node, cfg.CloudURL = node, w.node.CloudURL()
	_, stop := w.start(cfg)
	stop()
	if id, err := identity.LoadNode(cfg.IdentityDir); err != nil || id.Name() != node {
		t.Fatalf("identity %v, %v", id, err)
	}
	cfg.EnrolToken, cfg.CloudURL = "used", "" // not looked at any more
	_, stop = w.start(cfg)
	stop()
}

func TestEnrolTokenFile(t *testing.T) {
	w := newWorld(t)
	enrolled := make(chan string, 10) // the tokens that came
	cloud := w.cloud.Handler
	w.cloud.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		var req identity.EnrolRequest
		if r.URL.Path == identity.EnrolPath && err == nil && json.Unmarshal(b, &req) == nil {
			enrolled <- req.Token
		}
		r.Body = io.NopCloser(bytes.NewReader(b))
		cloud.ServeHTTP(rw, r)
	})
	token, err := identity.CreateToken(t.TempDir(), w.ca.Pin(), node, 0, time.Now())
	must(t, err)
	cfg := w.config()
	cfg.Node, cfg.CloudURL = node, w.node.CloudURL()
	cfg.IdentityDir, cfg.EnrolTokenFile = filepath.Join(t.TempDir(), "identity"), filepath.Join(t.TempDir(), "token")

	err = edge.Run(t.Context(), cfg, edge.Deps{})
	if e := wire.AsError(err); e.Field != "enrolTokenFile" || e.Code != wire.FailedPrecondition || !strings.Contains(e.Hint, "sedna token create --node "+node) {
		t.Errorf("no file and no identity: %v", err)
	}
	must(t, os.WriteFile(cfg.EnrolTokenFile, nil, 0o600))
	if err := edge.Run(t.Context(), cfg, edge.Deps{}); err == nil {
		t.Error("an empty file is no token")
	}
	must(t, os.WriteFile(cfg.EnrolTokenFile, []byte(token+"\n"), 0o600))
	_, stop := w.start(cfg)
	stop()
	// A start later, the file may be as it was, or gone.
	_, stop = w.start(cfg)
	stop()
	must(t, os.Remove(cfg.EnrolTokenFile))
	_, stop = w.start(cfg)
	stop()
	if len(enrolled) != 1 {
		t.Fatalf("enrolled %d times", len(enrolled))
	}
	if sent := <-enrolled; sent == "" || !strings.HasPrefix(token, sent) {
		t.Errorf("enrolled by %q, not by %q", sent, token)
	}
}
