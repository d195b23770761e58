package storage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/edgetwin/sedna/lib/blob"
	"github.com/edgetwin/sedna/models/wire"
)

// root opens the root that the file at path lies in, the innermost of several,
// and gives its name there.
func (c *Client) root(path string) (*os.Root, string, error) {
	best, name := "", ""
	for _, root := range c.Roots {
		rel, err := filepath.Rel(filepath.Clean(root), path)
		if err == nil && filepath.IsLocal(rel) && (best == "" || len(rel) < len(name)) {
			best, name = root, rel
		}
	}
	if best == "" {
		return nil, "", wire.E(wire.PermissionDenied, "url", fmt.Sprintf("%s lies in none of the data roots %s", path, strings.Join(c.Roots, ", ")), "configure its directory as a root")
	}
	root, err := os.OpenRoot(best)
	if err != nil {
		return nil, "", fmt.Errorf("data root: %w", err)
	}
	return root, name, nil
}

// copyIn copies a file from below a root to dst: as much of it as there was
// when it was looked for, since a data file may be written to all the time.
func (c *Client) copyIn(ctx context.Context, o object, dst string, tell blob.Progress) (blob.Info, error) {
	root, name, err := c.root(o.path)
	if err != nil {
		return blob.Info{}, err
	}
	defer root.Close()
	src, err := root.Open(name)
	if err != nil {
		return blob.Info{}, fileError(o.location, err)
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return blob.Info{}, err
	}
	if !info.Mode().IsRegular() {
		return blob.Info{}, wire.E(wire.InvalidArgument, "url", fmt.Sprintf("%s: expected a file", o.location), "")
	}
	tmp, err := os.CreateTemp(filepath.Dir(dst), ".sedna-*")
	if err != nil {
		return blob.Info{}, blob.DiskError(err)
	}
	defer os.Remove(tmp.Name()) // gone already when it was renamed
	defer tmp.Close()
	got, err := copyAll(ctx, tmp, io.LimitReader(src, o.size), o.size, tell)
	if err != nil {
		return blob.Info{}, err
	}
	if o.sha256 != "" && got.SHA256 != o.sha256 {
		return blob.Info{}, wire.E(wire.DigestMismatch, "sha256", fmt.Sprintf("%s has the digest %s, expected was %s", o.location, got.SHA256, o.sha256), "")
	}
	if !c.Transfer.NoSync {
		err = tmp.Sync()
	}
	if err := errors.Join(err, tmp.Close(), os.Rename(tmp.Name(), dst)); err != nil {
		return blob.Info{}, blob.DiskError(err)
	}
	return got, nil
}

// copyAll copies src, which should have size bytes, and says what it was.
func copyAll(ctx context.Context, dst io.Writer, src io.Reader, size int64, tell blob.Progress) (blob.Info, error) {
	sum, buf, n := sha256.New(), make([]byte, 256<<10), int64(0)
	for {
		if err := ctx.Err(); err != nil {
			return blob.Info{}, err
		}
		got, err := src.Read(buf)
		n += int64(got)
		if _, werr := dst.Write(buf[:got]); werr != nil {
			return blob.Info{}, blob.DiskError(werr)
		}
		sum.Write(buf[:got])
		if tell != nil && got > 0 {
			tell(n, size)
		}
		if err == io.EOF {
			return blob.Info{SHA256: hex.EncodeToString(sum.Sum(nil)), Size: n}, nil
		}
		if err != nil {
			return blob.Info{}, err
		}
	}
}
