package blob_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgetwin/sedna/lib/blob"
	"github.com/edgetwin/sedna/models/wire"
)

var quick = blob.Options{Attempts: 4, Backoff: time.Millisecond, MaxBackoff: 4 * time.Millisecond, Stall: 5 * time.Second}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	src := rand.New(rand.NewPCG(1, 2))
	for i := range b {
		b[i] = byte(src.Uint32())
	}
	return b
}

// web serves content in the ways that servers do, and remembers the ranges
// that it was asked for.
type web struct {
	content []byte
	handle  func(w http.ResponseWriter, r *http.Request, n int) // of request n; nil serves content

	mu     sync.Mutex
	ranges []string
}

func (s *web) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.ranges = append(s.ranges, r.Header.Get("Range"))
	n := len(s.ranges)
	s.mu.Unlock()
	if s.handle != nil {
		s.handle(w, r, n)
		return
	}
	s.serve(w, r)
}

func (s *web) serve(w http.ResponseWriter, r *http.Request) {
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(s.content))
}

// cutAfter serves content but hangs up after n bytes of the body.
func (s *web) cutAfter(w http.ResponseWriter, r *http.Request, n int) {
	s.serve(&cutting{ResponseWriter: w, left: n}, r)
}

type cutting struct {
	http.ResponseWriter
	left int
}

func (c *cutting) Write(b []byte) (int, error) {
	if len(b) < c.left {
		c.left -= len(b)
		return c.ResponseWriter.Write(b)
	}
	_, _ = c.ResponseWriter.Write(b[:c.left])
	_ = http.NewResponseController(c.ResponseWriter).Flush()
	panic(http.ErrAbortHandler)
}

func (s *web) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ranges
}

func start(t *testing.T, s *web) string {
	t.Helper()
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	return srv.URL + "/model.onnx"
}

func checkFile(t *testing.T, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s holds %d bytes, want %d: %v", path, len(got), len(want), err)
	}
	if _, err := os.Stat(path + ".part"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a part is left: %v", err)
	}
}

func checkNothing(t *testing.T, path string) {
	t.Helper()
	if left := files(t, filepath.Dir(path)); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestFetchURL(t *testing.T) {
	content := randomBytes(300_000)
	s := &web{content: content}
	url, dst := start(t, s), filepath.Join(t.TempDir(), "m")
	var last, of int64
	progress := func(done, total int64) { last, of = done, total }
	for _, want := range []string{"", shaOf(content)} {
		info, err := blob.FetchURL(t.Context(), url, want, dst, quick, progress)
		if err != nil || info != (blob.Info{SHA256: shaOf(content), Size: int64(len(content))}) {
			t.Fatalf("%+v %v", info, err)
		}
		checkFile(t, dst, content)
	}
	if last != int64(len(content)) || of != last {
		t.Errorf("progress ended with %d of %d", last, of)
	}
	if n := len(s.asked()); n != 1 {
		t.Errorf("%d requests: what is there was fetched again", n)
	}
	if err := os.WriteFile(dst, []byte("spoilt"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := blob.FetchURL(t.Context(), url, shaOf(content), dst, quick, nil); err != nil {
		t.Fatal(err)
	}
	checkFile(t, dst, content)
}

func TestFetchResumesAfterTheServerDied(t *testing.T) {
	content := randomBytes(1 << 20)
	s := &web{content: content}
	s.handle = func(w http.ResponseWriter, r *http.Request, n int) {
		if n <= 12 { // more often than Attempts, but each moves some bytes
			s.cutAfter(w, r, 50_000)
		}
		s.serve(w, r)
	}
	url, dst := start(t, s), filepath.Join(t.TempDir(), "m")
	if _, err := blob.FetchURL(t.Context(), url, shaOf(content), dst, quick, nil); err != nil {
		t.Fatal(err)
	}
	checkFile(t, dst, content)
	asked := s.asked()
	if len(asked) != 13 || asked[0] != "" || asked[12] == "" {
		t.Errorf("asked for %q", asked)
	}
}

func TestFetchGoesOnAfterARestartOfOurs(t *testing.T) {
	content := randomBytes(400_000)
	s := &web{content: content}
	ctx, stop := context.WithCancel(t.Context())
	s.handle = func(w http.ResponseWriter, r *http.Request, n int) {
		if n == 1 {
			s.cutAfter(w, r, 100_000)
		}
		s.serve(w, r)
	}
	url, dst := start(t, s), filepath.Join(t.TempDir(), "m")
	if _, err := blob.FetchURL(ctx, url, shaOf(content), dst, quick, func(int64, int64) { stop() }); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if _, err := os.Stat(dst); !errors.Is(err, os.ErrNotExist) {
		t.Fatal("a part is visible")
	}
	part, err := os.Stat(dst + ".part")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := blob.FetchURL(t.Context(), url, shaOf(content), dst, quick, nil); err != nil {
		t.Fatal(err)
	}
	checkFile(t, dst, content)
	if asked := s.asked(); len(asked) != 2 || part.Size() == 0 || asked[1] != fmt.Sprintf("bytes=%d-", part.Size()) {
		t.Errorf("asked for %q with %d bytes here", asked, part.Size())
	}
}

func TestFetchOfWhatIsComplete(t *testing.T) {
	content := randomBytes(1000)
	dst := filepath.Join(t.TempDir(), "m")
	if err := os.WriteFile(dst+".part", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := blob.FetchURL(t.Context(), "http://127.0.0.1:1/", shaOf(content), dst, quick, nil); err != nil {
		t.Fatal(err)
	}
	checkFile(t, dst, content)
}

func TestFetchFromServersWithTheirOwnIdeasOfRanges(t *testing.T) {
	content := randomBytes(200_000)
	for name, handle := range map[string]func(s *web, w http.ResponseWriter, r *http.Request, n int){
		"ignores ranges": func(s *web, w http.ResponseWriter, r *http.Request, _ int) {
			r.Header.Del("Range")
			s.serve(w, r)
		},
		"ignores ranges and hangs up once": func(s *web, w http.ResponseWriter, r *http.Request, n int) {
			r.Header.Del("Range")
			if n == 1 {
				s.cutAfter(w, r, 150_000)
			}
			s.serve(w, r)
		},
		"gives another range once": func(s *web, w http.ResponseWriter, r *http.Request, n int) {
			if n == 1 && r.Header.Get("Range") != "" {
				r.Header.Set("Range", "bytes=7-")
			}
			s.serve(w, r)
		},
		"has no such range once": func(s *web, w http.ResponseWriter, r *http.Request, n int) {
			if n == 1 && r.Header.Get("Range") != "" {
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
				return
			}
			s.serve(w, r)
		},
		"tells no length": func(s *web, w http.ResponseWriter, r *http.Request, _ int) {
			_ = http.NewResponseController(w).Flush()
			_, _ = w.Write(s.content)
		},
		"is busy twice": func(s *web, w http.ResponseWriter, r *http.Request, n int) {
			if n <= 2 {
				w.Header().Set("Retry-After", "1")
				http.Error(w, "busy", http.StatusServiceUnavailable)
				return
			}
			s.serve(w, r)
		},
	} {
		for _, part := range []string{"", string(content[:1000]), strings.Repeat("wrong", 200), strings.Repeat("x", 300_000)} {
			t.Run(fmt.Sprintf("%s, %d bytes here", name, len(part)), func(t *testing.T) {
				s := &web{content: content}
				s.handle = func(w http.ResponseWriter, r *http.Request, n int) { handle(s, w, r, n) }
				url, dst := start(t, s), filepath.Join(t.TempDir(), "m")
				if err := os.WriteFile(dst+".part", []byte(part), 0o600); err != nil {
					t.Fatal(err)
				}
				if _, err := blob.FetchURL(t.Context(), url, shaOf(content), dst, quick, nil); err != nil {
					t.Fatal(err)
				}
				checkFile(t, dst, content)
			})
		}
	}
}

func TestFetchRefusals(t *testing.T) {
	content := randomBytes(10_000)
	plain := func(s *web, w http.ResponseWriter, r *http.Request) { s.serve(w, r) }
	noLength := func(s *web, w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).Flush()
		_, _ = w.Write(s.content)
	}
	status := func(code int, body string) func(*web, http.ResponseWriter, *http.Request) {
		return func(_ *web, w http.ResponseWriter, _ *http.Request) { http.Error(w, body, code) }
	}
	for _, c := range []struct {
		name     string
		handle   func(s *web, w http.ResponseWriter, r *http.Request)
		want     string
		limit    int64
		code     wire.Code
		requests int
	}{
		{"wrong digest", plain, shaOf([]byte("other")), 0, wire.DigestMismatch, 1},
		{"limit+1, announced", plain, "", 9_999, wire.TooLarge, 1},
		{"limit+1, not announced", noLength, "", 9_999, wire.TooLarge, 1},
		{"absent", status(http.StatusNotFound, "x"), "", 0, wire.NotFound, 1},
		{"not allowed", status(http.StatusForbidden, `{"error":{"code":"revoked","message":"x"}}`), "", 0, wire.Revoked, 1},
		{"always broken", status(http.StatusInternalServerError, "x"), "", 0, wire.Internal, quick.Attempts},
		{"always hangs up", func(*web, http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "", 0, wire.Unavailable, quick.Attempts},
		{"a strange answer", status(http.StatusPartialContent, "\x00"), "", 0, wire.Unavailable, 1},
		{"not a digest", plain, "../x", 0, wire.InvalidArgument, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &web{content: content}
			s.handle = func(w http.ResponseWriter, r *http.Request, _ int) { c.handle(s, w, r) }
			o := quick
			o.Limit = c.limit
			dst := filepath.Join(t.TempDir(), "m")
			if _, err := blob.FetchURL(t.Context(), start(t, s), c.want, dst, o, nil); !wire.IsCode(err, c.code) {
				t.Errorf("got %v, want %s", err, c.code)
			}
			if n := len(s.asked()); n != c.requests {
				t.Errorf("%d requests, want %d", n, c.requests)
			}
			checkNothing(t, dst)
		})
	}
	for _, bad := range []string{"", "ftp://h/x", "file:///etc/passwd", "/etc/passwd", "http://", "://"} {
		if _, err := blob.FetchURL(t.Context(), bad, "", filepath.Join(t.TempDir(), "m"), quick, nil); !wire.IsCode(err, wire.InvalidArgument) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestFetchAtTheLimit(t *testing.T) {
	o := quick
	o.Limit = 1000
	content := randomBytes(1000)
	dst := filepath.Join(t.TempDir(), "m")
	if _, err := blob.FetchURL(t.Context(), start(t, &web{content: content}), "", dst, o, nil); err != nil {
		t.Fatal(err)
	}
	checkFile(t, dst, content)
}

func TestFetchEndsWhereContentAlwaysDiffers(t *testing.T) {
	content := randomBytes(100_000)
	s := &web{content: content}
	s.handle = func(w http.ResponseWriter, r *http.Request, n int) {
		if n%2 == 1 {
			s.cutAfter(w, r, 60_000)
		}
		s.serve(w, r)
	}
	dst := filepath.Join(t.TempDir(), "m")
	_, err := blob.FetchURL(t.Context(), start(t, s), shaOf([]byte("other")), dst, quick, nil)
	if err == nil || len(s.asked()) > 4*quick.Attempts {
		t.Errorf("%d requests, then %v", len(s.asked()), err)
	}
	if _, err := os.Stat(dst); !errors.Is(err, os.ErrNotExist) {
		t.Error("wrong bytes are visible")
	}
}

func TestFetchBreaksOffAStalledConnection(t *testing.T) {
	content := randomBytes(100_000)
	release := make(chan struct{})
	s := &web{content: content}
	s.handle = func(w http.ResponseWriter, r *http.Request, n int) {
		if n == 1 {
			w.Header().Set("Content-Length", "100000")
			_, _ = w.Write(content[:5000])
			_ = http.NewResponseController(w).Flush()
			<-release
			return
		}
		s.serve(w, r)
	}
	o := quick
	o.Stall = 100 * time.Millisecond
	url, dst := start(t, s), filepath.Join(t.TempDir(), "m")
	defer close(release)
	if _, err := blob.FetchURL(t.Context(), url, shaOf(content), dst, o, nil); err != nil {
		t.Fatal(err)
	}
	checkFile(t, dst, content)
}

func TestFetchOfOneFileAtATime(t *testing.T) {
	content := randomBytes(1000)
	begun, release := make(chan struct{}), make(chan struct{})
	s := &web{content: content}
	s.handle = func(w http.ResponseWriter, r *http.Request, _ int) {
		close(begun)
		<-release
		s.serve(w, r)
	}
	url, dst := start(t, s), filepath.Join(t.TempDir(), "m")
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := blob.FetchURL(t.Context(), url, shaOf(content), dst, quick, nil); err != nil {
			t.Error(err)
		}
	})
	<-begun
	if _, err := blob.FetchURL(t.Context(), url, shaOf(content), dst, quick, nil); !wire.IsCode(err, wire.Conflict) {
		t.Errorf("the second: %v", err)
	}
	close(release)
	wg.Wait()
	checkFile(t, dst, content)
}

func TestFetchRedirects(t *testing.T) {
	content := randomBytes(1000)
	var other atomic.Int32
	elsewhere := start(t, &web{content: content, handle: func(w http.ResponseWriter, _ *http.Request, _ int) {
		other.Add(1)
		_, _ = w.Write(content)
	}})
	home := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/here":
			http.Redirect(w, r, "/file", http.StatusFound)
		case "/there":
			http.Redirect(w, r, elsewhere, http.StatusFound)
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		default:
			_, _ = w.Write(content)
		}
	}))
	defer home.Close()
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, home.URL+"/file", http.StatusFound)
	}))
	defer secure.Close()
	for _, c := range []struct {
		name, url, want string
		code            wire.Code
	}{
		{"same host", home.URL + "/here", "", ""},
		{"another host, with a digest", home.URL + "/there", shaOf(content), ""},
		{"another host, without", home.URL + "/there", "", wire.PermissionDenied},
		{"for ever", home.URL + "/loop", shaOf(content), wire.PermissionDenied},
		{"from https to http", secure.URL, shaOf(content), wire.PermissionDenied},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := quick
			o.HTTP = secure.Client()
			dst := filepath.Join(t.TempDir(), "m")
			_, err := blob.FetchURL(t.Context(), c.url, c.want, dst, o, nil)
			if c.code == "" && err != nil || c.code != "" && !wire.IsCode(err, c.code) {
				t.Fatalf("got %v, want %q", err, c.code)
			}
			if err != nil {
				checkNothing(t, dst)
			} else {
				checkFile(t, dst, content)
			}
		})
	}
	if other.Load() != 1 {
		t.Errorf("the other host was asked %d times", other.Load())
	}
}

func TestFetchTrustsNoUnknownCA(t *testing.T) {
	srv := httptest.NewUnstartedServer(&web{content: []byte("x")})
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	dst := filepath.Join(t.TempDir(), "m")
	if _, err := blob.FetchURL(t.Context(), srv.URL, "", dst, quick, nil); !wire.IsCode(err, wire.Unauthenticated) {
		t.Errorf("got %v", err)
	}
	checkNothing(t, dst)
}

func TestUploadFileThatIsAbsent(t *testing.T) {
	c := blob.NewClient("http://127.0.0.1:1", quick)
	if _, err := c.UploadFile(t.Context(), filepath.Join(t.TempDir(), "x")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if _, err := c.Upload(t.Context(), strings.NewReader("x")); !wire.IsCode(err, wire.Unavailable) {
		t.Errorf("nobody there: %v", err)
	}
	o := quick
	o.Limit = 1
	if _, err := blob.NewClient("http://127.0.0.1:1", o).Upload(t.Context(), strings.NewReader("xx")); !wire.IsCode(err, wire.TooLarge) {
		t.Errorf("limit+1: %v", err)
	}
	if err := c.Fetch(t.Context(), "..", filepath.Join(t.TempDir(), "x"), nil); !wire.IsCode(err, wire.InvalidArgument) {
		t.Errorf("not a digest: %v", err)
	}
}
