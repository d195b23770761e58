package blob

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// Limits of a Dir.
type Limits struct {
	// MaxBlob is the largest blob, in bytes. Default 2 GiB.
	MaxBlob int64
	// MinFree is how much of the file system is left to others, in bytes: what
	// would go below it is refused as on a full disk. Default 128 MiB.
	MinFree int64
	// PartialAge is how long an upload that was cut off may be resumed.
	// Default 24 h.
	PartialAge time.Duration
}

// Names below a Dir: <2 hex>/<64 hex> are blobs, tmp holds what is being
// written.
const (
	tmpDir     = "tmp"
	tmpSuffix  = ".tmp"  // of one writer, useless after a crash
	partSuffix = ".part" // of an upload that can be resumed
	lockFile   = "tmp/lock"
)

// Dir is a Store in a directory, mode 0700. One process uses it at a time.
type Dir struct {
	root   *os.Root
	lock   *os.File
	limits Limits

	mu      sync.Mutex      // also held while a blob's name comes or goes
	resumed map[string]bool // digests whose partial file has a writer
}

var _ Backend = (*Dir)(nil)

// OpenDir opens or creates a store at dir and clears what a crash left.
func OpenDir(dir string, limits Limits) (*Dir, error) {
	if limits.MaxBlob == 0 {
		limits.MaxBlob = DefaultLimit
	}
	if limits.MinFree == 0 {
		limits.MinFree = 128 << 20
	}
	if limits.PartialAge == 0 {
		limits.PartialAge = 24 * time.Hour
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("blob store: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("blob store: %w", err)
	}
	d := &Dir{root: root, limits: limits, resumed: map[string]bool{}}
	if err := d.start(); err != nil {
		_ = d.Close()
		return nil, fmt.Errorf("blob store %s: %w", dir, err)
	}
	return d, nil
}

func (d *Dir) start() (err error) {
	if err := d.root.MkdirAll(tmpDir, 0o700); err != nil {
		return err
	}
	if d.lock, err = d.root.OpenFile(lockFile, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return err
	}
	if err := unix.Flock(int(d.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return wire.E(wire.FailedPrecondition, "", "another process uses it", "")
	}
	return d.sweep(true)
}

// Close lets another process use the directory.
func (d *Dir) Close() error {
	if d.lock != nil {
		_ = d.lock.Close()
	}
	return d.root.Close()
}

// Has tells whether the blob is here.
func (d *Dir) Has(ctx context.Context, sha string) (bool, error) {
	_, err := d.Size(ctx, sha)
	if wire.IsCode(err, wire.NotFound) {
		return false, nil
	}
	return err == nil, err
}

// Size is the blob's size in bytes.
func (d *Dir) Size(_ context.Context, sha string) (int64, error) {
	if err := checkDigest(sha); err != nil {
		return 0, err
	}
	info, err := d.root.Stat(nameOf(sha))
	if errors.Is(err, os.ErrNotExist) {
		return 0, errNotFound(sha)
	}
	if err != nil {
		return 0, fmt.Errorf("blob %s: %w", sha, err)
	}
	return info.Size(), nil
}

// Open reads the blob.
func (d *Dir) Open(_ context.Context, sha string) (io.ReadSeekCloser, error) {
	if err := checkDigest(sha); err != nil {
		return nil, err
	}
	f, err := d.root.Open(nameOf(sha))
	if errors.Is(err, os.ErrNotExist) {
		return nil, errNotFound(sha)
	}
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", sha, err)
	}
	return f, nil
}

// Put keeps what r gives, when its digest is sha or sha is empty.
func (d *Dir) Put(ctx context.Context, sha string, r io.Reader) (Info, error) {
	if sha != "" {
		if err := checkDigest(sha); err != nil {
			return Info{}, err
		}
	}
	if err := d.checkFree(0); err != nil {
		return Info{}, err
	}
	unique := make([]byte, 8)
	rand.Read(unique)
	tmp := path.Join(tmpDir, hex.EncodeToString(unique)+tmpSuffix)
	f, err := d.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return Info{}, fmt.Errorf("blob: %w", DiskError(err))
	}
	defer func() {
		_ = f.Close()
		_ = d.root.Remove(tmp) // gone already when it was published
	}()
	sum := newDigest()
	n, err := transfer(ctx, io.MultiWriter(f, sum), r, d.limits.MaxBlob)
	if err != nil {
		return Info{}, fmt.Errorf("blob: %w", err)
	}
	got := sum.hex()
	if sha != "" && got != sha {
		return Info{}, errMismatch(sha, got)
	}
	return Info{got, n}, d.publish(f, tmp, got)
}

// Delete removes the blob and what there is of an upload of it.
func (d *Dir) Delete(_ context.Context, sha string) error {
	if err := checkDigest(sha); err != nil {
		return err
	}
	for _, name := range []string{nameOf(sha), partOf(sha)} {
		if err := d.root.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("blob %s: %w", sha, err)
		}
	}
	return nil
}

// List gives all blobs in the order of their digests.
func (d *Dir) List(ctx context.Context) ([]Info, error) {
	var out []Info
	err := d.each(ctx, func(sha string, info os.FileInfo) { out = append(out, Info{sha, info.Size()}) })
	return out, err
}

// each calls f for each blob in the order of their digests.
func (d *Dir) each(ctx context.Context, f func(sha string, info os.FileInfo)) error {
	dirs, err := d.readDir(".")
	if err != nil {
		return fmt.Errorf("list blobs: %w", err)
	}
	for _, sub := range dirs {
		if !sub.IsDir() || len(sub.Name()) != 2 {
			continue
		}
		files, err := d.readDir(sub.Name())
		if err != nil {
			return fmt.Errorf("list blobs: %w", err)
		}
		for _, file := range files {
			if err := ctx.Err(); err != nil {
				return err
			}
			info, err := file.Info()
			if err == nil && task.ValidDigest(file.Name()) && strings.HasPrefix(file.Name(), sub.Name()) {
				f(file.Name(), info)
			}
		}
	}
	return nil
}

func nameOf(sha string) string { return path.Join(sha[:2], sha) }
func partOf(sha string) string { return path.Join(tmpDir, sha+partSuffix) }

// publish makes the complete file f, at tmp, the blob sha, durably.
func (d *Dir) publish(f *os.File, tmp, sha string) error {
	err := f.Sync()
	if err == nil {
		err = d.root.MkdirAll(sha[:2], 0o700)
	}
	if err == nil {
		d.mu.Lock()
		err = d.root.Rename(tmp, nameOf(sha))
		d.mu.Unlock()
	}
	for _, dir := range []string{sha[:2], "."} {
		if err == nil {
			err = d.syncDir(dir)
		}
	}
	if err != nil {
		return fmt.Errorf("blob %s: %w", sha, DiskError(err))
	}
	return nil
}

func (d *Dir) syncDir(name string) error {
	f, err := d.root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func (d *Dir) readDir(name string) ([]os.DirEntry, error) {
	f, err := d.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	entries, err := f.ReadDir(-1)
	slices.SortFunc(entries, func(a, b os.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, err
}

// checkFree refuses to write n bytes more than the file system should hold.
func (d *Dir) checkFree(n int64) error {
	var s unix.Statfs_t
	if err := unix.Fstatfs(int(d.lock.Fd()), &s); err != nil {
		return fmt.Errorf("blob store: %w", err)
	}
	if int64(s.Bavail)*int64(s.Bsize)-n < d.limits.MinFree {
		return errDiskFull()
	}
	return nil
}

// sweep removes partial files that are too old, and at the start the temporary
// ones as well.
func (d *Dir) sweep(start bool) error {
	entries, err := d.readDir(tmpDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue
		}
		sha, partial := strings.CutSuffix(e.Name(), partSuffix)
		stale := start && strings.HasSuffix(e.Name(), tmpSuffix)
		if partial && time.Since(info.ModTime()) > d.limits.PartialAge && d.claim(sha) {
			stale = true
			defer d.release(sha)
		}
		if !stale {
			continue
		}
		if err := d.root.Remove(path.Join(tmpDir, e.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}
