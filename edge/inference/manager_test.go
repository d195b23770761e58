package inference

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/edgetwin/sedna/lib/engine"
	"github.com/edgetwin/sedna/lib/serving/servingtest"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

func modelFile(t testing.TB, gain float32, softmax bool) string {
	return servingtest.File(t, servingtest.Classifier(3, gain, softmax))
}

// counting opens models with the real engine and counts them.
type counting struct{ opened atomic.Int64 }

func (c *counting) open(ctx context.Context, format, path string, o engine.Options) (engine.Session, engine.Engine, error) {
	c.opened.Add(1)
	return engine.Open(ctx, format, path, o)
}

func TestActivate(t *testing.T) {
	var c counting
	m := newManager(t, func(cfg *Config) { cfg.Open = c.open })
	spec := serviceSpec(t, "http://127.0.0.1:1")
	activate(t, m, spec)
	activate(t, m, spec)
	if n := c.opened.Load(); n != 1 {
		t.Errorf("the same spec again loaded the model again: %d", n)
	}
	version := func() any {
		t.Helper()
		r, err := m.Infer(t.Context(), "svc", request("", easyA))
		if err != nil {
			t.Fatal(err)
		}
		return r.Parameters[ParamVersion]
	}
	for name, c := range map[string]struct {
		edit  func(*ServiceSpec)
		code  wire.Code
		field string
	}{
		"corrupt model": {func(s *ServiceSpec) { s.ModelPath = servingtest.File(t, []byte("x")) }, wire.BadModel, "model"},
		"format":        {func(s *ServiceSpec) { s.Model.Format = "mindir" }, wire.BadModel, "model.format"},
		"rule":          {rule("Oracle"), wire.InvalidArgument, "hardExampleMining.name"},
		"parameter": {func(s *ServiceSpec) { s.HardExample.Parameters = []task.Parameter{{Key: "threshold", Value: "high"}} },
			wire.InvalidArgument, "hardExampleMining.parameters"},
		"cloud URL":  {func(s *ServiceSpec) { s.Cloud = &task.CloudSide{URL: "ftp://x", Model: "m"} }, wire.InvalidArgument, "cloud.url"},
		"cloud path": {func(s *ServiceSpec) { s.Cloud = &task.CloudSide{URL: "/", Model: "m"} }, wire.FailedPrecondition, "cloud.url"},
	} {
		bad := spec
		bad.Model.Version = "2"
		c.edit(&bad)
		err := m.Activate(t.Context(), bad)
		if e := wire.AsError(err); err == nil || e.Code != c.code || e.Field != c.field {
			t.Errorf("%s: %v", name, err)
		}
		bad.Name = "other"
		if err := m.Activate(t.Context(), bad); err == nil {
			t.Errorf("%s: taken as another service", name)
		}
		if _, err := m.Infer(t.Context(), "other", request("", easyA)); !wire.IsCode(err, wire.NotFound) {
			t.Errorf("%s: a service that never was answers: %v", name, err)
		}
		if v := version(); v != "1" {
			t.Fatalf("%s: version %v answers", name, v)
		}
	}
	before := m.services["svc"].current.cloud
	spec.Model.Version = "2"
	activate(t, m, spec)
	if v := version(); v != "2" {
		t.Errorf("version %v answers", v)
	}
	if m.services["svc"].current.cloud != before {
		t.Error("the circuit was forgotten with the model")
	}
	m.Deactivate("default", "svc")
	m.Deactivate("default", "svc")
	if _, err := m.Infer(t.Context(), "svc", request("", easyA)); !wire.IsCode(err, wire.NotFound) {
		t.Errorf("after Deactivate: %v", err)
	}
	if len(m.Models()) != 0 {
		t.Errorf("left: %+v", m.Models())
	}
}

func TestServicesAreBounded(t *testing.T) {
	m := newManager(t, func(c *Config) { c.Limits.MaxServices = 2 })
	spec := serviceSpec(t, "")
	for i := range 3 {
		spec.Name = fmt.Sprint("svc", i)
		if err := m.Activate(t.Context(), spec); (err != nil) != (i == 2) || err != nil && !wire.IsCode(err, wire.ResourceExhausted) {
			t.Errorf("service %d: %v", i, err)
		}
	}
	m.Deactivate("default", "svc0")
	activate(t, m, spec)
	m.Close()
	if err := m.Activate(t.Context(), spec); !wire.IsCode(err, wire.Unavailable) {
		t.Errorf("after Close: %v", err)
	}
}

// TestSwapUnderLoad: while the model is exchanged again and again every request
// is answered, by one model alone: its version goes with its answer.
func TestSwapUnderLoad(t *testing.T) {
	m := newManager(t, func(c *Config) { c.Limits.MaxQueue = 1 << 10 })
	specs := [2]ServiceSpec{serviceSpec(t, ""), serviceSpec(t, "")}
	specs[1].Model.Version = "2"
	specs[1].ModelPath = modelFile(t, -1, true) // classes in reverse
	activate(t, m, specs[0])
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var answered atomic.Int64
	for range 6 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				r, err := m.Infer(context.Background(), "svc", with(request("", easyA), ParamExplain, true))
				if err != nil {
					t.Error(err)
					return
				}
				want := map[any]string{"1": "a", "2": "c"}[r.Parameters[ParamVersion]]
				if r.Parameters[ParamLabel] != want || r.ModelVersion != r.Parameters[ParamVersion] {
					t.Errorf("%v of version %v", r.Parameters, r.ModelVersion)
					return
				}
				answered.Add(1)
			}
		})
	}
	for i := range 200 {
		activate(t, m, specs[(i+1)%2])
	}
	close(stop)
	wg.Wait()
	if answered.Load() == 0 {
		t.Error("nothing was answered")
	}
}

// TestActivateAndDeactivateAtOnce: whatever the order, the last word counts and
// nothing is left open.
func TestActivateAndDeactivateAtOnce(t *testing.T) {
	m := newManager(t, nil)
	spec := serviceSpec(t, "http://127.0.0.1:1")
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			s := spec
			for i := range 20 {
				s.Model.Version = fmt.Sprint(g, i)
				if err := m.Activate(context.Background(), s); err != nil {
					t.Error(err)
				}
				m.Deactivate(s.Namespace, s.Name)
			}
		})
	}
	wg.Wait()
	if n := len(m.Models()); n != 0 {
		t.Errorf("%d services left", n)
	}
}

func TestSeed(t *testing.T) {
	flags := func(seed uint64) (s string) {
		m := newManager(t, func(c *Config) { c.Seed = seed })
		spec := serviceSpec(t, "")
		spec.HardExample = task.Algorithm{Name: "Random", Parameters: []task.Parameter{{Key: "random_ratio", Value: "0.5"}}}
		activate(t, m, spec)
		for range 32 {
			r, err := m.Infer(t.Context(), "svc", request("", easyA))
			if err != nil {
				t.Fatal(err)
			}
			s += fmt.Sprint(r.Parameters[ParamHardExample])[:1]
		}
		return s
	}
	if first, again := flags(7), flags(7); first != again || first == flags(8) {
		t.Error("chance does not follow the seed")
	}
}
