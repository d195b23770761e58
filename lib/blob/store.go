package blob

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// DefaultLimit is the largest blob that is taken unless said otherwise, in
// bytes.
const DefaultLimit = 2 << 30

// Info names a blob.
type Info struct {
	SHA256 string // lower-case hex
	Size   int64  // bytes
}

// Store keeps blobs. Digests are lower-case hex, anything else is refused with
// invalid_argument. A blob that is absent is not_found. Safe for concurrent
// use.
type Store interface {
	Has(ctx context.Context, sha string) (bool, error)
	Size(ctx context.Context, sha string) (int64, error)
	// Open reads a blob from its begin.
	Open(ctx context.Context, sha string) (io.ReadSeekCloser, error)
	// Put reads r to its end and keeps it when its digest is sha (any digest
	// when sha is empty); the same blob again is no error. After an error
	// nothing is kept.
	Put(ctx context.Context, sha string, r io.Reader) (Info, error)
	// Delete removes a blob; one that is absent is no error. Who has it open
	// can read on.
	Delete(ctx context.Context, sha string) error
	List(ctx context.Context) ([]Info, error)
}

// Backend is a Store that uploads can be resumed in, and whose blobs can be
// collected when nobody needs them.
type Backend interface {
	Store
	// Offset is how many bytes of an upload of sha are here already.
	Offset(ctx context.Context, sha string) (int64, error)
	// Resume goes on with an upload, see Dir.Resume.
	Resume(ctx context.Context, sha string, offset, total int64, r io.Reader) (have int64, err error)
	// Touch makes a blob count as stored now; not_found if it is absent. When
	// it has returned, Remove with an older Entry leaves the blob alone.
	Touch(ctx context.Context, sha string) error
	// Entries gives all blobs in the order of their digests; a backend may
	// have a blob several times.
	Entries(ctx context.Context) ([]Entry, error)
	// Remove removes what Entries gave, unless the blob was stored again or
	// touched since then; removed tells.
	Remove(ctx context.Context, e Entry) (removed bool, err error)
	// File gives a file with the blob, for those who can read only files. It
	// must not be written to, and stays for at least an hour as long as the
	// blob does.
	File(ctx context.Context, sha string) (path string, err error)
	Close() error
}

// Entry is a blob as a Backend has stored it.
type Entry struct {
	Info
	StoredAt time.Time // last stored or touched
	Version  string    // tells this entry from an earlier or later one of the blob
}

func checkDigest(sha string) error {
	if !task.ValidDigest(sha) {
		return wire.E(wire.InvalidArgument, "sha256", fmt.Sprintf("expected 64 lower-case hex digits, got %.80q", sha), "")
	}
	return nil
}

func errNotFound(sha string) error {
	return wire.E(wire.NotFound, "sha256", "no blob "+sha, "")
}

func errTooLarge(limit int64) error {
	return wire.E(wire.TooLarge, "", fmt.Sprintf("at most %d bytes are taken", limit), "")
}

func errMismatch(want, got string) error {
	return wire.E(wire.DigestMismatch, "sha256", fmt.Sprintf("the bytes have the digest %s, announced was %s", got, want), "")
}

// DiskError gives a full disk its code; other errors are as they were.
func DiskError(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return errDiskFull()
	}
	return err
}

func errDiskFull() error {
	return wire.E(wire.ResourceExhausted, "", "the disk is full", "free some space and try again")
}

// digest is a running sha256.
type digest struct{ hash.Hash }

func newDigest() digest { return digest{sha256.New()} }

func (d digest) hex() string { return hex.EncodeToString(d.Sum(nil)) }

// readError marks an error of the source of a copy.
type readError struct{ error }

func (e readError) Unwrap() error { return e.error }

// transfer copies src to dst until its end, at most limit bytes; more is
// too_large. An error of src comes as readError.
func transfer(ctx context.Context, dst io.Writer, src io.Reader, limit int64) (n int64, err error) {
	buf := make([]byte, 128<<10)
	for {
		if err := ctx.Err(); err != nil {
			return n, readError{err}
		}
		got, rerr := src.Read(buf)
		if int64(got) > limit-n {
			return n, errTooLarge(limit)
		}
		if got > 0 {
			put, werr := dst.Write(buf[:got])
			n += int64(put)
			if werr != nil {
				return n, DiskError(werr)
			}
		}
		if rerr == io.EOF {
			return n, nil
		}
		if rerr != nil {
			return n, readError{rerr}
		}
	}
}
