package serving_test

import (
	"context"
	"errors"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgetwin/sedna/lib/engine"
	"github.com/edgetwin/sedna/lib/engine/enginetest"
	_ "github.com/edgetwin/sedna/lib/engine/purego"
	"github.com/edgetwin/sedna/lib/serving"
	"github.com/edgetwin/sedna/lib/serving/servingtest"
	"github.com/edgetwin/sedna/models/oip"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

func spec(postprocess string) task.Model {
	return task.Model{Name: "m", Version: "1", Format: "onnx", Labels: []string{"a", "b", "c"}, Postprocess: postprocess}
}

func load(t testing.TB, post string, gain float32, softmax bool) *serving.Model {
	t.Helper()
	m, err := serving.Load(t.Context(), "svc", spec(post), servingtest.File(t, servingtest.Classifier(3, gain, softmax)), serving.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

func request(rows ...[]float32) *oip.InferRequest {
	var v []float32
	for _, r := range rows {
		v = append(v, r...)
	}
	return &oip.InferRequest{ID: "q", Inputs: []oip.Tensor{{Name: "x", Datatype: oip.FP32, Shape: []int64{int64(len(rows)), 3}, Data: v}}}
}

// TestSoftmaxOnce: with postprocess softmax the scores are probabilities, and
// the same ones whether the graph has the softmax or we apply it.
func TestSoftmaxOnce(t *testing.T) {
	q := request([]float32{1, 2, 3}, []float32{0, 0, 0})
	var answers [2][]float32
	for i, inGraph := range []bool{false, true} {
		m := load(t, serving.Softmax, 1, inGraph)
		r, err := m.Infer(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		answers[i] = r.Outputs[0].Data.([]float32)
		s, ok := m.Scores(r, m.Rows(q))
		if !ok {
			t.Fatal("no scores")
		}
		if class, p := s.Best(0); m.Label(class) != "c" || math.Abs(p-0.66524096) > 1e-6 {
			t.Errorf("in graph %v: best is %q, %v", inGraph, m.Label(class), p)
		}
	}
	for i := range answers[0] {
		if math.Abs(float64(answers[0][i]-answers[1][i])) > 1e-6 {
			t.Errorf("ours %v, the graph's %v", answers[0], answers[1])
		}
	}
	r, err := load(t, "", 1, false).Infer(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]float32{1, 2, 3, 0, 0, 0}, r.Outputs[0].Data); diff != "" {
		t.Errorf("without softmax the outputs are the graph's (-want +got):\n%s", diff)
	}
}

func TestLoadErrors(t *testing.T) {
	good := servingtest.File(t, servingtest.Classifier(3, 1, false))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		name  string
		ctx   context.Context
		edit  func(*task.Model)
		path  string
		open  serving.Opener
		code  wire.Code
		field string
	}{
		{name: "unknown format", edit: func(m *task.Model) { m.Format = "tflite" }, code: wire.BadModel, field: "model.format"},
		{name: "no file", path: good + ".gone", code: wire.BadModel, field: "model"},
		{name: "no model", path: servingtest.File(t, []byte("garbage")), code: wire.BadModel, field: "model"},
		{name: "detections", edit: func(m *task.Model) { m.Postprocess = "detections" }, code: wire.Unimplemented, field: "model.postprocess"},
		{name: "unknown postprocess", edit: func(m *task.Model) { m.Postprocess = "x" }, code: wire.InvalidArgument, field: "model.postprocess"},
		{name: "worker", edit: func(m *task.Model) { m.Runtime = "worker" }, code: wire.Unimplemented, field: "model.runtime"},
		{name: "unknown runtime", edit: func(m *task.Model) { m.Runtime = "x" }, code: wire.InvalidArgument, field: "model.runtime"},
		{name: "labels", edit: func(m *task.Model) { m.Labels = []string{"a"} }, code: wire.InvalidArgument, field: "model.labels"},
		{name: "context", ctx: ended, code: wire.DeadlineExceeded, field: "model"},
		{name: "native library", code: wire.Unavailable, field: "model.runtime",
			open: func(context.Context, string, string, engine.Options) (engine.Session, engine.Engine, error) {
				return nil, nil, engine.ErrUnavailable
			}},
	} {
		m := spec("")
		if c.edit != nil {
			c.edit(&m)
		}
		if c.path == "" {
			c.path = good
		}
		if c.ctx == nil {
			c.ctx = t.Context()
		}
		_, err := serving.Load(c.ctx, "svc", m, c.path, serving.Options{Open: c.open})
		if e := wire.AsError(err); err == nil || e.Code != c.code || e.Field != c.field {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestInferErrors(t *testing.T) {
	m := load(t, "", 1, false)
	nan := float32(math.NaN())
	for _, c := range []struct {
		name  string
		edit  func(*oip.InferRequest)
		field string
	}{
		{"wrong name", func(r *oip.InferRequest) { r.Inputs[0].Name = "z" }, "inputs[0].name"},
		{"wrong datatype", func(r *oip.InferRequest) { r.Inputs[0].Datatype = oip.FP64 }, "inputs[0].datatype"},
		{"wrong shape", func(r *oip.InferRequest) { r.Inputs[0].Shape = []int64{3} }, "inputs[0].shape"},
		{"too few", func(r *oip.InferRequest) { r.Inputs[0].Data = []float32{1} }, "inputs[0].data"},
		{"NaN", func(r *oip.InferRequest) { r.Inputs[0].Data = []float32{0, nan, 0} }, "inputs[0].data[1]"},
		{"none", func(r *oip.InferRequest) { r.Inputs = nil }, "inputs"},
		{"unknown output", func(r *oip.InferRequest) { r.Outputs = []oip.RequestedOutput{{Name: "y"}, {Name: "z"}} }, "outputs[1].name"},
	} {
		q := request([]float32{1, 2, 3})
		c.edit(q)
		_, err := m.Infer(t.Context(), q)
		if e := wire.AsError(err); err == nil || e.Code != wire.InvalidArgument || e.Field != c.field {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Infer(t.Context(), request([]float32{1, 2, 3})); !wire.IsCode(err, wire.Unavailable) {
		t.Errorf("after Close: %v", err)
	}
}

func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		warm := false
		fake := &enginetest.Fake{EngineName: "fake", Format: []string{"onnx"},
			In: []engine.TensorInfo{{Name: "x", Datatype: engine.FP32, Shape: []int64{-1, 3}}},
			Do: func(ctx context.Context, _ []engine.Tensor) ([]engine.Tensor, error) {
				if !warm {
					return nil, nil
				}
				<-release
				return nil, nil
			}}
		m, err := serving.Load(t.Context(), "svc", spec(""), "", serving.Options{MaxConcurrent: 2, MaxQueue: 3,
			Open: func(ctx context.Context, _, path string, o engine.Options) (engine.Session, engine.Engine, error) {
				s, err := fake.Load(ctx, path, o)
				return s, fake, err
			}})
		if err != nil {
			t.Fatal(err)
		}
		warm = true
		var refused, answered atomic.Int64
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				_, err := m.Infer(t.Context(), request([]float32{1, 2, 3}))
				switch {
				case err == nil:
					answered.Add(1)
				case wire.IsCode(err, wire.ResourceExhausted):
					refused.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		close(release)
		wg.Wait()
		if refused.Load() != 3 || answered.Load() != 5 {
			t.Errorf("%d answered, %d refused; 2 run and 3 wait", answered.Load(), refused.Load())
		}
	})
}

// TestEnginePanics: a request that makes the engine panic is refused.
func TestEnginePanics(t *testing.T) {
	fake := &enginetest.Fake{EngineName: "fake", Format: []string{"onnx"},
		In: []engine.TensorInfo{{Name: "x", Datatype: engine.FP32, Shape: []int64{-1, 3}}},
		Do: func(_ context.Context, in []engine.Tensor) ([]engine.Tensor, error) {
			if in[0].Data.([]float32)[0] != 0 {
				panic("boom")
			}
			return nil, nil
		}}
	m, err := serving.Load(t.Context(), "svc", spec(""), "", serving.Options{
		Open: func(ctx context.Context, _, path string, o engine.Options) (engine.Session, engine.Engine, error) {
			s, err := fake.Load(ctx, path, o)
			return s, fake, err
		}})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 * runtime.GOMAXPROCS(0) {
		if _, err := m.Infer(t.Context(), request([]float32{1, 2, 3})); !wire.IsCode(err, wire.BadModel) {
			t.Errorf("%v", err)
		}
	}
}

func TestQueueDeadline(t *testing.T) {
	g := serving.NewGate("model x", 1, 1)
	if err := g.Enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := g.Enter(ctx); !wire.IsCode(err, wire.DeadlineExceeded) {
		t.Errorf("waiting beyond the deadline: %v", err)
	}
	g.Leave()
	if err := g.Enter(t.Context()); err != nil {
		t.Errorf("after the turn came back: %v", err)
	}
}

// TestSwapUnderLoad: callers see one model or the other, never a closed one,
// and each model is closed once, after its last call.
func TestSwapUnderLoad(t *testing.T) {
	type thing struct {
		users  atomic.Int64
		closed atomic.Int64
	}
	var slot serving.Slot[*thing]
	if slot.Acquire() != nil {
		t.Fatal("an empty slot gave a lease")
	}
	var made []*thing
	swap := func() {
		v := &thing{}
		made = append(made, v)
		slot.Swap(v, func() {
			if v.closed.Add(1) != 1 || v.users.Load() != 0 {
				t.Errorf("closed %d times, %d users", v.closed.Load(), v.users.Load())
			}
		})
	}
	swap()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				l := slot.Acquire()
				l.Value.users.Add(1)
				if l.Value.closed.Load() != 0 {
					t.Error("leased what was closed")
				}
				l.Value.users.Add(-1)
				l.Release()
			}
		})
	}
	for range 2000 {
		swap()
	}
	close(stop)
	wg.Wait()
	slot.Clear()
	for i, v := range made {
		if v.closed.Load() != 1 {
			t.Fatalf("value %d was closed %d times", i, v.closed.Load())
		}
	}
}

func TestRowsAndScores(t *testing.T) {
	m := load(t, serving.None, 1, false)
	if n := m.Rows(request([]float32{1, 2, 3}, []float32{4, 5, 6})); n != 2 {
		t.Errorf("%d rows", n)
	}
	if m.Label(0) != "" {
		t.Error("a label where outputs are no classes")
	}
	f64 := &oip.InferResponse{Outputs: []oip.Tensor{
		{Name: "n", Datatype: oip.Int64, Shape: []int64{1}, Data: []int64{1}},
		{Name: "other", Datatype: oip.FP64, Shape: []int64{2, 2}, Data: []float64{0.5, 0.5, math.NaN(), 0.25}},
	}}
	s, ok := m.Scores(f64, 2)
	if class, p := s.Best(1); !ok || class != 1 || p != 0.25 {
		t.Errorf("scores of another model: %v, class %d, %v", ok, class, p)
	}
	if _, ok := m.Scores(f64, 3); ok {
		t.Error("4 scores are not those of 3 samples")
	}
}

func TestModelIsWhatItSays(t *testing.T) {
	m := load(t, "", 1, false)
	meta := m.Metadata()
	if meta.Name != "svc" || meta.Platform != "purego_onnx" || len(meta.Versions) != 1 || meta.Inputs[0].Name != "x" || m.MemoryBytes() <= 0 {
		t.Errorf("%+v", meta)
	}
	r, err := m.Infer(t.Context(), request([]float32{1, 2, 3}))
	if err != nil || r.ID != "q" || r.ModelName != "svc" || r.ModelVersion != "1" {
		t.Errorf("%+v, %v", r, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Infer(ctx, request([]float32{1, 2, 3})); !wire.IsCode(err, wire.Unavailable) || errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func BenchmarkInfer(b *testing.B) {
	m := load(b, serving.Softmax, 1, true)
	q := request([]float32{1, 2, 3})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Infer(b.Context(), q); err != nil {
			b.Fatal(err)
		}
	}
}
