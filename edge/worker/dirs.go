package worker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/edgetwin/sedna/models/wire"
)

// dirs are the directories of one worker.
type dirs struct{ top, work, home, tmp, out string }

func dirsOf(base string, k Key) dirs {
	top := filepath.Join(base, k.UID, k.Name)
	return dirs{top, filepath.Join(top, "work"), filepath.Join(top, "home"), filepath.Join(top, "tmp"), filepath.Join(top, "out")}
}

// make makes the directories for a life that runs as uid and gid. The worker
// owns those below top, in which it finds an empty tmp.
func (d dirs) make(base string, uid, gid int) error {
	if err := os.MkdirAll(filepath.Dir(base), 0o700); err != nil {
		return err
	}
	for _, p := range []string{base, filepath.Dir(d.top), d.top} {
		if err := os.Mkdir(p, 0o711); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if err := removeAll(d.tmp); err != nil {
		return err
	}
	for _, p := range []string{d.work, d.home, d.tmp, d.out} {
		if err := os.Mkdir(p, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := os.Lchown(p, uid, gid); err != nil {
			return err
		}
	}
	return nil
}

// remove removes a worker's directories, and its task's when it was the last.
func (d dirs) remove() error {
	if err := removeAll(d.top); err != nil {
		return err
	}
	_ = os.Remove(filepath.Dir(d.top)) // fails while the task has others
	return nil
}

// removeAll removes a tree, also directories that the worker has closed.
func removeAll(top string) error {
	if os.RemoveAll(top) == nil {
		return nil
	}
	err := filepath.WalkDir(top, func(p string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			return os.Chmod(p, 0o700)
		}
		return err
	})
	if err != nil {
		return err
	}
	return os.RemoveAll(top)
}

// enterable says whether a user can reach dir, which must be absolute.
func enterable(dir string, uid, gid int) error {
	for p := dir; ; p = filepath.Dir(p) {
		info, err := os.Stat(p)
		if err != nil {
			return err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return nil
		}
		bit := os.FileMode(0o001)
		switch {
		case uid == 0:
			bit = 0o111
		case int(st.Uid) == uid:
			bit = 0o100
		case int(st.Gid) == gid:
			bit = 0o010
		}
		if info.Mode().Perm()&bit == 0 {
			return wire.E(wire.FailedPrecondition, "user", fmt.Sprintf("user %d cannot enter %s", uid, p), "set workersDir to a directory that others may enter")
		}
		if p == filepath.Dir(p) {
			return nil
		}
	}
}
