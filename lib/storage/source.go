package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/minio/minio-go/v7"

	"github.com/edgetwin/sedna/lib/blob"
	"github.com/edgetwin/sedna/lib/storage/s3"
	"github.com/edgetwin/sedna/models/wire"
)

// object is one file that a location names.
type object struct {
	location
	name   string // where it goes, relative to the directory
	unpack string // where it is unpacked if it is an archive, likewise
	size   int64  // -1: not known
}

// objects gives what l names, and whether it is a single file. The name of a
// directory in S3 becomes a part of the names, that of one on the disk does
// not, as the reference system has it.
func (c *Client) objects(ctx context.Context, l location) (found []object, single bool, err error) {
	switch l.scheme {
	case schemeFile:
		found, single, err = c.fileObjects(l)
	case schemeS3:
		found, single, err = c.s3Objects(ctx, l)
	default:
		found, single = []object{{location: l, name: path.Base(l.url.Path), size: -1}}, true
		if l.dir || found[0].name == "." || found[0].name == "/" {
			err = wire.E(wire.InvalidArgument, "url", fmt.Sprintf("%s: expected the URL of a file, not of a directory", l), "")
		}
	}
	if err != nil {
		return nil, false, err
	}
	var total int64
	for i := range found {
		o := &found[i]
		if o.name, err = localName(o.name, c.Limits.Depth); err != nil {
			return nil, false, fmt.Errorf("%s: %w", l, err)
		}
		o.unpack = "."
		total += max(o.size, 0)
	}
	return found, single, c.fits(len(found), total)
}

// fits tells whether so many files and bytes are within the limits.
func (c *Client) fits(files int, bytes int64) error {
	if files > c.Limits.Files {
		return wire.E(wire.TooLarge, "", fmt.Sprintf("more than %d files", c.Limits.Files), "")
	}
	if bytes > c.Limits.Bytes {
		return wire.E(wire.TooLarge, "", fmt.Sprintf("%d bytes, at most %d are taken", bytes, c.Limits.Bytes), "")
	}
	return nil
}

func (c *Client) fileObjects(l location) ([]object, bool, error) {
	root, name, err := c.root(l.path)
	if err != nil {
		return nil, false, err
	}
	defer root.Close()
	info, err := root.Stat(name)
	if err != nil {
		return nil, false, fileError(l, err)
	}
	if info.Mode().IsRegular() {
		return []object{{location: l, name: info.Name(), size: info.Size()}}, true, nil
	}
	if !info.IsDir() {
		return nil, false, wire.E(wire.InvalidArgument, "url", fmt.Sprintf("%s: expected a file or a directory", l), "")
	}
	var found []object
	err = fs.WalkDir(root.FS(), name, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := root.Stat(p) // follows links within the root
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(strings.TrimPrefix(p, name), "/")
		if name == "." {
			rel = p
		}
		if !info.Mode().IsRegular() {
			return wire.E(wire.InvalidArgument, "url", fmt.Sprintf("%s: expected files, %.200q is none", l, rel), "")
		}
		found = append(found, object{location: l.child(rel), name: rel, size: info.Size()})
		return c.fits(len(found), 0)
	})
	if err == nil && len(found) == 0 {
		err = wire.E(wire.NotFound, "url", fmt.Sprintf("%s is empty", l), "")
	}
	return found, false, fileError(l, err)
}

// fileError says what a file's error is to the caller.
func fileError(l location, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return wire.E(wire.NotFound, "url", fmt.Sprintf("%s does not exist", l), "")
	case errors.Is(err, fs.ErrPermission):
		return wire.E(wire.PermissionDenied, "url", fmt.Sprintf("%s may not be read or written", l), "")
	case err != nil && strings.Contains(err.Error(), "path escapes from parent"):
		return wire.E(wire.PermissionDenied, "url", fmt.Sprintf("%s leads out of its root by a link", l), "")
	}
	return err
}

func (c *Client) s3Objects(ctx context.Context, l location) ([]object, bool, error) {
	client, err := c.s3()
	if err != nil {
		return nil, false, err
	}
	if l.key != "" && !l.dir {
		info, err := client.StatObject(ctx, l.bucket, l.key, minio.StatObjectOptions{})
		if err == nil {
			return []object{{location: l, name: path.Base(l.key), size: info.Size}}, true, nil
		}
		if err = s3.Error(err, l.String()); !wire.IsCode(err, wire.NotFound) {
			return nil, false, err
		}
	}
	prefix, parent := "", ""
	if key := strings.TrimRight(l.key, "/"); key != "" {
		prefix = key + "/"
		parent = strings.TrimSuffix(prefix, path.Base(key)+"/")
	}
	var found []object
	for info := range client.ListObjectsIter(ctx, l.bucket, minio.ListObjectsOptions{Prefix: prefix, Recursive: true}) {
		if info.Err != nil {
			return nil, false, s3.Error(info.Err, l.String())
		}
		if strings.HasSuffix(info.Key, "/") { // stands for an empty directory
			continue
		}
		one := l
		one.key = info.Key
		found = append(found, object{location: one, name: strings.TrimPrefix(info.Key, parent), size: info.Size})
		if err := c.fits(len(found), 0); err != nil {
			return nil, false, err
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	if len(found) == 0 {
		return nil, false, wire.E(wire.NotFound, "url", fmt.Sprintf("%s: neither an object nor a directory of objects", l), "")
	}
	return found, false, nil
}

// fetch brings o to the file dst, whole and checked.
func (c *Client) fetch(ctx context.Context, o object, dst string, tell blob.Progress) (info blob.Info, err error) {
	t := c.Transfer
	t.Limit = c.Limits.Bytes
	if o.size >= 0 {
		t.Limit = max(o.size, 1)
	}
	switch o.scheme {
	case schemeFile:
		info, err = c.copyIn(ctx, o, dst, tell)
	case schemeS3:
		client, cerr := c.s3()
		if cerr != nil {
			return blob.Info{}, cerr
		}
		t.HTTP = client.HTTP()
		info, err = blob.FetchURL(ctx, client.ObjectURL(o.bucket, o.key), o.sha256, dst, t, tell)
	default:
		if t.Header, err = c.Header(o.url.Hostname()); err != nil {
			return blob.Info{}, err
		}
		info, err = blob.FetchURL(ctx, o.url.String(), o.sha256, dst, t, tell)
	}
	if o.size >= 0 && wire.IsCode(err, wire.TooLarge) {
		err = wire.E(wire.FailedPrecondition, "url", fmt.Sprintf("%s grew while it was read", o.location), "try again")
	}
	if said, ok := errors.AsType[*wire.Error](err); ok && said.Code == wire.Internal { // theirs, not ours
		err = wire.E(wire.Unavailable, "url", fmt.Sprintf("%s: %s", o.location, said.Message), "")
	}
	return info, err
}
