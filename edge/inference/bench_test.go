package inference

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/edgetwin/sedna/lib/algorithms/hardexample"
	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/lib/onnx"
	"github.com/edgetwin/sedna/lib/serving/servingtest"
	"github.com/edgetwin/sedna/models/oip"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// mlp is a digits-sized model, 64-32-10 with a softmax, of random weights.
func mlp(b *testing.B) []byte {
	b.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	weights := func(name string, shape ...int64) onnx.Tensor {
		n := int64(1)
		for _, d := range shape {
			n *= d
		}
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(rng.NormFloat64()) / 8
		}
		return onnx.New(name, shape, v)
	}
	model, err := onnx.Encode(&onnx.Model{Graph: onnx.Graph{
		Name: "mlp",
		Nodes: []onnx.Node{
			{Name: "n1", Op: "Gemm", Inputs: []string{"input", "w1", "b1"}, Outputs: []string{"h"}},
			{Name: "n2", Op: "Relu", Inputs: []string{"h"}, Outputs: []string{"a"}},
			{Name: "n3", Op: "Gemm", Inputs: []string{"a", "w2", "b2"}, Outputs: []string{"z"}},
			{Name: "n4", Op: "Softmax", Inputs: []string{"z"}, Outputs: []string{"probabilities"}},
		},
		Initializers: []onnx.Tensor{weights("w1", 64, 32), weights("b1", 32), weights("w2", 32, 10), weights("b2", 10)},
		Inputs:       []onnx.ValueInfo{{Name: "input", Type: onnx.Float32, Dims: onnx.Batched(64)}},
		Outputs:      []onnx.ValueInfo{{Name: "probabilities", Type: onnx.Float32, Dims: onnx.Batched(10)}},
	}})
	if err != nil {
		b.Fatal(err)
	}
	return model
}

func digits(b *testing.B, id string) *oip.InferRequest {
	b.Helper()
	v := make([]float32, 64)
	for i := range v {
		v[i] = float32(i * 7 % 17)
	}
	return &oip.InferRequest{ID: id, Inputs: []oip.Tensor{{Name: "input", Datatype: oip.FP32, Shape: []int64{1, 64}, Data: v}}}
}

func digitsManager(b *testing.B, rule string) *Manager {
	b.Helper()
	m := newManager(b, nil)
	activate(b, m, ServiceSpec{Namespace: "default", Name: "digits",
		Model:     task.Model{Name: "digits", Version: "1", Format: "onnx", Postprocess: "softmax"},
		ModelPath: servingtest.File(b, mlp(b)), HardExample: task.Algorithm{Name: rule}})
	return m
}

// BenchmarkHTTP compares an inference over HTTP JSON with an empty route of the
// same router, with the same client on 8 connections.
func BenchmarkHTTP(b *testing.B) {
	m := digitsManager(b, "CrossEntropy")
	r := gin.New()
	m.Routes(r)
	r.POST("/empty", func(c *gin.Context) { c.Status(http.StatusOK) })
	server := httptest.NewServer(r)
	defer server.Close()
	body, err := digits(b, "bench").AppendJSON(nil)
	if err != nil {
		b.Fatal(err)
	}
	const connections = 8
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections}}
	for _, c := range []struct{ name, path string }{{"empty", "/empty"}, {"digits", "/v2/models/digits/infer"}} {
		b.Run(c.name, func(b *testing.B) {
			var wg sync.WaitGroup
			work := make(chan struct{}, b.N)
			for range b.N {
				work <- struct{}{}
			}
			close(work)
			b.ResetTimer()
			for range connections {
				wg.Go(func() {
					for range work {
						resp, err := client.Post(server.URL+c.path, "application/json", bytes.NewReader(body))
						if err != nil {
							b.Error(err)
							return
						}
						_, _ = io.Copy(io.Discard, resp.Body)
						_ = resp.Body.Close()
						if resp.StatusCode != http.StatusOK {
							b.Error(resp.Status)
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
		})
	}
}

// BenchmarkServer is the same without network and client: what our handler
// costs beside an empty one.
func BenchmarkServer(b *testing.B) {
	m := digitsManager(b, "CrossEntropy")
	r := gin.New()
	m.Routes(r)
	r.POST("/empty", func(c *gin.Context) { c.Status(http.StatusOK) })
	body, err := digits(b, "bench").AppendJSON(nil)
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct{ name, path string }{{"empty", "/empty"}, {"digits", "/v2/models/digits/infer"}} {
		b.Run(c.name, func(b *testing.B) {
			w := &discard{header: http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				req := httptest.NewRequest(http.MethodPost, c.path, bytes.NewReader(body))
				r.ServeHTTP(w, req)
				if w.status != http.StatusOK && w.status != 0 {
					b.Fatal(w.status)
				}
			}
		})
	}
}

// discard is a response writer that keeps the status only.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }

// BenchmarkCascade tells what the cascade costs on top of the model: the model
// alone, with a rule that is never asked twice, with one that computes, and the
// rule by itself.
func BenchmarkCascade(b *testing.B) {
	ctx := context.Background()
	req := digits(b, "")
	b.Run("model", func(b *testing.B) {
		m := digitsManager(b, "EdgeOnly")
		_, l, err := m.lease("digits")
		if err != nil {
			b.Fatal(err)
		}
		defer l.Release()
		b.ReportAllocs()
		for b.Loop() {
			if _, err := l.Value.model.Infer(ctx, req); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, rule := range []string{"EdgeOnly", "Threshold", "CrossEntropy"} {
		b.Run(rule, func(b *testing.B) {
			m := digitsManager(b, rule)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := m.Infer(ctx, "digits", req); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("decision", func(b *testing.B) {
		miner, err := hardexample.New("CrossEntropy", nil)
		if err != nil {
			b.Fatal(err)
		}
		p := []float32{0.9, 0.02, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01}
		for b.Loop() {
			miner.Decide(hardexample.Output{Probabilities: p})
		}
	})
}

// BenchmarkBus is the gateway from a message to its result, without a broker.
func BenchmarkBus(b *testing.B) {
	m := digitsManager(b, "CrossEntropy")
	done := make(chan struct{}, 1024)
	f := &countingBus{done: done}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = m.ServeBus(ctx, f) })
	defer func() {
		cancel()
		wg.Wait()
	}()
	text, err := digits(b, "ID").AppendJSON(nil)
	if err != nil {
		b.Fatal(err)
	}
	for f.get() == nil {
	}
	const ahead = 256
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if i >= ahead {
			<-done
		}
		payload := bytes.Replace(text, []byte("ID"), fmt.Append(nil, i), 1)
		f.get()(bus.Message{Topic: wire.InferRequest("edge-a", "digits"), Payload: payload, QoS: 1})
	}
	for range min(b.N, ahead) {
		<-done
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
}

// countingBus tells of each publication.
type countingBus struct {
	fakeBus
	done chan struct{}
}

func (c *countingBus) get() func(bus.Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.handler
}

func (c *countingBus) Publish(context.Context, string, byte, bool, []byte) error {
	c.done <- struct{}{}
	return nil
}
