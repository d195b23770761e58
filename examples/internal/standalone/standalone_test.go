package standalone

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgetwin/sedna/lib/bus/broker"
	"github.com/edgetwin/sedna/models/wire"
)

func TestStart(t *testing.T) {
	for name, c := range map[string]struct {
		script, err string
		want        string // endpoints decoded
	}{
		"a bare line":         {script: "echo hello; echo ready; exec cat"},
		"a line with its end": {script: `echo 'ready {"at":"here"}'; exec cat`, want: "here"},
		"another word":        {script: "echo readiness; exit 3", err: "exit status 3"},
		"bad endpoints":       {script: "echo ready here; exec cat", err: "ready line"},
		"it says why it ends": {script: "echo no port left >&2; exit 1", err: "no port left"},
	} {
		t.Run(name, func(t *testing.T) {
			var ends struct{ At string }
			p, err := Start(t.Context(), t.TempDir(), "part", []string{"sh", "-c", c.script}, &ends)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("expected %q, got %v", c.err, err)
				}
				return
			}
			if err != nil || ends.At != c.want {
				t.Fatalf("%q, %v", ends.At, err)
			}
			if !p.Running() {
				t.Error("it does not run")
			}
			p.Kill()
			if p.Running() {
				t.Error("it runs after Kill")
			}
		})
	}
}

func TestStop(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "ended")
	p, err := Start(t.Context(), dir, "part", []string{"sh", "-c", "trap 'touch " + file + "; exit 0' TERM; echo ready; while :; do sleep 0.01; done"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Error("it was not asked to end:", err)
	}
	var never *Process
	never.Kill()
	if never.Running() || never.Stop() != nil {
		t.Error("a process that was never started")
	}
}

func TestCollect(t *testing.T) {
	b, err := broker.Start(broker.Options{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	s := &Stack{MQTT: b.Addr()}
	a, err := s.Collect(t.Context(), "digits")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if err := a.Await(t.Context(), time.Millisecond); err == nil {
		t.Error("an answer that has not come")
	}
	say, err := Listen(t.Context(), s.MQTT, "say", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer say.Close()
	for _, m := range []struct{ topic, payload string }{
		{wire.InferError(NodeName, "digits"), `{"error":{"code":"invalid_argument"}}`},
		{wire.InferResult(NodeName, "other", "2"), `{"parameters":{"sedna_label":"8"}}`},
		{wire.InferResult(NodeName, "digits", "3"), `{"error":"late"}`},
		{wire.InferResult(NodeName, "digits", "1"), `{"parameters":{"sedna_label":"7","sedna_source":"cloud"}}`},
	} {
		if err := say.Publish(t.Context(), m.topic, 1, false, []byte(m.payload)); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Await(t.Context(), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); len(a.Errors()) < 2 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if got := a.Results(); len(got) != 1 || got[0].Label != "7" || got[0].Source != "cloud" || got[0].At.IsZero() || len(a.Errors()) != 2 {
		t.Errorf("%+v, errors %q", got, a.Errors())
	}
}

// FuzzReadResult holds what is made of any payload to: either a label, or an
// error.
func FuzzReadResult(f *testing.F) {
	for _, s := range []string{``, `{}`, `[]`, `{"error":"x"}`, `{"parameters":{"sedna_label":"7"}}`, `{"parameters":{"sedna_label":7}}`, `{"parameters":null}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if r := readResult(b, time.Time{}); (r.Label == "") == (r.Error == "") {
			t.Errorf("%q gives %+v", b, r)
		}
	})
}

func TestFill(t *testing.T) {
	got, err := Fill([]byte("url: A\nport: B\nagain: A"), "A", "x", "B", "y")
	if err != nil || string(got) != "url: x\nport: y\nagain: x" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := Fill([]byte("url: A"), "C", "x"); err == nil {
		t.Error("a word that is not there")
	}
}

func TestQuantile(t *testing.T) {
	for _, c := range []struct {
		values  []float64
		q, want float64
	}{{nil, 0.5, 0}, {[]float64{4}, 0.99, 4}, {[]float64{3, 1, 2}, 0.5, 2}, {[]float64{3, 1, 2}, 1, 3}, {[]float64{3, 1, 2}, 0, 1}} {
		if got := Quantile(c.values, c.q); got != c.want {
			t.Errorf("%v at %v: %v, expected %v", c.values, c.q, got, c.want)
		}
	}
}

func TestFreePorts(t *testing.T) {
	var a, b string
	if err := FreePorts(&a, &b); err != nil || a == b || a == "" {
		t.Errorf("%q, %q, %v", a, b, err)
	}
}
