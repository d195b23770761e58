package cloud

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/edgetwin/sedna/cloud/controllers"
	"github.com/edgetwin/sedna/cloud/twin"
	"github.com/edgetwin/sedna/lib/blob"
	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
	sedna "github.com/edgetwin/sedna/models/sedna/v1alpha1"
)

// sweepEvery is the time between two looks for blobs that nothing names.
const sweepEvery = time.Minute

// blobStore is the blob directory, which tells of each blob that arrives.
type blobStore struct {
	*blob.Dir
	stored chan event.TypedGenericEvent[string]
}

// Put stores a blob and tells of it.
func (b *blobStore) Put(ctx context.Context, sha string, r io.Reader) (blob.Info, error) {
	info, err := b.Dir.Put(ctx, sha, r)
	if err == nil {
		b.tell(ctx, info.SHA256)
	}
	return info, err
}

// Resume takes a part of a blob and tells of the blob when it is whole.
func (b *blobStore) Resume(ctx context.Context, sha string, offset, total int64, r io.Reader) (int64, error) {
	have, err := b.Dir.Resume(ctx, sha, offset, total, r)
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

// sweeper removes blobs that neither a Model nor a task names any more. A blob
// that was named goes at once; one that never was, after a grace time, since
// an upload comes before the Model that names it.
type sweeper struct {
	client client.Client
	blobs  *blob.Dir
	grace  time.Duration
	now    func() time.Time
	log    *slog.Logger
	kick   chan struct{} // capacity 1: look now

	mu    sync.Mutex
	named map[string]bool // digests that were named since this process started
}

// Used tells that a Model names the digest.
func (s *sweeper) Used(sha256 string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.named[sha256] = true
}

func (s *sweeper) used(sha256 string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.named[sha256]
}

func (s *sweeper) forget(sha256 string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.named, sha256)
}

// Start looks now and then until ctx ends.
func (s *sweeper) Start(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		if err := s.sweep(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("blobs were not swept", "error", err)
		}
		select {
		case <-tick.C:
		case <-s.kick:
		case <-ctx.Done():
			return nil
		}
	}
}

// Kick has the sweeper look now.
func (s *sweeper) Kick() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

func (s *sweeper) sweep(ctx context.Context) error {
	named, err := s.inUse(ctx)
	if err != nil {
		return err
	}
	have, err := s.blobs.List(ctx)
	if err != nil {
		return err
	}
	for _, b := range have {
		if named[b.SHA256] {
			s.Used(b.SHA256)
			continue
		}
		if !s.used(b.SHA256) {
			stored, err := s.blobs.StoredAt(b.SHA256)
			if err != nil || s.now().Sub(stored) < s.grace {
				continue
			}
		}
		if err := s.blobs.Delete(ctx, b.SHA256); err != nil {
			return err
		}
		s.forget(b.SHA256)
		s.log.Info("blob removed, nothing names it", "sha256", b.SHA256, "bytes", b.Size)
	}
	return nil
}

// inUse gives the digests that Models and tasks name.
func (s *sweeper) inUse(ctx context.Context) (map[string]bool, error) {
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
