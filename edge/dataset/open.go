package dataset

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/edgetwin/sedna/models/wire"
)

// rootOf gives the data root that a path lies in, the innermost of several, and
// the path's name there.
func (m *Manager) rootOf(path string) (root, name string, err error) {
	for _, r := range m.o.DataRoots {
		rel, err := filepath.Rel(r, filepath.Clean(path))
		if err == nil && filepath.IsLocal(rel) && (root == "" || len(rel) < len(name)) {
			root, name = r, rel
		}
	}
	if root == "" {
		return "", "", wire.E(wire.PermissionDenied, "spec.url", fmt.Sprintf("%s lies in none of the data roots %s", path, strings.Join(m.o.DataRoots, ", ")), "configure its directory as a data root of the node")
	}
	return root, name, nil
}

// openRoot opens the data root of a path.
func (m *Manager) openRoot(path string) (*os.Root, string, error) {
	dir, name, err := m.rootOf(path)
	if err != nil {
		return nil, "", err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, "", fileError(path, err)
	}
	return root, name, nil
}

// fileError says what a file's error is to the user.
func fileError(path string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return wire.E(wire.NotFound, "spec.url", path+" does not exist", "")
	case errors.Is(err, fs.ErrPermission):
		return wire.E(wire.PermissionDenied, "spec.url", path+" may not be read", "let the node's user read it")
	case strings.Contains(err.Error(), "path escapes from parent"):
		return wire.E(wire.PermissionDenied, "spec.url", path+" leads out of its data root by a link", "")
	}
	return fmt.Errorf("%s: %w", path, err)
}

// openRegular opens a file below root; it waits for nobody when the name is that
// of a pipe.
func openRegular(root *os.Root, name string) (*os.File, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		_ = f.Close()
		return nil, errors.Join(err, wire.E(wire.InvalidArgument, "spec.url", filepath.Join(root.Name(), name)+": expected a file", "a directory is of format images"))
	}
	return f, nil
}

// open opens the dataset's file, fetched before if it is elsewhere. Of a local
// one dir is where it lies. It is nil with a remote one that has not changed.
func (r *runner) open(ctx context.Context, st *state) (f *os.File, err error) {
	path, local := st.Spec.Path()
	if !local {
		return r.fetch(ctx, st)
	}
	root, name, err := r.m.openRoot(path)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	r.m.watch.add(filepath.Dir(filepath.Join(root.Name(), name)), r)
	f, err = openRegular(root, name)
	return f, fileError(path, err)
}

// maxSearch bounds the names that are looked at for a renamed file.
const maxSearch = 10_000

// old opens the file that the cursor is of, although another one has its name
// or none: as it is still open, or as it was renamed in its directory. It is nil
// when there is none or when it is not as it was.
func (r *runner) old(st *state) (f *os.File, id fileID, err error) {
	if f, id, err = r.findOld(st); err != nil || f == nil {
		return nil, id, err
	}
	if t, err := st.Cursor.resume(f); err != nil || t == nil {
		return nil, id, err
	}
	return f, id, nil
}

func (r *runner) findOld(st *state) (f *os.File, id fileID, err error) {
	if r.held != nil {
		id, err := idOf(r.held)
		if err == nil && id.same(st.Cursor.File) {
			return r.held, id, nil
		}
	}
	path, local := st.Spec.Path()
	if !local {
		return nil, id, nil
	}
	root, name, err := r.m.openRoot(path)
	if err != nil {
		return nil, id, err
	}
	defer root.Close()
	dir, err := root.Open(filepath.Dir(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, id, nil
	}
	if err != nil {
		return nil, id, fileError(path, err)
	}
	defer dir.Close()
	for range maxSearch / 100 {
		entries, err := dir.ReadDir(100)
		for _, e := range entries {
			if !e.Type().IsRegular() {
				continue
			}
			info, err := e.Info()
			if err != nil {
				continue // it has gone meanwhile
			}
			if id, err := idOfInfo(info); err != nil || !id.same(st.Cursor.File) {
				continue
			}
			f, err := openRegular(root, filepath.Join(filepath.Dir(name), e.Name()))
			if err != nil {
				return nil, id, nil
			}
			r.hold(f)
			id, err := idOf(f)
			return f, id, err
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, id, fileError(path, err)
		}
	}
	return nil, id, nil
}

// hold keeps the file that the cursor is of open, so that it can be read to its
// end after it was renamed or removed.
func (r *runner) hold(f *os.File) {
	if r.held != nil && r.held != f {
		_ = r.held.Close()
	}
	r.held = f
}

// fetched is where a remote file of a dataset lies.
func (m *Manager) fetched(k Key) string {
	sum := sha256.Sum256([]byte(k.Namespace + "/" + k.Name))
	return filepath.Join(m.dir, "fetched", hex.EncodeToString(sum[:]))
}

// fetch brings a remote file here, unless the one here is of its version.
func (r *runner) fetch(ctx context.Context, st *state) (*os.File, error) {
	path := r.m.fetched(r.key)
	version, err := r.m.o.Source.Version(ctx, st.Spec.URL)
	if err != nil {
		return nil, err
	}
	if version != "" && version == st.Version {
		if f, err := os.Open(path); err == nil {
			return f, nil
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("dataset directory: %w", err)
	}
	coming := path + ".coming"
	if err := r.m.o.Source.Fetch(ctx, st.Spec.URL, coming); err != nil {
		return nil, err
	}
	if err := os.Rename(coming, path); err != nil {
		return nil, fmt.Errorf("dataset directory: %w", err)
	}
	st.Version = version
	return os.Open(path)
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
