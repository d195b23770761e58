package s3blob_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/minio/minio-go/v7"

	"github.com/edgetwin/sedna/lib/blob"
	"github.com/edgetwin/sedna/lib/blob/s3blob"
	"github.com/edgetwin/sedna/lib/storage/s3"
	"github.com/edgetwin/sedna/lib/storage/s3/s3test"
	"github.com/edgetwin/sedna/models/wire"
)

const part = 5 << 20

func shaOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	src := rand.New(rand.NewPCG(1, 2))
	for i := range b {
		b[i] = byte(src.Uint32())
	}
	return b
}

func open(t testing.TB, s *s3test.Server, change func(*s3blob.Config)) *s3blob.Store {
	t.Helper()
	config := s3blob.Config{Client: s.Client(t), Bucket: s3test.Bucket, Prefix: "blobs/", Dir: filepath.Join(t.TempDir(), "spool"), PartSize: part}
	if change != nil {
		change(&config)
	}
	store, err := s3blob.Open(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return store
}

// backends are all that keep to blob.Backend.
func backends(t *testing.T) map[string]blob.Backend {
	dir, err := blob.OpenDir(t.TempDir(), blob.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dir.Close() })
	return map[string]blob.Backend{"dir": dir, "s3": open(t, s3test.Start(t), func(c *s3blob.Config) { c.Refresh = time.Nanosecond })}
}

func read(t *testing.T, b blob.Store, sha string) []byte {
	t.Helper()
	r, err := b.Open(t.Context(), sha)
	if err != nil {
		t.Error(err)
		return nil
	}
	defer r.Close()
	content, err := io.ReadAll(r)
	if err != nil {
		t.Error(err)
	}
	return content
}

func TestBackends(t *testing.T) {
	for name, b := range backends(t) {
		t.Run(name, func(t *testing.T) { testBackend(t, b) })
	}
}

func testBackend(t *testing.T, b blob.Backend) {
	ctx := t.Context()
	contents := [][]byte{nil, []byte("x"), randomBytes(2*part + 100)}
	var want []blob.Info
	for i, content := range contents {
		sha := shaOf(content)
		if err := b.Touch(ctx, sha); !wire.IsCode(err, wire.NotFound) {
			t.Errorf("touch of nothing: %v", err)
		}
		if _, err := b.File(ctx, sha); !wire.IsCode(err, wire.NotFound) {
			t.Errorf("file of nothing: %v", err)
		}
		if _, err := b.Put(ctx, shaOf([]byte("other")), bytes.NewReader(content)); !wire.IsCode(err, wire.DigestMismatch) {
			t.Errorf("put of other bytes: %v", err)
		}
		if _, err := b.Put(ctx, sha, iotest.ErrReader(io.ErrUnexpectedEOF)); err == nil {
			t.Error("put of a reader that fails")
		}
		if has, err := b.Has(ctx, sha); has || err != nil {
			t.Errorf("has it already: %v %v", has, err)
		}
		for range 2 {
			if info, err := b.Put(ctx, []string{sha, ""}[i%2], bytes.NewReader(content)); err != nil || info != (blob.Info{SHA256: sha, Size: int64(len(content))}) {
				t.Fatalf("put: %+v %v", info, err)
			}
		}
		if got := read(t, b, sha); !bytes.Equal(got, content) {
			t.Errorf("%d bytes came back as %d", len(content), len(got))
		}
		if path, err := b.File(ctx, sha); err != nil {
			t.Error(err)
		} else if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, content) {
			t.Errorf("a file of %d bytes: %v", len(got), err)
		}
		want = append(want, blob.Info{SHA256: sha, Size: int64(len(content))})
	}
	got, err := b.List(ctx)
	if err != nil || len(got) != len(want) {
		t.Fatalf("list: %v %v", got, err)
	}
	for _, sha := range []string{"..", strings.Repeat("A", 64), "../" + strings.Repeat("a", 61)} {
		_, err1 := b.Size(ctx, sha)
		_, err2 := b.Open(ctx, sha)
		_, err3 := b.Put(ctx, sha, strings.NewReader(""))
		_, err4 := b.Resume(ctx, sha, 0, 1, strings.NewReader("x"))
		_, err5 := b.File(ctx, sha)
		_, err6 := b.Remove(ctx, blob.Entry{Info: blob.Info{SHA256: sha}})
		for i, err := range []error{err1, err2, err3, err4, err5, err6, b.Touch(ctx, sha), b.Delete(ctx, sha)} {
			if !wire.IsCode(err, wire.InvalidArgument) {
				t.Errorf("%q, %d: %v", sha, i+1, err)
			}
		}
	}
	testResume(t, b)
	testRemove(t, b, want)
}

func testResume(t *testing.T, b blob.Backend) {
	ctx, content := t.Context(), randomBytes(part+5000)
	sha, total := shaOf(content), int64(part+5000)
	cut := io.MultiReader(bytes.NewReader(content[:3000]), iotest.ErrReader(io.ErrUnexpectedEOF))
	if have, err := b.Resume(ctx, sha, 0, total, cut); have != 3000 || err == nil {
		t.Errorf("cut: %d %v", have, err)
	}
	if have, err := b.Offset(ctx, sha); have != 3000 || err != nil {
		t.Errorf("offset: %d %v", have, err)
	}
	if _, err := b.Resume(ctx, sha, 4000, total, bytes.NewReader(content[4000:])); !wire.IsCode(err, wire.Conflict) {
		t.Errorf("with a gap: %v", err)
	}
	if _, err := b.Resume(ctx, sha, 10, 5, nil); !wire.IsCode(err, wire.InvalidArgument) {
		t.Errorf("past the end: %v", err)
	}
	if has, err := b.Has(ctx, sha); has || err != nil {
		t.Errorf("visible too early: %v %v", has, err)
	}
	if have, err := b.Resume(ctx, sha, 3000, total, bytes.NewReader(content[3000:])); have != total || err != nil {
		t.Errorf("the rest: %d %v", have, err)
	}
	if have, err := b.Resume(ctx, sha, 0, total, iotest.ErrReader(io.ErrClosedPipe)); have != total || err != nil {
		t.Errorf("what is there: %d %v", have, err)
	}
	if got := read(t, b, sha); !bytes.Equal(got, content) {
		t.Error("other bytes came back")
	}
	if err := b.Delete(ctx, sha); err != nil {
		t.Error(err)
	}
	if has, err := b.Has(ctx, sha); has || err != nil {
		t.Errorf("there after deletion: %v %v", has, err)
	}
}

// testRemove checks that what was touched meanwhile is not removed.
func testRemove(t *testing.T, b blob.Backend, stored []blob.Info) {
	ctx := t.Context()
	before, err := b.Entries(ctx)
	if err != nil {
		t.Fatal(err)
	}
	touched := stored[2].SHA256
	if err := b.Touch(ctx, touched); err != nil {
		t.Fatal(err)
	}
	for _, e := range before {
		if age := time.Since(e.StoredAt); age < 0 || age > time.Minute {
			t.Errorf("stored %s ago", age)
		}
		if _, err := b.Remove(ctx, e); err != nil {
			t.Error(err)
		}
	}
	for i, info := range stored {
		if has, err := b.Has(ctx, info.SHA256); has != (i == 2) || err != nil {
			t.Errorf("has %d: %v %v", i, has, err)
		}
	}
	read(t, b, touched)
	after, err := b.Entries(ctx)
	if err != nil || len(after) != 1 || after[0].SHA256 != touched {
		t.Errorf("left %v %v", after, err)
	}
}

// A second process sees what the first has stored, and reads it from S3.
func TestTwoProcesses(t *testing.T) {
	s, content := s3test.Start(t), randomBytes(part+1)
	one, two := open(t, s, nil), open(t, s, nil)
	if _, err := one.Put(t.Context(), "", bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	sha := shaOf(content)
	r, err := two.Open(t.Context(), sha)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, at := range []int64{part - 10, 3, int64(len(content)) - 1} {
		if _, err := r.Seek(at, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, min(100, int64(len(content))-at))
		if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, content[at:at+int64(len(got))]) {
			t.Errorf("from %d: %v", at, err)
		}
	}
	if end, err := r.Seek(0, io.SeekEnd); err != nil || end != int64(len(content)) {
		t.Errorf("end %d %v", end, err)
	}
	if _, err := r.Seek(-1, io.SeekStart); err == nil {
		t.Error("seek before the begin")
	}
	path, err := two.File(t.Context(), sha)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, content) {
		t.Errorf("file: %v", err)
	}
	s.Requests()
	if got := read(t, two, sha); !bytes.Equal(got, content) {
		t.Error("other bytes from the cache")
	}
	for _, request := range s.Requests() {
		if strings.Contains(request, "GET /data/blobs/") {
			t.Errorf("what is cached was asked for: %s", request)
		}
	}
	if err := one.Delete(t.Context(), sha); err != nil {
		t.Fatal(err)
	}
	if _, err := two.Open(t.Context(), sha); !wire.IsCode(err, wire.NotFound) {
		t.Errorf("served from the cache after it was deleted: %v", err)
	}
}

func TestPutsOfOneBlobAtOnce(t *testing.T) {
	s, content := s3test.Start(t), randomBytes(2*part)
	stores := []*s3blob.Store{open(t, s, nil), open(t, s, nil)}
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			if _, err := stores[i%2].Put(t.Context(), shaOf(content), bytes.NewReader(content)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	list, err := stores[0].List(t.Context())
	if err != nil || !cmp.Equal(list, []blob.Info{{SHA256: shaOf(content), Size: 2 * part}}) {
		t.Errorf("%v %v", list, err)
	}
	if got := read(t, stores[1], shaOf(content)); !bytes.Equal(got, content) {
		t.Error("other bytes came back")
	}
}

func isPart(r *http.Request) bool {
	return r.Method == http.MethodPut && r.URL.Query().Has("partNumber")
}

// An upload to S3 that fails in the middle is gone on with, by another Store
// after a restart too, and the client need not send a byte again.
func TestUploadGoesOn(t *testing.T) {
	s, content := s3test.Start(t), randomBytes(4*part+1)
	sha, total := shaOf(content), int64(4*part+1)
	dir := filepath.Join(t.TempDir(), "spool")
	at := func(c *s3blob.Config) { c.Dir, c.Parallel = dir, 1 }
	first := open(t, s, at)
	s.Fail(s3test.Times(1000, func(r *http.Request) bool { return isPart(r) && r.URL.Query().Get("partNumber") >= "3" }, s3test.Status(500, "InternalError")))
	if have, err := first.Resume(t.Context(), sha, 0, total, bytes.NewReader(content)); !wire.IsCode(err, wire.Unavailable) {
		t.Fatalf("%d %v", have, err)
	}
	if has, err := first.Has(t.Context(), sha); has || err != nil {
		t.Errorf("visible too early: %v %v", has, err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	s.Fail(nil)
	s.Requests()
	second := open(t, s, at)
	if have, err := second.Resume(t.Context(), sha, 0, total, iotest.ErrReader(io.ErrClosedPipe)); err != nil || have != total {
		t.Fatalf("%d %v", have, err)
	}
	var sent []string
	for _, request := range s.Requests() {
		if _, number, ok := strings.Cut(request, "partNumber="); ok {
			sent = append(sent, number[:1])
		}
	}
	if want := []string{"3", "4", "5"}; !cmp.Equal(sent, want) {
		t.Errorf("parts %v were sent, want %v", sent, want)
	}
	if path, err := second.File(t.Context(), sha); err != nil {
		t.Error(err)
	} else if err := os.Remove(path); err != nil {
		t.Error(err)
	}
	if got := read(t, second, sha); !bytes.Equal(got, content) {
		t.Error("other bytes came back")
	}
}

func TestFaults(t *testing.T) {
	content := randomBytes(2*part + 7)
	sha := shaOf(content)
	onData := func(method string) func(*http.Request) bool {
		return func(r *http.Request) bool { return r.Method == method && strings.Contains(r.URL.Path, sha) }
	}
	for name, c := range map[string]struct {
		fault s3test.Fault
		code  wire.Code
	}{
		"500 at a part":           {s3test.Times(1, isPart, s3test.Status(500, "InternalError")), ""},
		"503 at the end":          {s3test.Times(1, onData(http.MethodPost), s3test.Status(503, "SlowDown")), ""},
		"reading is cut off":      {s3test.Times(2, onData(http.MethodGet), s3test.CutAfter(part)), ""},
		"reading fails at first":  {s3test.Times(2, onData(http.MethodGet), s3test.Status(500, "InternalError")), ""},
		"denied":                  {s3test.Times(1000, isPart, s3test.Status(403, "AccessDenied")), wire.PermissionDenied},
		"no answer to the lookup": {s3test.Times(1000, func(r *http.Request) bool { return r.URL.Query().Has("list-type") }, s3test.Status(500, "InternalError")), wire.Unavailable},
	} {
		s := s3test.Start(t)
		store, reader := open(t, s, nil), open(t, s, nil)
		s.Fail(c.fault)
		_, err := store.Put(t.Context(), sha, bytes.NewReader(content))
		if c.code == "" && err != nil || c.code != "" && !wire.IsCode(err, c.code) {
			t.Errorf("%s: %v", name, err)
		}
		if c.code == "" {
			if got := read(t, reader, sha); !bytes.Equal(got, content) {
				t.Errorf("%s: %d bytes came back", name, len(got))
			}
			continue
		}
		s.Fail(nil)
		if has, err := store.Has(t.Context(), sha); has || err != nil {
			t.Errorf("%s: visible after it failed: %v %v", name, has, err)
		}
	}
}

// A reader goes on with another generation when its own is collected.
func TestGenerationThatGoesMeanwhile(t *testing.T) {
	s, content := s3test.Start(t), randomBytes(part-1)
	store := open(t, s, func(c *s3blob.Config) { c.Refresh = time.Nanosecond })
	other := open(t, s, nil)
	if _, err := store.Put(t.Context(), "", bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	old, err := store.Entries(t.Context())
	if err != nil || len(old) != 1 {
		t.Fatal(old, err)
	}
	r, err := other.Open(t.Context(), old[0].SHA256)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := store.Touch(t.Context(), old[0].SHA256); err != nil {
		t.Fatal(err)
	}
	if removed, err := store.Remove(t.Context(), old[0]); !removed || err != nil {
		t.Fatal(removed, err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes: %v", len(got), err)
	}
}

func TestAbandonedUploads(t *testing.T) {
	s := s3test.Start(t)
	client := s.Client(t)
	old := fmt.Sprintf("blobs/%s/%016x-00000000", shaOf(nil), time.Now().Add(-25*time.Hour).UnixNano())
	young := fmt.Sprintf("blobs/%s/%016x-00000000", shaOf(nil), time.Now().Add(-time.Hour).UnixNano())
	for _, key := range []string{old, young, "blobs/somebody/else"} {
		if _, err := client.NewMultipartUpload(t.Context(), s3test.Bucket, key, minio.PutObjectOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	open(t, s, nil)
	left, err := client.ListMultipartUploads(t.Context(), s3test.Bucket, "", "", "", "", 100)
	if err != nil || len(left.Uploads) != 2 {
		t.Errorf("left %v %v", left.Uploads, err)
	}
}

func TestCacheIsBounded(t *testing.T) {
	s := s3test.Start(t)
	store := open(t, s, func(c *s3blob.Config) { c.CacheBytes = 1500 })
	var paths []string
	for i := range 3 {
		content := randomBytes(1000)
		content[0] = byte(i)
		info, err := store.Put(t.Context(), "", bytes.NewReader(content))
		if err != nil {
			t.Fatal(err)
		}
		path, err := store.File(t.Context(), info.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		long := time.Now().Add(-2 * time.Hour)
		if err := os.Chtimes(path, long, long); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	var there []bool
	for _, path := range paths {
		_, err := os.Stat(path)
		there = append(there, err == nil)
	}
	if want := []bool{false, false, true}; !cmp.Equal(there, want) {
		t.Errorf("cached %v, want %v", there, want)
	}
}

func TestOpenRefuses(t *testing.T) {
	s := s3test.Start(t)
	good := s3blob.Config{Client: s.Client(t), Bucket: s3test.Bucket, Dir: t.TempDir()}
	wrong := s.Options()
	wrong.AccessKey = "wrong"
	denied, err := s3.New(wrong)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*s3blob.Config)
		code   wire.Code
	}{
		"no client":   {func(c *s3blob.Config) { c.Client = nil }, wire.Internal},
		"no bucket":   {func(c *s3blob.Config) { c.Bucket = "none" }, wire.NotFound},
		"wrong keys":  {func(c *s3blob.Config) { c.Client = denied }, wire.PermissionDenied},
		"small parts": {func(c *s3blob.Config) { c.PartSize = part - 1 }, wire.InvalidArgument},
	} {
		config := good
		c.change(&config)
		if _, err := s3blob.Open(t.Context(), config); err == nil || wire.AsError(err).Code != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Puts, as fast as the server's memory and our hashing allow, against the same
// bytes by net/http alone.
func BenchmarkS3(b *testing.B) {
	content := randomBytes(64 << 20)
	sha := shaOf(content)
	s := s3test.Start(b)
	store := open(b, s, func(c *s3blob.Config) { c.PartSize = 16 << 20 })
	reader := open(b, s, nil)
	b.Run("put", func(b *testing.B) {
		b.SetBytes(int64(len(content)))
		for b.Loop() {
			if _, err := store.Put(b.Context(), sha, bytes.NewReader(content)); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			if err := store.Delete(b.Context(), sha); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	})
	if _, err := store.Put(b.Context(), sha, bytes.NewReader(content)); err != nil {
		b.Fatal(err)
	}
	b.Run("get", func(b *testing.B) {
		b.SetBytes(int64(len(content)))
		for b.Loop() {
			r, err := reader.Open(b.Context(), sha)
			if err != nil {
				b.Fatal(err)
			}
			if n, err := io.Copy(io.Discard, r); err != nil || n != int64(len(content)) {
				b.Fatal(n, err)
			}
			_ = r.Close()
		}
	})
	entries, err := store.Entries(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	client := s.Client(b)
	url := client.ObjectURL(s3test.Bucket, "blobs/"+sha+"/"+entries[0].Version)
	b.Run("get by net http", func(b *testing.B) {
		b.SetBytes(int64(len(content)))
		for b.Loop() {
			resp, err := client.HTTP().Get(url)
			if err != nil {
				b.Fatal(err)
			}
			if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != int64(len(content)) {
				b.Fatal(n, err)
			}
			_ = resp.Body.Close()
		}
	})
	b.Run("put by net http", func(b *testing.B) {
		b.SetBytes(int64(len(content)))
		for b.Loop() {
			req, err := http.NewRequestWithContext(b.Context(), http.MethodPut, client.ObjectURL(s3test.Bucket, "raw"), bytes.NewReader(content))
			if err != nil {
				b.Fatal(err)
			}
			req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+s3test.AccessKey+"/")
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				b.Fatal(err)
			}
			if _ = resp.Body.Close(); resp.StatusCode != http.StatusOK {
				b.Fatal(resp.Status)
			}
		}
	})
	b.Run("put to a directory", func(b *testing.B) {
		dir, err := blob.OpenDir(b.TempDir(), blob.Limits{})
		if err != nil {
			b.Fatal(err)
		}
		defer dir.Close()
		b.SetBytes(int64(len(content)))
		for b.Loop() {
			if _, err := dir.Put(b.Context(), sha, bytes.NewReader(content)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
