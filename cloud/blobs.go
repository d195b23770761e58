package cloud

import (
	"context"
	"io"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/edgetwin/sedna/cloud/blobserver"
	"github.com/edgetwin/sedna/cloud/controllers"
	"github.com/edgetwin/sedna/cloud/twin"
	"github.com/edgetwin/sedna/lib/blob"
	"github.com/edgetwin/sedna/lib/blob/s3blob"
	"github.com/edgetwin/sedna/lib/storage/s3"
	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
	sedna "github.com/edgetwin/sedna/models/sedna/v1alpha1"
)

// openBlobs opens the directory or the bucket that has the blobs.
func openBlobs(ctx context.Context, c *Config) (blob.Backend, error) {
	limits, b := blob.Limits{MaxBlob: c.Limits.Blob}, &c.Blobs.S3
	if b.Bucket == "" {
		return blob.OpenDir(c.blobsDir(), limits)
	}
	conn, err := s3.New(s3.Options{Endpoint: b.Endpoint, HTTP: b.HTTP, Region: b.Region, AccessKey: b.AccessKey, SecretKey: string(b.SecretKey)})
	if err != nil {
		return nil, err
	}
	return s3blob.Open(ctx, s3blob.Config{
		Client: conn, Bucket: b.Bucket, Prefix: b.Prefix, Dir: c.blobsDir(), Limits: limits, CacheBytes: b.CacheBytes, PartSize: b.PartSize,
	})
}

// blobStore is the blob store, which tells of each blob that arrives, and the
// collector that one is about to.
type blobStore struct {
	blob.Backend
	collector *blobserver.Collector
	stored    chan event.TypedGenericEvent[string]
}

// Touch makes a blob count as stored now.
func (b *blobStore) Touch(ctx context.Context, sha string) error {
	b.collector.Storing(sha)
	return b.Backend.Touch(ctx, sha)
}

// Put stores a blob and tells of it.
func (b *blobStore) Put(ctx context.Context, sha string, r io.Reader) (blob.Info, error) {
	b.collector.Storing(sha)
	info, err := b.Backend.Put(ctx, sha, r)
	if err == nil {
		b.tell(ctx, info.SHA256)
	}
	return info, err
}

// Resume takes a part of a blob and tells of the blob when it is whole.
func (b *blobStore) Resume(ctx context.Context, sha string, offset, total int64, r io.Reader) (int64, error) {
	b.collector.Storing(sha)
	have, err := b.Backend.Resume(ctx, sha, offset, total, r)
	if err == nil && have == total {
		b.tell(ctx, sha)
	}
	return have, err
}

func (b *blobStore) tell(ctx context.Context, sha string) {
	select {
	case b.stored <- event.TypedGenericEvent[string]{Object: sha}:
	case <-ctx.Done():
	}
}

// references are what Models and tasks name.
type references struct{ client client.Client }

// InUse gives the digests that Models and tasks name.
func (s references) InUse(ctx context.Context) (map[string]bool, error) {
	named := map[string]bool{}
	var models sedna.ModelList
	if err := s.client.List(ctx, &models); err != nil {
		return nil, err
	}
	for i := range models.Items {
		named[controllers.DigestOf(&models.Items[i])] = true
	}
	var tasks devices.DeviceList
	if err := s.client.List(ctx, &tasks); err != nil {
		return nil, err
	}
	for i := range tasks.Items {
		if !twin.IsTask(&tasks.Items[i]) {
			continue // somebody's own Device
		}
		doc, err := twin.Document(&tasks.Items[i])
		if err != nil {
			return nil, err // better to keep too much
		}
		for _, d := range controllers.DocumentModels(doc) {
			named[d] = true
		}
	}
	return named, nil
}
