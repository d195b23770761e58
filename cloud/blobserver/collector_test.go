package blobserver_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/edgetwin/sedna/cloud/blobserver"
	"github.com/edgetwin/sedna/lib/blob"
	"github.com/edgetwin/sedna/lib/blob/s3blob"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/lib/storage/s3/s3test"
	"github.com/edgetwin/sedna/models/wire"
)

// references are what is referred to, until somebody changes it.
type references struct {
	mu  sync.Mutex
	use map[string]bool
	err error
}

func (r *references) InUse(context.Context) (map[string]bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string]bool{}
	for sha := range r.use {
		out[sha] = true
	}
	return out, r.err
}

func (r *references) set(use ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.use = map[string]bool{}
	for _, sha := range use {
		r.use[sha] = true
	}
}

func (r *references) name(sha string, use bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.use[sha] = use; !use {
		delete(r.use, sha)
	}
}

func backend(t *testing.T) *blob.Dir {
	t.Helper()
	b, err := blob.OpenDir(t.TempDir(), blob.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func bucketBackend(t *testing.T, s *s3test.Server, refresh time.Duration) *s3blob.Store {
	t.Helper()
	b, err := s3blob.Open(context.Background(), s3blob.Config{Client: s.Client(t), Bucket: s3test.Bucket, Dir: t.TempDir(), Refresh: refresh})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func collector(t *testing.T, c blobserver.CollectorConfig) *blobserver.Collector {
	t.Helper()
	out, err := blobserver.NewCollector(c)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func sweep(t *testing.T, c *blobserver.Collector) {
	t.Helper()
	if err := c.Sweep(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestCollector has five blobs of 10 bytes, stored 1 to 5 hours ago.
func TestCollector(t *testing.T) {
	for name, c := range map[string]struct {
		use       string // of 1 to 5, by their ages
		ended     string // in use once, not any more
		quota     int64
		exclusive bool
		grace     time.Duration
		want      string
	}{
		"nothing is in use":                 {grace: time.Minute, want: ""},
		"what is in use stays":              {use: "25", grace: time.Minute, want: "25"},
		"what is young stays":               {grace: 150 * time.Minute, want: "12"},
		"what was in use needs no grace":    {use: "3", ended: "1", exclusive: true, grace: 24 * time.Hour, want: "2345"},
		"but with other processes it does":  {use: "3", ended: "1", grace: 24 * time.Hour, want: "12345"},
		"within the quota all stay":         {quota: 50, grace: time.Minute, want: "12345"},
		"the oldest go first":               {quota: 49, grace: time.Minute, want: "1234"},
		"down to the quota":                 {quota: 25, grace: time.Minute, want: "12"},
		"the oldest that is not in use":     {use: "5", quota: 40, grace: time.Minute, want: "1235"},
		"what is in use exceeds the quota":  {use: "345", quota: 10, grace: time.Minute, want: "345"},
		"what is young exceeds the quota":   {quota: 10, grace: 150 * time.Minute, want: "12"},
		"what was in use counts as old too": {ended: "1", exclusive: true, quota: 40, grace: 24 * time.Hour, want: "2345"},
	} {
		store := backend(t)
		shas := map[string]string{}
		refs, m := &references{}, metrics.New()
		var log bytes.Buffer
		g := collector(t, blobserver.CollectorConfig{Store: store, References: refs, Grace: c.grace, Quota: c.quota, Exclusive: c.exclusive,
			Metrics: m, Log: slog.New(slog.NewTextHandler(&log, nil))})
		var use, once []string
		for _, n := range "12345" {
			info, err := store.Put(t.Context(), "", strings.NewReader(fmt.Sprintf("content %c\n", n)))
			if err != nil {
				t.Fatal(err)
			}
			at := time.Now().Add(-time.Duration(n-'0') * time.Hour)
			if err := os.Chtimes(store.Path(info.SHA256), at, at); err != nil {
				t.Fatal(err)
			}
			if shas[info.SHA256] = string(n); strings.ContainsRune(c.use, n) {
				use = append(use, info.SHA256)
			}
			if strings.ContainsRune(c.use+c.ended, n) {
				once = append(once, info.SHA256)
			}
		}
		for _, sha := range once {
			g.Used(sha)
		}
		refs.set(use...)
		sweep(t, g)
		sweep(t, g)
		left := map[string]bool{}
		for _, n := range c.want {
			left[string(n)] = true
		}
		got := map[string]bool{}
		for sha, n := range shas {
			if has, _ := store.Has(t.Context(), sha); has {
				got[n] = true
			} else if !strings.Contains(log.String(), sha) {
				t.Errorf("%s: the log does not tell of %s", name, n)
			}
		}
		if diff := cmp.Diff(left, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		text := fmt.Sprintf(`# HELP sedna_blobs_removed_bytes_total Bytes of the blobs that were removed.
# TYPE sedna_blobs_removed_bytes_total counter
sedna_blobs_removed_bytes_total %d
# HELP sedna_blobs_removed_total Blobs removed because nothing referred to them.
# TYPE sedna_blobs_removed_total counter
sedna_blobs_removed_total %d
# HELP sedna_blobs_stored Blobs in the store after the last sweep.
# TYPE sedna_blobs_stored gauge
sedna_blobs_stored %d
# HELP sedna_blobs_stored_bytes Bytes in the store after the last sweep.
# TYPE sedna_blobs_stored_bytes gauge
sedna_blobs_stored_bytes %d
`, 10*(5-len(got)), 5-len(got), len(got), 10*len(got))
		if err := testutil.GatherAndCompare(m, strings.NewReader(text), "sedna_blobs_removed_bytes_total", "sedna_blobs_removed_total", "sedna_blobs_stored", "sedna_blobs_stored_bytes"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if over := c.quota > 0 && int64(10*len(got)) > c.quota; over != (strings.Count(log.String(), "exceed the quota") == 1) {
			t.Errorf("%s: over the quota is %v, the log says %s", name, over, log.String())
		}
	}
}

func TestCollectorRemovesNothingWhenInDoubt(t *testing.T) {
	store := backend(t)
	refs := &references{err: errors.New("the API does not answer")}
	info, err := store.Put(t.Context(), "", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	g := collector(t, blobserver.CollectorConfig{Store: store, References: refs, Grace: time.Nanosecond})
	if err := g.Sweep(t.Context()); !errors.Is(err, refs.err) {
		t.Errorf("got %v", err)
	}
	if has, _ := store.Has(t.Context(), info.SHA256); !has {
		t.Error("removed")
	}
	if _, err := blobserver.NewCollector(blobserver.CollectorConfig{}); err == nil {
		t.Error("an empty configuration was taken")
	}
}

// What is stored again, or named, between the question what is in use and the
// removal, stays.
func TestCollectorAgainstWhatComesMeanwhile(t *testing.T) {
	s := s3test.Start(t)
	dir := backend(t)
	for name, store := range map[string]blob.Backend{"dir": dir, "s3": bucketBackend(t, s, time.Nanosecond)} {
		for what, act := range map[string]func(*blobserver.Collector, string) error{
			"touched": func(_ *blobserver.Collector, sha string) error { return store.Touch(t.Context(), sha) },
			"put": func(_ *blobserver.Collector, sha string) error {
				_, err := store.Put(t.Context(), sha, strings.NewReader(again))
				return err
			},
			"used": func(g *blobserver.Collector, sha string) error { g.Used(sha); return nil },
		} {
			info, err := store.Put(t.Context(), "", strings.NewReader(again))
			if err != nil {
				t.Fatal(err)
			}
			refs := &references{}
			between := &between{Backend: store}
			g := collector(t, blobserver.CollectorConfig{Store: between, References: refs, Grace: time.Nanosecond})
			between.act = func() {
				if err := act(g, info.SHA256); err != nil {
					t.Errorf("%s, %s: %v", name, what, err)
				}
			}
			sweep(t, g)
			if has, _ := store.Has(t.Context(), info.SHA256); !has {
				t.Errorf("%s: what was %s meanwhile was removed", name, what)
			}
		}
	}
}

const again = "comes again and again"

// between does something after the collector has listed the store.
type between struct {
	blob.Backend
	act func()
}

func (b *between) Entries(ctx context.Context) ([]blob.Entry, error) {
	entries, err := b.Backend.Entries(ctx)
	b.act()
	return entries, err
}

// Whoever is told that a blob is stored, and names it then, keeps it, however
// sweeps fall in between, though blobs that are not named any more go at once.
func TestCollectorAgainstManyPuts(t *testing.T) {
	store, refs := backend(t), &references{use: map[string]bool{}}
	g := collector(t, blobserver.CollectorConfig{Store: store, References: refs, Exclusive: true, Every: time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	var sweeps, puts sync.WaitGroup
	sweeps.Go(func() { _ = g.Start(ctx) })
	for i := range 4 {
		puts.Go(func() {
			content := fmt.Sprint("model ", i)
			sha := shaOf([]byte(content))
			for range 100 {
				g.Storing(sha)
				if err := store.Touch(ctx, sha); wire.IsCode(err, wire.NotFound) {
					_, err = store.Put(ctx, sha, strings.NewReader(content))
					if err != nil {
						t.Error(err)
					}
				} else if err != nil {
					t.Error(err)
				}
				refs.name(sha, true)
				g.Used(sha)
				g.Kick()
				if has, err := store.Has(ctx, sha); !has || err != nil {
					t.Errorf("what is named is gone: %v", err)
				}
				refs.name(sha, false)
				g.Kick()
			}
		})
	}
	puts.Wait()
	cancel()
	sweeps.Wait()
	sweep(t, g)
	if left, err := store.List(t.Context()); err != nil || len(left) != 0 {
		t.Errorf("left %v %v", left, err)
	}
}

// The same routes, on blobs in S3.
func TestServerOnS3(t *testing.T) {
	fake := s3test.Start(t)
	store := bucketBackend(t, fake, 0)
	s := start(t, blob.Limits{}, func(c *blobserver.Config) { c.Store = store })
	admin, edge := s.blobs(s.admin(t)), s.blobs(s.node(t, "edge1"))
	content := randomBytes(20 << 20)
	sha := shaOf(content)
	fake.Fail(s3test.Times(3, func(r *http.Request) bool { return r.URL.Query().Has("partNumber") }, s3test.Status(500, "InternalError")))
	for range 2 {
		if info, err := admin.Upload(t.Context(), bytes.NewReader(content)); err != nil || info.SHA256 != sha {
			t.Fatal(err)
		}
	}
	s.grants["edge1 "+sha] = true
	fresh := bucketBackend(t, fake, 0)
	for name, from := range map[string]blob.Backend{"the cache": store, "the bucket": fresh} {
		s := start(t, blob.Limits{}, func(c *blobserver.Config) { c.Store = from })
		s.grants["edge1 "+sha] = true
		dst := filepath.Join(t.TempDir(), "m")
		if err := s.blobs(s.node(t, "edge1")).Fetch(t.Context(), sha, dst, nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := os.ReadFile(dst); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: %d bytes came back: %v", name, len(got), err)
		}
		a := do(t, s.admin(t), "GET", s.url+blob.Path+sha, nil, map[string]string{"Range": "bytes=17000000-17000009"})
		if a.status != 206 || !bytes.Equal(a.body, content[17000000:17000010]) {
			t.Errorf("%s: a range got %d", name, a.status)
		}
	}
	fake.Fail(s3test.Status(500, "InternalError"))
	if err := edge.Fetch(t.Context(), sha, filepath.Join(t.TempDir(), "m"), nil); !wire.IsCode(err, wire.Unavailable) {
		t.Errorf("S3 is away: %v", err)
	}
}
