package blob

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/edgetwin/sedna/models/wire"
)

// PutURL stores what r holds at an http or https URL by PUT, and says what it
// was. A request that fails for a passing reason is sent again from the begin.
// progress may be nil.
func PutURL(ctx context.Context, rawURL string, r io.ReadSeeker, o Options, progress Progress) (Info, error) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return Info{}, wire.E(wire.InvalidArgument, "url", fmt.Sprintf("expected an http or https URL, got %.200q", rawURL), "")
	}
	o = o.withDefaults()
	sum := newDigest()
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return Info{}, err
	}
	size, err := transfer(ctx, sum, r, o.Limit)
	if err != nil {
		return Info{}, err
	}
	p := &put{Options: o, url: rawURL, source: r, size: size, progress: progress}
	if err := o.retry(ctx, func() int64 { return 0 }, p.attempt); err != nil {
		return Info{}, fmt.Errorf("put %s: %w", shown(u), err)
	}
	return Info{sum.hex(), size}, nil
}

// put is one file on its way to a web server.
type put struct {
	Options
	url      string
	source   io.ReadSeeker
	size     int64
	progress Progress
}

func (p *put) attempt(ctx context.Context) error {
	if _, err := p.source.Seek(0, io.SeekStart); err != nil {
		return err
	}
	ctx, touch, stop := watch(ctx, p.Stall)
	defer stop()
	var sent int64
	counted := readerFunc(func(b []byte) (int, error) {
		n, err := p.source.Read(b)
		if sent += int64(n); p.progress != nil && n > 0 {
			p.progress(sent, p.size)
		}
		return n, err
	})
	body := &gate{r: io.LimitReader(counted, p.size), touch: func(ended bool) {
		if ended {
			touch(answerTime)
		} else {
			touch(p.Stall)
		}
	}}
	defer body.shut()
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, p.url, body)
	if err != nil {
		return err
	}
	for name, values := range p.Header {
		req.Header[name] = values
	}
	req.ContentLength = p.size
	if p.size == 0 {
		req.Body = http.NoBody
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	req.Header.Set("Expect", "100-continue")
	resp, err := p.send(p.HTTP, req, http.StatusOK, http.StatusCreated, http.StatusNoContent)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
