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
	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
	sedna "github.com/edgetwin/sedna/models/sedna/v1alpha1"
)

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
