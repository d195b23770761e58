// Package s3 connects to S3 and to what speaks its protocol (MinIO, Ceph,
// versitygw): which server with which keys, requests that are signed, errors
// as wire errors. What is read and written there is for the packages above.
package s3

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/edgetwin/sedna/models/wire"
)

// Options say which server is used, and as whom.
type Options struct {
	// Endpoint is host or host:port of the server. Default s3.amazonaws.com.
	Endpoint string
	// HTTP speaks plain HTTP. Default false.
	HTTP bool
	// Region of the buckets. Default what the server says.
	Region string
	// AccessKey and SecretKey sign the requests. Without both requests are
	// anonymous.
	AccessKey, SecretKey string
	// Retries is how often a request is tried. Default 6.
	Retries int
	// Transport is for tests. Default one with time limits for each step.
	Transport http.RoundTripper
}

// Variables that FromEnv reads.
const (
	EnvEndpoint  = "S3_ENDPOINT_URL"   // https://host:port, http://host:port or host:port
	EnvHTTPS     = "S3_USE_HTTPS"      // 0 or 1, where the endpoint has no scheme; default 1
	EnvRegion    = "S3_REGION"         // optional
	EnvAccessKey = "ACCESS_KEY_ID"     // empty: anonymous
	EnvSecretKey = "SECRET_ACCESS_KEY" // empty: anonymous
)

// FromEnv reads the options from the environment.
func FromEnv(getenv func(string) string) (Options, error) {
	o := Options{Region: getenv(EnvRegion), AccessKey: getenv(EnvAccessKey), SecretKey: getenv(EnvSecretKey)}
	endpoint := strings.TrimSpace(getenv(EnvEndpoint))
	if endpoint == "" {
		return o, nil
	}
	scheme, host, found := strings.Cut(endpoint, "://")
	if !found {
		secure, err := strconv.ParseBool(cmp.Or(getenv(EnvHTTPS), "1"))
		if err != nil {
			return Options{}, wire.E(wire.InvalidArgument, EnvHTTPS, fmt.Sprintf("expected 0 or 1, got %.40q", getenv(EnvHTTPS)), "")
		}
		scheme, host = "https", endpoint
		if !secure {
			scheme = "http"
		}
	}
	o.Endpoint, o.HTTP = strings.TrimRight(host, "/"), scheme == "http"
	if scheme != "http" && scheme != "https" || !goodHost(o.Endpoint) {
		return Options{}, wire.E(wire.InvalidArgument, EnvEndpoint, fmt.Sprintf("expected http(s)://host:port, got %.200q", endpoint), "")
	}
	return o, nil
}

func goodHost(endpoint string) bool {
	u, err := url.Parse("http://" + endpoint)
	return err == nil && u.Host == endpoint && u.Hostname() != ""
}

// Client is a connection to a server. Safe for concurrent use.
type Client struct {
	*minio.Core
	host    string
	scheme  string
	http    *http.Client
	retries int
}

// New makes a client. It does not connect.
func New(o Options) (*Client, error) {
	o.Endpoint = cmp.Or(o.Endpoint, "s3.amazonaws.com")
	if !goodHost(o.Endpoint) {
		return nil, wire.E(wire.InvalidArgument, "endpoint", fmt.Sprintf("expected host:port, got %.200q", o.Endpoint), "")
	}
	if (o.AccessKey == "") != (o.SecretKey == "") {
		return nil, wire.E(wire.InvalidArgument, "accessKey", "expected access key and secret key, or none of them", "")
	}
	base := o.Transport
	if base == nil {
		t, err := minio.DefaultTransport(!o.HTTP)
		if err != nil {
			return nil, err
		}
		base = t
	}
	retries := cmp.Or(o.Retries, 6)
	core, err := minio.NewCore(o.Endpoint, &minio.Options{
		Creds: credentials.NewStaticV4(o.AccessKey, o.SecretKey, ""), Secure: !o.HTTP, Region: o.Region,
		Transport: base, MaxRetries: retries,
	})
	if err != nil {
		return nil, wire.E(wire.InvalidArgument, "endpoint", err.Error(), "")
	}
	c := &Client{Core: core, host: o.Endpoint, scheme: "https", http: &http.Client{Transport: base}, retries: retries}
	if o.HTTP {
		c.scheme = "http"
	}
	if o.AccessKey != "" {
		c.http.Transport = &signing{client: core, host: c.host, base: base}
	}
	return c, nil
}

// ObjectURL is the address of an object for HTTP. It holds no credential.
func (c *Client) ObjectURL(bucket, key string) string {
	u := url.URL{Scheme: c.scheme, Host: c.host, Path: "/" + bucket + "/" + key}
	return u.String()
}

// HTTP reads what ObjectURL names by GET, ranges included.
func (c *Client) HTTP() *http.Client { return c.http }

// signing signs GET requests to host.
type signing struct {
	client *minio.Core
	host   string
	base   http.RoundTripper
}

// signedFor is how long the signature of one request is good.
const signedFor = 15 * time.Minute

func (s *signing) RoundTrip(req *http.Request) (*http.Response, error) {
	bucket, key, ok := strings.Cut(strings.TrimPrefix(req.URL.Path, "/"), "/")
	if req.Method != http.MethodGet || req.URL.Host != s.host || !ok {
		return s.base.RoundTrip(req)
	}
	signed, err := s.client.PresignedGetObject(req.Context(), bucket, key, signedFor, nil)
	if err != nil {
		return nil, Error(err, "s3://"+bucket+"/"+key)
	}
	out := req.Clone(req.Context())
	out.URL, out.Host = signed, ""
	return s.base.RoundTrip(out)
}

// Error is what err means to us; what names the thing that was asked for.
func Error(err error, what string) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	var own *wire.Error
	if errors.As(err, &own) {
		return err
	}
	var said minio.ErrorResponse
	if !errors.As(err, &said) {
		hint := "check the endpoint and the network"
		if _, ok := errors.AsType[*net.OpError](err); !ok {
			hint = ""
		}
		return wire.E(wire.Unavailable, "", what+": "+err.Error(), hint)
	}
	message := what + ": " + cmp.Or(said.Message, said.Code)
	switch {
	case said.Code == "NoSuchBucket":
		return wire.E(wire.NotFound, "", message, "create the bucket")
	case said.Code == "NoSuchKey", said.StatusCode == http.StatusNotFound:
		return wire.E(wire.NotFound, "", message, "")
	case said.StatusCode == http.StatusUnauthorized, said.StatusCode == http.StatusForbidden:
		return wire.E(wire.PermissionDenied, "", message, "check "+EnvAccessKey+", "+EnvSecretKey+" and the bucket's policy")
	case said.Code == "EntityTooLarge":
		return wire.E(wire.TooLarge, "", message, "")
	case said.StatusCode == 0, said.StatusCode >= http.StatusInternalServerError, said.StatusCode == http.StatusTooManyRequests:
		return wire.E(wire.Unavailable, "", message, "")
	}
	return wire.E(wire.FailedPrecondition, "", message, "")
}
