package dataset

import (
	"bytes"
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"
	"syscall"

	"github.com/edgetwin/sedna/lib/dataset/format"
)

const (
	window   = 4096 // bytes at the begin and before the cursor that tell a file from others
	maxMarks = 64
	maxCuts  = 256
)

// cursor is how far a file was read, and how it is known again.
type cursor struct {
	Scan  format.State `json:"scan"`
	File  fileID       `json:"file"`
	Head  []byte       `json:"head,omitempty"`  // the first bytes, up to window, of what was read
	Tail  string       `json:"tail,omitempty"`  // sha256 of the last ones
	Sum   []byte       `json:"sum,omitempty"`   // running sha256 of all that was read
	Marks []mark       `json:"marks,omitempty"` // digests of shorter begins
	Cuts  []int64      `json:"cuts,omitempty"`  // offsets at which a line was taken without its end
}

// mark is the digest of a file's begin.
type mark struct {
	Offset int64  `json:"offset"`
	SHA256 string `json:"sha256"`
}

// fileID is what the system says of a file.
type fileID struct {
	Dev      uint64 `json:"dev"`
	Ino      uint64 `json:"ino"`
	Size     int64  `json:"size"`
	Modified int64  `json:"modified"` // ns since 1970
	links    uint64
}

func (a fileID) same(b fileID) bool { return a.Dev == b.Dev && a.Ino == b.Ino }

func idOf(f *os.File) (fileID, error) {
	info, err := f.Stat()
	if err != nil {
		return fileID{}, err
	}
	return idOfInfo(info)
}

func idOfInfo(info os.FileInfo) (fileID, error) {
	sys, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileID{}, fmt.Errorf("%s: the system does not say which file it is", info.Name())
	}
	return fileID{Dev: uint64(sys.Dev), Ino: sys.Ino, Size: info.Size(), Modified: info.ModTime().UnixNano(), links: uint64(sys.Nlink)}, nil
}

// tracker follows what is taken of a file.
type tracker struct {
	offset int64
	sum    hash.Hash
	head   []byte
	tail   []byte
}

func newTracker() *tracker { return &tracker{sum: sha256.New()} }

func (t *tracker) took(p []byte) {
	t.offset += int64(len(p))
	t.sum.Write(p)
	if n := window - len(t.head); n > 0 {
		t.head = append(t.head, p[:min(n, len(p))]...)
	}
	if len(p) >= window {
		t.tail = append(t.tail[:0], p[len(p)-window:]...)
		return
	}
	t.tail = append(t.tail, p...)
	if n := len(t.tail) - window; n > 0 {
		t.tail = t.tail[:copy(t.tail, t.tail[n:])]
	}
}

func (t *tracker) digest() string { return hex.EncodeToString(t.sum.Sum(nil)) }

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// store writes what t knows into c.
func (t *tracker) store(c *cursor) error {
	sum, err := t.sum.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		return fmt.Errorf("digest of a dataset: %w", err)
	}
	c.Head, c.Tail, c.Sum = slices.Clone(t.head), digest(t.tail), sum
	if n := len(c.Marks); t.offset > 0 && (n == 0 || c.Marks[n-1].Offset < t.offset) {
		c.Marks = append(c.Marks, mark{t.offset, t.digest()})
	}
	if len(c.Marks) > maxMarks { // every second one goes, the last stays
		kept := c.Marks[:0]
		for i, m := range c.Marks {
			if (len(c.Marks)-i)%2 == 1 {
				kept = append(kept, m)
			}
		}
		c.Marks = kept
	}
	return nil
}

// resume gives the tracker with which f is read on behind c. It is nil when f
// is not what was read up to there, by its begin and by the bytes before c.
func (c *cursor) resume(f io.ReaderAt) (*tracker, error) {
	t := newTracker()
	if c.Scan.Offset == 0 {
		return t, nil
	}
	head, err := readAt(f, 0, int64(len(c.Head)))
	if err != nil || !bytes.Equal(head, c.Head) {
		return nil, err
	}
	n := min(c.Scan.Offset, window)
	tail, err := readAt(f, c.Scan.Offset-n, n)
	if err != nil || digest(tail) != c.Tail {
		return nil, err
	}
	t.offset, t.head, t.tail = c.Scan.Offset, head, tail
	if err := t.sum.(encoding.BinaryUnmarshaler).UnmarshalBinary(c.Sum); err != nil {
		return nil, fmt.Errorf("digest of a dataset: %w", err)
	}
	return t, nil
}

// readAt reads n bytes; it gives fewer at the end of the file.
func readAt(f io.ReaderAt, offset, n int64) ([]byte, error) {
	b := make([]byte, n)
	got, err := f.ReadAt(b, offset)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return b[:got], err
}
