package edge

import (
	"context"
	"net/http"
	"strings"

	"github.com/edgetwin/sedna/edge/inference"
	"github.com/edgetwin/sedna/edge/model"
	"github.com/edgetwin/sedna/edge/tasks"
	"github.com/edgetwin/sedna/lib/blob"
	"github.com/edgetwin/sedna/models/task"
)

// fetchAttempts is how often in a row a transfer may fail before the task is
// told; the task then tries again with a back-off of its own.
const fetchAttempts = 3

// fetcher brings models: blobs from the GlobalManager with the node's
// certificate, anything else without a credential of ours.
type fetcher struct {
	cloud  string
	client *http.Client
}

var _ model.Fetcher = fetcher{}

func (f fetcher) Fetch(ctx context.Context, url, sha256, dst string, limit int64) error {
	o := blob.Options{Limit: limit, Attempts: fetchAttempts}
	if digest, ok := strings.CutPrefix(url, task.BlobURLPrefix); ok {
		o.HTTP = f.client
		return blob.NewClient(f.cloud, o).Fetch(ctx, digest, dst, nil)
	}
	_, err := blob.FetchURL(ctx, url, sha256, dst, o, nil)
	return err
}

// server is the inference manager as the tasks see it.
type server struct{ *inference.Manager }

var _ tasks.Server = server{}

func (s server) Activate(ctx context.Context, v tasks.Service) error {
	return s.Manager.Activate(ctx, inference.ServiceSpec(v))
}
