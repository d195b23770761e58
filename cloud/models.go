package cloud

import (
	"context"
	"fmt"
	"strings"

	"github.com/edgetwin/sedna/cloud/inference"
	"github.com/edgetwin/sedna/lib/blob"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// cloudModels has the inference server answer with models from the blob store.
type cloudModels struct {
	server *inference.Server
	blobs  blob.Backend
}

// Serve makes the model answer under the service's name.
func (c *cloudModels) Serve(ctx context.Context, service string, m task.Model) error {
	if !strings.HasPrefix(m.URL, task.BlobURLPrefix) {
		return wire.E(wire.FailedPrecondition, "spec.url", fmt.Sprintf("the GlobalManager serves models from its blob store only, not from %.200q", m.URL),
			"`sedna model push` puts the file there")
	}
	path, err := c.blobs.File(ctx, m.SHA256)
	if err != nil {
		return err
	}
	return c.server.Set(ctx, service, inference.Spec{Model: m, Path: path})
}

// Remove ends the service.
func (c *cloudModels) Remove(service string) { c.server.Remove(service) }
