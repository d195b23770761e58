package storage

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/edgetwin/sedna/lib/blob"
	"github.com/edgetwin/sedna/models/wire"
)

// stage is a directory within the target, in which everything is made ready.
// Its name follows from what is fetched, so that the next try finds what a
// crash left: to go on with it, or to remove it.
type stage struct {
	root *os.Root // the target
	name string   // in the target
	path string   // of the stage
	lock *os.File
}

// Directories of a stage.
const (
	stageIn  = "in"  // what is fetched, by number
	stageOut = "out" // what is to appear in the target
)

// openStage makes the target dst and a stage in it.
func openStage(dst, what string) (_ *stage, err error) {
	if err := os.MkdirAll(dst, 0o755); err != nil {
		return nil, blob.DiskError(err)
	}
	root, err := os.OpenRoot(dst)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(what))
	name := ".sedna-" + hex.EncodeToString(sum[:6])
	s := &stage{root: root, name: name, path: filepath.Join(dst, name)}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if err := root.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, blob.DiskError(err)
	}
	if info, err := root.Lstat(name); err != nil || !info.IsDir() {
		return nil, wire.E(wire.Conflict, "", fmt.Sprintf("%s is in the way", s.path), "remove it")
	}
	if s.lock, err = root.OpenFile(path.Join(name, "lock"), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, blob.DiskError(err)
	}
	if err := unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, busy(dst)
	}
	if err := root.RemoveAll(path.Join(name, stageOut)); err != nil {
		return nil, err
	}
	for _, sub := range []string{stageIn, stageOut} {
		err := root.Mkdir(path.Join(name, sub), 0o755)
		if errors.Is(err, fs.ErrNotExist) { // who had the lock has removed it
			return nil, busy(dst)
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, blob.DiskError(err)
		}
	}
	return s, nil
}

func busy(dst string) error {
	return wire.E(wire.Conflict, "", "the same is being fetched to "+dst+" already", "")
}

// incoming is the path of the file that number i is fetched to.
func (s *stage) incoming(i int) string { return filepath.Join(s.path, stageIn, fmt.Sprint(i)) }

// take makes the file number i appear as name in the end.
func (s *stage) take(i int, name string) error {
	out := path.Join(s.name, stageOut)
	if err := s.root.MkdirAll(path.Join(out, path.Dir(name)), 0o755); err != nil {
		return stageError(name, err)
	}
	from := path.Join(s.name, stageIn, fmt.Sprint(i))
	if err := s.root.Chmod(from, 0o644); err != nil {
		return err
	}
	return stageError(name, s.root.Rename(from, path.Join(out, name)))
}

func stageError(name string, err error) error {
	if errors.Is(err, fs.ErrExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ENOTEMPTY) {
		return wire.E(wire.Conflict, "", fmt.Sprintf("%.200q is a file and a directory", name), "")
	}
	return blob.DiskError(err)
}

// publish has everything appear in the target. Files there are replaced one by
// one, each in one step, directories are merged; when one of both is a file and
// the other a directory nothing is changed.
func (s *stage) publish() error {
	out := path.Join(s.name, stageOut)
	if err := s.merge(out, ".", false); err != nil {
		return err
	}
	if err := unix.Syncfs(int(s.lock.Fd())); err != nil {
		return blob.DiskError(err)
	}
	return s.merge(out, ".", true)
}

// merge moves, or only tries, what lies in the directory from to the directory
// to, which exists.
func (s *stage) merge(from, to string, move bool) error {
	entries, err := fs.ReadDir(s.root.FS(), from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		src, dst := path.Join(from, e.Name()), path.Join(to, e.Name())
		there, err := s.root.Stat(dst)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return stageError(dst, err)
		case there.IsDir() != e.IsDir():
			return stageError(dst, fs.ErrExist)
		case e.IsDir():
			if err := s.merge(src, dst, move); err != nil {
				return err
			}
			continue
		}
		if move {
			if err := s.root.Rename(src, dst); err != nil {
				return stageError(dst, err)
			}
		}
	}
	return nil
}

// remove removes the stage with all that is left in it.
func (s *stage) remove() error { return s.root.RemoveAll(s.name) }

// close lets others use the stage.
func (s *stage) close() {
	if s.lock != nil {
		_ = s.lock.Close()
	}
	_ = s.root.Close()
}
