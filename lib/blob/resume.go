package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/edgetwin/sedna/models/wire"
)

// Offset is how many bytes of an upload of sha are here already.
func (d *Dir) Offset(_ context.Context, sha string) (int64, error) {
	if err := checkDigest(sha); err != nil {
		return 0, err
	}
	info, err := d.root.Stat(partOf(sha))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("blob %s: %w", sha, err)
	}
	return info.Size(), nil
}

// Resume goes on with an upload of the blob sha of total bytes: r gives bytes
// from offset on, which is Offset, or 0 to begin anew. What came in is kept
// when r fails. Once all are here they are checked and the blob is visible;
// have == total tells that. Bytes with another digest are dropped.
//
// Of several writers of one blob those that begin at 0 go on by themselves and
// cannot be resumed, others get a conflict.
func (d *Dir) Resume(ctx context.Context, sha string, offset, total int64, r io.Reader) (have int64, err error) {
	if err := checkDigest(sha); err != nil {
		return 0, err
	}
	switch {
	case total > d.limits.MaxBlob:
		return 0, errTooLarge(d.limits.MaxBlob)
	case offset < 0 || offset > total:
		return 0, wire.E(wire.InvalidArgument, "Content-Range", fmt.Sprintf("offset %d of %d bytes", offset, total), "")
	}
	if err := d.Touch(ctx, sha); !wire.IsCode(err, wire.NotFound) {
		return total, err
	}
	if !d.claim(sha) {
		if offset > 0 {
			return 0, wire.E(wire.Conflict, "", "somebody else uploads this blob", "try again later")
		}
		info, err := d.Put(ctx, sha, r)
		return info.Size, err
	}
	defer d.release(sha)
	if offset == 0 {
		if err := d.sweep(false); err != nil {
			return 0, fmt.Errorf("blob store: %w", err)
		}
	}
	return d.resume(ctx, sha, offset, total, r)
}

// resume is Resume for the one who has claimed sha.
func (d *Dir) resume(ctx context.Context, sha string, offset, total int64, r io.Reader) (have int64, err error) {
	f, err := d.root.OpenFile(partOf(sha), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return 0, fmt.Errorf("blob %s: %w", sha, DiskError(err))
	}
	defer f.Close()
	drop := func(err error) (int64, error) {
		_ = d.root.Remove(partOf(sha))
		return 0, err
	}
	if err := d.checkFree(total - offset); err != nil {
		return drop(err)
	}
	if offset == 0 {
		err = f.Truncate(0)
	} else {
		have, err = f.Seek(0, io.SeekEnd)
	}
	if err != nil {
		return 0, fmt.Errorf("blob %s: %w", sha, err)
	}
	if have != offset {
		if have == 0 {
			_ = d.root.Remove(partOf(sha))
		}
		return have, wire.E(wire.Conflict, "Content-Range", fmt.Sprintf("%d bytes are here, cannot go on at %d", have, offset), "ask for the offset by HEAD")
	}
	sum := newDigest()
	n, err := transfer(ctx, io.MultiWriter(f, sum), r, total-offset)
	have += n
	var cut readError
	switch {
	case errors.As(err, &cut):
		return have, fmt.Errorf("blob %s: %w", sha, err)
	case err != nil:
		return drop(fmt.Errorf("blob %s: %w", sha, err))
	case have < total:
		return have, nil
	}
	if offset > 0 {
		sum.Reset()
		if _, err := io.Copy(sum, io.NewSectionReader(f, 0, total)); err != nil {
			return have, fmt.Errorf("blob %s: %w", sha, err)
		}
	}
	if got := sum.hex(); got != sha {
		return drop(errMismatch(sha, got))
	}
	return have, d.publish(f, partOf(sha), sha)
}

// claim makes the caller the one writer of sha's partial file.
func (d *Dir) claim(sha string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.resumed[sha] {
		return false
	}
	d.resumed[sha] = true
	return true
}

func (d *Dir) release(sha string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.resumed, sha)
}
