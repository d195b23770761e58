package frames

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/edgetwin/sedna/lib/config"
	"github.com/edgetwin/sedna/models/wire"
)

// HTTPSink posts frames to a LocalController's image route.
type HTTPSink struct {
	base   string
	token  config.Secret
	client *http.Client
}

var _ FrameSink = (*HTTPSink)(nil)

// NewHTTPSink takes http://host:port, https://host:port or
// unix:///path/of.sock; token may be empty.
func NewHTTPSink(base string, token config.Secret) (*HTTPSink, error) {
	t := &http.Transport{MaxIdleConnsPerHost: 8, IdleConnTimeout: time.Minute}
	s := &HTTPSink{base: strings.TrimSuffix(base, "/"), token: token, client: &http.Client{
		Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	if path, ok := strings.CutPrefix(base, "unix://"); ok && strings.HasPrefix(path, "/") {
		s.base = "http://localcontroller"
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		}
		return s, nil
	}
	u, err := url.Parse(base)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, wire.E(wire.InvalidArgument, "localController", "expected http://host:port or unix:///path", "")
	}
	return s, nil
}

// Frame posts one frame; the answer's text is not of interest here.
func (s *HTTPSink) Frame(ctx context.Context, service string, f Frame) error {
	u := s.base + "/v1/services/" + url.PathEscape(service) + "/image?" + url.Values{"device": {f.Device}}.Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, u, bytes.NewReader(f.JPEG))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "image/jpeg")
	if s.token != "" {
		r.Header.Set("Authorization", "Bearer "+string(s.token))
	}
	res, err := s.client.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("service %s: %w", service, wire.ParseError(res.StatusCode, body))
	}
	return nil
}

// Close ends idle connections.
func (s *HTTPSink) Close() { s.client.CloseIdleConnections() }
