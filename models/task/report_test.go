package task_test

import (
	"crypto/ed25519"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

func keys(t testing.TB) (ed25519.PublicKey, ed25519.PrivateKey) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return pub, key
}

func TestReportRoundTrip(t *testing.T) {
	pub, key := keys(t)
	want := task.Report{
		Phase: task.Failed, Generation: 3, Stage: "train", Round: 4, Samples: 5, Reason: "BadModel", Progress: "3/10",
		Metrics: map[string]float64{"accuracy": 0.93, "loss": 1e-7, "big": 1e20, "negative": -2.5}, Model: "m:v:0123456789ab", Detail: "söme text\nin two lines", Seq: 9,
	}
	p := want.Properties()
	for k, v := range p {
		if !wire.TwinSafe(k, v) || strings.ContainsAny(v, "eE+") && k == "metrics" && strings.Contains(v, "e-") {
			t.Errorf("%s=%q", k, v)
		}
	}
	task.SignProperties(key, "u", p)
	if len(p) != len(task.ReportKeys()) {
		t.Errorf("%d properties, want %d", len(p), len(task.ReportKeys()))
	}
	if err := task.VerifyProperties(pub, "u", p); err != nil {
		t.Error(err)
	}
	got, err := task.ParseReport(p)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

func TestForgedReports(t *testing.T) {
	pub, key := keys(t)
	other, _ := keys(t)
	sign := func() map[string]string {
		p := task.Report{Phase: task.Running, Generation: 1, Progress: "1/2", Reason: "R", Seq: 2}.Properties()
		task.SignProperties(key, "u", p)
		return p
	}
	if err := task.VerifyProperties(other, "u", sign()); !wire.IsCode(err, wire.BadSignature) {
		t.Errorf("another key: %v", err)
	}
	if err := task.VerifyProperties(pub, "v", sign()); !wire.IsCode(err, wire.BadSignature) {
		t.Errorf("another uid: %v", err)
	}
	for name, forge := range map[string]func(map[string]string){
		"changed":  func(p map[string]string) { p["phase"] = task.Failed },
		"added":    func(p map[string]string) { p["extra"] = "1" },
		"left out": func(p map[string]string) { delete(p, "reason") },
		"unsigned": func(p map[string]string) { delete(p, task.PropSig) },
		"folded":   func(p map[string]string) { p["progress"] += "\nreason=" + p["reason"]; delete(p, "reason") },
	} {
		p := sign()
		forge(p)
		if err := task.VerifyProperties(pub, "u", p); err == nil {
			t.Errorf("%s: passes", name)
		}
	}
}

func TestMetricsFit(t *testing.T) {
	m := map[string]float64{"nan": math.NaN(), "inf": math.Inf(1), "a,b": 1, "a:b": 1, "": 1, "huge": math.MaxFloat64, "tiny": math.SmallestNonzeroFloat64}
	for _, c := range strings.Split("abcdefghijklmnop", "") {
		m[c] = 1.0 / 3
	}
	p := task.Report{Phase: task.Running, Metrics: m}.Properties()
	if !wire.TwinSafe("metrics", p["metrics"]) {
		t.Errorf("%q", p["metrics"])
	}
	r, err := task.ParseReport(p)
	if err != nil || len(r.Metrics) == 0 || len(r.Metrics) > task.MaxMetrics {
		t.Error(r.Metrics, err)
	}
}

func TestTextIsCutAtARune(t *testing.T) {
	for _, s := range []string{"", "x", strings.Repeat("ä", 300), strings.Repeat("x", 383) + "ä", strings.Repeat("日本", 200), strings.Repeat("\x80", 1000)} {
		e := task.EncodeText(s)
		d, err := task.DecodeText(e)
		if err != nil || len(e) > 512 || !strings.HasPrefix(s, d) || utf8.ValidString(s) && !utf8.ValidString(d) || !wire.TwinSafe("detail", e) {
			t.Errorf("%.20q: %d characters, %v", s, len(e), err)
		}
	}
}

func TestNonce(t *testing.T) {
	for s, want := range map[string]task.Nonce{"": {}, "3:7": {N: 3, Acked: 7}, "0:0": {}} {
		if got, err := task.ParseNonce(s); err != nil || got != want {
			t.Errorf("%q: %v %v", s, got, err)
		}
	}
	for _, s := range []string{"3", ":", "3:", ":7", "-1:0", "0:-1", "a:b", "1:2:3", "99999999999999999999:0"} {
		if _, err := task.ParseNonce(s); !wire.IsCode(err, wire.InvalidArgument) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// FuzzParseReport holds: what parses, encodes to twin-safe properties that
// parse to the same, except for what does not fit.
func FuzzParseReport(f *testing.F) {
	f.Add("Running", "1", "train", "0", "0", "R", "1/2", "a:0.5", "m:v:d", "eA", "3")
	f.Add("Stopped", "9223372036854775807", "", "-1", "0x1", "", "", "a:1,b:inf", "", "!", "")
	f.Fuzz(func(t *testing.T, phase, generation, stage, round, samples, reason, progress, metrics, model, detail, seq string) {
		p := map[string]string{
			"phase": phase, "generation": generation, "stage": stage, "round": round, "samples": samples, "reason": reason, "progress": progress,
			"metrics": metrics, "model": model, "detail": detail, "seq": seq,
		}
		r, err := task.ParseReport(p)
		if err != nil {
			if wire.AsError(err).Code == wire.Internal {
				t.Errorf("no code: %v", err)
			}
			return
		}
		if r.Generation < 0 || r.Round < 0 || r.Samples < 0 || r.Seq < 0 || len(r.Metrics) > task.MaxMetrics {
			t.Errorf("%+v", r)
		}
		out := r.Properties()
		for _, k := range []string{"phase", "generation", "round", "samples", "metrics", "detail", "seq"} {
			if !wire.TwinSafe(k, out[k]) {
				t.Errorf("%s=%q", k, out[k])
			}
		}
		if _, err := task.ParseReport(out); err != nil {
			t.Errorf("%v does not parse again: %v", out, err)
		}
	})
}
