package storage

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/edgetwin/sedna/lib/blob"
	"github.com/edgetwin/sedna/lib/storage/s3"
	"github.com/edgetwin/sedna/models/wire"
)

// Put brings the file or directory src to where a URL says: below a root, into
// S3, or, a single file only, to a web server by PUT. A URL that ends with a
// slash is a directory, into which a file goes under its own name; the files of
// a directory go below the URL in any case. Each file appears whole, mode 0644.
func (c *Client) Put(ctx context.Context, src, rawURL string, o Options) (r Result, err error) {
	ctx, cancel := c.begin(ctx)
	defer cancel()
	l, err := o.parse(rawURL)
	if err != nil {
		return Result{}, err
	}
	files, total, err := c.outgoing(src)
	if err != nil {
		return Result{}, err
	}
	single := len(files) == 1 && files[0] == "."
	switch {
	case l.scheme == schemeHTTP && !single:
		return Result{}, wire.E(wire.InvalidArgument, "url", fmt.Sprintf("%s: a directory cannot go to a web server", l), "pack it, or use s3")
	case l.sha256 != "" && !single:
		return Result{}, wire.E(wire.InvalidArgument, "sha256", "a digest is of one file, this is a directory", "")
	case l.scheme == schemeS3 && single && l.key == "":
		l.dir = true
	}
	if single && l.dir {
		l = l.child(filepath.Base(src))
	}
	p := &progress{tell: o.Progress, total: total}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(c.Parallel)
	infos := make([]blob.Info, len(files))
	for i, name := range files {
		g.Go(func() (err error) {
			to := l
			if !single {
				to = l.child(name)
			}
			if infos[i], err = c.send(gctx, filepath.Join(src, filepath.FromSlash(name)), to, l.sha256, p.one()); err != nil {
				return fmt.Errorf("%s: %w", to, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return Result{}, end(ctx, err)
	}
	for _, info := range infos {
		r.Bytes += info.Size
	}
	if r.Objects, r.Files = len(files), len(files); single {
		r.SHA256 = infos[0].SHA256
	}
	return r, nil
}

// outgoing lists the files of a directory, or "." for src if that is a file.
func (c *Client) outgoing(src string) (files []string, total int64, err error) {
	info, err := os.Stat(src)
	if err != nil {
		return nil, 0, err
	}
	if info.Mode().IsRegular() {
		return []string{"."}, info.Size(), c.fits(1, info.Size())
	}
	err = fs.WalkDir(os.DirFS(src), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if !e.Type().IsRegular() {
			return wire.E(wire.InvalidArgument, "", fmt.Sprintf("%s: expected files, %.200q is none", src, name), "")
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		files, total = append(files, name), total+info.Size()
		return c.fits(len(files), total)
	})
	return files, total, err
}

// send brings one file to where to says.
func (c *Client) send(ctx context.Context, path string, to location, sha string, tell blob.Progress) (blob.Info, error) {
	f, err := os.Open(path)
	if err != nil {
		return blob.Info{}, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return blob.Info{}, err
	}
	// Where the digest is known before the first byte is sent it is checked
	// before, so that wrong bytes never appear.
	info, err := copyAll(ctx, io.Discard, io.LimitReader(f, st.Size()), st.Size(), nil)
	if err == nil && sha != "" && info.SHA256 != sha {
		err = wire.E(wire.DigestMismatch, "sha256", fmt.Sprintf("%s has the digest %s, expected was %s", path, info.SHA256, sha), "")
	}
	if err != nil {
		return blob.Info{}, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return blob.Info{}, err
	}
	switch to.scheme {
	case schemeFile:
		return info, c.copyOut(ctx, f, info.Size, to, tell)
	case schemeS3:
		return info, c.sendS3(ctx, f, info, to, tell)
	}
	t := c.Transfer
	t.Limit = c.Limits.Bytes
	if t.Header, err = c.Header(to.url.Hostname()); err != nil {
		return blob.Info{}, err
	}
	return blob.PutURL(ctx, to.url.String(), f, t, tell)
}

// sendS3 sends a file; large ones in parts, of which those that fail for a
// passing reason are sent again.
func (c *Client) sendS3(ctx context.Context, f *os.File, info blob.Info, to location, tell blob.Progress) error {
	client, err := c.s3()
	if err != nil {
		return err
	}
	if to.key == "" {
		return wire.E(wire.InvalidArgument, "url", "expected s3://bucket/key", "")
	}
	var done int64
	err = client.Put(ctx, to.bucket, to.key, f, info.Size, partSize, c.Parallel, func(n int64) {
		if done += n; tell != nil {
			tell(done, info.Size)
		}
	})
	return s3.Error(err, to.String())
}

// partSize is the size of the parts in which larger files go to S3, in bytes.
const partSize = 16 << 20

// copyOut writes a file below a root.
func (c *Client) copyOut(ctx context.Context, f *os.File, size int64, to location, tell blob.Progress) (err error) {
	root, name, err := c.root(to.path)
	if err != nil {
		return err
	}
	defer root.Close()
	dir := path.Dir(name)
	if err := root.MkdirAll(dir, 0o755); err != nil {
		return fileError(to, blob.DiskError(err))
	}
	tmp := path.Join(dir, ".sedna-"+rand.Text()+".tmp")
	out, err := root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fileError(to, blob.DiskError(err))
	}
	defer func() { _ = root.Remove(tmp) }() // gone already when it was renamed
	_, err = copyAll(ctx, out, io.LimitReader(f, size), size, tell)
	if err == nil {
		err = out.Sync()
	}
	if err := errors.Join(err, out.Close()); err != nil {
		return blob.DiskError(err)
	}
	return fileError(to, root.Rename(tmp, name))
}
