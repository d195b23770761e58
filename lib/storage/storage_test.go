package storage_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/minio/minio-go/v7"

	"github.com/edgetwin/sedna/lib/blob"
	"github.com/edgetwin/sedna/lib/storage"
	"github.com/edgetwin/sedna/lib/storage/s3"
	"github.com/edgetwin/sedna/lib/storage/s3/s3test"
	"github.com/edgetwin/sedna/models/wire"
)

func shaOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// tree gives the files below dir.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() && !strings.HasPrefix(e.Name(), ".sedna") {
			return err
		}
		name, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(p)
		out[name] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func check(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
		t.Error(diff)
	}
}

// write makes files below dir.
func write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
}

// packed is a tar.gz.
func packed(t testing.TB, files map[string]string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for name, text := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(text)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// web serves files by their paths, and takes them by PUT.
type web struct {
	*httptest.Server
	mu     sync.Mutex
	files  map[string]string
	faults []int // status of the next answers
	header http.Header
}

func serve(t testing.TB, files map[string]string) *web {
	w := &web{files: files}
	w.Server = httptest.NewServer(w)
	t.Cleanup(w.Close)
	return w
}

func (s *web) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.header = r.Header
	if len(s.faults) > 0 {
		w.WriteHeader(s.faults[0])
		s.faults = s.faults[1:]
		return
	}
	if r.Method == http.MethodPut {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		s.files[r.URL.Path] = string(b)
		w.WriteHeader(http.StatusCreated)
		return
	}
	text, ok := s.files[r.URL.Path]
	if to, redirect := strings.CutPrefix(text, "-> "); redirect {
		http.Redirect(w, r, to, http.StatusFound)
		return
	}
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(text))
}

var quick = blob.Options{Attempts: 4, Backoff: time.Millisecond, MaxBackoff: 4 * time.Millisecond, Stall: 5 * time.Second}

func client(t testing.TB, change func(*storage.Config)) *storage.Client {
	t.Helper()
	config := storage.Config{Transfer: quick}
	if change != nil {
		change(&config)
	}
	c, err := storage.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// bucket is an S3 server with objects, and a client of it.
func bucket(t testing.TB, objects map[string]string, change func(*storage.Config)) (*s3test.Server, *storage.Client) {
	t.Helper()
	s := s3test.Start(t)
	for key, text := range objects {
		if _, err := s.Client(t).Client.PutObject(t.Context(), s3test.Bucket, key, strings.NewReader(text), int64(len(text)), minio.PutObjectOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	return s, client(t, func(c *storage.Config) {
		c.S3 = s.Options()
		if change != nil {
			change(c)
		}
	})
}

func TestGetFile(t *testing.T) {
	text := strings.Repeat("some bytes ", 10_000)
	w, root := serve(t, map[string]string{"/m/model.onnx": text, "/": "x"}), t.TempDir()
	write(t, root, map[string]string{"m/model.onnx": text, "empty": ""})
	_, c := bucket(t, map[string]string{"m/model.onnx": text}, func(c *storage.Config) { c.Roots = []string{root} })
	for _, url := range []string{w.URL + "/m/model.onnx", root + "/m/model.onnx", "file://" + root + "/m/model.onnx", "s3://data/m/model.onnx", "obs://data/m/model.onnx"} {
		dst := filepath.Join(t.TempDir(), "model")
		var done int64
		o := storage.Options{SHA256: shaOf(text), Progress: func(n, total int64) {
			if done = n; total != int64(len(text)) {
				t.Errorf("%s: told of %d", url, total)
			}
		}}
		r, err := c.GetFile(t.Context(), url, dst, o)
		if err != nil || r != (storage.Result{Objects: 1, Files: 1, Bytes: int64(len(text)), SHA256: shaOf(text)}) || done != int64(len(text)) {
			t.Errorf("%s: %+v %v", url, r, err)
		}
		check(t, filepath.Dir(dst), map[string]string{"model": text})
		dst = filepath.Join(t.TempDir(), "model")
		for code, bad := range map[wire.Code]string{
			wire.DigestMismatch: url + "#sha256=" + shaOf("other"), wire.InvalidArgument: url + "#sha256=12", wire.NotFound: url + "x",
		} {
			if _, err := c.GetFile(t.Context(), bad, dst, storage.Options{}); !wire.IsCode(err, code) {
				t.Errorf("%s: got %v, want %s", bad, err, code)
			}
		}
		if strings.Contains(url, "/m/") && !strings.HasPrefix(url, "http") {
			if _, err := c.GetFile(t.Context(), strings.TrimSuffix(url, "/model.onnx"), dst, storage.Options{}); !wire.IsCode(err, wire.InvalidArgument) {
				t.Errorf("the directory of %s: %v", url, err)
			}
		}
		check(t, filepath.Dir(dst), map[string]string{})
	}
}

func TestURLsThatAreRefused(t *testing.T) {
	c := client(t, func(c *storage.Config) { c.Roots = []string{t.TempDir()} })
	for _, url := range []string{"", "relative/path", "ftp://host/x", "http://", "https:///x", "s3://", "s3:///key", "file://relative", "/a\x00b", "http://host/", "http://host/dir/", "http://[::1", "/a#sha256=zz", "/" + strings.Repeat("x", 5000)} {
		if _, err := c.GetDir(t.Context(), url, t.TempDir(), storage.Options{}); !wire.IsCode(err, wire.InvalidArgument) {
			t.Errorf("%.40q: %v", url, err)
		}
	}
	if _, err := storage.New(storage.Config{Roots: []string{"relative"}}); !wire.IsCode(err, wire.InvalidArgument) {
		t.Errorf("a relative root: %v", err)
	}
	if got := storage.Redact("https://user:pass@host/x?token=1"); got != "https://host/x" {
		t.Errorf("shown as %s", got)
	}
}

func TestFilesStayBelowTheirRoots(t *testing.T) {
	base := t.TempDir()
	root, dst := filepath.Join(base, "root"), t.TempDir()
	write(t, base, map[string]string{"secret": "s", "rootless/x": "s", "root/ok": "fine", "root/dir/ok": "fine"})
	for link, to := range map[string]string{"root/out": "../secret", "root/abs": base + "/secret", "root/in": "ok", "root/dir/up": "../../secret"} {
		if err := os.Symlink(to, filepath.Join(base, link)); err != nil {
			t.Fatal(err)
		}
	}
	c := client(t, func(c *storage.Config) { c.Roots = []string{root} })
	for _, path := range []string{base + "/secret", root + "/../secret", base + "/rootless/x", root + "/out", root + "/abs", root + "/dir", "/etc/passwd"} {
		if _, err := c.GetDir(t.Context(), path, dst, storage.Options{}); !wire.IsCode(err, wire.PermissionDenied) {
			t.Errorf("%s: %v", path, err)
		}
		if _, err := c.Put(t.Context(), root+"/ok", path+"/new", storage.Options{}); err == nil && path != root+"/dir" {
			t.Errorf("written to %s", path)
		}
	}
	check(t, dst, map[string]string{})
	if _, err := c.GetDir(t.Context(), root+"/in", dst, storage.Options{}); err != nil {
		t.Error(err)
	}
	if _, err := client(t, nil).GetDir(t.Context(), root+"/ok", dst, storage.Options{}); !wire.IsCode(err, wire.PermissionDenied) {
		t.Errorf("without roots: %v", err)
	}
	check(t, dst, map[string]string{"in": "fine"})
}

func TestGetDir(t *testing.T) {
	archived := packed(t, map[string]string{"a.jpg": "A", "sub/b.jpg": "B"})
	files := map[string]string{"d/one": "1", "d/two/three": "3", "d2/x": "x", "d/pack.tgz": archived}
	w, root := serve(t, map[string]string{"/x/pack.tar.gz": archived, "/x/plain.csv": "1,2"}), t.TempDir()
	write(t, root, files)
	s, c := bucket(t, files, func(c *storage.Config) { c.Roots = []string{root} })
	if _, err := s.Client(t).Client.PutObject(t.Context(), s3test.Bucket, "d/empty/", strings.NewReader(""), 0, minio.PutObjectOptions{DisableContentSha256: true}); err != nil {
		t.Fatal(err)
	}
	for _, one := range []struct {
		url    string
		unpack bool
		want   map[string]string
	}{
		{w.URL + "/x/pack.tar.gz", true, map[string]string{"a.jpg": "A", "sub/b.jpg": "B"}},
		{w.URL + "/x/pack.tar.gz", false, map[string]string{"pack.tar.gz": archived}},
		{w.URL + "/x/plain.csv?token=1", true, map[string]string{"plain.csv": "1,2"}},
		{"s3://data/d", true, map[string]string{"d/one": "1", "d/two/three": "3", "a.jpg": "A", "sub/b.jpg": "B"}},
		{"s3://data/d/", false, map[string]string{"d/one": "1", "d/two/three": "3", "d/pack.tgz": archived}},
		{"s3://data/d/two", true, map[string]string{"two/three": "3"}},
		{"s3://data/d/one", true, map[string]string{"one": "1"}},
		{"s3://data", false, files},
		{root + "/d", true, map[string]string{"one": "1", "two/three": "3", "a.jpg": "A", "sub/b.jpg": "B"}},
		{root + "/d/one", true, map[string]string{"one": "1"}},
		{root, false, files},
	} {
		dst := filepath.Join(t.TempDir(), "made", "here")
		for range 2 { // the second time everything is there already
			if r, err := c.GetDir(t.Context(), one.url, dst, storage.Options{Unpack: one.unpack}); err != nil || r.Files < len(one.want) {
				t.Errorf("%s: %+v %v", one.url, r, err)
			}
			check(t, dst, one.want)
		}
	}
	for url, code := range map[string]wire.Code{"s3://data/none": wire.NotFound, "s3://nobucket/x": wire.NotFound, "s3://data/d#sha256=" + shaOf("x"): wire.InvalidArgument, root + "/none": wire.NotFound} {
		if _, err := c.GetDir(t.Context(), url, t.TempDir(), storage.Options{}); !wire.IsCode(err, code) {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestWhatIsThereAlready(t *testing.T) {
	w := serve(t, map[string]string{"/p.tgz": packed(t, map[string]string{"d/new": "n", "d/same": "n"}), "/clash.tgz": packed(t, map[string]string{"ok": "n", "d": "n"}), "/d": "a file", "/out.tgz": packed(t, map[string]string{"link/x": "n"})})
	dst, outside := t.TempDir(), t.TempDir()
	write(t, dst, map[string]string{"d/old": "o", "d/same": "o"})
	if err := os.Symlink(outside, filepath.Join(dst, "link")); err != nil {
		t.Fatal(err)
	}
	c, o := client(t, nil), storage.Options{Unpack: true}
	if _, err := c.GetDir(t.Context(), w.URL+"/p.tgz", dst, o); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/clash.tgz", "/d"} {
		if _, err := c.GetDir(t.Context(), w.URL+name, dst, o); !wire.IsCode(err, wire.Conflict) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.GetDir(t.Context(), w.URL+"/out.tgz", dst, o); err == nil {
		t.Error("written through a link that leads out")
	}
	check(t, outside, map[string]string{})
	if err := os.Remove(filepath.Join(dst, "link")); err != nil {
		t.Fatal(err)
	}
	check(t, dst, map[string]string{"d/old": "o", "d/new": "n", "d/same": "n"})
}

func TestGetIndexed(t *testing.T) {
	archived := packed(t, map[string]string{"a": "A"})
	root := t.TempDir()
	write(t, root, map[string]string{"i/0.jpg": "0", "i/1.jpg": "1", "i/2.jpg": "2", "sub/x/y": "y", "p/p.tgz": archived})
	w := serve(t, map[string]string{"/b/i/0.jpg": "w0"})
	_, c := bucket(t, map[string]string{"set/i/0.jpg": "0", "set/i/1.jpg": "1", "set/i/2.jpg": "2", "set/sub/x/y": "y", "set/p/p.tgz": archived,
		"index": "# a comment\n\ns3://data/set\ni/0.jpg\n  i/2.jpg \ni/2.jpg\nsub\np/p.tgz"},
		func(c *storage.Config) { c.Roots = []string{root} })
	write(t, root, map[string]string{"local": root + "/\ni/1.jpg\nsub\n", "web": w.URL + "/b\ni/0.jpg\n", "bad": "s3://data/set\n../../etc/passwd\n", "none": "s3://data/set\ni/0.jpg\ni/9.jpg\n", "empty": "s3://data\n", "noturl": "i/0.jpg\ni/1.jpg\n", "long": "s3://data/set\n" + strings.Repeat("x", 9000)})
	for url, want := range map[string]map[string]string{
		"s3://data/index": {"i/0.jpg": "0", "i/2.jpg": "2", "sub/x/y": "y", "p/a": "A"},
		root + "/local":   {"i/1.jpg": "1", "sub/x/y": "y"},
		root + "/web":     {"i/0.jpg": "w0"},
	} {
		dst := t.TempDir()
		if r, err := c.GetIndexed(t.Context(), url, dst, storage.Options{Unpack: true}); err != nil || r.Objects != len(want) {
			t.Errorf("%s: %+v %v", url, r, err)
		}
		check(t, dst, want)
	}
	for name, code := range map[string]wire.Code{"bad": wire.InvalidArgument, "none": wire.NotFound, "empty": wire.InvalidArgument, "noturl": wire.InvalidArgument, "long": wire.InvalidArgument} {
		dst := t.TempDir()
		if _, err := c.GetIndexed(t.Context(), root+"/"+name, dst, storage.Options{}); !wire.IsCode(err, code) {
			t.Errorf("%s: %v", name, err)
		}
		check(t, dst, map[string]string{})
	}
}

func TestLimits(t *testing.T) {
	root := t.TempDir()
	files := map[string]string{"d/a": "12345", "d/b/c/d": "678"}
	write(t, root, files)
	archived := packed(t, map[string]string{"a": strings.Repeat("1", 500), "b/c": strings.Repeat("2", 500)})
	w := serve(t, map[string]string{"/p.tgz": archived, "/big": strings.Repeat("x", 101)})
	for name, c := range map[string]struct {
		url           string
		fits, exceeds storage.Limits
	}{
		"bytes of files":    {root + "/d", storage.Limits{Bytes: 8}, storage.Limits{Bytes: 7}},
		"bytes of objects":  {"s3://data/d", storage.Limits{Bytes: 8}, storage.Limits{Bytes: 7}},
		"bytes from a web":  {w.URL + "/big", storage.Limits{Bytes: 101}, storage.Limits{Bytes: 100}},
		"files":             {root + "/d", storage.Limits{Files: 2}, storage.Limits{Files: 1}},
		"objects":           {"s3://data/d", storage.Limits{Files: 2}, storage.Limits{Files: 1}},
		"depth":             {"s3://data/d", storage.Limits{Depth: 4}, storage.Limits{Depth: 3}},
		"files unpacked":    {w.URL + "/p.tgz", storage.Limits{Files: 3}, storage.Limits{Files: 2}},
		"bytes unpacked":    {w.URL + "/p.tgz", storage.Limits{Bytes: 1000}, storage.Limits{Bytes: 999}},
		"depth of unpacked": {w.URL + "/p.tgz", storage.Limits{Depth: 2}, storage.Limits{Depth: 1}},
	} {
		for limits, code := range map[storage.Limits]wire.Code{c.fits: "", c.exceeds: wire.TooLarge} {
			_, cl := bucket(t, files, func(c *storage.Config) { c.Roots, c.Limits = []string{root}, limits })
			dst := t.TempDir()
			_, err := cl.GetDir(t.Context(), c.url, dst, storage.Options{Unpack: true})
			if code == "" && err != nil || code != "" && !wire.IsCode(err, code) {
				t.Errorf("%s, %+v: %v", name, limits, err)
			}
			if err != nil {
				check(t, dst, map[string]string{})
			}
		}
	}
	write(t, root, map[string]string{"index": root + "\nd/a\nd/b\n"})
	for limits, code := range map[storage.Limits]wire.Code{{Files: 2, Bytes: 100}: "", {Files: 1}: wire.TooLarge, {IndexBytes: 5}: wire.TooLarge, {Bytes: 7, IndexBytes: 100}: wire.TooLarge} {
		cl := client(t, func(c *storage.Config) { c.Roots, c.Limits = []string{root}, limits })
		if _, err := cl.GetIndexed(t.Context(), root+"/index", t.TempDir(), storage.Options{}); code == "" && err != nil || code != "" && !wire.IsCode(err, code) {
			t.Errorf("index, %+v: %v", limits, err)
		}
	}
}

func TestTimeLimit(t *testing.T) {
	hang := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-hang:
		}
	}))
	t.Cleanup(srv.Close)
	t.Cleanup(func() { close(hang) })
	c := client(t, func(c *storage.Config) { c.Limits.Time = 50 * time.Millisecond })
	dst := t.TempDir()
	if _, err := c.GetDir(t.Context(), srv.URL+"/x", dst, storage.Options{}); !wire.IsCode(err, wire.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client(t, nil).GetDir(ctx, srv.URL+"/x", dst, storage.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	check(t, dst, map[string]string{})
}

// Errors that pass are tried again, those that stay are said.
func TestFaultsOfS3(t *testing.T) {
	big := strings.Repeat("0123456789", 100_000)
	get := func(r *http.Request) bool { return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/big") }
	for name, c := range map[string]struct {
		fault s3test.Fault
		code  wire.Code
	}{
		"500 at first":       {s3test.Times(2, get, s3test.Status(500, "InternalError")), ""},
		"slow down":          {s3test.Times(2, get, s3test.Status(503, "SlowDown")), ""},
		"cut off":            {s3test.Times(3, get, s3test.CutAfter(300_000)), ""},
		"500 always":         {s3test.Times(1000, get, s3test.Status(500, "InternalError")), wire.Unavailable},
		"denied":             {s3test.Times(1000, get, s3test.Status(403, "AccessDenied")), wire.PermissionDenied},
		"denied the listing": {s3test.Times(1000, func(r *http.Request) bool { return r.URL.Query().Has("list-type") }, s3test.Status(403, "AccessDenied")), wire.PermissionDenied},
	} {
		s, cl := bucket(t, map[string]string{"d/big": big, "d/small": "s"}, nil)
		s.Fail(c.fault)
		dst := t.TempDir()
		_, err := cl.GetDir(t.Context(), "s3://data/d", dst, storage.Options{})
		if c.code != "" {
			if !wire.IsCode(err, c.code) {
				t.Errorf("%s: %v", name, err)
			}
			check(t, dst, map[string]string{})
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		check(t, dst, map[string]string{"d/big": big, "d/small": "s"})
	}
	_, cl := bucket(t, map[string]string{"x": "x"}, func(c *storage.Config) { c.S3.AccessKey = "wrong" })
	if _, err := cl.GetDir(t.Context(), "s3://data/x", t.TempDir(), storage.Options{}); !wire.IsCode(err, wire.PermissionDenied) || !strings.Contains(wire.AsError(err).Hint, s3.EnvAccessKey) {
		t.Errorf("wrong keys: %v", err)
	}
}

// A cut download of S3 goes on where it was, within one call by the ETag and
// in another by the digest.
func TestDownloadGoesOn(t *testing.T) {
	big := strings.Repeat("0123456789", 100_000)
	s, c := bucket(t, map[string]string{"big": big}, nil)
	get := func(r *http.Request) bool { return r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/big") }
	var mu sync.Mutex
	var ranges []string
	watch := func(next s3test.Fault) s3test.Fault {
		return func(w http.ResponseWriter, r *http.Request, h http.Handler) {
			if get(r) {
				mu.Lock()
				ranges = append(ranges, r.Header.Get("Range"))
				mu.Unlock()
			}
			next(w, r, h)
		}
	}
	pass := func(w http.ResponseWriter, r *http.Request, h http.Handler) { h.ServeHTTP(w, r) }
	s.Fail(watch(s3test.Times(1, get, s3test.CutAfter(400_000))))
	dst := t.TempDir()
	if _, err := c.GetDir(t.Context(), "s3://data/big", dst, storage.Options{}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"", "bytes=400000-"}; !cmp.Equal(ranges, want) {
		t.Errorf("within a call: %q", ranges)
	}
	ranges = nil
	url := "s3://data/big#sha256=" + shaOf(big)
	dst = t.TempDir()
	broken := s3test.Times(1, get, s3test.CutAfter(300_000))
	s.Fail(watch(func(w http.ResponseWriter, r *http.Request, h http.Handler) {
		if get(r) && r.Header.Get("Range") != "" {
			s3test.Refuse(w, 503, "SlowDown")
			return
		}
		broken(w, r, h)
	}))
	if _, err := c.GetDir(t.Context(), url, dst, storage.Options{}); !wire.IsCode(err, wire.Unavailable) {
		t.Fatalf("got %v", err)
	}
	ranges = nil
	s.Fail(watch(pass))
	if _, err := c.GetDir(t.Context(), url, dst, storage.Options{}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"bytes=300000-"}; !cmp.Equal(ranges, want) {
		t.Errorf("in another call: %q", ranges)
	}
	check(t, dst, map[string]string{"big": big})
}

// An object that changes in the middle is never a mixture of both.
func TestObjectThatChangesMeanwhile(t *testing.T) {
	a, b := strings.Repeat("a", 500_000), strings.Repeat("b", 500_000)
	s, c := bucket(t, map[string]string{"x": a}, nil)
	get := func(r *http.Request) bool { return r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/x") }
	admin := s.Client(t)
	s.Fail(s3test.Times(1, get, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		defer func() {
			if _, err := admin.Client.PutObject(context.Background(), s3test.Bucket, "x", strings.NewReader(b), int64(len(b)), minio.PutObjectOptions{}); err != nil {
				t.Error(err)
			}
		}()
		s3test.CutAfter(100_000)(w, r, next)
	}))
	dst := t.TempDir()
	if _, err := c.GetDir(t.Context(), "s3://data/x", dst, storage.Options{}); err != nil {
		t.Fatal(err)
	}
	check(t, dst, map[string]string{"x": b})
}

func TestRedirectsAndHeaders(t *testing.T) {
	other := serve(t, map[string]string{"/x": "elsewhere"})
	w := serve(t, map[string]string{"/near": "-> /x", "/x": "here", "/far": "-> " + other.URL + "/x"})
	headers := func(c *storage.Config) {
		c.Header = func(host string) (http.Header, error) {
			if host != "127.0.0.1" {
				return nil, fmt.Errorf("asked for %s", host)
			}
			return http.Header{"X-Api-Key": {"k"}}, nil
		}
	}
	c := client(t, headers)
	dst := filepath.Join(t.TempDir(), "x")
	if _, err := c.GetFile(t.Context(), w.URL+"/near", dst, storage.Options{}); err != nil || w.header.Get("X-Api-Key") != "k" {
		t.Errorf("near: %v %v", err, w.header)
	}
	if _, err := c.GetFile(t.Context(), w.URL+"/far", dst, storage.Options{}); !wire.IsCode(err, wire.PermissionDenied) || other.header != nil {
		t.Errorf("far: %v", err)
	}
	far := client(t, func(c *storage.Config) { headers(c); c.Transfer.OtherHosts = true })
	if _, err := far.GetFile(t.Context(), w.URL+"/far", dst, storage.Options{}); err != nil || other.header.Get("X-Api-Key") != "" {
		t.Errorf("far, allowed: %v %v", err, other.header)
	}
	if _, err := c.GetFile(t.Context(), w.URL+"/far#sha256="+shaOf("elsewhere"), dst, storage.Options{}); err != nil {
		t.Errorf("far, with a digest: %v", err)
	}
	check(t, filepath.Dir(dst), map[string]string{"x": "elsewhere"})
}

func TestSameTargetAtOnce(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		arrived <- struct{}{}
		<-release
		_, _ = io.WriteString(w, "x")
	}))
	t.Cleanup(srv.Close)
	c, dst := client(t, nil), t.TempDir()
	done := make(chan error)
	go func() {
		_, err := c.GetDir(t.Context(), srv.URL+"/x", dst, storage.Options{})
		done <- err
	}()
	<-arrived
	if _, err := c.GetDir(t.Context(), srv.URL+"/x", dst, storage.Options{}); !wire.IsCode(err, wire.Conflict) {
		t.Errorf("the second: %v", err)
	}
	close(release)
	if err := <-done; err != nil {
		t.Errorf("the first: %v", err)
	}
	check(t, dst, map[string]string{"x": "x"})
}

func TestPut(t *testing.T) {
	root, src := t.TempDir(), t.TempDir()
	files := map[string]string{"a": "1", "empty": "", "d/b": "22", "d/e/c": strings.Repeat("3", 100_000)}
	write(t, src, files)
	w := serve(t, map[string]string{})
	_, c := bucket(t, nil, func(c *storage.Config) { c.Roots = []string{root} })
	for _, base := range []string{"s3://data/out", root + "/out/"} {
		var done int64
		r, err := c.Put(t.Context(), src, base, storage.Options{Progress: func(n, _ int64) { done = n }})
		if err != nil || r.Files != 4 || r.Bytes != 100_003 || done != 100_003 {
			t.Errorf("%s: %+v %v, told of %d", base, r, err, done)
		}
		dst := t.TempDir()
		if _, err := c.GetDir(t.Context(), base, dst, storage.Options{}); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(base, "s3") {
			dst = filepath.Join(dst, "out")
		}
		check(t, dst, files)
	}
	w.faults = []int{500, 503}
	for url, name := range map[string]string{"s3://data/one": "one", "s3://data/dir/": "dir/b", "s3://data": "b", root + "/one": "one", root + "/dir/": "dir/b", w.URL + "/one": "one"} {
		r, err := c.Put(t.Context(), src+"/d/b", url, storage.Options{SHA256: shaOf("22")})
		if err != nil || r != (storage.Result{Objects: 1, Files: 1, Bytes: 2, SHA256: shaOf("22")}) {
			t.Errorf("%s: %+v %v", url, r, err)
		}
		from := w.URL + "/" + name
		if !strings.HasPrefix(url, "http") {
			from = strings.SplitAfter(strings.Replace(url, root, root+"/", 1), "data")[0]
			if strings.HasPrefix(url, root) {
				from = root
			}
			from += "/" + name
		}
		dst := filepath.Join(t.TempDir(), "x")
		if _, err := c.GetFile(t.Context(), from+"#sha256="+shaOf("22"), dst, storage.Options{}); err != nil {
			t.Errorf("%s is not at %s: %v", url, from, err)
		}
	}
	for name, one := range map[string]struct {
		src, url string
		code     wire.Code
	}{
		"a directory to a web server": {src, w.URL + "/x", wire.InvalidArgument},
		"outside the roots":           {src + "/a", "/etc/x", wire.PermissionDenied},
		"no bucket":                   {src + "/a", "s3://nobucket/x", wire.NotFound},
		"another digest":              {src + "/a", "s3://data/x#sha256=" + shaOf("other"), wire.DigestMismatch},
		"a digest of a directory":     {src, "s3://data/x#sha256=" + shaOf("other"), wire.InvalidArgument},
	} {
		if _, err := c.Put(t.Context(), one.src, one.url, storage.Options{}); !wire.IsCode(err, one.code) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.Put(t.Context(), src+"/none", "s3://data/x", storage.Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no source: %v", err)
	}
}

func TestPutThatFails(t *testing.T) {
	src := t.TempDir()
	write(t, src, map[string]string{"a": "1"})
	s, c := bucket(t, nil, nil)
	put := func(r *http.Request) bool { return r.Method == http.MethodPut }
	s.Fail(s3test.Times(1, put, s3test.Status(500, "InternalError")))
	if _, err := c.Put(t.Context(), src+"/a", "s3://data/a", storage.Options{}); err != nil {
		t.Errorf("500 at first: %v", err)
	}
	s.Fail(s3test.Times(100, put, s3test.Status(403, "AccessDenied")))
	if _, err := c.Put(t.Context(), src+"/a", "s3://data/b", storage.Options{}); !wire.IsCode(err, wire.PermissionDenied) {
		t.Errorf("denied: %v", err)
	}
}

func TestPutInParts(t *testing.T) {
	src := t.TempDir()
	big := strings.Repeat("0123456789abcdef", 33<<16)
	write(t, src, map[string]string{"big": big})
	s, c := bucket(t, nil, nil)
	part := func(r *http.Request) bool { return r.URL.Query().Has("partNumber") }
	s.Fail(s3test.Times(2, part, s3test.Status(503, "SlowDown")))
	var told []int64
	r, err := c.Put(t.Context(), src+"/big", "s3://data/big", storage.Options{Progress: func(n, _ int64) { told = append(told, n) }})
	if err != nil || r.SHA256 != shaOf(big) || len(told) != 3 || told[2] != int64(len(big)) {
		t.Errorf("%+v %v, told of %v", r, err, told)
	}
	dst := filepath.Join(t.TempDir(), "x")
	if _, err := c.GetFile(t.Context(), "s3://data/big#sha256="+shaOf(big), dst, storage.Options{}); err != nil {
		t.Error(err)
	}
	s.Fail(s3test.Times(100, part, s3test.Status(403, "AccessDenied")))
	if _, err := c.Put(t.Context(), src+"/big", "s3://data/other", storage.Options{}); !wire.IsCode(err, wire.PermissionDenied) {
		t.Errorf("denied: %v", err)
	}
	s.Requests()
	s.Fail(nil)
	left, err := s.Client(t).ListMultipartUploads(t.Context(), s3test.Bucket, "", "", "", "", 10)
	if err == nil && len(left.Uploads) > 0 {
		t.Errorf("unfinished uploads are left: %v", left.Uploads)
	}
}

// A file that is written to is copied as long as it was when it was looked for.
func TestFileThatGrows(t *testing.T) {
	root, dst := t.TempDir(), t.TempDir()
	write(t, root, map[string]string{"data.csv": "1\n2\n"})
	c := client(t, func(c *storage.Config) { c.Roots = []string{root} })
	f, err := os.OpenFile(root+"/data.csv", os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	grow := storage.Options{Progress: func(int64, int64) {
		if _, err := f.WriteString("3\n"); err != nil {
			t.Error(err)
		}
	}}
	if r, err := c.GetDir(t.Context(), root+"/data.csv", dst, grow); err != nil || r.Bytes != 4 {
		t.Errorf("%+v %v", r, err)
	}
	check(t, dst, map[string]string{"data.csv": "1\n2\n"})
}
