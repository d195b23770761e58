package dataset

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/edgetwin/sedna/lib/storage"
	"github.com/edgetwin/sedna/lib/storage/s3"
	"github.com/edgetwin/sedna/models/wire"
)

// Remote is a Source that reads what lib/storage reads from elsewhere.
type Remote struct {
	storage *storage.Client
	http    *http.Client
	s3      func() (*s3.Client, error)
}

var _ Source = (*Remote)(nil)

// NewRemote makes a Source. It asks for the versions of http(s) URLs with client,
// nil: the default one.
func NewRemote(c *storage.Client, client *http.Client) *Remote {
	return &Remote{
		storage: c, http: cmp.Or(client, http.DefaultClient),
		s3: sync.OnceValues(func() (*s3.Client, error) { return s3.New(c.S3) }),
	}
}

// versionTime bounds the question for a version.
const versionTime = 30 * time.Second

// Version is the ETag of the file, else its time and size.
func (r *Remote) Version(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, versionTime)
	defer cancel()
	if name, ok := strings.CutPrefix(url, "s3://"); ok {
		return r.s3Version(ctx, url, name)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, url, nil)
	if err != nil {
		return "", wire.E(wire.InvalidArgument, "spec.url", "expected an http(s) URL", "")
	}
	header, err := r.storage.Header(req.URL.Hostname())
	if err != nil {
		return "", err
	}
	if header != nil {
		req.Header = header.Clone()
	}
	resp, err := r.http.Do(req)
	if err != nil {
		return "", wire.E(wire.Unavailable, "spec.url", fmt.Sprintf("%s does not answer", storage.Redact(url)), "")
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusGone:
		return "", wire.E(wire.NotFound, "spec.url", storage.Redact(url)+" does not exist", "")
	case resp.StatusCode == http.StatusOK && resp.Header.Get("ETag") != "":
		return resp.Header.Get("ETag"), nil
	case resp.StatusCode == http.StatusOK && resp.Header.Get("Last-Modified") != "":
		return fmt.Sprintf("%s %d", resp.Header.Get("Last-Modified"), resp.ContentLength), nil
	}
	return "", nil // Fetch says what is wrong, if anything is
}

func (r *Remote) s3Version(ctx context.Context, url, name string) (string, error) {
	client, err := r.s3()
	if err != nil {
		return "", err
	}
	bucket, key, _ := strings.Cut(name, "/")
	info, err := client.StatObject(ctx, bucket, key, minio.StatObjectOptions{})
	if err != nil {
		return "", s3.Error(err, storage.Redact(url))
	}
	return info.ETag, nil
}

// Fetch brings the file here.
func (r *Remote) Fetch(ctx context.Context, url, dst string) error {
	_, err := r.storage.GetFile(ctx, url, dst, storage.Options{})
	return err
}
