package identity

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// tempPrefix starts the names of files that are being written.
const tempPrefix = ".tmp-"

// tempAge is how old a temporary file is when its writer must be gone.
const tempAge = time.Hour

// makeDir creates dir with mode 0700 and removes what killed writers left.
func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), tempPrefix) {
			continue
		}
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > tempAge {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
	return nil
}

// writeFile replaces path, mode 0600, by b: after a kill it holds the old
// bytes or the new ones.
func writeFile(path string, b []byte) error { return publish(path, b, os.Rename) }

// createFile is writeFile for a path that must not exist: of several callers,
// one succeeds and the others get an error that is os.ErrExist.
func createFile(path string, b []byte) error { return publish(path, b, os.Link) }

func publish(path string, b []byte, put func(from, to string) error) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, tempPrefix+"*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if rm := os.Remove(f.Name()); err == nil && rm != nil && !errors.Is(rm, os.ErrNotExist) {
			err = rm
		}
	}()
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = put(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return syncDir(dir)
}

// syncDir makes the names in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
