package edge_test

import (
	"context"
	"path/filepath"
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
