package s3_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/minio/minio-go/v7"

	"github.com/edgetwin/sedna/lib/storage/s3"
	"github.com/edgetwin/sedna/lib/storage/s3/s3test"
	"github.com/edgetwin/sedna/models/wire"
)

func TestFromEnv(t *testing.T) {
	for _, c := range []struct {
		env   map[string]string
		want  s3.Options
		field string // that is refused
	}{
		{nil, s3.Options{}, ""},
		{map[string]string{s3.EnvEndpoint: "http://minio:9000/"}, s3.Options{Endpoint: "minio:9000", HTTP: true}, ""},
		{map[string]string{s3.EnvEndpoint: "https://play.min.io", s3.EnvHTTPS: "0"}, s3.Options{Endpoint: "play.min.io"}, ""},
		{map[string]string{s3.EnvEndpoint: "minio:9000"}, s3.Options{Endpoint: "minio:9000"}, ""},
		{map[string]string{s3.EnvEndpoint: "minio:9000", s3.EnvHTTPS: "0"}, s3.Options{Endpoint: "minio:9000", HTTP: true}, ""},
		{map[string]string{s3.EnvEndpoint: "[::1]:9000", s3.EnvHTTPS: "1"}, s3.Options{Endpoint: "[::1]:9000"}, ""},
		{map[string]string{s3.EnvAccessKey: "a", s3.EnvSecretKey: "s", s3.EnvRegion: "eu-central-1"}, s3.Options{AccessKey: "a", SecretKey: "s", Region: "eu-central-1"}, ""},
		{map[string]string{s3.EnvEndpoint: "minio:9000", s3.EnvHTTPS: "perhaps"}, s3.Options{}, s3.EnvHTTPS},
		{map[string]string{s3.EnvEndpoint: "ftp://minio"}, s3.Options{}, s3.EnvEndpoint},
		{map[string]string{s3.EnvEndpoint: "http://"}, s3.Options{}, s3.EnvEndpoint},
		{map[string]string{s3.EnvEndpoint: "http://minio/path"}, s3.Options{}, s3.EnvEndpoint},
		{map[string]string{s3.EnvEndpoint: "http://user@minio"}, s3.Options{}, s3.EnvEndpoint},
	} {
		got, err := s3.FromEnv(func(name string) string { return c.env[name] })
		if c.field != "" {
			if !wire.IsCode(err, wire.InvalidArgument) || wire.AsError(err).Field != c.field {
				t.Errorf("%v: %v", c.env, err)
			}
			continue
		}
		if err != nil || !cmp.Equal(got, c.want) {
			t.Errorf("%v: %+v %v", c.env, got, err)
		}
	}
	for _, o := range []s3.Options{{AccessKey: "a"}, {SecretKey: "s"}, {Endpoint: "http://x"}, {Endpoint: "a b"}} {
		if _, err := s3.New(o); !wire.IsCode(err, wire.InvalidArgument) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

// ObjectURL and HTTP sign for the server, and for nobody else.
func TestSignedRequests(t *testing.T) {
	s := s3test.Start(t)
	c := s.Client(t)
	for _, key := range []string{"plain", "dir/with space", "a+b&c?d#e", "ü/100%"} {
		if _, err := c.Client.PutObject(t.Context(), s3test.Bucket, key, strings.NewReader("bytes"), 5, minio.PutObjectOptions{}); err != nil {
			t.Fatal(err)
		}
		url := c.ObjectURL(s3test.Bucket, key)
		resp, err := c.HTTP().Get(url)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || string(b) != "bytes" {
			t.Errorf("%q: %s %q %v", key, resp.Status, b, err)
		}
		if strings.Contains(url, s3test.AccessKey) || strings.Contains(url, s3test.SecretKey) {
			t.Errorf("%s shows keys", url)
		}
		resp, err = http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("%q without a signature: %s", key, resp.Status)
		}
	}
	other := s3test.Start(t)
	other.Requests()
	resp, err := c.HTTP().Get(other.Client(t).ObjectURL(s3test.Bucket, "plain"))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	for _, request := range other.Requests() {
		if strings.Contains(request, "Signature") || strings.Contains(request, s3test.AccessKey) {
			t.Errorf("another host got %s", request)
		}
	}
}

func TestError(t *testing.T) {
	said := func(status int, code string) error {
		return minio.ErrorResponse{StatusCode: status, Code: code, Message: "m"}
	}
	for _, c := range []struct {
		err  error
		code wire.Code
	}{
		{said(404, "NoSuchKey"), wire.NotFound}, {said(404, "NoSuchBucket"), wire.NotFound}, {said(404, ""), wire.NotFound},
		{said(403, "AccessDenied"), wire.PermissionDenied}, {said(401, ""), wire.PermissionDenied},
		{said(500, "InternalError"), wire.Unavailable}, {said(503, "SlowDown"), wire.Unavailable}, {said(429, ""), wire.Unavailable},
		{said(400, "EntityTooLarge"), wire.TooLarge}, {said(400, "InvalidRange"), wire.FailedPrecondition},
		{errors.New("connection refused"), wire.Unavailable}, {wire.E(wire.Conflict, "", "ours", ""), wire.Conflict},
	} {
		if err := s3.Error(c.err, "s3://b/k"); !wire.IsCode(err, c.code) {
			t.Errorf("%v: %v", c.err, err)
		}
	}
	if err := s3.Error(nil, ""); err != nil {
		t.Error(err)
	}
	if err := s3.Error(context.Canceled, ""); !errors.Is(err, context.Canceled) || wire.IsCode(err, wire.Unavailable) {
		t.Error(err)
	}
}
