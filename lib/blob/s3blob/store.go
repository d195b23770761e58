package s3blob

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/edgetwin/sedna/lib/blob"
	"github.com/edgetwin/sedna/lib/storage/s3"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// Config of a Store.
type Config struct {
	// Client is the connection to S3. Required.
	Client *s3.Client
	// Bucket has the blobs. Required; it must exist.
	Bucket string
	// Prefix of all keys, for example "sedna/blobs/". Default none.
	Prefix string
	// Dir receives uploads and caches what was read. Required; one process
	// uses it at a time.
	Dir string
	// Limits of Dir; MaxBlob bounds the blobs.
	Limits blob.Limits
	// CacheBytes is how much of Dir is kept for reading. What was used within
	// an hour is kept even above it. Default 10 GiB.
	CacheBytes int64
	// PartSize is the size of the parts that larger blobs are sent in, at
	// least 5 MiB. Default 16 MiB.
	PartSize int64
	// Parallel is how many parts are sent at a time. Default 4.
	Parallel int
	// Refresh is the age from which on a blob that is touched is stored anew.
	// A collector's grace time must be well above it. Default 10 min.
	Refresh time.Duration
}

// minPart is the smallest part that S3 takes.
const minPart = 5 << 20

// cacheAge is how long a cached blob is kept after it was used, as
// blob.Backend's File promises.
const cacheAge = time.Hour

// Store is a blob.Backend in S3.
type Store struct {
	Config
	dir   *blob.Dir
	gates gates // by digest: who sends or fetches it
}

var _ blob.Backend = (*Store)(nil)

// Open connects to the bucket and opens the directory.
func Open(ctx context.Context, c Config) (*Store, error) {
	switch {
	case c.Client == nil || c.Bucket == "" || c.Dir == "":
		return nil, errors.New("blob store in S3: Client, Bucket and Dir are required")
	case c.PartSize != 0 && c.PartSize < minPart:
		return nil, wire.E(wire.InvalidArgument, "partSize", fmt.Sprintf("expected at least %d bytes", minPart), "")
	}
	c.Limits.MaxBlob = cmp.Or(c.Limits.MaxBlob, blob.DefaultLimit)
	c.Limits.PartialAge = cmp.Or(c.Limits.PartialAge, 24*time.Hour)
	c.CacheBytes = cmp.Or(c.CacheBytes, 10<<30)
	c.PartSize = cmp.Or(c.PartSize, 16<<20)
	c.Parallel = cmp.Or(c.Parallel, 4)
	c.Refresh = cmp.Or(c.Refresh, 10*time.Minute)
	there, err := c.Client.BucketExists(ctx, c.Bucket)
	if err != nil {
		return nil, s3.Error(err, "bucket "+c.Bucket)
	}
	if !there {
		return nil, wire.E(wire.NotFound, "bucket", "no bucket "+c.Bucket, "create it")
	}
	dir, err := blob.OpenDir(c.Dir, c.Limits)
	if err != nil {
		return nil, err
	}
	s := &Store{Config: c, dir: dir, gates: gates{m: map[string]*gate{}}}
	if err := s.abandon(ctx, c.Prefix, time.Now().Add(-c.Limits.PartialAge)); err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return s, nil
}

// Close lets another process use the directory.
func (s *Store) Close() error { return s.dir.Close() }

// object is one generation of a blob.
type object struct {
	sha, generation string
	size            int64
}

func (s *Store) key(o object) string { return s.Prefix + o.sha + "/" + o.generation }

// newGeneration gives a name that sorts after all earlier ones.
func newGeneration() string {
	unique := make([]byte, 4)
	rand.Read(unique)
	return fmt.Sprintf("%016x-%s", time.Now().UnixNano(), hex.EncodeToString(unique))
}

// generatedAt reads a generation's time; false if it is none of ours.
func generatedAt(generation string) (time.Time, bool) {
	const digits = 16
	if len(generation) != digits+1+8 || generation[digits] != '-' {
		return time.Time{}, false
	}
	n, err := strconv.ParseInt(generation[:digits], 16, 64)
	return time.Unix(0, n), err == nil
}

// parse reads a key.
func (s *Store) parse(key string, size int64) (object, bool) {
	sha, generation, _ := strings.Cut(strings.TrimPrefix(key, s.Prefix), "/")
	_, ok := generatedAt(generation)
	return object{sha, generation, size}, ok && task.ValidDigest(sha)
}

// list gives the objects whose keys begin with prefix, in their order.
func (s *Store) list(ctx context.Context, prefix string) ([]object, error) {
	var out []object
	for info := range s.Client.ListObjectsIter(ctx, s.Bucket, minio.ListObjectsOptions{Prefix: prefix, Recursive: true}) {
		if info.Err != nil {
			return nil, s3.Error(info.Err, "bucket "+s.Bucket)
		}
		if o, ok := s.parse(info.Key, info.Size); ok {
			out = append(out, o)
		}
	}
	return out, ctx.Err()
}

// find gives the newest generation of a blob.
func (s *Store) find(ctx context.Context, sha string) (object, error) {
	if !task.ValidDigest(sha) {
		return object{}, wire.E(wire.InvalidArgument, "sha256", fmt.Sprintf("expected 64 lower-case hex digits, got %.80q", sha), "")
	}
	all, err := s.list(ctx, s.Prefix+sha+"/")
	if err != nil {
		return object{}, err
	}
	if len(all) == 0 {
		return object{}, wire.E(wire.NotFound, "sha256", "no blob "+sha, "")
	}
	return all[len(all)-1], nil
}

// Has tells whether the blob is in the bucket.
func (s *Store) Has(ctx context.Context, sha string) (bool, error) {
	_, err := s.find(ctx, sha)
	if wire.IsCode(err, wire.NotFound) {
		return false, nil
	}
	return err == nil, err
}

// Size is the blob's size in bytes.
func (s *Store) Size(ctx context.Context, sha string) (int64, error) {
	o, err := s.find(ctx, sha)
	return o.size, err
}

// Open reads the blob, from the directory if it is there too.
func (s *Store) Open(ctx context.Context, sha string) (io.ReadSeekCloser, error) {
	o, err := s.find(ctx, sha)
	if err != nil {
		return nil, err
	}
	if s.dir.Touch(ctx, sha) == nil {
		if f, err := s.dir.Open(ctx, sha); err == nil {
			return f, nil
		}
	}
	return &reader{ctx: ctx, store: s, object: o}, nil
}

// File brings the blob into the directory.
func (s *Store) File(ctx context.Context, sha string) (string, error) {
	o, err := s.find(ctx, sha)
	if err != nil {
		return "", err
	}
	unlock, err := s.gates.lock(ctx, sha)
	if err != nil {
		return "", err
	}
	defer unlock()
	if err := s.dir.Touch(ctx, sha); wire.IsCode(err, wire.NotFound) {
		r := &reader{ctx: ctx, store: s, object: o}
		defer r.Close()
		if _, err := s.dir.Put(ctx, sha, r); err != nil {
			return "", err
		}
		if err := s.evict(ctx); err != nil {
			return "", err
		}
	} else if err != nil {
		return "", err
	}
	return s.dir.File(ctx, sha)
}

// evict keeps the directory within its bounds.
func (s *Store) evict(ctx context.Context) error {
	cached, err := s.dir.Entries(ctx)
	if err != nil {
		return err
	}
	var total int64
	for _, e := range cached {
		total += e.Size
	}
	slices.SortFunc(cached, func(a, b blob.Entry) int { return a.StoredAt.Compare(b.StoredAt) })
	for _, e := range cached {
		if total <= s.CacheBytes || time.Since(e.StoredAt) < cacheAge {
			break
		}
		removed, err := s.dir.Remove(ctx, e)
		if err != nil {
			return err
		}
		if removed {
			total -= e.Size
		}
	}
	return nil
}

// Put stores what r gives, when its digest is sha or sha is empty.
func (s *Store) Put(ctx context.Context, sha string, r io.Reader) (blob.Info, error) {
	info, err := s.dir.Put(ctx, sha, r)
	if err != nil {
		return blob.Info{}, err
	}
	return info, s.publish(ctx, info.SHA256)
}

// Offset is how many bytes of an upload this process has.
func (s *Store) Offset(ctx context.Context, sha string) (int64, error) {
	return s.dir.Offset(ctx, sha)
}

// Resume is blob.Dir's. When the last byte is here the blob goes to the bucket;
// if that fails it is enough to call Resume again, which reads nothing then.
func (s *Store) Resume(ctx context.Context, sha string, offset, total int64, r io.Reader) (have int64, err error) {
	switch {
	case total > s.Limits.MaxBlob:
		return 0, wire.E(wire.TooLarge, "", fmt.Sprintf("at most %d bytes are taken", s.Limits.MaxBlob), "")
	case offset < 0 || offset > total:
		return 0, wire.E(wire.InvalidArgument, "Content-Range", fmt.Sprintf("offset %d of %d bytes", offset, total), "")
	}
	if err := s.Touch(ctx, sha); !wire.IsCode(err, wire.NotFound) {
		return total, err
	}
	have, err = s.dir.Resume(ctx, sha, offset, total, r)
	if err != nil || have < total {
		return have, err
	}
	return total, s.publish(ctx, sha)
}

// Touch makes the blob count as stored now.
func (s *Store) Touch(ctx context.Context, sha string) error {
	o, err := s.find(ctx, sha)
	if err != nil {
		return err
	}
	return s.refresh(ctx, o)
}

// refresh copies an object to a new generation unless it is new. The copy is
// made by the server.
func (s *Store) refresh(ctx context.Context, o object) error {
	if at, ok := generatedAt(o.generation); ok && time.Since(at) < s.Refresh {
		return nil
	}
	const maxCopy = 5 << 30 // in one request
	dst := minio.CopyDestOptions{Bucket: s.Bucket, Object: s.key(object{o.sha, newGeneration(), o.size})}
	src := minio.CopySrcOptions{Bucket: s.Bucket, Object: s.key(o)}
	var err error
	if o.size <= maxCopy {
		_, err = s.Client.Client.CopyObject(ctx, dst, src)
	} else {
		_, err = s.Client.ComposeObject(ctx, dst, src)
	}
	return s3.Error(err, "blob "+o.sha)
}

// Delete removes all generations of the blob and what there is of an upload.
func (s *Store) Delete(ctx context.Context, sha string) error {
	if err := s.dir.Delete(ctx, sha); err != nil {
		return err
	}
	all, err := s.list(ctx, s.Prefix+sha+"/")
	if err != nil {
		return err
	}
	for _, o := range all {
		if err := s.drop(ctx, o); err != nil {
			return err
		}
	}
	return s.abandon(ctx, s.Prefix+sha+"/", time.Now())
}

func (s *Store) drop(ctx context.Context, o object) error {
	err := s3.Error(s.Client.RemoveObject(ctx, s.Bucket, s.key(o), minio.RemoveObjectOptions{}), "blob "+o.sha)
	if wire.IsCode(err, wire.NotFound) {
		return nil
	}
	return err
}

// List gives all blobs in the order of their digests.
func (s *Store) List(ctx context.Context) ([]blob.Info, error) {
	all, err := s.list(ctx, s.Prefix)
	if err != nil {
		return nil, err
	}
	var out []blob.Info
	for _, o := range all {
		if n := len(out); n == 0 || out[n-1].SHA256 != o.sha {
			out = append(out, blob.Info{SHA256: o.sha, Size: o.size})
		}
	}
	return out, nil
}

// Entries gives all generations of all blobs.
func (s *Store) Entries(ctx context.Context) ([]blob.Entry, error) {
	all, err := s.list(ctx, s.Prefix)
	if err != nil {
		return nil, err
	}
	out := make([]blob.Entry, len(all))
	for i, o := range all {
		at, _ := generatedAt(o.generation)
		out[i] = blob.Entry{Info: blob.Info{SHA256: o.sha, Size: o.size}, StoredAt: at, Version: o.generation}
	}
	return out, nil
}

// Remove removes a generation. The blob stays when it has another one.
func (s *Store) Remove(ctx context.Context, e blob.Entry) (removed bool, err error) {
	o, ok := s.parse(s.Prefix+e.SHA256+"/"+e.Version, e.Size)
	if !ok {
		return false, wire.E(wire.InvalidArgument, "sha256", fmt.Sprintf("expected an entry of this store, got %.80q version %.40q", e.SHA256, e.Version), "")
	}
	err = s.drop(ctx, o)
	return err == nil, err
}
