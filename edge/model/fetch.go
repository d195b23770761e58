package model

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// Runtimes that load a model in this process.
var inProcess = map[string]bool{"": true, "onnx": true, "builtin": true}

// Ensure gives the file of a model, whole and load-tested: the local one if
// there is one, else it fetches, verifies and tests. The error has a code:
// bad_model, quarantined, digest_mismatch, too_large, resource_exhausted (the
// quota), permission_denied (a path outside the data roots), or what the
// other side said. Nothing that failed is kept.
func (l *Library) Ensure(ctx context.Context, m task.Model) (File, error) {
	if !inProcess[m.Runtime] {
		return File{}, wire.E(wire.Unimplemented, "spec.model.runtime", fmt.Sprintf("runtime %.40q is not served here", m.Runtime), "expected onnx or builtin")
	}
	m.Format = strings.ToLower(m.Format)
	key := m.SHA256
	if key == "" {
		sum := sha256.Sum256([]byte(m.URL))
		key = "url-" + hex.EncodeToString(sum[:])
	}
	unlock, err := l.exclusive(ctx, "ensure "+key)
	if err != nil {
		return File{}, err
	}
	defer unlock()
	if m.SHA256 != "" {
		release := l.hold(m.SHA256)
		f, err := l.ready(ctx, m)
		if err == nil {
			f.Release = release
			return f, nil
		}
		release()
		if !wire.IsCode(err, wire.NotFound) {
			return File{}, err
		}
	}
	sha, release, err := l.bring(ctx, m, filepath.Join(l.dir(), partialName, key))
	if err != nil {
		return File{}, err
	}
	m.SHA256 = sha
	f, err := l.ready(ctx, m)
	if err != nil {
		release()
		return File{}, err
	}
	f.Release = release
	return f, nil
}

// ready gives the local file of a known digest, tested now if it was not
// before; not_found means that it has to be fetched.
func (l *Library) ready(ctx context.Context, m task.Model) (File, error) {
	f, err := l.local(ctx, m.SHA256)
	switch {
	case err == nil:
		return f, nil
	case wire.IsCode(err, wire.DigestMismatch):
		if err := os.Remove(l.path(m.SHA256)); err != nil {
			return File{}, fmt.Errorf("damaged model %.12s: %w", m.SHA256, err)
		}
		return File{}, wire.E(wire.NotFound, "", err.Error(), "")
	case wire.IsCode(err, wire.Quarantined):
		return File{}, err
	case !wire.IsCode(err, wire.NotFound) && !wire.IsCode(err, wire.FailedPrecondition):
		return File{}, err
	}
	// The file may be there and only its row be missing or young.
	path := l.path(m.SHA256)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return File{}, wire.E(wire.NotFound, "", fmt.Sprintf("model %.12s is not on this node", m.SHA256), "")
	}
	if err != nil {
		return File{}, fmt.Errorf("model %.12s: %w", m.SHA256, err)
	}
	if err := verify(path, m.SHA256); err != nil {
		if rmErr := os.Remove(path); rmErr != nil {
			return File{}, fmt.Errorf("damaged model %.12s: %w", m.SHA256, rmErr)
		}
		return File{}, wire.E(wire.NotFound, "", err.Error(), "")
	}
	row := &store.Model{
		SHA256: m.SHA256, Name: m.Name, Version: m.Version, Format: m.Format, Path: filepath.Join(dirName, m.SHA256),
		Size: info.Size(), State: store.ModelFetched, LastUsed: l.o.Now(),
	}
	if old, err := l.row(ctx, m.SHA256); err != nil {
		return File{}, err
	} else if old != nil {
		row.Crashes = old.Crashes
	}
	if err := l.put(ctx, row); err != nil {
		return File{}, err
	}
	if err := l.tester.Test(ctx, m.Format, path); err != nil {
		return File{}, l.discard(ctx, row, err)
	}
	row.State = store.ModelVerified
	if err := l.put(ctx, row); err != nil {
		return File{}, err
	}
	return File{SHA256: m.SHA256, Path: path, Size: row.Size}, nil
}

// discard removes a model that did not pass its test and returns why.
func (l *Library) discard(ctx context.Context, m *store.Model, why error) error {
	if ctx.Err() != nil || wire.IsCode(why, wire.Unavailable) {
		return why // says nothing of the model
	}
	_ = l.o.Metrics.Reject(metrics.DoorFile, why)
	l.o.Events(store.Event{Kind: "model", Reason: string(wire.AsError(why).Code), Message: fmt.Sprintf("model %s %s: %v", m.Name, m.Version, why)})
	rowErr := l.o.Store.Update(ctx, func(tx *store.Tx) error { return tx.DeleteModel(m.SHA256) })
	if err := errors.Join(rowErr, os.Remove(l.path(m.SHA256))); err != nil {
		l.o.Log.Error("cannot remove a bad model", "sha256", m.SHA256, "error", err)
	}
	return why
}

// bring fetches a model into place and pins it.
func (l *Library) bring(ctx context.Context, m task.Model, partial string) (sha string, release func(), err error) {
	limit, err := l.room(ctx)
	if err != nil {
		return "", nil, err
	}
	if path, ok := localPath(m.URL); ok {
		err = l.copyLocal(ctx, path, partial, limit)
	} else if l.o.Fetch == nil {
		err = wire.E(wire.Unavailable, "spec.model.url", "this node has no link to fetch "+m.URL, "")
	} else {
		err = l.o.Fetch.Fetch(ctx, m.URL, m.SHA256, partial, limit)
	}
	if err != nil {
		if limit < l.o.Limits.MaxModelBytes && wire.IsCode(err, wire.TooLarge) {
			err = wire.E(wire.ResourceExhausted, "", "the quota for models is used up: "+err.Error(), "remove services from the node or raise limits.models.quotaBytes")
		}
		return "", nil, l.o.Metrics.Reject(metrics.DoorBlob, fmt.Errorf("fetch model %s: %w", m.Name, err))
	}
	sha, size, err := digest(partial)
	if err != nil {
		return "", nil, fmt.Errorf("fetch model %s: %w", m.Name, err)
	}
	if size > limit || m.SHA256 != "" && sha != m.SHA256 {
		err := wire.E(wire.DigestMismatch, "spec.model.sha256", fmt.Sprintf("what came from %s is %.12s…, expected %.12s…", m.URL, sha, m.SHA256), "")
		if size > limit {
			err = wire.E(wire.TooLarge, "spec.model.url", fmt.Sprintf("%d bytes, at most %d are taken", size, limit), "")
		}
		return "", nil, errors.Join(l.o.Metrics.Reject(metrics.DoorBlob, err), os.Remove(partial))
	}
	release = l.hold(sha)
	if err := place(partial, l.path(sha)); err != nil {
		release()
		return "", nil, fmt.Errorf("fetch model %s: %w", m.Name, err)
	}
	return sha, release, nil
}

// room is how many bytes the next model may have.
func (l *Library) room(ctx context.Context) (int64, error) {
	var used int64
	err := l.o.Store.View(ctx, func(tx *store.Tx) error {
		models, err := tx.Models()
		for _, m := range models {
			if m.State != store.ModelQuarantined {
				used += m.Size
			}
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	left := min(l.o.Limits.MaxModelBytes, l.o.Limits.QuotaBytes-used)
	if left <= 0 {
		return 0, wire.E(wire.ResourceExhausted, "", fmt.Sprintf("models take %d bytes, the quota is %d", used, l.o.Limits.QuotaBytes), "remove services from the node or raise limits.models.quotaBytes")
	}
	return left, nil
}

// localPath gives the path of a URL that is a file on this node.
func localPath(s string) (string, bool) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" {
		return s, true
	}
	return u.Path, u.Scheme == "file" && u.Host == ""
}

// copyLocal copies a file from under a data root. os.Root keeps links inside
// the root too.
func (l *Library) copyLocal(ctx context.Context, path, dst string, limit int64) error {
	for _, dir := range l.o.DataRoots {
		rel, err := filepath.Rel(dir, path)
		if err != nil || !filepath.IsLocal(rel) {
			continue
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			return wire.E(wire.Unavailable, "spec.model.url", err.Error(), "")
		}
		defer root.Close()
		src, err := root.Open(rel)
		if err != nil {
			return wire.E(wire.NotFound, "spec.model.url", err.Error(), "")
		}
		defer src.Close()
		if info, err := src.Stat(); err != nil || !info.Mode().IsRegular() {
			return wire.E(wire.InvalidArgument, "spec.model.url", path+" is not a file", "")
		}
		return copyTo(ctx, dst, src, limit)
	}
	return wire.E(wire.PermissionDenied, "spec.model.url", fmt.Sprintf("%.200q is under none of this node's data roots", path), "add its directory to dataRoots in the node's configuration")
}

func copyTo(ctx context.Context, dst string, src io.Reader, limit int64) error {
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(out, &contextReader{ctx, io.LimitReader(src, limit+1)})
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	if n > limit {
		return errors.Join(wire.E(wire.TooLarge, "spec.model.url", fmt.Sprintf("more than %d bytes", limit), ""), os.Remove(dst))
	}
	return nil
}

// contextReader ends a long copy when ctx ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// digest is the sha256 and size of a file.
func digest(path string) (string, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), n, err
}

func verify(path, sha string) error {
	have, _, err := digest(path)
	if err != nil {
		return fmt.Errorf("model %.12s: %w", sha, err)
	}
	if have != sha {
		return wire.E(wire.DigestMismatch, "", fmt.Sprintf("the file of model %.12s has changed on disk", sha), "")
	}
	return nil
}

// place makes a finished download the model file, durably.
func place(partial, path string) error {
	f, err := os.OpenFile(partial, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(0o400), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(partial, path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
