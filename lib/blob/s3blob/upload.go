package s3blob

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/edgetwin/sedna/lib/storage/s3"
	"github.com/edgetwin/sedna/models/wire"
)

// publish brings a blob of the directory, which is checked, to the bucket.
func (s *Store) publish(ctx context.Context, sha string) error {
	unlock, err := s.gates.lock(ctx, sha)
	if err != nil {
		return err
	}
	defer unlock()
	for range sendAttempts {
		if err = s.Touch(ctx, sha); !wire.IsCode(err, wire.NotFound) {
			return err
		}
		// Uploads and blobs that count as old may be dropped meanwhile.
		if err = s3.Error(s.send(ctx, sha), "blob "+sha); !wire.IsCode(err, wire.NotFound) {
			break
		}
	}
	if err != nil {
		return err
	}
	return s.evict(ctx)
}

// sendAttempts is how often an upload is tried that another process completes
// or drops meanwhile.
const sendAttempts = 3

// send sends a blob of the directory.
func (s *Store) send(ctx context.Context, sha string) error {
	path, err := s.dir.File(ctx, sha)
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("blob %s: %w", sha, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("blob %s: %w", sha, err)
	}
	if info.Size() <= s.PartSize {
		return s.Client.PutWhole(ctx, s.Bucket, s.key(object{sha, newGeneration(), info.Size()}), f, info.Size())
	}
	return s.sendParts(ctx, f, object{sha: sha, size: info.Size()})
}

// sendParts sends a large blob, going on with an upload that was cut off.
func (s *Store) sendParts(ctx context.Context, f *os.File, o object) error {
	o, id, there, err := s.unfinished(ctx, o)
	if err != nil {
		return err
	}
	if id == "" {
		o.generation = newGeneration()
		if id, err = s.Client.NewMultipartUpload(ctx, s.Bucket, s.key(o), minio.PutObjectOptions{ContentType: s3.ContentType}); err != nil {
			return err
		}
	}
	parts, err := s.Client.PutParts(ctx, s.Bucket, s.key(o), id, f, o.size, s.PartSize, s.Parallel, there, nil)
	if err != nil {
		return err
	}
	if _, err := s.Client.CompleteMultipartUpload(ctx, s.Bucket, s.key(o), id, parts, minio.PutObjectOptions{}); err != nil {
		return err
	}
	stored, err := s.Client.StatObject(ctx, s.Bucket, s.key(o), minio.StatObjectOptions{})
	if err != nil {
		return err
	}
	if stored.Size != o.size {
		return wire.E(wire.DigestMismatch, "", fmt.Sprintf("the bucket holds %d bytes in place of %d", stored.Size, o.size), "")
	}
	return s.refresh(ctx, o) // an upload that took long is named by its begin
}

// unfinished finds the upload of a blob that was begun last and the parts that
// the server has of it; id is empty if there is none.
func (s *Store) unfinished(ctx context.Context, want object) (o object, id string, there map[int]minio.ObjectPart, err error) {
	o, there = want, map[int]minio.ObjectPart{}
	err = s.uploads(ctx, s.Prefix+want.sha+"/", func(u minio.ObjectMultipartInfo) error {
		if found, ok := s.parse(u.Key, want.size); ok && found.generation > o.generation {
			o, id = found, u.UploadID
		}
		return nil
	})
	for marker := 0; err == nil && id != ""; {
		var page minio.ListObjectPartsResult
		page, err = s.Client.ListObjectParts(ctx, s.Bucket, s.key(o), id, marker, 1000)
		if noSuchUpload(err) { // somebody else has completed it
			return want, "", there, nil
		}
		for _, p := range page.ObjectParts {
			there[p.PartNumber] = p
		}
		if marker = page.NextPartNumberMarker; !page.IsTruncated {
			break
		}
	}
	return o, id, there, err
}

func noSuchUpload(err error) bool { return minio.ToErrorResponse(err).Code == "NoSuchUpload" }

// uploads calls f for each unfinished upload to a key with the prefix.
func (s *Store) uploads(ctx context.Context, prefix string, f func(minio.ObjectMultipartInfo) error) error {
	var key, id string
	for {
		page, err := s.Client.ListMultipartUploads(ctx, s.Bucket, prefix, key, id, "", 1000)
		if noSuchUpload(err) { // as some servers say that there are none
			return nil
		}
		if err != nil {
			return err
		}
		for _, u := range page.Uploads {
			if err := f(u); err != nil {
				return err
			}
		}
		if !page.IsTruncated {
			return nil
		}
		key, id = page.NextKeyMarker, page.NextUploadIDMarker
	}
}

// abandon drops unfinished uploads that were begun before a time.
func (s *Store) abandon(ctx context.Context, prefix string, before time.Time) error {
	var old []minio.ObjectMultipartInfo
	err := s.uploads(ctx, prefix, func(u minio.ObjectMultipartInfo) error {
		if o, ok := s.parse(u.Key, 0); ok {
			if at, _ := generatedAt(o.generation); at.Before(before) {
				old = append(old, u)
			}
		}
		return nil
	})
	for _, u := range old {
		if err == nil {
			err = s.Client.AbortMultipartUpload(ctx, s.Bucket, u.Key, u.UploadID)
		}
	}
	return s3.Error(err, "bucket "+s.Bucket)
}
