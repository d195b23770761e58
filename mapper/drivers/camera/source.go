package camera

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"time"

	"github.com/edgetwin/sedna/mapper/drivers/frames"
)

// source gives frames until ctx ends or the camera fails. It never returns nil.
type source interface {
	run(ctx context.Context, frame func([]byte)) error
}

var errEnded = errors.New("the stream has ended")

// web is a camera that is read over HTTP.
type web struct {
	url, username, password string
	client                  *http.Client
}

func newWeb(u *url.URL, username, password string) web {
	w := web{username: username, password: password, client: &http.Client{
		Transport: &http.Transport{MaxConnsPerHost: 2, IdleConnTimeout: time.Minute, ResponseHeaderTimeout: 10 * time.Second},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > 3 || r.URL.Host != via[0].URL.Host || r.URL.Scheme != via[0].URL.Scheme {
				return fmt.Errorf("redirected to %.100s, which is not followed", r.URL.Redacted())
			}
			return nil
		},
	}}
	clean := *u
	if u.User != nil && username == "" {
		w.username = u.User.Username()
		w.password, _ = u.User.Password()
	}
	clean.User = nil
	w.url = clean.String()
	return w
}

func (w *web) get(ctx context.Context) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url, nil)
	if err != nil {
		return nil, err
	}
	if w.username != "" {
		r.SetBasicAuth(w.username, w.password)
	}
	res, err := w.client.Do(r)
	if err != nil {
		return nil, err
	}
	if res.StatusCode == http.StatusUnauthorized && w.username != "" {
		// Most cameras ask for digest authentication.
		answer, ok := digest(res.Header.Values("WWW-Authenticate"), r.Method, r.URL.RequestURI(), w.username, w.password)
		_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10))
		_ = res.Body.Close()
		if !ok {
			return nil, errors.New("the camera refuses the user or the password")
		}
		r = r.Clone(ctx)
		r.Header.Set("Authorization", answer)
		if res, err = w.client.Do(r); err != nil {
			return nil, err
		}
	}
	if res.StatusCode != http.StatusOK {
		_ = res.Body.Close()
		return nil, fmt.Errorf("the camera answered %s", res.Status)
	}
	return res, nil
}

// snapshot asks for one picture after the other.
type snapshot struct {
	web
	interval, timeout time.Duration
	max               int
}

func (s *snapshot) run(ctx context.Context, frame func([]byte)) error {
	defer s.client.CloseIdleConnections()
	tick := time.NewTicker(s.interval)
	defer tick.Stop()
	good := time.Now()
	for first := true; ; first = false {
		b, err := s.picture(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			good = time.Now()
			frame(b)
		case first || time.Since(good) > s.timeout:
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func (s *snapshot) picture(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	res, err := s.get(ctx)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, int64(s.max)+1))
	switch {
	case err != nil:
		return nil, err
	case len(b) > s.max:
		return nil, fmt.Errorf("the picture is over %d bytes", s.max)
	case !bytes.HasPrefix(b, []byte{0xFF, 0xD8}):
		return nil, errors.New("the camera's answer is no JPEG")
	}
	return b, nil
}

// mjpeg reads one endless answer.
type mjpeg struct {
	web
	max int
}

func (s *mjpeg) run(ctx context.Context, frame func([]byte)) error {
	defer s.client.CloseIdleConnections()
	res, err := s.get(ctx)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	kind, params, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if err != nil || (kind != "multipart/x-mixed-replace" && kind != "multipart/mixed") {
		return fmt.Errorf("expected a stream of multipart/x-mixed-replace, got %.60q", res.Header.Get("Content-Type"))
	}
	return pump(newMJPEGReader(res.Body, params["boundary"], s.max), frame)
}

// pump hands over all frames of a stream.
func pump(m *mjpegReader, frame func([]byte)) error {
	for {
		b, err := m.next()
		if errors.Is(err, io.EOF) {
			return errEnded
		}
		if err != nil {
			return err
		}
		frame(b)
	}
}

// watched runs a source until it fails or gives no frame for too long.
func watched(ctx context.Context, s source, patience time.Duration, frame func([]byte)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	dog := time.AfterFunc(patience, func() { cancel(fmt.Errorf("no frame for %v", patience)) })
	defer dog.Stop()
	err := s.run(ctx, func(b []byte) {
		if len(b) == 0 || len(b) > frames.MaxBytes || ctx.Err() != nil {
			return
		}
		dog.Reset(patience)
		frame(b)
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
