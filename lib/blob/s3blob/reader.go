package s3blob

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/minio/minio-go/v7"

	"github.com/edgetwin/sedna/lib/storage/s3"
	"github.com/edgetwin/sedna/models/wire"
)

// readAttempts is how often in a row reading may fail without having brought a
// byte. Each attempt is several requests where the server does not answer.
const readAttempts = 3

// reader reads an object from where it was last set to. What is cut off is
// asked for again, from a newer generation if this one is gone.
type reader struct {
	ctx    context.Context
	store  *Store
	object object
	at     int64         // offset of the next byte
	body   io.ReadCloser // nil: none open
}

// Seek sets the offset of the next byte.
func (r *reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.at
	case io.SeekEnd:
		offset += r.object.size
	}
	if offset < 0 {
		return 0, errors.New("seek before the begin")
	}
	if offset != r.at {
		_ = r.Close()
		r.at = offset
	}
	return offset, nil
}

func (r *reader) Read(p []byte) (int, error) {
	if r.at >= r.object.size {
		return 0, io.EOF
	}
	var err error
	for range readAttempts {
		if r.body == nil {
			if err = r.open(); err != nil {
				if wire.IsCode(err, wire.Unavailable) {
					continue
				}
				return 0, err
			}
		}
		n, readErr := r.body.Read(p[:min(int64(len(p)), r.object.size-r.at)])
		r.at += int64(n)
		if readErr != nil {
			_ = r.Close()
		}
		if n > 0 {
			return n, nil
		}
		err = readErr
		if r.ctx.Err() != nil {
			return 0, r.ctx.Err()
		}
	}
	return 0, wire.E(wire.Unavailable, "", fmt.Sprintf("blob %s: byte %d of %d: %v", r.object.sha, r.at, r.object.size, err), "")
}

// open asks for all bytes from at on.
func (r *reader) open() error {
	body, err := r.get()
	if wire.IsCode(err, wire.NotFound) {
		if r.object, err = r.store.find(r.ctx, r.object.sha); err == nil {
			body, err = r.get()
		}
	}
	r.body = body
	return err
}

func (r *reader) get() (io.ReadCloser, error) {
	var o minio.GetObjectOptions
	if r.at > 0 {
		if err := o.SetRange(r.at, 0); err != nil {
			return nil, err
		}
	}
	body, _, _, err := r.store.Client.Core.GetObject(r.ctx, r.store.Bucket, r.store.key(r.object), o)
	if err != nil {
		return nil, s3.Error(err, "blob "+r.object.sha)
	}
	return body, nil
}

// Close lets go of the connection.
func (r *reader) Close() error {
	if r.body == nil {
		return nil
	}
	err := r.body.Close()
	r.body = nil
	return err
}
