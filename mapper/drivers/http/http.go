// Package http polls devices that answer in JSON or text over HTTP, and writes
// by PUT or POST. Properties of one path share a request.
package http

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/edgetwin/sedna/lib/jsonpath"
	"github.com/edgetwin/sedna/mapper/devices"
	"github.com/edgetwin/sedna/mapper/drivers/internal/extract"
	"github.com/edgetwin/sedna/models/wire"
)

// Protocol is the name that Devices use.
const Protocol = "sedna-http"

// Config is protocol.configData.
type Config struct {
	URL      string            `conf:"url,required,max=2048"`               // of the device, http:// or https://
	Headers  map[string]string `conf:"headers,max=32"`                      // of each request
	Username string            `conf:"username,max=256"`                    // HTTP basic authentication
	Password string            `conf:"password,max=1024"`                   //
	Token    string            `conf:"token,max=4096"`                      // Authorization: Bearer
	CA       string            `conf:"ca"`                                  // PEM certificates to trust instead of the system's
	Timeout  int64             `conf:"timeoutMilliseconds,min=1,max=60000"` // of one request; 5000
	MaxBytes int64             `conf:"maxBytes,min=1,max=16777216"`         // of one answer; 1 MiB
}

// Visitor is visitors.configData.
type Visitor struct {
	Path     string `conf:"path,max=2048"`          // below the URL, with a query if need be; default: the URL itself
	Format   string `conf:"format,oneof=json|text"` // of the answer; json
	JSONPath string `conf:"jsonPath"`               // to the value; default: the whole document

	WritePath   string `conf:"writePath,max=2048"`          // default: path
	WriteMethod string `conf:"writeMethod,oneof=PUT|POST"`  // PUT
	WriteFormat string `conf:"writeFormat,oneof=json|text"` // {"value":21.5}, or 21.5; json
	WriteKey    string `conf:"writeKey,min=1,max=128"`      // of the value in the JSON object; value
}

// New makes the driver of one device.
func New(s devices.Setup) (devices.Driver, error) {
	c := Config{Timeout: 5000, MaxBytes: 1 << 20}
	if err := s.Protocol.Decode(&c); err != nil {
		return nil, err
	}
	base, err := url.Parse(c.URL)
	if err != nil || (base.Scheme != "http" && base.Scheme != "https") || base.Host == "" {
		return nil, s.Protocol.Error("url", "expected http://host or https://host")
	}
	d := &driver{Config: c, base: base, properties: map[string]*property{}}
	transport := &http.Transport{MaxConnsPerHost: 2, IdleConnTimeout: time.Minute, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}, Proxy: nil}
	if c.CA != "" {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM([]byte(c.CA)) {
			return nil, s.Protocol.Error("ca", "expected certificates in PEM")
		}
		transport.TLSClientConfig.RootCAs = pool
	}
	d.client = &http.Client{Transport: transport, Timeout: time.Duration(c.Timeout) * time.Millisecond, CheckRedirect: stayOnHost}
	for _, p := range s.Properties {
		q := &property{Visitor: Visitor{Format: extract.JSON, WriteMethod: http.MethodPut, WriteFormat: extract.JSON, WriteKey: "value"}}
		if err := p.Visitor.Decode(&q.Visitor); err != nil {
			return nil, err
		}
		if q.path, err = jsonpath.Compile(q.JSONPath); err != nil {
			return nil, p.Visitor.Error("jsonPath", "%v", err)
		}
		if q.WritePath == "" {
			q.WritePath = q.Path
		}
		if q.read, err = d.at(q.Path); err != nil {
			return nil, p.Visitor.Error("path", "%v", err)
		}
		if q.write, err = d.at(q.WritePath); err != nil {
			return nil, p.Visitor.Error("writePath", "%v", err)
		}
		d.properties[p.Name] = q
	}
	return d, nil
}

// stayOnHost follows a few redirects, none of which leaves the device: a
// device must not send our credentials elsewhere.
func stayOnHost(r *http.Request, via []*http.Request) error {
	if len(via) > 3 || r.URL.Host != via[0].URL.Host || r.URL.Scheme != via[0].URL.Scheme {
		return fmt.Errorf("redirected to %.100s, which is not followed", r.URL.Redacted())
	}
	return nil
}

type driver struct {
	Config
	base       *url.URL
	client     *http.Client
	properties map[string]*property
}

type property struct {
	Visitor
	path        jsonpath.Path
	read, write string // URLs
}

// at gives the URL of a path below the device's.
func (d *driver) at(path string) (string, error) {
	if path == "" {
		return d.base.String(), nil
	}
	ref, err := url.Parse(path)
	if err != nil || ref.Scheme != "" || ref.Host != "" || ref.User != nil {
		return "", errors.New("expected a path below the device's url")
	}
	u := d.base.JoinPath(ref.Path)
	u.RawQuery = ref.RawQuery
	return u.String(), nil
}

// Connect has nothing to do: Read tells whether the device answers.
func (d *driver) Connect(context.Context) error { return nil }

// Read makes one request per path. The device is offline when none is
// answered.
func (d *driver) Read(ctx context.Context, names []string) (map[string]devices.Reading, error) {
	byURL := map[string][]string{}
	for _, name := range names {
		u := d.properties[name].read
		byURL[u] = append(byURL[u], name)
	}
	out := make(map[string]devices.Reading, len(names))
	var lost error
	answered := len(byURL) == 0
	for u, names := range byURL {
		body, err := d.do(ctx, http.MethodGet, u, "", nil)
		var status statusError
		if err == nil || errors.As(err, &status) || wire.IsCode(err, wire.TooLarge) {
			answered = true
		} else {
			lost = err
		}
		var doc any
		var bad error
		decoded := false
		for _, name := range names {
			q := d.properties[name]
			r := devices.Reading{Err: err}
			if err == nil && q.Format == extract.JSON {
				if !decoded {
					doc, bad = jsonpath.Decode(body)
					decoded = true
				}
				if r.Err = bad; bad == nil {
					r.Value, r.Err = q.path.Find(doc)
				}
			} else if err == nil {
				r.Value = strings.TrimSpace(string(body))
			}
			out[name] = r
		}
	}
	if !answered {
		return nil, lost
	}
	return out, nil
}

// Write sends the value.
func (d *driver) Write(ctx context.Context, name string, value any) error {
	q := d.properties[name]
	var body bytes.Buffer
	contentType := "application/json"
	if q.WriteFormat == extract.JSON {
		if err := json.NewEncoder(&body).Encode(map[string]any{q.WriteKey: value}); err != nil {
			return wire.E(wire.InvalidArgument, "", err.Error(), "")
		}
	} else {
		v, err := devices.String.Convert(value)
		if err != nil {
			return err
		}
		contentType = "text/plain; charset=utf-8"
		body.WriteString(v.(string))
	}
	_, err := d.do(ctx, q.WriteMethod, q.write, contentType, &body)
	var status statusError
	// Other answers of 4xx may pass: 408, 409, 423, 425, 429.
	if errors.As(err, &status) {
		switch int(status) {
		case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed,
			http.StatusNotAcceptable, http.StatusGone, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
			return wire.E(wire.InvalidArgument, "", err.Error(), "")
		case http.StatusRequestEntityTooLarge:
			return wire.E(wire.TooLarge, "", err.Error(), "")
		}
	}
	return err
}

// statusError is an answer that is no success.
type statusError int

func (e statusError) Error() string {
	return fmt.Sprintf("the device answered %d %s", int(e), http.StatusText(int(e)))
}

func (d *driver) do(ctx context.Context, method, u, contentType string, body io.Reader) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, u, body)
	if err != nil {
		return nil, err
	}
	for k, v := range d.Headers {
		r.Header.Set(k, v)
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	if d.Username != "" {
		r.SetBasicAuth(d.Username, d.Password)
	}
	if d.Token != "" {
		r.Header.Set("Authorization", "Bearer "+d.Token)
	}
	res, err := d.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, d.MaxBytes+1))
	switch {
	case err != nil:
		return nil, err
	case res.StatusCode/100 != 2:
		return nil, statusError(res.StatusCode)
	case int64(len(b)) > d.MaxBytes:
		return nil, wire.E(wire.TooLarge, "", fmt.Sprintf("the answer is over %d bytes", d.MaxBytes), "")
	}
	return b, nil
}

func (d *driver) Close() error {
	d.client.CloseIdleConnections()
	return nil
}
