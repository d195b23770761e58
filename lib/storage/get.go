package storage

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/edgetwin/sedna/lib/storage/archive"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// GetFile brings the single file that a URL names to the file dst, which
// appears whole, mode 0600. Its directory must exist.
func (c *Client) GetFile(ctx context.Context, rawURL, dst string, o Options) (Result, error) {
	ctx, cancel := c.begin(ctx)
	defer cancel()
	l, err := o.parse(rawURL)
	if err != nil {
		return Result{}, err
	}
	found, single, err := c.objects(ctx, l)
	if err == nil && !single {
		err = wire.E(wire.InvalidArgument, "url", fmt.Sprintf("%s: expected a file, it is a directory", l), "")
	}
	if err != nil {
		return Result{}, end(ctx, err)
	}
	info, err := c.fetch(ctx, found[0], dst, o.Progress)
	if err != nil {
		return Result{}, end(ctx, err)
	}
	return Result{Objects: 1, Files: 1, Bytes: info.Size, SHA256: info.SHA256}, nil
}

// parse takes a URL apart, with the digest that the options give.
func (o Options) parse(rawURL string) (location, error) {
	l, err := parse(rawURL)
	if err == nil && o.SHA256 != "" {
		if l.sha256 = o.SHA256; !task.ValidDigest(o.SHA256) {
			err = wire.E(wire.InvalidArgument, "sha256", fmt.Sprintf("expected 64 lower-case hex digits, got %.80q", o.SHA256), "")
		}
	}
	return l, err
}

// GetDir brings what a URL names into the directory dst, which is made if it is
// not there. A file keeps its name, a directory of S3 its own name too. What is
// in dst already stays unless it has the same name; see stage.publish.
func (c *Client) GetDir(ctx context.Context, rawURL, dst string, o Options) (Result, error) {
	return c.get(ctx, rawURL, dst, o, func(ctx context.Context, l location, _ *stage) ([]object, error) {
		found, single, err := c.objects(ctx, l)
		if err == nil && !single && l.sha256 != "" {
			err = wire.E(wire.InvalidArgument, "sha256", fmt.Sprintf("%s: a digest is of one file, this is a directory", l), "")
		}
		return found, err
	})
}

// GetIndexed brings the files that an index lists into the directory dst. The
// index is a text file: its first line is the URL that the names on the other
// lines are relative to; empty lines and those that begin with # do not count.
// A file comes to lie under its name, a directory of S3 under its name as well.
func (c *Client) GetIndexed(ctx context.Context, indexURL, dst string, o Options) (Result, error) {
	return c.get(ctx, indexURL, dst, o, func(ctx context.Context, l location, s *stage) ([]object, error) {
		base, names, err := c.index(ctx, l, s.incoming(0))
		if err != nil {
			return nil, fmt.Errorf("index %s: %w", l, err)
		}
		return c.listed(ctx, base, names)
	})
}

// get is GetDir and GetIndexed; list says what is to be fetched.
func (c *Client) get(ctx context.Context, rawURL, dst string, o Options, list func(context.Context, location, *stage) ([]object, error)) (r Result, err error) {
	ctx, cancel := c.begin(ctx)
	defer cancel()
	l, err := o.parse(rawURL)
	if err != nil {
		return Result{}, err
	}
	s, err := openStage(dst, l.String()+digestMark+l.sha256)
	if err != nil {
		return Result{}, err
	}
	defer s.close()
	defer func() {
		// With a digest the next call can go on with what is here.
		if err == nil || l.sha256 == "" || !wire.IsCode(err, wire.Unavailable) {
			err = errors.Join(err, s.remove())
		}
	}()
	found, err := list(ctx, l, s)
	if err == nil {
		r, err = c.collect(ctx, s, found, o)
	}
	if err == nil {
		err = s.publish()
	}
	return r, end(ctx, err)
}

// collect fetches and unpacks all objects on the stage.
func (c *Client) collect(ctx context.Context, s *stage, found []object, o Options) (Result, error) {
	r := Result{Objects: len(found)}
	p := &progress{tell: o.Progress}
	for _, one := range found {
		if p.total += one.size; one.size < 0 {
			p.total = -1
			break
		}
	}
	quick := *c
	quick.Transfer.NoSync = true // publish waits for the disk, once
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(c.Parallel)
	sizes := make([]int64, len(found))
	for i, one := range found {
		g.Go(func() error {
			info, err := quick.fetch(gctx, one, s.incoming(i), p.one())
			sizes[i] = info.Size
			if len(found) == 1 {
				r.SHA256 = info.SHA256
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return Result{}, err
	}
	left := archive.Limits{Files: c.Limits.Files, Bytes: c.Limits.Bytes, Depth: c.Limits.Depth, Ratio: c.Ratio}
	for i, one := range found {
		r.Bytes += sizes[i]
		format, packed := archive.FormatOf(one.name)
		if !packed || !o.Unpack {
			r.Files++
			if err := s.take(i, one.name); err != nil {
				return Result{}, err
			}
			continue
		}
		got, err := unpack(ctx, s, i, one, format, left)
		if err != nil {
			return Result{}, fmt.Errorf("%s: %w", one.location, err)
		}
		r.Files += got.Files
		left.Files, left.Bytes = max(left.Files-got.Files, 1), max(left.Bytes-got.Bytes, 1)
	}
	return r, c.fits(r.Files, r.Bytes)
}

// unpack unpacks the object number i, on a stage of its own, since archives may
// have names in common.
func unpack(ctx context.Context, s *stage, i int, one object, format archive.Format, limits archive.Limits) (archive.Result, error) {
	src, err := os.Open(s.incoming(i))
	if err != nil {
		return archive.Result{}, err
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return archive.Result{}, err
	}
	from := path.Join(s.name, fmt.Sprint("unpacked-", i))
	if err := errors.Join(s.root.RemoveAll(from), s.root.Mkdir(from, 0o755)); err != nil {
		return archive.Result{}, stageError(from, err)
	}
	into, err := s.root.OpenRoot(from)
	if err != nil {
		return archive.Result{}, err
	}
	defer into.Close()
	got, err := archive.Unpack(ctx, src, info.Size(), format, into, limits)
	if err != nil {
		return got, err
	}
	to := path.Join(s.name, stageOut, one.unpack)
	if err := s.root.MkdirAll(to, 0o755); err != nil {
		return got, stageError(one.unpack, err)
	}
	return got, errors.Join(s.merge(from, to, true), s.root.Remove(path.Join(s.name, stageIn, fmt.Sprint(i))))
}

// index reads an index by way of the file tmp.
func (c *Client) index(ctx context.Context, l location, tmp string) (base location, names []string, err error) {
	found, single, err := c.objects(ctx, l)
	if err == nil && !single {
		err = wire.E(wire.InvalidArgument, "url", "expected a file, it is a directory", "")
	}
	if err != nil {
		return location{}, nil, err
	}
	one := found[0]
	if one.size > c.Limits.IndexBytes {
		return location{}, nil, wire.E(wire.TooLarge, "", fmt.Sprintf("%d bytes, at most %d are taken", one.size, c.Limits.IndexBytes), "")
	}
	bounded := *c
	bounded.Limits.Bytes = c.Limits.IndexBytes
	bounded.Transfer.NoSync = true
	if _, err := bounded.fetch(ctx, one, tmp, nil); err != nil {
		return location{}, nil, err
	}
	text, err := os.ReadFile(tmp)
	if err != nil {
		return location{}, nil, err
	}
	base, names, err = parseIndex(string(text), c.Limits)
	return base, names, errors.Join(err, os.Remove(tmp))
}

// parseIndex reads an index; a name that comes twice counts once.
func parseIndex(text string, limits Limits) (base location, names []string, err error) {
	lines := bufio.NewScanner(strings.NewReader(text))
	lines.Buffer(nil, maxURL+2)
	seen, number := map[string]bool{}, 0
	bad := func(err error) (location, []string, error) {
		return location{}, nil, fmt.Errorf("line %d: %w", number, err)
	}
	for lines.Scan() {
		number++
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if base.scheme == "" {
			if base, err = parse(line); err != nil {
				return bad(err)
			}
			continue
		}
		name, err := localName(line, limits.Depth)
		if err != nil {
			return bad(err)
		}
		if !seen[name] {
			seen[name], names = true, append(names, name)
		}
		if len(names) > limits.Files {
			return bad(wire.E(wire.TooLarge, "", fmt.Sprintf("more than %d files", limits.Files), ""))
		}
	}
	if err := lines.Err(); err != nil {
		return bad(wire.E(wire.InvalidArgument, "", err.Error(), ""))
	}
	if len(names) == 0 {
		return bad(wire.E(wire.InvalidArgument, "", "expected a URL on the first line and names on others", ""))
	}
	return base, names, nil
}

// listed finds the objects that the names of an index stand for.
func (c *Client) listed(ctx context.Context, base location, names []string) ([]object, error) {
	each := make([][]object, len(names))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(2 * c.Parallel)
	for i, name := range names {
		g.Go(func() error {
			found, single, err := c.objects(gctx, base.child(name))
			dir := path.Dir(name)
			for j := range found {
				o := &found[j]
				switch {
				case single:
					o.name = name
				case o.scheme == schemeFile:
					o.name = path.Join(name, o.name)
				default:
					o.name = path.Join(dir, o.name)
				}
				o.unpack = dir
			}
			each[i] = found
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var all []object
	var total int64
	for _, found := range each {
		for _, o := range found {
			all, total = append(all, o), total+max(o.size, 0)
		}
		if err := c.fits(len(all), total); err != nil {
			return nil, err
		}
	}
	return all, nil
}
