package s3

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"io"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/errgroup"

	"github.com/edgetwin/sedna/models/wire"
)

// ContentType of what is stored.
const ContentType = "application/octet-stream"

// MaxParts is how many parts S3 takes of one object.
const MaxParts = 10_000

// PutWhole stores the size bytes of r in one request. The server refuses bytes
// that arrive otherwise: their digests are in the signed request.
func (c *Client) PutWhole(ctx context.Context, bucket, key string, r io.ReaderAt, size int64) error {
	md, sum, err := digests(r, 0, size)
	if err != nil {
		return err
	}
	return c.send(ctx, r, 0, size, func(body io.Reader) error {
		_, err := c.PutObject(ctx, bucket, key, body, size, base64.StdEncoding.EncodeToString(md), hex.EncodeToString(sum),
			minio.PutObjectOptions{ContentType: ContentType, DisableContentSha256: true})
		return err
	})
}

// PutPart stores the size bytes of r from at on as a part of an upload, unless
// the server has it: there is what it said.
func (c *Client) PutPart(ctx context.Context, bucket, key, upload string, number int, r io.ReaderAt, at, size int64, there minio.ObjectPart) (minio.CompletePart, error) {
	md, sum, err := digests(r, at, size)
	if err != nil {
		return minio.CompletePart{}, err
	}
	if there.Size != size || strings.Trim(there.ETag, `"`) != hex.EncodeToString(md) {
		err = c.send(ctx, r, at, size, func(body io.Reader) (err error) {
			there, err = c.PutObjectPart(ctx, bucket, key, upload, number, body, size, minio.PutObjectPartOptions{
				Md5Base64: base64.StdEncoding.EncodeToString(md), Sha256Hex: hex.EncodeToString(sum), DisableContentSha256: true,
			})
			return err
		})
	}
	return minio.CompletePart{PartNumber: number, ETag: there.ETag}, err
}

func digests(r io.ReaderAt, at, size int64) (md, sum []byte, err error) {
	m, s := md5.New(), sha256.New()
	_, err = io.Copy(io.MultiWriter(m, s), io.NewSectionReader(r, at, size))
	return m.Sum(nil), s.Sum(nil), err
}

// Put stores the size bytes of r, what is larger than partSize in parts, of
// which parallel are on their way at a time. tell is told of each part that is
// stored, not concurrently with itself; it may be nil.
func (c *Client) Put(ctx context.Context, bucket, key string, r io.ReaderAt, size, partSize int64, parallel int, tell func(bytes int64)) error {
	if tell == nil {
		tell = func(int64) {}
	}
	if size <= partSize {
		err := c.PutWhole(ctx, bucket, key, r, size)
		if err == nil {
			tell(size)
		}
		return err
	}
	upload, err := c.NewMultipartUpload(ctx, bucket, key, minio.PutObjectOptions{ContentType: ContentType})
	if err != nil {
		return err
	}
	parts, err := c.PutParts(ctx, bucket, key, upload, r, size, partSize, parallel, nil, tell)
	if err == nil {
		_, err = c.CompleteMultipartUpload(ctx, bucket, key, upload, parts, minio.PutObjectOptions{})
	}
	if err != nil {
		// What cannot be dropped now is for the bucket's own rules.
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = c.AbortMultipartUpload(clean, bucket, key, upload)
	}
	return err
}

// PutParts stores all parts of an upload, less those that are there already,
// by their numbers. tell may be nil, see Put.
func (c *Client) PutParts(ctx context.Context, bucket, key, upload string, r io.ReaderAt, size, partSize int64, parallel int, there map[int]minio.ObjectPart, tell func(bytes int64)) ([]minio.CompletePart, error) {
	partSize = max(partSize, (size+MaxParts-1)/MaxParts)
	parts := make([]minio.CompletePart, (size+partSize-1)/partSize)
	stored := make(chan int64, len(parts))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	go func() {
		for i := range parts {
			g.Go(func() (err error) {
				at := int64(i) * partSize
				n := min(partSize, size-at)
				if parts[i], err = c.PutPart(gctx, bucket, key, upload, i+1, r, at, n, there[i+1]); err == nil {
					stored <- n
				}
				return err
			})
		}
		_ = g.Wait()
		close(stored)
	}()
	for n := range stored {
		if tell != nil {
			tell(n)
		}
	}
	return parts, g.Wait()
}

// send calls put with the size bytes of r from at on until it succeeds or fails
// for good. Each attempt has a reader of its own, and one that the client does
// not rewind: a transport may go on to read the body of a request for a while
// after that was answered.
func (c *Client) send(ctx context.Context, r io.ReaderAt, at, size int64, put func(body io.Reader) error) error {
	const first, most = 200 * time.Millisecond, 5 * time.Second
	wait := first
	for left := c.retries; ; left-- {
		err := put(struct{ io.Reader }{io.NewSectionReader(r, at, size)})
		if err == nil || left <= 1 || !wire.IsCode(Error(err, ""), wire.Unavailable) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait/2 + rand.N(wait/2+1)):
		}
		wait = min(2*wait, most)
	}
}
