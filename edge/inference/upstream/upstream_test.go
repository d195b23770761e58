package upstream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgetwin/sedna/models/oip"
	"github.com/edgetwin/sedna/models/wire"
)

const (
	meta   = `{"name":"m","platform":"p","inputs":[{"name":"x","datatype":"FP32","shape":[-1,2]}],"outputs":[{"name":"y","datatype":"FP32","shape":[-1,2]}]}`
	answer = `{"model_name":"m","model_version":"7","outputs":[{"name":"y","datatype":"FP32","shape":[1,2],"data":[0.1,0.9]}]}`
)

// cloud is an HTTP transport with a server behind it that needs no network, so
// that it works on a test's own clock.
type cloud struct {
	mu     sync.Mutex
	infer  http.HandlerFunc
	ready  bool
	probes []time.Time
	calls  int
}

func (c *cloud) set(ready bool, infer http.HandlerFunc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ready, c.infer = ready, infer
}

func (c *cloud) RoundTrip(r *http.Request) (*http.Response, error) {
	c.mu.Lock()
	infer, ready := c.infer, c.ready
	switch {
	case strings.HasSuffix(r.URL.Path, "/ready"):
		c.probes = append(c.probes, time.Now())
	case r.Method == http.MethodPost:
		c.calls++
	}
	c.mu.Unlock()
	w := httptest.NewRecorder()
	switch {
	case r.Method == http.MethodPost:
		infer(w, r)
	case !ready:
		return nil, errors.New("connection refused")
	default:
		_, _ = io.WriteString(w, meta)
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return w.Result(), nil
}

func says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func hangs(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

func request(rows int) *oip.InferRequest {
	return &oip.InferRequest{Inputs: []oip.Tensor{{Name: "x", Datatype: oip.FP32, Shape: []int64{int64(rows), 2}, Data: make([]float32, 2*rows)}}}
}

// start makes an upstream whose other side is c, on the clock of a bubble.
func start(t *testing.T, c *cloud, edit func(*Config)) *Upstream {
	t.Helper()
	cfg := Config{URL: "http://cloud/v2/", Model: "m", Client: &http.Client{Transport: c}}
	if edit != nil {
		edit(&cfg)
	}
	u, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	return u
}

func reason(t *testing.T, u *Upstream, rows int) Reason {
	t.Helper()
	_, err := u.Infer(context.Background(), request(rows))
	if err == nil {
		return ""
	}
	var f *Failure
	if !errors.As(err, &f) {
		t.Fatalf("%T: %v", err, err)
	}
	return f.Reason
}

// TestReasons: what each misbehaviour is called, and whether it counts as a
// failure of the other side.
func TestReasons(t *testing.T) {
	output := func(s string) string {
		return strings.Replace(answer, `"name":"y","datatype":"FP32","shape":[1,2],"data":[0.1,0.9]`, s, 1)
	}
	for _, c := range []struct {
		name   string
		infer  http.HandlerFunc
		want   Reason
		counts bool
	}{
		{"good", says(200, answer), "", false},
		{"slow", hangs, TimedOut, true},
		{"garbage", says(200, "<html>"), BadAnswer, true},
		{"oversized", says(200, answer+strings.Repeat(" ", 4096)), BadAnswer, true},
		{"wrong name", says(200, output(`"name":"z","datatype":"FP32","shape":[1,2],"data":[0,1]`)), BadAnswer, true},
		{"wrong datatype", says(200, output(`"name":"y","datatype":"FP64","shape":[1,2],"data":[0,1]`)), BadAnswer, true},
		{"wrong shape", says(200, output(`"name":"y","datatype":"FP32","shape":[1,3],"data":[0,1,2]`)), BadAnswer, true},
		{"wrong rows", says(200, output(`"name":"y","datatype":"FP32","shape":[2,2],"data":[0,1,2,3]`)), BadAnswer, true},
		{"one output too many", says(200, strings.Replace(answer, `]}]`, `]},{"name":"q","datatype":"BOOL","shape":[1],"data":[true]}]`, 1)), BadAnswer, true},
		{"NaN", says(200, output(`"name":"y","datatype":"FP32","shape":[1,2],"data":[NaN,1]`)), BadAnswer, true},
		{"error", says(500, `{"error":"boom"}`), Failing, true},
		{"redirect", says(302, ""), Failing, true},
		{"unknown model", says(404, `{"error":"no model"}`), Failing, true},
		{"forbidden", says(403, `{"error":"no"}`), Failing, true},
		{"refused", says(400, `{"error":"no such input"}`), Refused, false},
		{"overloaded", says(429, `{"error":"later"}`), Busy, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				side := &cloud{ready: true, infer: c.infer}
				u := start(t, side, func(cfg *Config) {
					cfg.Limits.MaxBody = 2048
					cfg.Client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
				})
				defer u.Close()
				if got := reason(t, u, 1); got != c.want {
					t.Errorf("got %q, want %q", got, c.want)
				}
				if s := u.Status(); (s.Failures == 1) != c.counts || s.Circuit != Closed {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

// TestCircuit: three failures in a row open it, calls fail at once, probes back
// off, a good probe lets one call through and a good call closes it.
func TestCircuit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		side := &cloud{ready: true, infer: says(200, answer)}
		u := start(t, side, nil)
		defer u.Close()
		expect := func(want Reason, state State) {
			t.Helper()
			if got := reason(t, u, 1); got != want {
				t.Fatalf("got %q, want %q", got, want)
			}
			if s := u.Status(); s.Circuit != state {
				t.Fatalf("circuit is %s, want %s", s.Circuit, state)
			}
		}
		expect("", Closed)
		side.set(false, says(503, ""))
		expect(Failing, Closed)
		expect(Failing, Closed)
		side.set(true, says(200, answer))
		expect("", Closed) // the row is broken
		side.set(false, says(503, ""))
		expect(Failing, Closed)
		expect(Failing, Closed)
		expect(Failing, Open)
		before := side.calls
		for range 10 {
			expect(CircuitOpen, Open)
		}
		if side.calls != before {
			t.Fatal("an open circuit let calls through")
		}

		opened := time.Now()
		time.Sleep(3 * time.Minute)
		side.mu.Lock()
		probes := side.probes
		side.mu.Unlock()
		last, base := opened, time.Second
		for i, at := range probes {
			if d := at.Sub(last); d < base*4/5 || d > base {
				t.Errorf("probe %d came after %v, expected %v less up to a fifth", i, d, base)
			}
			last, base = at, min(2*base, 30*time.Second)
		}
		if len(probes) < 9 || len(probes) > 12 {
			t.Errorf("%d probes in 3 minutes", len(probes))
		}

		side.set(true, says(503, "")) // ready, but not for calls
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if s := u.Status(); s.Circuit != HalfOpen {
			t.Fatalf("after a good probe the circuit is %s", s.Circuit)
		}
		expect(Failing, Open)
		side.set(true, says(200, answer))
		time.Sleep(30 * time.Second)
		synctest.Wait()
		expect("", Closed)
		if s := u.Status(); s.Failures != 0 || s.LastError != "" || s.BytesSent == 0 || s.BytesReceived == 0 {
			t.Errorf("%+v", s)
		}
	})
}

// TestHalfOpenLetsOneThrough: while a trial is under way others fail at once.
func TestHalfOpenLetsOneThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		side := &cloud{ready: true, infer: says(503, "")}
		u := start(t, side, nil)
		defer u.Close()
		for range 3 {
			reason(t, u, 1)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		side.set(true, hangs)
		var wg sync.WaitGroup
		var open, late atomic.Int64
		for range 5 {
			wg.Go(func() {
				switch reason(t, u, 1) {
				case CircuitOpen:
					open.Add(1)
				case TimedOut:
					late.Add(1)
				}
			})
		}
		wg.Wait()
		if open.Load() != 4 || late.Load() != 1 {
			t.Errorf("%d not asked, %d asked", open.Load(), late.Load())
		}
	})
}

// TestLateSuccessCloses: the answer to a call that was made before the circuit
// opened shows that the other side is there.
func TestLateSuccessCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(500 * time.Millisecond)
			says(200, answer)(w, r)
		}
		side := &cloud{ready: true, infer: late}
		u := start(t, side, nil)
		defer u.Close()
		var wg sync.WaitGroup
		wg.Go(func() { reason(t, u, 1) })
		synctest.Wait()
		side.set(false, says(503, ""))
		for range 3 {
			reason(t, u, 1)
		}
		if s := u.Status(); s.Circuit != Open {
			t.Fatalf("circuit is %s", s.Circuit)
		}
		wg.Wait()
		if s := u.Status(); s.Circuit != Closed {
			t.Errorf("circuit is %s", s.Circuit)
		}
	})
}

func TestBusyAndCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		side := &cloud{ready: true, infer: hangs}
		u := start(t, side, func(c *Config) { c.MaxConcurrent = 1 })
		defer u.Close()
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() {
			_, err := u.Infer(ctx, request(1))
			done <- err
		}()
		synctest.Wait()
		if got := reason(t, u, 1); got != Busy {
			t.Errorf("got %q", got)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		if s := u.Status(); s.Failures != 0 {
			t.Errorf("a caller that goes away is no failure of the cloud: %+v", s)
		}
	})
}

// TestModelChanges: when answers stop fitting, the description is read anew.
func TestModelChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		side := &cloud{ready: false, infer: says(200, answer)}
		u := start(t, side, nil)
		defer u.Close()
		if got := reason(t, u, 1); got != Unreachable {
			t.Errorf("no description to be had: %q", got)
		}
		side.set(true, says(200, answer))
		if got := reason(t, u, 1); got != "" {
			t.Errorf("got %q", got)
		}
		if got := reason(t, u, 3); got != BadAnswer {
			t.Errorf("one row for three: %q", got)
		}
		if u.meta.Load() != nil {
			t.Error("the description was kept")
		}
		if got := reason(t, u, 1); got != "" {
			t.Errorf("got %q", got)
		}
	})
}

func TestConfig(t *testing.T) {
	for _, c := range []Config{
		{Model: "m", Client: http.DefaultClient},
		{URL: "ftp://x", Model: "m", Client: http.DefaultClient},
		{URL: "/v2", Model: "m", Client: http.DefaultClient},
		{URL: "http://x", Client: http.DefaultClient},
		{URL: "http://x", Model: "m"},
	} {
		if _, err := New(c); !errors.As(err, new(*wire.Error)) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// TestOverTheNetwork sends to a real server, once with and once without /v2 in
// the URL.
func TestOverTheNetwork(t *testing.T) {
	var bodies [][]byte
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method + " " + r.URL.Path {
		case "GET /v2/models/m":
			_, _ = io.WriteString(w, meta)
		case "POST /v2/models/m/infer":
			b, _ := io.ReadAll(r.Body)
			bodies = append(bodies, b)
			_, _ = io.WriteString(w, answer)
		default:
			t.Errorf("%s %s", r.Method, r.URL.Path)
		}
	}))
	defer server.Close()
	for _, base := range []string{server.URL, server.URL + "/v2"} {
		u, err := New(Config{URL: base, Model: "m", Client: server.Client()})
		if err != nil {
			t.Fatal(err)
		}
		r, err := u.Infer(t.Context(), request(1))
		if err != nil || r.ModelVersion != "7" {
			t.Errorf("%+v, %v", r, err)
		}
		u.Close()
	}
	if len(bodies) != 2 || !bytes.Equal(bodies[0], bodies[1]) {
		t.Errorf("bodies: %q", bodies)
	}
	server.Close()
	u, err := New(Config{URL: server.URL, Model: "m", Client: server.Client()})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if got := reason(t, u, 1); got != Unreachable {
		t.Errorf("a closed server: %q", got)
	}
}
