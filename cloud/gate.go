package cloud

import (
	"context"
	"crypto/ed25519"
	"net/http"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/edgetwin/sedna/cloud/controllers"
	"github.com/edgetwin/sedna/cloud/twin"
	"github.com/edgetwin/sedna/lib/identity"
	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// gate answers who a request comes from, and what a node may read and ask: no
// more than its own tasks need.
type gate struct {
	client client.Client
	nodes  *twin.Nodes
}

// Node gives the node that a request comes from, by its client certificate;
// an error if there is none, or it was withdrawn or replaced.
func (g *gate) Node(r *http.Request) (string, error) {
	node, ok := identity.NodeFrom(r)
	key, hasKey := identity.NodeKey(r)
	if !ok || !hasKey {
		return "", wire.E(wire.Unauthenticated, "", "a node's client certificate is needed", "enrol the node with a token")
	}
	return node, g.valid(r.Context(), node, key)
}

func (g *gate) valid(ctx context.Context, node string, key ed25519.PublicKey) error {
	revoked, err := g.nodes.Revoked(ctx, node, key)
	if err != nil {
		return wire.E(wire.Unavailable, "", "the registry of nodes cannot be read: "+err.Error(), "try again")
	}
	if revoked {
		return wire.E(wire.Revoked, "", "the certificate of node "+node+" is not valid any more", "enrol the node again")
	}
	return nil
}

// MayRead tells whether a task of the node needs the blob.
func (g *gate) MayRead(node, sha256 string) bool {
	return g.any(node, func(doc *task.Document) bool {
		for _, d := range controllers.DocumentModels(doc) {
			if d == sha256 {
				return true
			}
		}
		return false
	})
}

// MayAsk tells whether a task of the node belongs to the service.
func (g *gate) MayAsk(node, service string) bool {
	return g.any(node, func(doc *task.Document) bool {
		return doc.State == task.Active && wire.Service(doc.Namespace, doc.Name) == service
	})
}

// any tells whether a task document of the node is such as f says.
func (g *gate) any(node string, f func(*task.Document) bool) bool {
	var list devices.DeviceList
	if err := g.client.List(context.Background(), &list, client.MatchingLabels{task.LabelNode: node}); err != nil {
		return false
	}
	for i := range list.Items {
		if doc, err := twin.Document(&list.Items[i]); err == nil && doc != nil && f(doc) {
			return true
		}
	}
	return false
}

// mayAdminister refuses callers without an administrator's certificate.
func mayAdminister(r *http.Request) *wire.Error {
	if identity.IsAdmin(r) {
		return nil
	}
	const message, hint = "an administrator's client certificate is needed", "use the one in the data directory's admin.yaml"
	if _, ok := identity.NodeFrom(r); ok {
		return wire.E(wire.PermissionDenied, "", message, hint)
	}
	return wire.E(wire.Unauthenticated, "", message, hint)
}
