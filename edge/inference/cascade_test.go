package inference

import (
	"context"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgetwin/sedna/models/oip"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

func rule(name string) func(*ServiceSpec) {
	return func(s *ServiceSpec) { s.HardExample = task.Algorithm{Name: name} }
}

func noCloud(s *ServiceSpec) { s.Cloud = nil }

// TestCascade compares the parameters of answers, and which samples the cloud
// got, with what each rule and each wish of the caller lead to.
func TestCascade(t *testing.T) {
	explained := func(rows ...[]float32) *oip.InferRequest { return with(request("q", rows...), ParamExplain, true) }
	routed := func(side string, rows ...[]float32) *oip.InferRequest {
		return with(request("q", rows...), ParamRoute, side)
	}
	big := newBigModel(t)
	type result struct {
		Parameters oip.Parameters `json:"parameters,omitempty"`
		Error      string         `json:"error,omitempty"`
		CloudRows  []int64        `json:"cloudRows"` // samples in each call of the cloud
	}
	got := map[string]result{}
	for _, c := range []struct {
		name string
		edit func(*ServiceSpec)
		req  *oip.InferRequest
	}{
		{"easy", nil, request("q", easyA)},
		{"hard", nil, request("q", hardA)},
		{"hard, no cloud", noCloud, request("q", hardA)},
		{"easy, explained", nil, explained(easyA)},
		{"hard, explained", nil, explained(hardA)},
		{"batch of easy", nil, request("q", easyA, easyB)},
		{"mixed batch", nil, request("q", easyA, hardA, easyB, hardC)},
		{"mixed batch, explained", nil, explained(easyA, hardA, easyB, hardC)},
		{"batch of hard", nil, request("q", hardA, hardC)},
		{"edge only", rule("EdgeOnly"), request("q", hardA)},
		{"cloud only", rule("CloudOnly"), request("q", easyA)},
		{"cloud only, explained", rule("CloudOnly"), explained(easyA)},
		{"cloud only, no cloud", func(s *ServiceSpec) { rule("CloudOnly")(s); noCloud(s) }, request("q", easyA)},
		{"cloud only, bad request", rule("CloudOnly"), request("q", easyA[:2])},
		{"route edge", nil, routed("edge", hardA)},
		{"route cloud", nil, routed("cloud", easyA)},
		{"route cloud, explained", nil, with(explained(easyA), ParamRoute, "cloud")},
		{"route cloud, batch", nil, routed("cloud", easyA, easyB)},
		{"route cloud, no cloud", noCloud, routed("cloud", easyA)},
		{"route wrong", nil, routed("moon", easyA)},
		{"explain wrong", nil, with(request("q", easyA), ParamExplain, "yes")},
		{"no rule", rule(""), request("q", hardA)},
		{"labels are none", func(s *ServiceSpec) { s.Model.Postprocess = "none" }, explained(hardA)},
	} {
		m := newManager(t, nil)
		spec := serviceSpec(t, big.URL)
		if c.edit != nil {
			c.edit(&spec)
		}
		activate(t, m, spec)
		var r result
		resp, err := m.Infer(t.Context(), "svc", c.req)
		if err != nil {
			r.Error = err.Error()
		} else {
			r.Parameters = resp.Parameters
			if resp.ID != "q" || resp.ModelName != "svc" || resp.ModelVersion != resp.Parameters[ParamVersion] {
				t.Errorf("%s: %+v", c.name, resp)
			}
		}
		for _, call := range big.take() {
			r.CloudRows = append(r.CloudRows, call.Inputs[0].Shape[0])
			if call.Parameters != nil {
				t.Errorf("%s: parameters went to the cloud: %v", c.name, call.Parameters)
			}
		}
		got[c.name] = r
	}
	golden(t, "testdata/cascade.json", got)
}

// TestMerge: a mixed batch has the edge's rows and the cloud's, each in place.
func TestMerge(t *testing.T) {
	big := newBigModel(t)
	m := newManager(t, nil)
	activate(t, m, serviceSpec(t, big.URL))
	mixed, err := m.Infer(t.Context(), "svc", request("", easyA, hardA, easyB, hardC))
	if err != nil {
		t.Fatal(err)
	}
	var want []float32
	for _, row := range []struct {
		side string
		x    []float32
	}{{"edge", easyA}, {"cloud", hardA}, {"edge", easyB}, {"cloud", hardC}} {
		one, err := m.Infer(t.Context(), "svc", with(request("", row.x), ParamRoute, row.side))
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, one.Outputs[0].Data.([]float32)...)
	}
	if diff := cmp.Diff(want, mixed.Outputs[0].Data); diff != "" {
		t.Errorf("-one by one +batch:\n%s", diff)
	}
}

// TestMergeThatDoesNotFit: a cloud model with other outputs can answer whole
// requests, not parts of a batch.
func TestMergeThatDoesNotFit(t *testing.T) {
	other := http.NewServeMux()
	other.HandleFunc("GET /v2/models/big", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"name":"big","platform":"","inputs":[{"name":"x","datatype":"FP32","shape":[-1,3]}],"outputs":[{"name":"z","datatype":"FP64","shape":[-1,3]}]}`)
	})
	other.HandleFunc("POST /v2/models/big/infer", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"model_name":"big","outputs":[{"name":"z","datatype":"FP64","shape":[1,3],"data":[0,0,1]}]}`)
	})
	big := newBigModel(t)
	big.Config.Handler = other
	m := newManager(t, nil)
	activate(t, m, serviceSpec(t, big.URL))
	whole, err := m.Infer(t.Context(), "svc", with(request("", hardA), ParamExplain, true))
	if err != nil || whole.Parameters[ParamSource] != SourceCloud || whole.Parameters[ParamLabel] != "c" || whole.Outputs[0].Name != "z" {
		t.Errorf("whole: %+v, %v", whole, err)
	}
	part, err := m.Infer(t.Context(), "svc", request("", easyA, hardA))
	if err != nil || part.Parameters[ParamSource] != SourceEdge || part.Parameters[ParamFallback] != string(outputsDiffer) || part.Outputs[0].Name != "y" {
		t.Errorf("part: %+v, %v", part, err)
	}
}

func says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// TestFallback: whatever the cloud does, the edge answers in time and says why;
// or an error comes, where the service wants one.
func TestFallback(t *testing.T) {
	for _, c := range []struct {
		name   string
		cloud  func(*bigModel)
		reason string
	}{
		{"dead", func(b *bigModel) { b.Close() }, "cloud unreachable"},
		{"breaks off", func(b *bigModel) {
			b.misbehave(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
		}, "cloud unreachable"},
		{"slow", func(b *bigModel) {
			b.misbehave(func(_ http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				<-r.Context().Done()
			})
		}, "timeout"},
		{"garbage", func(b *bigModel) { b.misbehave(says(200, "<html>")) }, "bad cloud answer"},
		{"wrong shape", func(b *bigModel) {
			b.misbehave(says(200, `{"model_name":"big","outputs":[{"name":"y","datatype":"FP32","shape":[1,2],"data":[0,1]}]}`))
		}, "bad cloud answer"},
		{"oversized", func(b *bigModel) { b.misbehave(says(200, strings.Repeat(" ", 1<<20))) }, "bad cloud answer"},
		{"failing", func(b *bigModel) { b.misbehave(says(500, "oops")) }, "cloud error"},
		{"refusing", func(b *bigModel) { b.misbehave(says(422, "{}")) }, "cloud refused"},
		{"overloaded", func(b *bigModel) { b.misbehave(says(429, "{}")) }, "busy"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			big := newBigModel(t)
			m := newManager(t, func(cfg *Config) { cfg.Limits.Request.MaxBody = 1 << 16 })
			spec := serviceSpec(t, big.URL)
			spec.Cloud.TimeoutMilliseconds = 300
			activate(t, m, spec)
			spec.Name, spec.OnCloudError = "strict", task.AnswerAnError
			activate(t, m, spec)
			c.cloud(big)
			for _, q := range []*oip.InferRequest{request("", hardA), request("", easyA, hardA), with(request("", easyA), ParamRoute, "cloud")} {
				begin := time.Now()
				r, err := m.Infer(t.Context(), "svc", q)
				if err != nil {
					t.Fatal(err)
				}
				if r.Parameters[ParamSource] != SourceEdge || r.Parameters[ParamFallback] != c.reason && r.Parameters[ParamFallback] != "circuit open" {
					t.Errorf("%v", r.Parameters)
				}
				if took := time.Since(begin); took > 2*time.Second {
					t.Errorf("took %v", took)
				}
			}
			_, err := m.Infer(t.Context(), "strict", request("", hardA))
			if !wire.IsCode(err, wire.Unavailable) || !strings.Contains(err.Error(), c.reason) {
				t.Errorf("strict: %v", err)
			}
		})
	}
}

// TestRecovery: three failures open the circuit; when the cloud is back, hard
// samples go there again with nobody doing anything.
func TestRecovery(t *testing.T) {
	big := newBigModel(t)
	m := newManager(t, nil)
	activate(t, m, serviceSpec(t, big.URL))
	ask := func() oip.Parameters {
		t.Helper()
		r, err := m.Infer(t.Context(), "svc", request("", hardA))
		if err != nil {
			t.Fatal(err)
		}
		return r.Parameters
	}
	if p := ask(); p[ParamSource] != SourceCloud {
		t.Fatalf("%v", p)
	}
	big.misbehave(says(500, ""))
	for range 3 {
		if p := ask(); p[ParamFallback] != "cloud error" {
			t.Fatalf("%v", p)
		}
	}
	if p := ask(); p[ParamFallback] != "circuit open" {
		t.Fatalf("%v", p)
	}
	if s := m.Models()[0].Cloud; s.Circuit != "open" || s.LastError == "" {
		t.Errorf("%+v", s)
	}
	big.misbehave(nil)
	deadline := time.Now().Add(5 * time.Second)
	for ask()[ParamSource] != SourceCloud {
		if time.Now().After(deadline) {
			t.Fatal("the cloud is back and is not asked")
		}
		time.Sleep(20 * time.Millisecond)
	}
	if s := m.Models()[0].Cloud; s.Circuit != "closed" {
		t.Errorf("%+v", s)
	}
}

// TestCallerGoesAway: the end of the caller's context is no failure of the
// cloud's and gets no answer.
func TestCallerGoesAway(t *testing.T) {
	big := newBigModel(t)
	entered := make(chan struct{}, 1)
	big.misbehave(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		entered <- struct{}{}
		<-r.Context().Done()
	})
	m := newManager(t, nil)
	activate(t, m, serviceSpec(t, big.URL))
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-entered
		cancel()
	}()
	if _, err := m.Infer(ctx, "svc", request("", hardA)); !wire.IsCode(err, wire.Unavailable) {
		t.Errorf("%v", err)
	}
	if s := m.Models()[0].Cloud; s.Failures != 0 {
		t.Errorf("%+v", s)
	}
}

// TestBrokenModel: an output that is not a number is hard, and is refused by
// the encoding when the cloud cannot help either.
func TestBrokenModel(t *testing.T) {
	big := newBigModel(t)
	m := newManager(t, nil)
	activate(t, m, serviceSpec(t, big.URL))
	q := request("", []float32{math.MaxFloat32, 0, 0})
	spec := serviceSpec(t, "")
	spec.Name, spec.ModelPath = "overflows", modelFile(t, -math.MaxFloat32, false)
	activate(t, m, spec)
	r, err := m.Infer(t.Context(), "overflows", q)
	if err != nil || r.Parameters[ParamHardExample] != true {
		t.Fatalf("%+v, %v", r, err)
	}
	if _, err := r.AppendJSON(nil); !wire.IsCode(err, wire.BadModel) {
		t.Errorf("%v", err)
	}
}
