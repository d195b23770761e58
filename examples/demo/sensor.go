package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/models/wire"
)

// Sample is one input of a sensor, a line of its input file.
type Sample struct {
	ID    string    `json:"id"`
	Index int       `json:"index"` // in the data set
	Label string    `json:"label"` // the truth
	Data  []float32 `json:"data"`
}

// Answer is one request and what came back, a line of the answers file.
type Answer struct {
	ID        string  `json:"id"`
	Index     int     `json:"index"`
	Label     string  `json:"label"`
	Phase     string  `json:"phase"`
	Transport string  `json:"transport"` // mqtt or http
	Edge      string  `json:"edge"`      // the edge model's answer; empty when it was not asked
	Cloud     string  `json:"cloud"`     // the cloud model's answer; empty when it was not asked
	Final     string  `json:"final"`     // empty: lost or refused
	Source    string  `json:"source"`
	Hard      bool    `json:"hard"`
	Fallback  string  `json:"fallback"`
	Error     string  `json:"error,omitempty"`
	Results   int     `json:"results"` // how many results came for this request; 1 is right
	LatencyMS float64 `json:"latency_ms"`
}

// Sensor publishes samples to a service on the bus and collects the results.
type Sensor struct {
	URL     string // of the MQTT broker
	Node    string
	Service string
	Phase   string
	Window  int           // requests under way at once
	Timeout time.Duration // for the results of a window that has stopped moving
}

// request is the Open Inference Protocol's form of one sample. It asks for the
// labels of both sides, so that they can be compared.
func (s Sample) request() []byte {
	b, err := json.Marshal(map[string]any{
		"id":         s.ID,
		"parameters": map[string]any{"sedna_explain": true},
		"inputs":     []any{map[string]any{"name": "input", "shape": []int{1, len(s.Data)}, "datatype": "FP32", "data": s.Data}},
	})
	if err != nil {
		panic(err) // numbers and strings always marshal
	}
	return b
}

// read fills the answer from a response body of either form.
func (a *Answer) read(body []byte) {
	var r struct {
		Error      string         `json:"error"`
		Code       string         `json:"code"`
		Parameters map[string]any `json:"parameters"`
	}
	if err := json.Unmarshal(body, &r); err != nil {
		a.Error = "not JSON: " + err.Error()
		return
	}
	if r.Error != "" {
		a.Error = r.Code + ": " + r.Error
		return
	}
	text := func(k string) string { s, _ := r.Parameters[k].(string); return s }
	a.Final, a.Source, a.Fallback, a.Edge = text("sedna_label"), text("sedna_source"), text("sedna_fallback"), text("sedna_edge_label")
	a.Hard, _ = r.Parameters["sedna_hard_example"].(bool)
	if a.Source == "cloud" {
		a.Cloud = a.Final
	}
}

// Run sends all samples, at most Window under way at once, and gives one
// answer each, in order, and the time from the first request to the last
// result. A request without a result within Timeout of the last
// movement is lost. At the end one more request is sent: when its result is
// there, a duplicate of an earlier one would be too.
func (s Sensor) Run(ctx context.Context, samples []Sample) ([]Answer, time.Duration, error) {
	c, err := bus.New(bus.Options{URL: s.URL, ClientID: "sensor-" + s.Phase, CleanSession: true})
	if err != nil {
		return nil, 0, err
	}
	answers := make([]Answer, len(samples)+1)
	last := samples[len(samples)-1]
	last.ID += "-end"
	all := append(append([]Sample{}, samples...), last)
	byTopic := make(map[string]int, len(all))
	for i, p := range all {
		answers[i] = Answer{ID: p.ID, Index: p.Index, Label: p.Label, Phase: s.Phase, Transport: "mqtt"}
		byTopic[wire.InferResult(s.Node, s.Service, p.ID)] = i
	}
	sent := make([]time.Time, len(all))
	var mu sync.Mutex
	arrived := make(chan int, len(all)+16)
	c.Subscribe(wire.InferResult(s.Node, s.Service, "+"), 1, func(m bus.Message) {
		i, ours := byTopic[m.Topic]
		if !ours {
			return
		}
		mu.Lock()
		a := &answers[i]
		a.Results++
		first := a.Results == 1
		if first {
			a.LatencyMS = float64(time.Since(sent[i]).Microseconds()) / 1000
			a.read(m.Payload)
		}
		mu.Unlock()
		if first {
			arrived <- i
		}
	})
	connected := make(chan struct{}, 1)
	c.OnConnect(func() {
		select {
		case connected <- struct{}{}:
		default:
		}
	})
	c.Start(ctx)
	defer c.Close()
	select {
	case <-connected:
	case <-time.After(s.Timeout):
		return nil, 0, fmt.Errorf("sensor: no connection to %s within %s", s.URL, s.Timeout)
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}

	send := func(i int) error {
		mu.Lock()
		sent[i] = time.Now()
		mu.Unlock()
		return c.Publish(ctx, wire.InferRequest(s.Node, s.Service), 1, false, all[i].request())
	}
	await := func() error {
		select {
		case <-arrived:
		case <-time.After(s.Timeout):
			return errLost
		case <-ctx.Done():
			return ctx.Err()
		}
		return nil
	}
	under, began := 0, time.Now()
	for i := range samples {
		if under == s.Window {
			if err := await(); err != nil && !errors.Is(err, errLost) {
				return nil, 0, err
			}
			under--
		}
		if err := send(i); err != nil {
			return nil, 0, fmt.Errorf("sensor: publish %s: %w", all[i].ID, err)
		}
		under++
	}
	for ; under > 0; under-- {
		if err := await(); errors.Is(err, errLost) {
			break
		} else if err != nil {
			return nil, 0, err
		}
	}
	took := time.Since(began)
	if err := send(len(samples)); err != nil {
		return nil, 0, err
	}
	if err := await(); err != nil && !errors.Is(err, errLost) {
		return nil, 0, err
	}
	mu.Lock()
	defer mu.Unlock()
	return append([]Answer(nil), answers[:len(samples)]...), took, nil
}

var errLost = errors.New("no result in time")

// RunFiles runs the sensor over a file of samples and writes a file of
// answers: what the sensor process does. It tells how long the requests took.
func (s Sensor) RunFiles(ctx context.Context, input, output string) (time.Duration, error) {
	f, err := os.Open(input)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	samples, err := readLines[Sample](f)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", input, err)
	}
	if len(samples) == 0 {
		return 0, fmt.Errorf("%s: expected at least one sample", input)
	}
	answers, took, err := s.Run(ctx, samples)
	if err != nil {
		return 0, err
	}
	return took, writeLines(output, answers)
}

// readLines reads JSON lines.
func readLines[T any](r io.Reader) ([]T, error) {
	const longest = 1 << 20
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, longest)
	var out []T
	for lines.Scan() {
		var v T
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			return nil, fmt.Errorf("line %d: %w", len(out)+1, err)
		}
		out = append(out, v)
	}
	return out, lines.Err()
}

// writeLines writes JSON lines.
func writeLines[T any](path string, values []T) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	enc := json.NewEncoder(w)
	for _, v := range values {
		if err := enc.Encode(v); err != nil {
			f.Close()
			return err
		}
	}
	return errors.Join(w.Flush(), f.Close())
}
