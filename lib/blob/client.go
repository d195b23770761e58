package blob

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/edgetwin/sedna/models/wire"
)

// Path is where a blob server has its blobs, each under its digest.
const Path = "/v1/blobs/"

// OffsetHeader is how many bytes of an upload the server has: in its answer
// 404 to HEAD for a blob that is not complete, 202 to a PUT that brought a
// part, and 409 to one that began elsewhere.
const OffsetHeader = "Upload-Offset"

// Options of transfers.
type Options struct {
	// HTTP is the client to use: identity.Node.HTTPClient for the
	// GlobalManager. Default one that trusts the system's CAs.
	HTTP *http.Client
	// Header goes with each request of FetchURL and PutURL, but to no other
	// host than the URL's. Default none.
	Header http.Header
	// OtherHosts lets FetchURL follow redirects to other hosts without a
	// digest too. Default false.
	OtherHosts bool
	// NoSync has what is fetched appear without waiting for the disk, for a
	// caller that does this itself. Default false.
	NoSync bool
	// Limit is the largest blob that is fetched or sent, in bytes. Default 2
	// GiB.
	Limit int64
	// Attempts is how often in a row a transfer may fail without having moved
	// a byte before it is given up. Default 6.
	Attempts int
	// Backoff is the wait after the first such failure; it doubles up to
	// MaxBackoff. Defaults 250 ms and 15 s.
	Backoff, MaxBackoff time.Duration
	// Stall is how long nothing may move before an attempt is broken off.
	// Default 1 min.
	Stall time.Duration
}

func (o Options) withDefaults() Options {
	if o.HTTP == nil {
		o.HTTP = defaultHTTP
	}
	if o.Limit == 0 {
		o.Limit = DefaultLimit
	}
	if o.Attempts == 0 {
		o.Attempts = 6
	}
	if o.Backoff == 0 {
		o.Backoff = 250 * time.Millisecond
	}
	if o.MaxBackoff == 0 {
		o.MaxBackoff = 15 * time.Second
	}
	if o.Stall == 0 {
		o.Stall = time.Minute
	}
	return o
}

// defaultHTTP has a time for each step of a request but none for the whole.
var defaultHTTP = &http.Client{Transport: &http.Transport{
	Proxy:                 http.ProxyFromEnvironment,
	DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
	ForceAttemptHTTP2:     true,
	TLSHandshakeTimeout:   10 * time.Second,
	ResponseHeaderTimeout: time.Minute,
	ExpectContinueTimeout: 2 * time.Second,
	IdleConnTimeout:       30 * time.Second,
}}

// Client talks to one blob server. Safe for concurrent use.
type Client struct {
	base string
	Options
}

// NewClient is for the server at base, for example https://cloud:9000.
func NewClient(base string, o Options) *Client {
	return &Client{base: strings.TrimRight(base, "/"), Options: o.withDefaults()}
}

// Progress is told how many bytes of how many are there; total is -1 when
// nobody knows. It is called from the transferring goroutine, for each piece.
type Progress func(done, total int64)

// Fetch brings the blob sha to the file dst, mode 0600, which appears whole
// and checked; when it is there already nothing is moved. Until then the bytes
// are in dst+".part", which a later call goes on with. progress may be nil.
func (c *Client) Fetch(ctx context.Context, sha, dst string, progress Progress) error {
	if err := checkDigest(sha); err != nil {
		return err
	}
	d := &download{Options: c.Options, url: c.base + Path + sha, want: sha, dst: dst, progress: progress}
	if _, err := d.run(ctx); err != nil {
		return fmt.Errorf("fetch blob %s: %w", sha, err)
	}
	return nil
}

// failure is a failed attempt that may be worth another.
type failure struct {
	error
	wait time.Duration // asked for by the server
}

func (f *failure) Unwrap() error { return f.error }

// retry runs attempt until it succeeds, fails for good (with an error that is
// no *failure), or has failed o.Attempts times in a row without progress.
func (o Options) retry(ctx context.Context, moved func() int64, attempt func(context.Context) error) error {
	var before int64
	wait, left := o.Backoff, o.Attempts
	for {
		err := attempt(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var f *failure
		if !errors.As(err, &f) {
			return err
		}
		if now := moved(); now > before {
			before, wait, left = now, o.Backoff, o.Attempts
		}
		if left--; left <= 0 {
			return f.error
		}
		pause := max(wait/2+rand.N(wait/2+1), min(f.wait, o.MaxBackoff))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		wait = min(wait*2, o.MaxBackoff)
	}
}

// send does one request; only an answer with a status in good is returned, and
// its body is the caller's to close.
func (o Options) send(client *http.Client, req *http.Request, good ...int) (*http.Response, error) {
	resp, err := client.Do(req)
	if err != nil {
		return nil, transportError(req.Context(), err)
	}
	for _, status := range good {
		if resp.StatusCode == status {
			return resp, nil
		}
	}
	defer resp.Body.Close()
	return nil, statusError(resp)
}

// transportError is what a connection's failure is to the caller.
func transportError(ctx context.Context, err error) error {
	var own *wire.Error
	if errors.As(err, &own) {
		return own
	}
	var cert *tls.CertificateVerificationError
	if errors.As(err, &cert) {
		return wire.E(wire.Unauthenticated, "", "the server's certificate is not good: "+cert.Error(), "")
	}
	if cause := context.Cause(ctx); errors.Is(cause, errStalled) {
		err = cause
	}
	if request, ok := errors.AsType[*url.Error](err); ok {
		err = request.Err // its text is the URL, with whatever is in its query
	}
	return &failure{error: wire.E(wire.Unavailable, "", err.Error(), "check the address and the network")}
}

var errStalled = errors.New("the connection stalled")

// statusError reads the refusal in resp.
func statusError(resp *http.Response) error {
	if resp.StatusCode < http.StatusBadRequest {
		return wire.E(wire.Unavailable, "", "the server answered "+resp.Status, "")
	}
	const maxRefusal = 64 << 10
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	err := wire.ParseError(resp.StatusCode, body)
	switch s := resp.StatusCode; {
	case s >= 500, s == http.StatusTooManyRequests, s == http.StatusRequestTimeout:
		seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		return &failure{error: err, wait: time.Duration(max(seconds, 0)) * time.Second}
	}
	return err
}

// watch gives a context that ends when touch was not called for the time that
// it was last given.
func watch(ctx context.Context, limit time.Duration) (watched context.Context, touch func(time.Duration), stop func()) {
	watched, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(limit, func() { cancel(errStalled) })
	return watched, func(limit time.Duration) { timer.Reset(limit) }, func() {
		timer.Stop()
		cancel(nil)
	}
}

// touching calls touch at each read.
type touching struct {
	io.Reader
	touch func()
}

func (t touching) Read(p []byte) (int, error) {
	n, err := t.Reader.Read(p)
	t.touch()
	return n, err
}
