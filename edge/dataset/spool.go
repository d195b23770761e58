package dataset

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/lib/blob"
	"github.com/edgetwin/sedna/models/wire"
)

// spool is the directory of segments and shards. A file is there under its
// name only when it is whole and on the disk; rows of the store say which are
// needed.
type spool struct {
	dir, tmp string
	store    *store.Store
	quota    int64

	mu    sync.Mutex
	fresh map[string]int // files that no row may name yet
}

func openSpool(ctx context.Context, dir string, s *store.Store, quota int64) (*spool, error) {
	sp := &spool{dir: filepath.Join(dir, "spool"), tmp: filepath.Join(dir, "tmp"), store: s, quota: quota, fresh: map[string]int{}}
	if err := os.RemoveAll(sp.tmp); err != nil {
		return nil, fmt.Errorf("dataset directory: %w", err)
	}
	for _, d := range []string{sp.dir, sp.tmp} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, fmt.Errorf("dataset directory: %w", err)
		}
	}
	return sp, sp.sweep(ctx)
}

func (s *spool) path(name string) string { return filepath.Join(s.dir, name) }

// roomForSegment is resource_exhausted when n more bytes of segments are more
// than half of the quota: the other half is for the shards that are made of them.
func (s *spool) roomForSegment(ctx context.Context, n int64) error {
	segments, _, err := s.used(ctx)
	if err == nil && segments+n > s.quota/2 {
		err = wire.E(wire.ResourceExhausted, "quotaBytes", fmt.Sprintf("samples that jobs have yet to take have %d bytes, at most %d are kept", segments, s.quota/2), "raise the quota, or have the jobs run their rounds")
	}
	return err
}

// roomForShards is resource_exhausted when n more bytes do not fit the quota.
func (s *spool) roomForShards(ctx context.Context, n int64) error {
	segments, shards, err := s.used(ctx)
	if err == nil && segments+shards+n > s.quota {
		err = wire.E(wire.ResourceExhausted, "quotaBytes", fmt.Sprintf("segments and shards take %d bytes of at most %d, %d more are needed", segments+shards, s.quota, n), "raise the quota, or take fewer samples")
	}
	return err
}

func (s *spool) used(ctx context.Context) (segments, shards int64, err error) {
	err = s.store.View(ctx, func(tx *store.Tx) error {
		segments, shards, err = tx.DatasetBytes()
		return err
	})
	return segments, shards, err
}

// sweep removes the files that no row names.
func (s *spool) sweep(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names map[string]int64
	err := s.store.View(ctx, func(tx *store.Tx) (err error) {
		names, err = tx.DatasetFileNames()
		return err
	})
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("dataset directory: %w", err)
	}
	for _, e := range entries {
		if _, needed := names[e.Name()]; needed || s.fresh[e.Name()] > 0 {
			continue
		}
		if err := os.Remove(s.path(e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("dataset directory: %w", err)
		}
	}
	return nil
}

// file is one that is being written.
type file struct {
	s       *spool
	f       *os.File
	w       *bufio.Writer
	sum     hash.Hash
	size    int64
	samples int64
	name    string // once it is in place
	sha256  string
}

// create begins a file; drop must be called in the end.
func (s *spool) create() (*file, error) {
	f, err := os.CreateTemp(s.tmp, "")
	if err != nil {
		return nil, blob.DiskError(err)
	}
	sum := sha256.New()
	return &file{s: s, f: f, w: bufio.NewWriterSize(io.MultiWriter(f, sum), 64<<10), sum: sum}, nil
}

// add writes a sample, or a header, as a line.
func (f *file) add(raw []byte) error {
	f.size += int64(len(raw)) + 1
	if _, err := f.w.Write(raw); err != nil {
		return blob.DiskError(err)
	}
	return blob.DiskError(f.w.WriteByte('\n'))
}

// finish puts the file in place under its digest and suffix, where sweep leaves
// it alone until drop.
func (f *file) finish(suffix string) error {
	if err := errors.Join(f.w.Flush(), f.f.Chmod(0o444), f.f.Sync()); err != nil {
		return blob.DiskError(err)
	}
	f.sha256 = hex.EncodeToString(f.sum.Sum(nil))
	f.name = f.sha256 + suffix
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	f.s.fresh[f.name]++
	if err := os.Rename(f.f.Name(), f.s.path(f.name)); err != nil {
		return blob.DiskError(err)
	}
	return syncDir(f.s.dir)
}

func (f *file) drop() {
	_ = f.f.Close()
	if f.name == "" {
		_ = os.Remove(f.f.Name())
		return
	}
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if f.s.fresh[f.name]--; f.s.fresh[f.name] == 0 {
		delete(f.s.fresh, f.name)
	}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
