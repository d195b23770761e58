package blobserver_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/edgetwin/sedna/cloud/blobserver"
	"github.com/edgetwin/sedna/lib/blob"
	"github.com/edgetwin/sedna/lib/identity"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/models/wire"
)

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

// grants allow "node sha" pairs.
type grants map[string]bool

func (g grants) MayRead(node, sha string) bool { return g[node+" "+sha] }

type server struct {
	ca      *identity.CA
	dir     string
	store   *blob.Dir
	grants  grants
	metrics *metrics.Registry
	url     string

	mu    sync.Mutex
	clock time.Time
}

func (s *server) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clock
}

func (s *server) setClock(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clock = now
}

func start(t *testing.T, limits blob.Limits, change func(*blobserver.Config)) *server {
	t.Helper()
	s := &server{dir: filepath.Join(t.TempDir(), "blobs"), grants: grants{}, metrics: metrics.New(), clock: time.Now().Add(-time.Hour)}
	var err error
	if s.ca, err = identity.OpenCA(t.TempDir(), s.now); err != nil {
		t.Fatal(err)
	}
	if s.store, err = blob.OpenDir(s.dir, limits); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.store.Close() })
	config := blobserver.Config{Store: s.store, Grants: s.grants, Metrics: s.metrics}
	if change != nil {
		change(&config)
	}
	b, err := blobserver.New(config)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	b.Routes(mux)
	tlsConfig, err := s.ca.ServerTLS("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	s.setClock(time.Now())
	s.url = serve(t, &http.Server{Handler: mux, TLSConfig: tlsConfig})
	return s
}

func serve(t *testing.T, srv *http.Server) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv.ErrorLog = log.New(io.Discard, "", 0)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.ServeTLS(listener, "", "")
	}()
	t.Cleanup(func() {
		_ = srv.Close()
		<-done
	})
	return "https://" + listener.Addr().String()
}

// client makes one with a certificate of ca, or none when cn is empty.
func (s *server) client(t *testing.T, ca *identity.CA, http2 bool, cn string, orgs ...string) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.ca.CertPEM())
	config := &tls.Config{RootCAs: roots}
	if cn != "" {
		certPEM, keyPEM, err := ca.ClientCert(cn, orgs, 30*time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		pair, err := tls.X509KeyPair(certPEM, keyPEM)
		if err != nil {
			t.Fatal(err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: http2, ExpectContinueTimeout: time.Second}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func (s *server) admin(t *testing.T) *http.Client {
	return s.client(t, s.ca, true, "admin", identity.AdminOrganization)
}

func (s *server) node(t *testing.T, name string) *http.Client {
	return s.client(t, s.ca, true, "sedna:node:"+name, identity.NodeOrganization)
}

// refused checks that exactly these refusals were counted at the door.
func (s *server) refused(t *testing.T, want map[wire.Code]int) {
	t.Helper()
	text := "# HELP sedna_rejected_total Inputs refused, by the door they came to and the wire error code.\n# TYPE sedna_rejected_total counter\n"
	for code, n := range want {
		text += fmt.Sprintf("sedna_rejected_total{code=%q,door=\"blob\"} %d\n", code, n)
	}
	if err := testutil.GatherAndCompare(s.metrics, strings.NewReader(text), "sedna_rejected_total"); err != nil {
		t.Error(err)
	}
}

// stored lists the files of the store.
func (s *server) stored(t *testing.T) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(s.dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() && e.Name() != "lock" {
			out = append(out, e.Name())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (s *server) put(t *testing.T, content []byte) string {
	t.Helper()
	info, err := s.store.Put(t.Context(), "", bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	return info.SHA256
}

type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) code() wire.Code { return wire.ParseError(a.status, a.body).Code }

func do(t *testing.T, client *http.Client, method, url string, body io.Reader, header map[string]string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, b}
}

var quick = blob.Options{Attempts: 4, Backoff: time.Millisecond, MaxBackoff: 4 * time.Millisecond, Stall: 5 * time.Second}

func (s *server) blobs(client *http.Client) *blob.Client {
	o := quick
	o.HTTP = client
	return blob.NewClient(s.url+"/", o)
}

func TestUploadAndFetch(t *testing.T) {
	s := start(t, blob.Limits{}, nil)
	admin, edge := s.blobs(s.admin(t)), s.blobs(s.node(t, "edge1"))
	for _, size := range []int{0, 1, 3 << 20} {
		content := randomBytes(size)
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			info, err := admin.UploadFile(t.Context(), path)
			if err != nil || info != (blob.Info{SHA256: shaOf(content), Size: int64(size)}) {
				t.Fatalf("%+v %v", info, err)
			}
		}
		s.grants["edge1 "+shaOf(content)] = true
		dst := filepath.Join(t.TempDir(), "g")
		if err := edge.Fetch(t.Context(), shaOf(content), dst, nil); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(dst); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes came back as %d: %v", size, len(got), err)
		}
	}
	if got := s.stored(t); len(got) != 3 {
		t.Errorf("stored %v", got)
	}
	s.refused(t, nil)
}

func TestWhoMayDoWhat(t *testing.T) {
	s, stranger := start(t, blob.Limits{}, nil), start(t, blob.Limits{}, nil)
	granted, other := s.put(t, []byte("granted")), s.put(t, []byte("other"))
	absent := shaOf([]byte("absent"))
	s.grants["edge1 "+granted], s.grants["edge1 "+absent] = true, true
	nobody, edge, admin := s.client(t, nil, true, ""), s.node(t, "edge1"), s.admin(t)
	member := s.client(t, s.ca, true, "sedna:node:edge1", "sedna:friends")
	for _, c := range []struct {
		who    string
		client *http.Client
		method string
		sha    string
		status int
		code   wire.Code
	}{
		{"nobody", nobody, "GET", granted, 401, wire.Unauthenticated},
		{"nobody", nobody, "HEAD", granted, 401, wire.Unauthenticated},
		{"nobody", nobody, "PUT", granted, 401, wire.Unauthenticated},
		{"nobody", nobody, "GET", "x", 401, wire.Unauthenticated},
		{"no node's organization", member, "GET", granted, 401, wire.Unauthenticated},
		{"node", edge, "GET", granted, 200, ""},
		{"node", edge, "HEAD", granted, 200, ""},
		{"node", edge, "GET", other, 403, wire.PermissionDenied},
		{"node", edge, "HEAD", other, 403, wire.PermissionDenied},
		{"node", edge, "GET", shaOf([]byte("?")), 403, wire.PermissionDenied},
		{"node", edge, "PUT", granted, 403, wire.PermissionDenied},
		{"node", edge, "GET", absent, 404, wire.NotFound},
		{"node", edge, "HEAD", absent, 404, wire.NotFound},
		{"another node", s.node(t, "edge2"), "GET", granted, 403, wire.PermissionDenied},
		{"admin", admin, "GET", other, 200, ""},
		{"admin", admin, "GET", absent, 404, wire.NotFound},
		{"admin", admin, "GET", strings.ToUpper(other), 400, wire.InvalidArgument},
		{"admin", admin, "GET", "..%2f..%2fetc%2fpasswd", 400, wire.InvalidArgument},
		{"admin", admin, "PUT", "..%2f" + other[:59], 400, wire.InvalidArgument},
		{"admin", admin, "DELETE", other, 405, ""},
	} {
		a := do(t, c.client, c.method, s.url+blob.Path+c.sha, nil, nil)
		if a.status != c.status || c.code != "" && c.method != "HEAD" && a.code() != c.code {
			t.Errorf("%s: %s %.20s: got %d %s", c.who, c.method, c.sha, a.status, a.body)
		}
	}
	s.refused(t, map[wire.Code]int{wire.Unauthenticated: 5, wire.PermissionDenied: 5, wire.NotFound: 3, wire.InvalidArgument: 3})

	impostor := s.client(t, stranger.ca, true, "admin", identity.AdminOrganization)
	if resp, err := impostor.Get(s.url + blob.Path + other); err == nil {
		t.Errorf("a stranger CA's certificate got %s", resp.Status)
	}
	s.setClock(time.Now().Add(-time.Hour))
	late := s.admin(t)
	s.setClock(time.Now())
	if resp, err := late.Get(s.url + blob.Path + other); err == nil {
		t.Errorf("an expired certificate got %s", resp.Status)
	}
	if got := s.stored(t); len(got) != 2 {
		t.Errorf("stored %v", got)
	}
}

func TestRevokedNode(t *testing.T) {
	s := start(t, blob.Limits{}, func(c *blobserver.Config) {
		c.Node = func(*http.Request) (string, error) { return "", wire.E(wire.Revoked, "", "withdrawn", "") }
	})
	sha := s.put(t, []byte("x"))
	s.grants["edge1 "+sha] = true
	if a := do(t, s.node(t, "edge1"), "GET", s.url+blob.Path+sha, nil, nil); a.code() != wire.Revoked || a.status != http.StatusForbidden {
		t.Errorf("got %d %s", a.status, a.body)
	}
	if a := do(t, s.admin(t), "GET", s.url+blob.Path+sha, nil, nil); a.status != http.StatusOK {
		t.Errorf("the administrator got %d %s", a.status, a.body)
	}
	s.refused(t, map[wire.Code]int{wire.Revoked: 1})
}

func TestUploadRefusals(t *testing.T) {
	content := randomBytes(1000)
	sha, url := shaOf(content), ""
	for _, http2 := range []bool{false, true} {
		s := start(t, blob.Limits{}, func(c *blobserver.Config) { c.MaxBlob = 1000 })
		client := s.client(t, s.ca, http2, "admin", identity.AdminOrganization)
		url = s.url + blob.Path + sha
		type chunked struct{ io.Reader }
		for _, c := range []struct {
			name   string
			body   io.Reader
			ranges string
			code   wire.Code
		}{
			{"wrong digest", bytes.NewReader(randomBytes(999)), "", wire.DigestMismatch},
			{"wrong digest, length not told", chunked{bytes.NewReader(randomBytes(999))}, "", wire.DigestMismatch},
			{"limit+1", bytes.NewReader(randomBytes(1001)), "", wire.TooLarge},
			{"limit+1, length not told", chunked{bytes.NewReader(randomBytes(1001))}, "", wire.TooLarge},
			{"limit+1 in the range", bytes.NewReader(content[:10]), "bytes 0-9/1001", wire.TooLarge},
			{"a range of another length", bytes.NewReader(content[:10]), "bytes 0-10/1000", wire.InvalidArgument},
			{"a range, length not told", chunked{bytes.NewReader(content[:10])}, "bytes 0-9/1000", wire.InvalidArgument},
			{"a range backwards", bytes.NewReader(content[:10]), "bytes 10-1/1000", wire.InvalidArgument},
			{"a range past the end", bytes.NewReader(content[:10]), "bytes 995-1004/1000", wire.InvalidArgument},
			{"a range of unknown total", bytes.NewReader(content[:10]), "bytes 0-9/*", wire.InvalidArgument},
			{"a huge range", bytes.NewReader(content[:10]), "bytes 0-9/99999999999999999999", wire.InvalidArgument},
			{"a range with a gap", bytes.NewReader(content[5:10]), "bytes 5-9/1000", wire.Conflict},
		} {
			if a := do(t, client, "PUT", url, c.body, map[string]string{"Content-Range": c.ranges}); a.code() != c.code || a.status != c.code.Status() {
				t.Errorf("%s: got %d %s, want %s", c.name, a.status, a.body, c.code)
			}
			if a := do(t, client, "HEAD", url, nil, nil); a.status != http.StatusNotFound || a.header.Get(blob.OffsetHeader) != "0" {
				t.Errorf("%s: HEAD %d, offset %s", c.name, a.status, a.header.Get(blob.OffsetHeader))
			}
		}
		s.refused(t, map[wire.Code]int{wire.DigestMismatch: 2, wire.TooLarge: 3, wire.InvalidArgument: 6, wire.Conflict: 1})
		if left := s.stored(t); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
		if a := do(t, client, "PUT", url, bytes.NewReader(content), nil); a.status != http.StatusCreated {
			t.Errorf("limit: %d %s", a.status, a.body)
		}
	}
}

func TestUploadInParts(t *testing.T) {
	s := start(t, blob.Limits{}, nil)
	client, content := s.admin(t), randomBytes(10_000)
	url := s.url + blob.Path + shaOf(content)
	part := func(first, end int) answer {
		return do(t, client, "PUT", url, bytes.NewReader(content[first:end]), map[string]string{"Content-Range": fmt.Sprintf("bytes %d-%d/%d", first, end-1, len(content))})
	}
	offset := func() string { return do(t, client, "HEAD", url, nil, nil).header.Get(blob.OffsetHeader) }
	if a := part(0, 4000); a.status != http.StatusAccepted || a.header.Get(blob.OffsetHeader) != "4000" || offset() != "4000" {
		t.Fatalf("first: %d %s", a.status, a.body)
	}
	if a := part(5000, 10_000); a.code() != wire.Conflict || a.header.Get(blob.OffsetHeader) != "4000" {
		t.Errorf("with a gap: %d %s", a.status, a.body)
	}
	if a := part(0, 3000); a.status != http.StatusAccepted || offset() != "3000" {
		t.Errorf("anew: %d %s", a.status, a.body)
	}
	if a := do(t, client, "GET", url, nil, nil); a.code() != wire.NotFound {
		t.Errorf("a part can be read: %d", a.status)
	}
	if a := part(3000, 10_000); a.status != http.StatusCreated {
		t.Errorf("last: %d %s", a.status, a.body)
	}
	if a := part(3000, 10_000); a.status != http.StatusOK {
		t.Errorf("once more: %d %s", a.status, a.body)
	}
	if a := do(t, client, "GET", url, nil, nil); !bytes.Equal(a.body, content) {
		t.Errorf("read back %d %d bytes", a.status, len(a.body))
	}
}

// flaky stands between client and server and hangs up after some bytes of each
// request's or answer's body, the first few times.
func flaky(t *testing.T, s *server, client *http.Client, times int) *server {
	t.Helper()
	target, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	cut := func() bool {
		mu.Lock()
		defer mu.Unlock()
		times--
		return times >= 0
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			if r.In.Method == http.MethodPut && cut() {
				r.Out.Body = io.NopCloser(io.MultiReader(io.LimitReader(r.In.Body, 300_000), broken{}))
			}
		},
		ModifyResponse: func(r *http.Response) error {
			if r.Request.Method == http.MethodGet && cut() {
				r.Body = io.NopCloser(io.MultiReader(io.LimitReader(r.Body, 300_000), broken{}))
			}
			return nil
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		ErrorLog:     log.New(io.Discard, "", 0),
		Transport:    client.Transport,
	}
	tlsConfig, err := s.ca.ServerTLS("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	return &server{ca: s.ca, url: serve(t, &http.Server{Handler: proxy, TLSConfig: tlsConfig})}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("the line is cut") }

func TestTransfersGoOnWhereTheLineWasCut(t *testing.T) {
	s := start(t, blob.Limits{}, nil)
	content := randomBytes(2 << 20)
	sha := shaOf(content)
	f := flaky(t, s, s.client(t, s.ca, false, "admin", identity.AdminOrganization), 3)
	client := f.blobs(f.client(t, nil, false, ""))
	if info, err := client.Upload(t.Context(), bytes.NewReader(content)); err != nil || info.SHA256 != sha {
		t.Fatal(err)
	}
	if size, err := s.store.Size(t.Context(), sha); err != nil || size != int64(len(content)) {
		t.Fatalf("stored %d %v", size, err)
	}
	f = flaky(t, s, s.admin(t), 3)
	dst := filepath.Join(t.TempDir(), "m")
	if err := f.blobs(f.client(t, nil, false, "")).Fetch(t.Context(), sha, dst, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(dst); err != nil || !bytes.Equal(got, content) {
		t.Errorf("came back as %d bytes: %v", len(got), err)
	}
}

func TestTruncatedUpload(t *testing.T) {
	s := start(t, blob.Limits{}, nil)
	content := randomBytes(1 << 20)
	sha := shaOf(content)
	req, err := http.NewRequestWithContext(t.Context(), "PUT", s.url+blob.Path+sha, io.MultiReader(bytes.NewReader(content[:500_000]), broken{}))
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = int64(len(content))
	client := s.client(t, s.ca, false, "admin", identity.AdminOrganization)
	if resp, err := client.Do(req); err == nil {
		t.Fatalf("got %s", resp.Status)
	}
	waitFor(t, func() bool {
		return testutil.CollectAndCount(s.metrics, "sedna_rejected_total") == 1
	})
	s.refused(t, map[wire.Code]int{wire.InvalidArgument: 1})
	if has, _ := s.store.Has(t.Context(), sha); has {
		t.Fatal("a truncated blob is visible")
	}
	a := do(t, client, "HEAD", s.url+blob.Path+sha, nil, nil)
	if offset, err := strconv.Atoi(a.header.Get(blob.OffsetHeader)); err != nil || offset <= 0 || offset > 500_000 {
		t.Errorf("offset %q", a.header.Get(blob.OffsetHeader))
	}
	if _, err := s.blobs(client).Upload(t.Context(), bytes.NewReader(content)); err != nil {
		t.Error(err)
	}
	if has, _ := s.store.Has(t.Context(), sha); !has {
		t.Error("not there after the rest came")
	}
}

func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited too long")
		}
	}
}

func TestUploadOverAPartThatIsNotOfThisBlob(t *testing.T) {
	s := start(t, blob.Limits{}, nil)
	content := randomBytes(10_000)
	if _, err := s.store.Resume(t.Context(), shaOf(content), 0, 10_000, strings.NewReader("something else")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.blobs(s.admin(t)).Upload(t.Context(), bytes.NewReader(content)); err != nil {
		t.Error(err)
	}
}

func TestUploadsOfOneBlobAtOnce(t *testing.T) {
	s := start(t, blob.Limits{}, nil)
	content := randomBytes(1 << 20)
	var wg sync.WaitGroup
	for range 6 {
		client := s.blobs(s.admin(t))
		wg.Go(func() {
			if _, err := client.Upload(t.Context(), bytes.NewReader(content)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := s.stored(t); len(got) != 1 || got[0] != shaOf(content) {
		t.Errorf("stored %v", got)
	}
}

func TestRanges(t *testing.T) {
	s := start(t, blob.Limits{}, nil)
	content := []byte("0123456789")
	sha, empty := s.put(t, content), s.put(t, nil)
	client := s.admin(t)
	for _, c := range []struct {
		ranges, want string
		status       int
	}{
		{"bytes=0-3", "0123", 206},
		{"bytes=7-", "789", 206},
		{"bytes=-2", "89", 206},
		{"bytes=8-99", "89", 206},
		{"bytes=-99", "0123456789", 206},
		{"bytes=10-", "", 416},
		{"bytes=3-2", "", 416},
		{"bytes=-0", "", 416},
		{"bytes=-", "", 416},
		{"bytes=0-0,2-2", "", 416},
		{"bytes=" + strings.Repeat("0-,", 1000) + "0-", "", 416},
		{"bytes=99999999999999999999-", "", 416},
		{"lines=1-2", "", 416},
	} {
		a := do(t, client, "GET", s.url+blob.Path+sha, nil, map[string]string{"Range": c.ranges})
		switch {
		case a.status != c.status:
			t.Errorf("%.30s: got %d %s", c.ranges, a.status, a.body)
		case c.status == 206 && string(a.body) != c.want:
			t.Errorf("%s: got %q", c.ranges, a.body)
		case c.status == 416 && (a.code() != wire.InvalidArgument || a.header.Get("Content-Range") != "bytes */10"):
			t.Errorf("%s: got %s, Content-Range %q", c.ranges, a.body, a.header.Get("Content-Range"))
		}
	}
	if a := do(t, client, "GET", s.url+blob.Path+empty, nil, map[string]string{"Range": "bytes=0-"}); a.status != 416 {
		t.Errorf("a range of nothing: %d", a.status)
	}
	a := do(t, client, "GET", s.url+blob.Path+sha, nil, map[string]string{"If-None-Match": `"` + sha + `"`})
	if a.status != http.StatusNotModified || a.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("unchanged: %d %v", a.status, a.header)
	}
	s.refused(t, map[wire.Code]int{wire.InvalidArgument: 9})
}

func TestDiskThatIsFull(t *testing.T) {
	s := start(t, blob.Limits{MinFree: 1 << 60}, nil)
	content := randomBytes(1000)
	if _, err := s.blobs(s.admin(t)).Upload(t.Context(), bytes.NewReader(content)); !wire.IsCode(err, wire.ResourceExhausted) {
		t.Errorf("got %v", err)
	}
	s.refused(t, map[wire.Code]int{wire.ResourceExhausted: quick.Attempts})
	if got := s.stored(t); len(got) != 0 {
		t.Errorf("stored %v", got)
	}
}

func TestRequestsOfOnePeerAreBounded(t *testing.T) {
	s := start(t, blob.Limits{}, func(c *blobserver.Config) { c.PerPeer = 1 })
	client, content := s.admin(t), randomBytes(10)
	reader, writer := io.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() {
		req, err := http.NewRequestWithContext(t.Context(), "PUT", s.url+blob.Path+shaOf(content), reader)
		if err != nil {
			t.Error(err)
			return
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Error(err)
			return
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusCreated {
			t.Errorf("the first got %s", resp.Status)
		}
	})
	if _, err := writer.Write(content[:5]); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool {
		return do(t, client, "HEAD", s.url+blob.Path+shaOf(content), nil, nil).status == http.StatusTooManyRequests
	})
	if a := do(t, client, "GET", s.url+blob.Path+shaOf(content), nil, nil); a.code() != wire.ResourceExhausted {
		t.Errorf("the second got %d", a.status)
	}
	if _, err := writer.Write(content[5:]); err != nil {
		t.Fatal(err)
	}
	_ = writer.Close()
	wg.Wait()
	if a := do(t, client, "GET", s.url+blob.Path+shaOf(content), nil, nil); a.status != http.StatusOK {
		t.Errorf("afterwards: %d", a.status)
	}
}

func TestClientThatSendsNothing(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		s := start(t, blob.Limits{}, func(c *blobserver.Config) { c.Stall = 50 * time.Millisecond })
		client := s.client(t, s.ca, http2, "admin", identity.AdminOrganization)
		reader, writer := io.Pipe()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		req, err := http.NewRequestWithContext(ctx, "PUT", s.url+blob.Path+shaOf([]byte("x")), reader)
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = 1
		resp, err := client.Do(req)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusBadRequest {
				t.Errorf("got %s", resp.Status)
			}
		} else if errors.Is(err, context.DeadlineExceeded) {
			t.Error("the server waits for ever")
		}
		cancel()
		_ = writer.Close()
		s.refused(t, map[wire.Code]int{wire.InvalidArgument: 1})
	}
}

// The limit is for a client that does nothing, not for one that takes long.
func TestSlowClient(t *testing.T) {
	s := start(t, blob.Limits{}, func(c *blobserver.Config) { c.Stall = 300 * time.Millisecond })
	client := s.client(t, s.ca, false, "admin", identity.AdminOrganization)
	content := randomBytes(10)
	reader, writer := io.Pipe()
	go func() {
		for _, b := range content {
			time.Sleep(60 * time.Millisecond)
			if _, err := writer.Write([]byte{b}); err != nil {
				return
			}
		}
		_ = writer.Close()
	}()
	if a := do(t, client, "PUT", s.url+blob.Path+shaOf(content), reader, nil); a.status != http.StatusCreated {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	time.Sleep(400 * time.Millisecond)
	if a := do(t, client, "GET", s.url+blob.Path+shaOf(content), nil, nil); a.status != http.StatusOK {
		t.Errorf("the next request on the connection: %d", a.status)
	}
	time.Sleep(400 * time.Millisecond)
	if a := do(t, client, "GET", s.url+blob.Path+shaOf(content), nil, nil); !bytes.Equal(a.body, content) {
		t.Errorf("the one after: %d", a.status)
	}
}

func TestConfigIsChecked(t *testing.T) {
	if _, err := blobserver.New(blobserver.Config{}); err == nil {
		t.Error("an empty configuration was taken")
	}
}
