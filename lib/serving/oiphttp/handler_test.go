package oiphttp_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgetwin/sedna/lib/serving/oiphttp"
	"github.com/edgetwin/sedna/models/oip"
	"github.com/edgetwin/sedna/models/wire"
)

var update = flag.Bool("update", false, "write the golden files")

// echo answers with its inputs for service "svc", version "1".
type echo struct{ notReady error }

func (e *echo) Ready() error { return e.notReady }

func (e *echo) Model(service, version string) (*oip.ModelMetadata, error) {
	if service != "svc" || version != "" && version != "1" {
		return nil, wire.E(wire.NotFound, "", "no such model", "")
	}
	x := []oip.TensorMetadata{{Name: "x", Datatype: oip.FP32, Shape: []int64{-1, 2}}}
	return &oip.ModelMetadata{Name: service, Versions: []string{"1"}, Platform: "test", Inputs: x, Outputs: x}, nil
}

func (e *echo) Infer(_ context.Context, service, version string, r *oip.InferRequest) (*oip.InferResponse, error) {
	if _, err := e.Model(service, version); err != nil {
		return nil, err
	}
	return &oip.InferResponse{ModelName: service, ModelVersion: "1", ID: r.ID, Outputs: r.Inputs}, nil
}

const good = `{"id":"q","inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2.5]}]}`

// TestRoutes compares status and body of each route with the golden file.
func TestRoutes(t *testing.T) {
	backend := &echo{}
	rejected := 0
	h := oiphttp.New(backend, oiphttp.Config{Name: "test", Version: "0", Limits: oip.Limits{MaxBody: 200},
		Authorize: func(_ *http.Request, service string) error {
			if service == "secret" {
				return wire.E(wire.PermissionDenied, "", "not for you", "")
			}
			return nil
		},
		Reject: func(error) { rejected++ }})
	server := httptest.NewServer(h)
	defer server.Close()

	type answer struct {
		Status int             `json:"status"`
		Body   json.RawMessage `json:"body"`
	}
	got := map[string]answer{}
	refusals := 0
	for _, c := range []struct{ name, method, path, body string }{
		{"server", "GET", "/v2", ""},
		{"live", "GET", "/v2/health/live", ""},
		{"ready", "GET", "/v2/health/ready", ""},
		{"model", "GET", "/v2/models/svc", ""},
		{"model version", "GET", "/v2/models/svc/versions/1", ""},
		{"model ready", "GET", "/v2/models/svc/ready", ""},
		{"version ready", "GET", "/v2/models/svc/versions/1/ready", ""},
		{"infer", "POST", "/v2/models/svc/infer", good},
		{"infer version", "POST", "/v2/models/svc/versions/1/infer", good},
		{"unknown model", "GET", "/v2/models/other", ""},
		{"unknown version", "POST", "/v2/models/svc/versions/2/infer", good},
		{"unknown route", "GET", "/v2/nothing", ""},
		{"unknown leaf", "GET", "/v2/models/svc/stats", ""},
		{"no service", "GET", "/v2/models/", ""},
		{"no version", "GET", "/v2/models/svc/versions/", ""},
		{"outside", "GET", "/v3", ""},
		{"wrong method", "GET", "/v2/models/svc/infer", ""},
		{"wrong method on server", "DELETE", "/v2", ""},
		{"bad JSON", "POST", "/v2/models/svc/infer", `{"inputs":`},
		{"bad shape", "POST", "/v2/models/svc/infer", strings.Replace(good, "[1,2]", "[1,3]", 1)},
		{"NaN", "POST", "/v2/models/svc/infer", strings.Replace(good, "2.5", "NaN", 1)},
		{"bad id", "POST", "/v2/models/svc/infer", strings.Replace(good, `"q"`, `"q/r"`, 1)},
		{"too large", "POST", "/v2/models/svc/infer", good + strings.Repeat(" ", 200)},
		{"forbidden", "GET", "/v2/models/secret", ""},
	} {
		req, err := http.NewRequest(c.method, server.URL+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %v, content type %q", c.name, err, resp.Header.Get("Content-Type"))
		}
		got[c.name] = answer{resp.StatusCode, body}
		if resp.StatusCode >= 400 {
			refusals++
		}
	}
	if rejected != refusals {
		t.Errorf("%d refusals, %d counted", refusals, rejected)
	}
	b, err := json.MarshalIndent(got, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	const path = "testdata/routes.json"
	if *update {
		if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(bytes.TrimSpace(want)), string(b)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestNotReady(t *testing.T) {
	h := oiphttp.New(&echo{notReady: wire.E(wire.Unavailable, "", "stopping", "")}, oiphttp.Config{})
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/v2/health/ready", nil))
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("status %d", w.Code)
	}
}

// TestUnknownLength: a body without Content-Length is bounded while it is read.
func TestUnknownLength(t *testing.T) {
	h := oiphttp.New(&echo{}, oiphttp.Config{Limits: oip.Limits{MaxBody: 200}})
	for body, want := range map[string]int{good: http.StatusOK, good + strings.Repeat(" ", 200): http.StatusRequestEntityTooLarge} {
		r := httptest.NewRequest("POST", "/v2/models/svc/infer", io.NopCloser(strings.NewReader(body)))
		r.ContentLength = -1
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%d bytes: status %d", len(body), w.Code)
		}
	}
	r := httptest.NewRequest("POST", "/v2/models/svc/infer", strings.NewReader(good))
	r.Header.Set("Inference-Header-Content-Length", "10")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusNotImplemented {
		t.Errorf("binary tensors: status %d", w.Code)
	}
}

func BenchmarkHandler(b *testing.B) {
	h := oiphttp.New(&echo{}, oiphttp.Config{})
	body := []byte(good)
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("POST", "/v2/models/svc/infer", bytes.NewReader(body)))
		if w.Code != http.StatusOK {
			b.Fatal(w.Body)
		}
	}
}
