package blob

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// Path is the file of a stored blob; empty when sha is no digest. It must not
// be written to.
func (d *Dir) Path(sha string) string {
	if checkDigest(sha) != nil {
		return ""
	}
	return filepath.Join(d.root.Name(), filepath.FromSlash(nameOf(sha)))
}

// File is Path for a blob that is here.
func (d *Dir) File(ctx context.Context, sha string) (string, error) {
	if _, err := d.Size(ctx, sha); err != nil {
		return "", err
	}
	return d.Path(sha), nil
}

// Touch makes the blob count as stored now.
func (d *Dir) Touch(_ context.Context, sha string) error {
	if err := checkDigest(sha); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	err := d.root.Chtimes(nameOf(sha), now, now)
	if errors.Is(err, os.ErrNotExist) {
		return errNotFound(sha)
	}
	if err != nil {
		return fmt.Errorf("blob %s: %w", sha, err)
	}
	return nil
}

// Entries gives all blobs in the order of their digests.
func (d *Dir) Entries(ctx context.Context) ([]Entry, error) {
	var out []Entry
	err := d.each(ctx, func(sha string, info os.FileInfo) {
		out = append(out, Entry{Info{sha, info.Size()}, info.ModTime(), version(info)})
	})
	return out, err
}

// version tells a file from the one that it was before it was written or
// touched again.
func version(info os.FileInfo) string { return strconv.FormatInt(info.ModTime().UnixNano(), 36) }

// Remove removes the blob unless it was stored again or touched since e.
func (d *Dir) Remove(_ context.Context, e Entry) (removed bool, err error) {
	if err := checkDigest(e.SHA256); err != nil {
		return false, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	info, err := d.root.Stat(nameOf(e.SHA256))
	if errors.Is(err, os.ErrNotExist) || err == nil && version(info) != e.Version {
		return false, nil
	}
	if err == nil {
		err = d.root.Remove(nameOf(e.SHA256))
	}
	if err != nil {
		return false, fmt.Errorf("blob %s: %w", e.SHA256, err)
	}
	return true, nil
}
