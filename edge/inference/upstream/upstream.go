package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edgetwin/sedna/models/oip"
	"github.com/edgetwin/sedna/models/wire"
)

// Reason says in a few fixed words why there is no answer.
type Reason string

// Reasons why the other side did not answer.
const (
	Unreachable Reason = "cloud unreachable" // no connection, or it broke
	TimedOut    Reason = "timeout"           // no answer within the timeout
	CircuitOpen Reason = "circuit open"      // not asked: it failed too often before
	Busy        Reason = "busy"              // not asked, too many calls are under way; or it refused for its load
	Failing     Reason = "cloud error"       // it answered with an error of its own
	Refused     Reason = "cloud refused"     // it does not take this request
	BadAnswer   Reason = "bad cloud answer"  // it answered with what the model does not announce
)

// Failure is the error of a call without an answer.
type Failure struct {
	Reason Reason
	Err    error // what happened; nil when the other side was not asked
}

func (f *Failure) Error() string {
	if f.Err == nil {
		return string(f.Reason)
	}
	return string(f.Reason) + ": " + f.Err.Error()
}

func (f *Failure) Unwrap() error { return f.Err }

// Config says where the model is. Zero fields mean the defaults.
type Config struct {
	// URL is the server's base, with or without /v2. Required.
	URL string
	// Model is the model's name there. Required.
	Model string
	// Client carries the calls; its TLS configuration is the caller's. Required.
	Client *http.Client
	// Timeout is how long one call may take. Default 2 s.
	Timeout time.Duration
	// MaxConcurrent is how many calls may be under way. Default 16.
	MaxConcurrent int
	// Limits bound what is read of an answer.
	Limits oip.Limits
	// Threshold is how many failures in a row open the circuit. Default 3.
	Threshold int
	// ProbeMin and ProbeMax are the times between probes of an open circuit,
	// doubling, less up to a fifth by chance. Defaults 1 s and 30 s.
	ProbeMin, ProbeMax time.Duration
	// ProbeTimeout bounds one probe. Default 5 s.
	ProbeTimeout time.Duration
	// Log tells of changes of the circuit. Default: none.
	Log *slog.Logger
}

func (c *Config) normalize() error {
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return wire.E(wire.InvalidArgument, "cloud.url", fmt.Sprintf("is %.200q, expected an http(s) URL", c.URL), "")
	}
	if c.Model == "" {
		return wire.E(wire.InvalidArgument, "cloud.model", "missing", "")
	}
	if c.Client == nil {
		return wire.E(wire.FailedPrecondition, "cloud.url", "no client for this URL", "")
	}
	c.URL = strings.TrimSuffix(strings.TrimRight(c.URL, "/"), "/v2")
	c.Limits = c.Limits.WithDefaults()
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{{&c.Timeout, 2 * time.Second}, {&c.ProbeMin, time.Second}, {&c.ProbeMax, 30 * time.Second}, {&c.ProbeTimeout, 5 * time.Second}} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if c.MaxConcurrent == 0 {
		c.MaxConcurrent = 16
	}
	if c.Threshold == 0 {
		c.Threshold = 3
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Upstream calls one model. Its methods may be called from any goroutine.
type Upstream struct {
	cfg     Config
	model   string // URL of the model
	circuit *circuit
	calls   chan struct{} // one element per call under way
	meta    atomic.Pointer[oip.ModelMetadata]

	sent, received atomic.Int64 // bytes of bodies

	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// New checks the configuration and starts the prober, which also fetches the
// model's description, so that the first call finds a warm connection.
func New(cfg Config) (*Upstream, error) {
	if err := cfg.normalize(); err != nil {
		return nil, err
	}
	u := &Upstream{cfg: cfg, model: cfg.URL + "/v2/models/" + url.PathEscape(cfg.Model), calls: make(chan struct{}, cfg.MaxConcurrent)}
	u.circuit = newCircuit(cfg.Threshold, func(s State) {
		cfg.Log.Info("cloud circuit changed", "state", string(s), "url", cfg.URL, "model", cfg.Model)
	})
	ctx, cancel := context.WithCancel(context.Background())
	u.cancel = cancel
	u.wg.Go(func() { u.watch(ctx) })
	return u, nil
}

// Close stops the prober. Calls that are under way go on.
func (u *Upstream) Close() {
	u.cancel()
	u.wg.Wait()
}

// Status is what is known of the other side.
type Status struct {
	URL           string    `json:"url"`
	Model         string    `json:"model"`
	Circuit       State     `json:"circuit"`
	Since         time.Time `json:"since"`    // of the circuit's state
	Failures      int       `json:"failures"` // in a row
	LastError     string    `json:"lastError,omitempty"`
	BytesSent     int64     `json:"bytesSent"`
	BytesReceived int64     `json:"bytesReceived"`
}

// Status tells the state of the circuit and what was sent so far.
func (u *Upstream) Status() Status {
	c := u.circuit
	c.mu.Lock()
	defer c.mu.Unlock()
	return Status{
		URL: u.cfg.URL, Model: u.cfg.Model, Circuit: c.state, Since: c.since, Failures: c.failures, LastError: c.lastErr,
		BytesSent: u.sent.Load(), BytesReceived: u.received.Load(),
	}
}

// Infer has the other side answer req and checks the answer against what its
// model announces. An error is a *Failure, or ctx's when that ended first.
func (u *Upstream) Infer(ctx context.Context, req *oip.InferRequest) (*oip.InferResponse, error) {
	select {
	case u.calls <- struct{}{}:
	default:
		return nil, &Failure{Reason: Busy}
	}
	defer func() { <-u.calls }()
	if !u.circuit.enter() {
		return nil, &Failure{Reason: CircuitOpen}
	}
	limited, cancel := context.WithTimeout(ctx, u.cfg.Timeout)
	defer cancel()
	resp, err := u.call(limited, req)
	if err == nil {
		u.circuit.success()
		return resp, nil
	}
	if ctx.Err() != nil {
		u.circuit.abandon()
		return nil, ctx.Err()
	}
	f := failure(limited, err)
	switch f.Reason {
	case Busy:
		u.circuit.abandon()
	case Refused:
		u.circuit.success() // it answers; this request is what it does not take
	default:
		u.circuit.failure(f)
	}
	return nil, f
}

// failure finds the reason for an error of call.
func failure(ctx context.Context, err error) *Failure {
	var f *Failure
	switch {
	case errors.As(err, &f):
		return f
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return &Failure{TimedOut, err}
	}
	return &Failure{Unreachable, err}
}

func (u *Upstream) call(ctx context.Context, req *oip.InferRequest) (*oip.InferResponse, error) {
	meta := u.meta.Load()
	if meta == nil {
		var err error
		if meta, err = u.describe(ctx); err != nil {
			return nil, err
		}
	}
	body, err := req.AppendJSON(nil)
	if err != nil {
		return nil, &Failure{Refused, err}
	}
	u.sent.Add(int64(len(body)))
	answer, err := u.exchange(ctx, http.MethodPost, u.model+"/infer", body)
	if err != nil {
		return nil, err
	}
	resp, err := oip.DecodeResponse(answer, u.cfg.Limits)
	if err == nil {
		err = announced(meta, req, resp)
	}
	if err != nil {
		u.meta.Store(nil) // the model may have changed: ask again
		return nil, &Failure{BadAnswer, err}
	}
	return resp, nil
}

// exchange makes one HTTP call and reads a bounded answer of status 200.
func (u *Upstream) exchange(ctx context.Context, method, target string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := u.cfg.Client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.ContentLength > u.cfg.Limits.MaxBody {
		return nil, &Failure{BadAnswer, oip.TooLarge(resp.ContentLength, u.cfg.Limits)}
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, u.cfg.Limits.MaxBody+1))
	u.received.Add(int64(len(answer)))
	switch {
	case err != nil:
		return nil, err
	case int64(len(answer)) > u.cfg.Limits.MaxBody:
		return nil, &Failure{BadAnswer, oip.TooLarge(0, u.cfg.Limits)}
	case resp.StatusCode != http.StatusOK:
		return nil, &Failure{reasonOf(resp.StatusCode), wire.ParseError(resp.StatusCode, answer)}
	}
	return answer, nil
}

// reasonOf tells a request that is not taken from a server that cannot serve.
// The model not being there, or not for us, is the latter: the next request
// would fare no better.
func reasonOf(status int) Reason {
	switch status {
	case http.StatusTooManyRequests:
		return Busy
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound:
		return Failing
	}
	if status >= 400 && status < 500 {
		return Refused
	}
	return Failing
}

// announced checks an answer: all outputs that the model has, and no other, of
// the announced datatypes and shapes, with a row for each row of the request.
func announced(meta *oip.ModelMetadata, req *oip.InferRequest, resp *oip.InferResponse) error {
	if len(resp.Outputs) != len(meta.Outputs) {
		return fmt.Errorf("%d outputs, the model announces %d", len(resp.Outputs), len(meta.Outputs))
	}
	rows, batched := meta.Rows(req.Inputs)
	for i := range meta.Outputs {
		m := &meta.Outputs[i]
		t := resp.Output(m.Name)
		switch {
		case t == nil:
			return fmt.Errorf("output %q is missing", m.Name)
		case !m.Fits(t):
			return fmt.Errorf("output %q is %s of shape %v, the model announces %s of %v", m.Name, t.Datatype, t.Shape, m.Datatype, m.Shape)
		case batched && t.Shape[0] != int64(rows):
			return fmt.Errorf("output %q has %d rows, the request %d", m.Name, t.Shape[0], rows)
		}
	}
	return nil
}

// describe fetches what the model announces.
func (u *Upstream) describe(ctx context.Context) (*oip.ModelMetadata, error) {
	answer, err := u.exchange(ctx, http.MethodGet, u.model, nil)
	if err != nil {
		return nil, err
	}
	meta, err := oip.DecodeModelMetadata(answer, u.cfg.Limits)
	if err != nil {
		return nil, &Failure{BadAnswer, err}
	}
	u.meta.Store(meta)
	return meta, nil
}

// watch fetches the model's description, and then waits for the circuit to
// open and probes until it is not open any more. The back-off goes on growing
// over recoveries that did not last, and starts anew after a good call.
func (u *Upstream) watch(ctx context.Context) {
	_ = u.probe(ctx, func(ctx context.Context) error {
		_, err := u.describe(ctx)
		return err // shows again in the first call
	})
	delay := u.cfg.ProbeMin
	for {
		select {
		case <-ctx.Done():
			return
		case <-u.circuit.opened:
		}
		if u.circuit.takeRecovered() {
			delay = u.cfg.ProbeMin
		}
		for u.circuit.isOpen() {
			if !sleep(ctx, delay-rand.N(delay/5+1)) {
				return
			}
			delay = min(2*delay, u.cfg.ProbeMax)
			u.circuit.probed(u.probe(ctx, func(ctx context.Context) error {
				_, err := u.exchange(ctx, http.MethodGet, u.model+"/ready", nil)
				return err
			}))
		}
	}
}

func (u *Upstream) probe(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, u.cfg.ProbeTimeout)
	defer cancel()
	return f(ctx)
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
