package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/edgetwin/sedna/models/wire"
)

// answerTime is how long a server may take to check and store an upload after
// its last byte.
const answerTime = 3 * time.Minute

// UploadFile sends the file at path, as Upload does.
func (c *Client) UploadFile(ctx context.Context, path string) (Info, error) {
	f, err := os.Open(path)
	if err != nil {
		return Info{}, fmt.Errorf("upload: %w", err)
	}
	defer f.Close()
	return c.Upload(ctx, f)
}

// Upload sends what r holds and says under which digest it is kept. It reads r
// twice: for its digest first, then to send what the server does not have of
// it. A server that has the blob already answers before any byte of it.
func (c *Client) Upload(ctx context.Context, r io.ReadSeeker) (Info, error) {
	sum := newDigest()
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return Info{}, fmt.Errorf("upload: %w", err)
	}
	size, err := transfer(ctx, sum, r, c.Limit)
	if err != nil {
		return Info{}, fmt.Errorf("upload: %w", err)
	}
	u := &upload{Client: c, info: Info{sum.hex(), size}, source: r}
	if err := c.retry(ctx, func() int64 { return u.moved }, u.attempt); err != nil {
		return Info{}, fmt.Errorf("upload blob %s: %w", u.info.SHA256, err)
	}
	return u.info, nil
}

// upload is one blob on its way to the server.
type upload struct {
	*Client
	info   Info
	source io.ReadSeeker
	moved  int64 // the furthest that the server has got
}

// attempt asks what the server has and sends the rest.
func (u *upload) attempt(ctx context.Context) error {
	url := u.base + Path + u.info.SHA256
	offset, err := u.ask(ctx, url)
	if err != nil {
		return err
	}
	u.moved = max(u.moved, offset)
	if _, err := u.source.Seek(offset, io.SeekStart); err != nil {
		return err
	}
	ctx, touch, stop := watch(ctx, u.Stall)
	defer stop()
	rest := u.info.Size - offset
	body := &gate{r: io.LimitReader(u.source, rest), touch: func(ended bool) {
		if ended {
			touch(answerTime)
		} else {
			touch(u.Stall)
		}
	}}
	defer body.shut()
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, url, body)
	if err != nil {
		return err
	}
	req.ContentLength = rest
	if rest == 0 {
		req.Body = http.NoBody
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	req.Header.Set("Expect", "100-continue")
	if offset > 0 {
		req.Header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", offset, u.info.Size-1, u.info.Size))
	}
	resp, err := u.send(u.HTTP, req, http.StatusOK, http.StatusCreated)
	if err == nil {
		return resp.Body.Close()
	}
	// Another writer has moved the offset, or the part that the server had was
	// not of this blob and is dropped now.
	if e := new(wire.Error); errors.As(err, &e) && (e.Code == wire.Conflict || e.Code == wire.DigestMismatch && offset > 0) {
		return &failure{error: e}
	}
	return err
}

// ask tells how much of an upload the server has. For a blob that it has whole
// that is 0: the request to store it comes nevertheless, because it keeps the
// blob from being collected before anything names it.
func (u *upload) ask(ctx context.Context, url string) (offset int64, err error) {
	ctx, _, stop := watch(ctx, u.Stall)
	defer stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, url, nil)
	if err != nil {
		return 0, err
	}
	resp, err := u.send(u.HTTP, req, http.StatusOK, http.StatusNotFound)
	if err != nil {
		return 0, err
	}
	if err := resp.Body.Close(); err != nil {
		return 0, err
	}
	offset, err = strconv.ParseInt(resp.Header.Get(OffsetHeader), 10, 64)
	if err != nil || offset < 0 || offset >= u.info.Size {
		offset = 0
	}
	return offset, nil
}

// gate is a request's body that is no longer read once it was shut: a
// transport may hold on to a body after it gave the answer.
type gate struct {
	mu    sync.Mutex
	r     io.Reader
	touch func(ended bool)
	done  bool
}

func (g *gate) Read(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.done {
		return 0, errors.New("the request is over")
	}
	n, err := g.r.Read(p)
	g.touch(err != nil)
	return n, err
}

func (g *gate) Close() error { return nil }

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.done = true
}
