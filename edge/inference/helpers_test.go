package inference

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/google/go-cmp/cmp"

	_ "github.com/edgetwin/sedna/lib/engine/purego"
	"github.com/edgetwin/sedna/lib/serving"
	"github.com/edgetwin/sedna/lib/serving/oiphttp"
	"github.com/edgetwin/sedna/lib/serving/servingtest"
	"github.com/edgetwin/sedna/models/oip"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

func init() { gin.SetMode(gin.ReleaseMode) }

var update = flag.Bool("update", false, "write the golden files")

// golden compares got, as indented JSON, with a file.
func golden(t *testing.T, path string, got any) {
	t.Helper()
	b, err := json.MarshalIndent(got, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
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
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func newManager(t testing.TB, edit func(*Config)) *Manager {
	t.Helper()
	cfg := Config{Node: "edge-a", Version: "test"}
	if edit != nil {
		edit(&cfg)
	}
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

var classes = []string{"a", "b", "c"}

// serviceSpec is service "svc": an edge model whose scores are the softmax of
// the input, and the rule Threshold 0.8.
func serviceSpec(t testing.TB, cloud string) ServiceSpec {
	t.Helper()
	s := ServiceSpec{
		Namespace: "default", Name: "svc",
		Model:       task.Model{Name: "small", Version: "1", Format: "onnx", Labels: classes},
		ModelPath:   servingtest.File(t, servingtest.Classifier(3, 1, true)),
		HardExample: task.Algorithm{Name: "Threshold", Parameters: []task.Parameter{{Key: "threshold", Value: "0.8"}}},
	}
	if cloud != "" {
		s.Cloud = &task.CloudSide{URL: cloud, Model: "big", TimeoutMilliseconds: 2000, MaxConcurrent: 16}
	}
	return s
}

func activate(t testing.TB, m *Manager, s ServiceSpec) {
	t.Helper()
	if err := m.Activate(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

// Samples of which the edge is sure, and not.
var (
	easyA = []float32{5, 0, 0}
	easyB = []float32{0, 5, 0}
	hardA = []float32{0.5, 0, 0}
	hardC = []float32{0, 0, 0.5}
)

func request(id string, rows ...[]float32) *oip.InferRequest {
	return &oip.InferRequest{ID: id, Inputs: []oip.Tensor{{
		Name: "x", Datatype: oip.FP32, Shape: []int64{int64(len(rows)), 3}, Data: slices.Concat(rows...),
	}}}
}

func with(r *oip.InferRequest, name string, value any) *oip.InferRequest {
	if r.Parameters == nil {
		r.Parameters = oip.Parameters{}
	}
	r.Parameters[name] = value
	return r
}

// bigModel is a real model behind a real HTTP server. Its classes come in
// reverse order, so that its answers tell themselves from the edge's.
type bigModel struct {
	*httptest.Server
	model *serving.Model

	mu       sync.Mutex
	override http.HandlerFunc // answers inference in place of the model
	requests []*oip.InferRequest
}

func newBigModel(t testing.TB) *bigModel {
	t.Helper()
	spec := task.Model{Name: "big", Version: "9", Format: "onnx"}
	model, err := serving.Load(t.Context(), "big", spec, servingtest.File(t, servingtest.Classifier(3, -10, true)), serving.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b := &bigModel{model: model}
	door := oiphttp.New(b, oiphttp.Config{Name: "big"})
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		override := b.override
		b.mu.Unlock()
		if override != nil && strings.HasSuffix(r.URL.Path, "/infer") {
			override(w, r)
			return
		}
		door.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		b.Close()
		_ = model.Close()
	})
	return b
}

func (b *bigModel) misbehave(h http.HandlerFunc) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.override = h
}

func (b *bigModel) Ready() error { return nil }

func (b *bigModel) Model(service, _ string) (*oip.ModelMetadata, error) {
	if service != "big" {
		return nil, wire.E(wire.NotFound, "", "no such model", "")
	}
	return b.model.Metadata(), nil
}

func (b *bigModel) Infer(ctx context.Context, _, _ string, r *oip.InferRequest) (*oip.InferResponse, error) {
	b.mu.Lock()
	b.requests = append(b.requests, r)
	b.mu.Unlock()
	return b.model.Infer(ctx, r)
}

// take gives the requests since the last time.
func (b *bigModel) take() []*oip.InferRequest {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.requests
	b.requests = nil
	return r
}
