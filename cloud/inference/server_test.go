package inference_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/edgetwin/sedna/cloud/inference"
	_ "github.com/edgetwin/sedna/lib/engine/purego"
	"github.com/edgetwin/sedna/lib/serving"
	"github.com/edgetwin/sedna/lib/serving/servingtest"
	"github.com/edgetwin/sedna/models/oip"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// caller is the header that stands for the client certificate in these tests.
const caller = "Caller"

func newServer(t testing.TB) (*inference.Server, *httptest.Server) {
	t.Helper()
	s, err := inference.New(inference.Config{
		Node: func(r *http.Request) (string, error) {
			node := r.Header.Get(caller)
			if node == "" {
				return "", wire.E(wire.Unauthenticated, "", "no certificate", "")
			}
			return node, nil
		},
		Admin: func(r *http.Request) bool { return r.Header.Get(caller) == "admin" },
		May:   func(node, service string) bool { return node == "edge-a" && service == "svc" },
	})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	s.Routes(mux)
	web := httptest.NewServer(mux)
	t.Cleanup(func() {
		web.Close()
		s.Close()
	})
	return s, web
}

func spec(t testing.TB, version string, gain float32) inference.Spec {
	t.Helper()
	return inference.Spec{
		Model: task.Model{Name: "big", Version: version, Format: "onnx"},
		Path:  servingtest.File(t, servingtest.Classifier(3, gain, true)),
	}
}

func call(t testing.TB, node, method, url, body string) (int, []byte) {
	t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set(caller, node)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, b
}

const body = `{"id":"q","inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[5,0,0]}],"outputs":[{"name":"y"}]}`

// TestWhoMay: a node gets at the services it works for, an administrator at
// all, and a caller without a certificate at none; health is for everybody.
func TestWhoMay(t *testing.T) {
	s, web := newServer(t)
	for _, service := range []string{"svc", "other"} {
		if err := s.Set(t.Context(), service, spec(t, "1", 1)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		node, path string
		want       int
	}{
		{"edge-a", "/v2/models/svc", 200},
		{"edge-a", "/v2/models/svc/ready", 200},
		{"edge-a", "/v2/models/svc/versions/1/infer", 200},
		{"edge-a", "/v2/models/svc/infer", 200},
		{"edge-a", "/v2/models/other/infer", 403},
		{"edge-a", "/v2/models/none", 403},
		{"edge-b", "/v2/models/svc", 403},
		{"admin", "/v2/models/other/infer", 200},
		{"admin", "/v2/models/none", 404},
		{"admin", "/v2/models/svc/versions/2", 404},
		{"", "/v2/models/svc/infer", 401},
		{"", "/v2/health/ready", 200},
		{"", "/v2", 200},
	} {
		method, text := http.MethodGet, ""
		if strings.HasSuffix(c.path, "/infer") {
			method, text = http.MethodPost, body
		}
		if status, b := call(t, c.node, method, web.URL+c.path, text); status != c.want {
			t.Errorf("%q %s: %d %s", c.node, c.path, status, b)
		}
	}
}

// TestSetAndRemove: a bad model leaves the good one in place; while models are
// exchanged every request is answered.
func TestSetAndRemove(t *testing.T) {
	s, web := newServer(t)
	bad := inference.Spec{Model: task.Model{Name: "big", Version: "2", Format: "onnx"}, Path: servingtest.File(t, []byte("x"))}
	if err := s.Set(t.Context(), "svc", bad); !wire.IsCode(err, wire.BadModel) {
		t.Errorf("bad model: %v", err)
	}
	if status, _ := call(t, "edge-a", "GET", web.URL+"/v2/models/svc", ""); status != 404 {
		t.Errorf("before the first model: %d", status)
	}
	one, two := spec(t, "1", 1), spec(t, "2", -1)
	if err := s.Set(t.Context(), "svc", one); err != nil {
		t.Fatal(err)
	}
	if err := s.Set(t.Context(), "svc", bad); err == nil {
		t.Error("a bad model was taken")
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				status, b := call(t, "edge-a", "POST", web.URL+"/v2/models/svc/infer", body)
				r, err := oip.DecodeResponse(b, oip.Limits{})
				if status != 200 || err != nil {
					t.Errorf("%d %s", status, b)
					return
				}
				best := map[string]int{"1": 0, "2": 2}[r.ModelVersion]
				if v := r.Outputs[0].Data.([]float32); v[best] < 0.9 {
					t.Errorf("version %s answered %v", r.ModelVersion, v)
					return
				}
			}
		})
	}
	for i := range 40 {
		if err := s.Set(t.Context(), "svc", []inference.Spec{two, one}[i%2]); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
	s.Remove("svc")
	s.Remove("svc")
	if status, _ := call(t, "edge-a", "GET", web.URL+"/v2/models/svc", ""); status != 404 {
		t.Errorf("after Remove: %d", status)
	}
}

func TestConfig(t *testing.T) {
	if _, err := inference.New(inference.Config{}); err == nil {
		t.Error("a server that cannot tell who asks")
	}
}

// TestMemoryIsBounded: what does not fit beside the others is refused and
// counts nothing; a removed service makes room, and a replaced model counts
// once.
func TestMemoryIsBounded(t *testing.T) {
	size := modelBytes(t, spec(t, "1", 1))
	s, err := inference.New(inference.Config{
		Node: func(*http.Request) (string, error) { return "edge-a", nil }, May: func(string, string) bool { return true },
		MaxMemory: 2*size + size/2,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	set := func(service, version string) error { return s.Set(t.Context(), service, spec(t, version, 1)) }
	for _, service := range []string{"a", "b"} {
		if err := set(service, "1"); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 { // refused again and again, which must not use anything up
		if err := set("c", "1"); !wire.IsCode(err, wire.ResourceExhausted) {
			t.Fatalf("a third model: %v", err)
		}
	}
	if err := set("b", "2"); err != nil {
		t.Errorf("a model in place of another: %v", err)
	}
	s.Remove("a")
	if err := set("c", "1"); err != nil {
		t.Errorf("after one was removed: %v", err)
	}
}

// modelBytes is what a model holds once loaded.
func modelBytes(t *testing.T, s inference.Spec) int64 {
	t.Helper()
	m, err := serving.Load(t.Context(), "probe", s.Model, s.Path, serving.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	return m.MemoryBytes()
}
