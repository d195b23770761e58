package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"github.com/edgetwin/sedna/lib/blob"
	"github.com/edgetwin/sedna/lib/storage/s3"
	"github.com/edgetwin/sedna/models/wire"
)

// Limits on one call.
type Limits struct {
	// Bytes that are fetched, and that archives among them unpack to, each.
	// Default 16 GiB.
	Bytes int64
	// Files that come to lie in a directory. Default 100,000.
	Files int
	// Depth is how many directories deep a file may lie. Default 32.
	Depth int
	// IndexBytes is the size of an index. Default 64 MiB.
	IndexBytes int64
	// Time is how long it may take. Default 2 h.
	Time time.Duration
}

// Config of a Client. Its zero value reads http and https.
type Config struct {
	// Roots are the directories below which files are read and written. Default
	// none.
	Roots []string
	// S3 is the server of s3 URLs. Default that of AWS, anonymously.
	S3 s3.Options
	// Transfer has the client for http and how often and how long is tried.
	// Its Limit is not used.
	Transfer blob.Options
	// Header gives the headers that go with http requests to a host. Default
	// none.
	Header func(host string) (http.Header, error)
	// Limits on one call.
	Limits Limits
	// Ratio is archive.Limits' Ratio.
	Ratio int64
	// Parallel is how many files are fetched at a time. Default 4.
	Parallel int
}

// Client reads and writes by URL. Safe for concurrent use.
type Client struct {
	Config
	s3 func() (*s3.Client, error)
}

// New checks c and fills in its defaults. It does not connect.
func New(c Config) (*Client, error) {
	for _, root := range c.Roots {
		if !filepath.IsAbs(root) {
			return nil, wire.E(wire.InvalidArgument, "roots", fmt.Sprintf("expected absolute paths, got %.200q", root), "")
		}
	}
	c.Limits.Bytes = cmp.Or(c.Limits.Bytes, 16<<30)
	c.Limits.Files = cmp.Or(c.Limits.Files, 100_000)
	c.Limits.Depth = cmp.Or(c.Limits.Depth, 32)
	c.Limits.IndexBytes = cmp.Or(c.Limits.IndexBytes, 64<<20)
	c.Limits.Time = cmp.Or(c.Limits.Time, 2*time.Hour)
	c.Parallel = cmp.Or(c.Parallel, 4)
	if c.Header == nil {
		c.Header = func(string) (http.Header, error) { return nil, nil }
	}
	return &Client{Config: c, s3: sync.OnceValues(func() (*s3.Client, error) { return s3.New(c.S3) })}, nil
}

// Options of one call.
type Options struct {
	// SHA256 that the bytes must have, in place of one in the URL. Only for a
	// single file or archive. Default any.
	SHA256 string
	// Unpack has GetDir and GetIndexed unpack archives, in the directory where
	// they would lie. Default false.
	Unpack bool
	// Progress is told how many bytes of how many are there; total is -1 when
	// nobody knows. It is not called concurrently. Default none.
	Progress blob.Progress
}

// Result is what a call has moved.
type Result struct {
	Objects int    // that the URL named
	Files   int    // that came to lie there, directories of archives included
	Bytes   int64  // of the objects
	SHA256  string // of the object, if it was a single one
}

// begin gives a call its time.
func (c *Client) begin(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, c.Limits.Time, wire.E(wire.DeadlineExceeded, "", fmt.Sprintf("it took longer than %s", c.Limits.Time), ""))
}

// end says of an error that the call's time was over, if it was.
func end(ctx context.Context, err error) error {
	var late *wire.Error
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) && errors.As(context.Cause(ctx), &late) {
		return late
	}
	return err
}

// progress adds up what parallel transfers tell.
type progress struct {
	mu    sync.Mutex
	tell  blob.Progress
	total int64 // -1: not known
	done  int64
}

// one is the progress of one transfer among others.
func (p *progress) one() blob.Progress {
	if p.tell == nil {
		return nil
	}
	var before int64
	return func(done, total int64) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.done += done - before
		before = done
		if p.total >= 0 {
			total = p.total
		}
		p.tell(p.done, total)
	}
}
