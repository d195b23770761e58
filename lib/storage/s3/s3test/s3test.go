// Package s3test runs an S3 server in the test's own process, over HTTP, with
// faults on demand.
package s3test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/minio/minio-go/v7"

	"github.com/edgetwin/sedna/lib/storage/s3"
)

// Keys that the server takes.
const (
	AccessKey = "test-access"
	SecretKey = "test-secret"
)

// Bucket is there from the start.
const Bucket = "data"

// Server is an S3 server that forgets everything when the test ends.
type Server struct {
	Endpoint string // host:port, plain HTTP

	mu       sync.Mutex
	fault    Fault
	requests []string
}

// Fault answers a request in place of the server, or lets it pass: next is the
// server. It may be called concurrently.
type Fault func(w http.ResponseWriter, r *http.Request, next http.Handler)

// Start runs a server until the test ends.
func Start(t testing.TB) *Server {
	t.Helper()
	s := &Server{}
	fake := gofakes3.New(s3mem.New(), gofakes3.WithLogger(gofakes3.DiscardLog())).Server()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.requests = append(s.requests, r.Method+" "+r.URL.RequestURI())
		fault := s.fault
		s.mu.Unlock()
		if !strings.Contains(r.Header.Get("Authorization"), AccessKey+"/") && !strings.HasPrefix(r.URL.Query().Get("X-Amz-Credential"), AccessKey+"/") {
			Refuse(w, http.StatusForbidden, "AccessDenied")
			return
		}
		if fault != nil {
			fault(w, r, fake)
			return
		}
		fake.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	s.Endpoint = strings.TrimPrefix(srv.URL, "http://")
	if err := s.Client(t).MakeBucket(t.Context(), Bucket, minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	return s
}

// Options lead to the server.
func (s *Server) Options() s3.Options {
	return s3.Options{Endpoint: s.Endpoint, HTTP: true, AccessKey: AccessKey, SecretKey: SecretKey, Retries: 2}
}

// Client makes one for the server.
func (s *Server) Client(t testing.TB) *s3.Client {
	t.Helper()
	c, err := s3.New(s.Options())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Fail has f see all requests from now on; nil ends it.
func (s *Server) Fail(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// Requests gives "METHOD URI" of each request since it was called last.
func (s *Server) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.requests
	s.requests = nil
	return out
}

// Refuse answers as S3 does.
func Refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(`<?xml version="1.0" encoding="UTF-8"?><Error><Code>` + code + `</Code><Message>as the test wants it</Message></Error>`))
}

// Times gives a Fault that does f with the first n requests that match, and
// lets the others pass.
func Times(n int, match func(*http.Request) bool, f Fault) Fault {
	var mu sync.Mutex
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		mu.Lock()
		hit := n > 0 && match(r)
		if hit {
			n--
		}
		mu.Unlock()
		if hit {
			f(w, r, next)
			return
		}
		next.ServeHTTP(w, r)
	}
}

// Status is a Fault that answers with an error.
func Status(status int, code string) Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { Refuse(w, status, code) }
}

// CutAfter is a Fault that hangs up after n bytes of the answer's body.
func CutAfter(n int) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(&cutting{w, n}, r)
	}
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
