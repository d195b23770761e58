package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/edgetwin/sedna/models/wire"
)

// maxRedirects is how many redirects FetchURL follows.
const maxRedirects = 5

// FetchURL brings what an http or https URL gives to the file dst as
// Client.Fetch does. When wantSHA is empty any bytes are taken, a download that
// was cut off goes on within this call only, and only if the server's ETag says
// that the bytes are still the same.
//
// Redirects are followed, five at most, from https to https only. They may
// lead to another host when wantSHA is given: the digest, not the host, says
// then whether the bytes are good. Without it they must stay on the host,
// unless o.OtherHosts says otherwise.
func FetchURL(ctx context.Context, rawURL, wantSHA, dst string, o Options, progress Progress) (Info, error) {
	if wantSHA != "" {
		if err := checkDigest(wantSHA); err != nil {
			return Info{}, err
		}
	}
	u, err := url.Parse(rawURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return Info{}, wire.E(wire.InvalidArgument, "url", fmt.Sprintf("expected an http or https URL, got %.200q", rawURL), "")
	}
	o = o.withDefaults()
	client := *o.HTTP
	client.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if req.URL.Host != u.Host {
			for name := range o.Header {
				req.Header.Del(name)
			}
		}
		return checkRedirect(req, via, wantSHA != "" || o.OtherHosts)
	}
	o.HTTP = &client
	d := &download{Options: o, url: rawURL, want: wantSHA, dst: dst, progress: progress}
	info, err := d.run(ctx)
	if err != nil {
		return Info{}, fmt.Errorf("fetch %s: %w", shown(u), err)
	}
	return info, nil
}

// shown is a URL for errors and logs: without password and query, which may
// hold a credential.
func shown(u *url.URL) string {
	bare := *u
	bare.RawQuery, bare.Fragment = "", ""
	return bare.Redacted()
}

func checkRedirect(req *http.Request, via []*http.Request, anyHost bool) error {
	from, to := via[len(via)-1].URL, req.URL
	refuse := func(why string) error {
		return wire.E(wire.PermissionDenied, "url", "redirect to "+shown(to)+" not followed: "+why, "")
	}
	switch {
	case len(via) > maxRedirects:
		return refuse(fmt.Sprintf("more than %d", maxRedirects))
	case to.Scheme != from.Scheme && to.Scheme != "https":
		return refuse("it leaves https")
	case !anyHost && to.Host != via[0].URL.Host:
		return refuse("another host is taken only when the sha256 is given")
	}
	return nil
}

// download is one file on its way to dst.
type download struct {
	Options
	url      string
	want     string // digest, or empty
	dst      string
	progress Progress

	file    *os.File // dst+".part"
	sum     digest   // of what is in file
	have    int64    // bytes in file
	moved   int64    // bytes received, those dropped again too
	resumed bool     // some of the bytes in file came by an earlier request
	etag    string   // strong one of the bytes in file, when want is empty
}

// run does it all.
func (d *download) run(ctx context.Context) (Info, error) {
	if info, ok := d.there(); ok {
		return info, nil
	}
	if err := d.open(); err != nil {
		return Info{}, err
	}
	defer d.file.Close()
	if d.want != "" && d.have > 0 && d.sum.hex() == d.want {
		return d.finish()
	}
	err := d.retry(ctx, func() int64 { return d.moved }, d.attempt)
	if err != nil {
		if wire.IsCode(err, wire.DigestMismatch) || wire.IsCode(err, wire.TooLarge) || d.have == 0 {
			_ = os.Remove(d.file.Name())
		}
		return Info{}, err
	}
	return d.finish()
}

// there tells whether dst holds the wanted bytes.
func (d *download) there() (Info, bool) {
	if d.want == "" {
		return Info{}, false
	}
	f, err := os.Open(d.dst)
	if err != nil {
		return Info{}, false
	}
	defer f.Close()
	sum := newDigest()
	n, err := io.Copy(sum, f)
	return Info{d.want, n}, err == nil && sum.hex() == d.want
}

// open makes the partial file ours and reads what an earlier call left in it.
func (d *download) open() error {
	part := d.dst + partSuffix
	for {
		f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return DiskError(err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			_ = f.Close()
			return wire.E(wire.Conflict, "", d.dst+" is being fetched already", "")
		}
		// The one who held the lock may have renamed the file meanwhile.
		held, err := f.Stat()
		if err != nil {
			_ = f.Close()
			return err
		}
		if named, err := os.Stat(part); err != nil || !os.SameFile(held, named) {
			_ = f.Close()
			continue
		}
		d.file, d.sum = f, newDigest()
		if d.want != "" && held.Size() <= d.Limit {
			d.have, err = io.Copy(d.sum, f)
			d.resumed = d.have > 0
		} else {
			err = d.restart()
		}
		if err != nil {
			_ = f.Close()
		}
		return err
	}
}

// restart drops what was received.
func (d *download) restart() error {
	d.sum.Reset()
	d.have, d.resumed, d.etag = 0, false, ""
	if err := d.file.Truncate(0); err != nil {
		return err
	}
	_, err := d.file.Seek(0, io.SeekStart)
	return err
}

// attempt asks for what is missing and receives it.
func (d *download) attempt(ctx context.Context) error {
	if d.want == "" && d.etag == "" {
		if err := d.restart(); err != nil {
			return err
		}
	}
	ctx, touch, stop := watch(ctx, d.Stall)
	defer stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url, nil)
	if err != nil {
		return err
	}
	for name, values := range d.Header {
		req.Header[name] = values
	}
	req.Header.Set("Accept-Encoding", "identity")
	good := []int{http.StatusOK}
	if d.have > 0 {
		d.resumed = true
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", d.have))
		if d.etag != "" {
			req.Header.Set("If-Range", d.etag)
		}
		good = append(good, http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable)
	}
	resp, err := d.send(d.HTTP, req, good...)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	total, err := d.begin(resp)
	if err != nil {
		return err
	}
	body := touching{resp.Body, func() { touch(d.Stall) }}
	_, err = transfer(ctx, d.receiver(total), body, d.Limit-d.have)
	d.moved = max(d.moved, d.have)
	var cut readError
	switch {
	case errors.As(err, &cut):
		return transportError(ctx, err)
	case err != nil:
		_ = os.Remove(d.file.Name()) // what fills the disk or the limit is no use
		return err
	case total >= 0 && d.have != total:
		return &failure{error: wire.E(wire.Unavailable, "", fmt.Sprintf("ended after %d of %d bytes", d.have, total), "")}
	}
	return d.verify()
}

// begin settles where the body of resp goes and how long the whole is, -1 when
// the server does not tell.
func (d *download) begin(resp *http.Response) (total int64, err error) {
	switch resp.StatusCode {
	case http.StatusPartialContent:
		var first, last int64
		if n, _ := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-%d/%d", &first, &last, &total); n != 3 || first != d.have {
			return 0, d.again("the server sent another range than asked for")
		}
		if d.etag != "" && resp.Header.Get("ETag") != d.etag {
			return 0, d.again("the server has other bytes now")
		}
	case http.StatusRequestedRangeNotSatisfiable:
		return 0, d.again("the server has less bytes than are here")
	default:
		if d.have > 0 {
			if err := d.restart(); err != nil {
				return 0, err
			}
		}
		total = resp.ContentLength
		d.etag = ""
		if etag := resp.Header.Get("ETag"); d.want == "" && strings.HasPrefix(etag, `"`) {
			d.etag = etag
		}
	}
	if total > d.Limit {
		return 0, errTooLarge(d.Limit)
	}
	return total, nil
}

// again starts from zero at the next attempt.
func (d *download) again(why string) error {
	if err := d.restart(); err != nil {
		return err
	}
	return &failure{error: wire.E(wire.Unavailable, "", why, "")}
}

// verify checks the complete file. A wrong digest is tried again from zero
// when an earlier request, perhaps to another server, brought a part of it.
func (d *download) verify() error {
	got := d.sum.hex()
	if d.want == "" || got == d.want {
		return nil
	}
	err := errMismatch(d.want, got)
	if !d.resumed {
		return err
	}
	if err := d.restart(); err != nil {
		return err
	}
	return &failure{error: err}
}

// receiver writes to the file and its digest, and tells of progress.
func (d *download) receiver(total int64) io.Writer {
	return writerFunc(func(p []byte) (int, error) {
		n, err := d.file.Write(p)
		d.sum.Write(p[:n])
		d.have += int64(n)
		if d.progress != nil {
			d.progress(d.have, total)
		}
		return n, err
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// finish makes the complete, checked file visible as dst.
func (d *download) finish() (Info, error) {
	var err error
	if !d.NoSync {
		err = d.file.Sync()
	}
	if err == nil {
		err = os.Rename(d.file.Name(), d.dst)
	}
	if err == nil && !d.NoSync {
		err = syncDir(filepath.Dir(d.dst))
	}
	if err != nil {
		return Info{}, DiskError(err)
	}
	return Info{d.sum.hex(), d.have}, nil
}

func syncDir(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
