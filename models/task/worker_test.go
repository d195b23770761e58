package task_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

func sampleWorker() task.Worker {
	return task.Worker{
		Name: "digits-train-1", Argv: []string{"python3", "train.py"}, Env: []task.WorkerEnv{{Name: "MODEL_URL", Value: "/srv/out"}},
		Relays: []task.WorkerRelay{{HostEnv: "BIG_MODEL_IP", PortEnv: "BIG_MODEL_PORT", Port: 5000, Target: "digits-cloud.default:5000"}},
	}
}

func TestWorkerDefaults(t *testing.T) {
	w := sampleWorker()
	if err := w.Validate("spec.worker"); err != nil {
		t.Fatal(err)
	}
	if w.RestartPolicy != task.RestartOnFailure || w.Grace().Seconds() != 30 || w.TimeLimit() != 0 {
		t.Errorf("%+v", w)
	}
	b, err := json.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	var again task.Worker
	if err := json.Unmarshal(b, &again); err != nil || cmp.Diff(w, again) != "" {
		t.Error(err, cmp.Diff(w, again))
	}
}

func TestWorkerBounds(t *testing.T) {
	for _, c := range []struct {
		field  string // that is refused; empty: none is
		change func(*task.Worker)
	}{
		{"name", func(w *task.Worker) { w.Name = "" }},
		{"name", func(w *task.Worker) { w.Name = "../x" }},
		{"name", func(w *task.Worker) { w.Name = "a..b" }},
		{"name", func(w *task.Worker) { w.Name = strings.Repeat("a", 129) }},
		{"", func(w *task.Worker) { w.Name = strings.Repeat("a", 128) }},
		{"argv", func(w *task.Worker) { w.Argv = nil }},
		{"argv", func(w *task.Worker) { w.Argv = []string{""} }},
		{"argv", func(w *task.Worker) { w.Argv = make([]string, task.MaxWorkerArgs+1); w.Argv[0] = "x" }},
		{"", func(w *task.Worker) { w.Argv = make([]string, task.MaxWorkerArgs); w.Argv[0] = "x" }},
		{"argv", func(w *task.Worker) { w.Argv = []string{"x", strings.Repeat("a", task.MaxWorkerArgBytes)} }},
		{"argv[1]", func(w *task.Worker) { w.Argv = []string{"x", "a\x00b"} }},
		{"env", func(w *task.Worker) { w.Env = make([]task.WorkerEnv, task.MaxWorkerEnv+1) }},
		{"env", func(w *task.Worker) {
			w.Env = []task.WorkerEnv{{Name: "A", Value: strings.Repeat("a", task.MaxWorkerEnvBytes)}}
		}},
		{"env[0].name", func(w *task.Worker) { w.Env = []task.WorkerEnv{{Name: "A=B"}} }},
		{"env[0].value", func(w *task.Worker) { w.Env = []task.WorkerEnv{{Name: "A", Value: "\x00"}} }},
		{"workingDir", func(w *task.Worker) { w.WorkingDir = strings.Repeat("a", 1025) }},
		{"workingDir", func(w *task.Worker) { w.WorkingDir = "a\x00" }},
		{"cpuMilli", func(w *task.Worker) { w.CPUMilli = -1 }},
		{"cpuMilli", func(w *task.Worker) { w.CPUMilli = 1_000_001 }},
		{"", func(w *task.Worker) { w.CPUMilli = 1 }},
		{"memoryBytes", func(w *task.Worker) { w.MemoryBytes = 4<<20 - 1 }},
		{"", func(w *task.Worker) { w.MemoryBytes = 4 << 20 }},
		{"memoryBytes", func(w *task.Worker) { w.MemoryBytes = 1<<44 + 1 }},
		{"timeLimitSeconds", func(w *task.Worker) { w.TimeLimitSeconds = -1 }},
		{"timeLimitSeconds", func(w *task.Worker) { w.TimeLimitSeconds = 30*24*3600 + 1 }},
		{"restartPolicy", func(w *task.Worker) { w.RestartPolicy = "always" }},
		{"graceSeconds", func(w *task.Worker) { w.GraceSeconds = -1 }},
		{"graceSeconds", func(w *task.Worker) { w.GraceSeconds = 3601 }},
		{"relays", func(w *task.Worker) { w.Relays = make([]task.WorkerRelay, task.MaxWorkerRelays+1) }},
		{"relays[0].target", func(w *task.Worker) { w.Relays[0].Target = "host" }},
		{"relays[0].target", func(w *task.Worker) { w.Relays[0].Target = "host:0" }},
		{"relays[0].target", func(w *task.Worker) { w.Relays[0].Target = ":80" }},
		{"relays[0].port", func(w *task.Worker) { w.Relays[0].Port = 65536 }},
		{"relays[0].port", func(w *task.Worker) { w.Relays[0] = task.WorkerRelay{Target: "h:1"} }},
		{"relays[0].hostEnv", func(w *task.Worker) { w.Relays[0].HostEnv = "1A" }},
		{"relays[0].portEnv", func(w *task.Worker) { w.Relays[0].PortEnv = "A B" }},
	} {
		w := sampleWorker()
		c.change(&w)
		err := w.Validate("spec.worker")
		if c.field == "" {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		if err == nil || wire.AsError(err).Field != "spec.worker."+c.field || !wire.IsCode(err, wire.InvalidArgument) {
			t.Errorf("%s: %v", c.field, err)
		}
	}
}

func TestDecodeProgress(t *testing.T) {
	for line, want := range map[string]string{
		`{"progress":{"step":3,"steps":10},"metrics":{"loss":0.5}}`: "3/10",
		" {\"progress\":{\"step\":3}}\r":                            "3",
		`{"metrics":{"Präzision":1e-3}}`:                            "",
	} {
		p, ok := task.DecodeProgress([]byte(line))
		if p.Progress == nil {
			p.Progress = &task.Progress{}
		}
		if !ok || p.Progress.String() != want {
			t.Errorf("%s: %+v %v", line, p, ok)
		}
	}
	many := map[string]float64{}
	for i := range task.MaxMetrics + 1 {
		many[strings.Repeat("m", i+1)] = 1
	}
	tooMany, err := json.Marshal(map[string]any{"metrics": many})
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"", "{", "{}", "epoch 3", `{"level":"info"}`, `{"progress":{"step":-1}}`, `{"progress":{"step":11,"steps":10}}`, `{"metrics":{"a":1e999}}`, `{"metrics":{"a":"b"}}`,
		`{"metrics":{"":1}}`, `{"progress":{"step":1}} {}`, `[{"progress":{"step":1}}]`, string(tooMany), `{"metrics":{"a":1}` + strings.Repeat(" ", task.MaxProgressLine) + `}`,
	} {
		if p, ok := task.DecodeProgress([]byte(line)); ok {
			t.Errorf("%.60q is progress: %+v", line, p)
		}
	}
}

func TestDecodeWorkerResult(t *testing.T) {
	r, err := task.DecodeWorkerResult([]byte(`{"metrics":{"accuracy":0.9,"precision":[0.1,0.8]},"models":[{"url":"/out/m.onnx","format":"onnx"}],"more":1}`))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]float64{"accuracy": 0.9, "precision": 0.8}, r.Scalar()); diff != "" || r.Models[0].URL != "/out/m.onnx" {
		t.Error(diff, r.Models)
	}
	many := func(n int) string { return strings.TrimSuffix(strings.Repeat(`{"url":"u"},`, n), ",") }
	if _, err := task.DecodeWorkerResult([]byte(`{"models":[` + many(task.MaxWorkerModels) + `]}`)); err != nil {
		t.Error(err)
	}
	for text, code := range map[string]wire.Code{
		"": wire.InvalidArgument, "null": wire.InvalidArgument, "[]": wire.InvalidArgument, `{}{}`: wire.InvalidArgument,
		`{"metrics":{"a":null}}`: wire.InvalidArgument, `{"metrics":{"a":NaN}}`: wire.InvalidArgument, `{"metrics":{"":1}}`: wire.InvalidArgument, `{"models":[{}]}`: wire.InvalidArgument,
		`{"models":[` + many(task.MaxWorkerModels+1) + `]}`: wire.InvalidArgument, strings.Repeat(" ", task.MaxWorkerResult+1): wire.TooLarge,
	} {
		if _, err := task.DecodeWorkerResult([]byte(text)); !wire.IsCode(err, code) {
			t.Errorf("%.60q: %v", text, err)
		}
	}
}

func TestDecodeWorkerReport(t *testing.T) {
	r, err := task.DecodeWorkerReport([]byte(`{"name":"w","namespace":"default","ownerName":"j","ownerKind":"incrementallearningjob","ownerInfo":{"round":1},"kind":"train","status":"completed","results":[{"format":"pb","url":"/m.pb"}]}`))
	if err != nil || r.Name != "w" || r.Status != "completed" || len(r.Results) != 1 || string(r.OwnerInfo["round"]) != "1" {
		t.Errorf("%+v %v", r, err)
	}
	for text, field := range map[string]string{
		`{"name":""}`: "name", `{"name":1}`: "", `null`: "", `{"name":"w","status":"` + strings.Repeat("s", 65) + `"}`: "status",
		`{"name":"w","kind":"` + strings.Repeat("s", 65) + `"}`: "kind", `{"name":"w","results":[` + strings.Repeat("1,", task.MaxWorkerModels) + `1]}`: "results",
		`{"name":"w","results":[{"metrics":NaN}]}`: "",
	} {
		if _, err := task.DecodeWorkerReport([]byte(text)); !wire.IsCode(err, wire.InvalidArgument) || wire.AsError(err).Field != field {
			t.Errorf("%.60q: %v", text, err)
		}
	}
	if _, err := task.DecodeWorkerReport(make([]byte, task.MaxWorkerReport+1)); !wire.IsCode(err, wire.TooLarge) {
		t.Error(err)
	}
}

// FuzzDecodeProgress holds: no line crashes, and what is taken for progress is
// within the bounds and reads the same when written again.
func FuzzDecodeProgress(f *testing.F) {
	f.Add([]byte(`{"progress":{"step":3,"steps":10},"metrics":{"loss":0.5}}`))
	f.Add([]byte(`{"metrics":null,"progress":null}`))
	f.Add([]byte("\xff{\"progress\":{}}"))
	f.Fuzz(func(t *testing.T, line []byte) {
		p, ok := task.DecodeProgress(line)
		if !ok {
			return
		}
		if len(bytes.TrimSpace(line)) > task.MaxProgressLine || len(p.Metrics) > task.MaxMetrics {
			t.Errorf("over the bounds: %+v", p)
		}
		b, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if again, ok := task.DecodeProgress(b); !ok || cmp.Diff(p, again) != "" {
			t.Errorf("%s %v", cmp.Diff(p, again), ok)
		}
	})
}

// FuzzDecodeWorker holds: no report and no result crashes, and a refusal has a
// code.
func FuzzDecodeWorker(f *testing.F) {
	f.Add([]byte(`{"name":"w","ownerInfo":{"a":[1]},"results":[{"url":"/m","metrics":{"a":[1,2]}}]}`))
	f.Add([]byte(`{"metrics":{"a":[1,2],"b":3},"models":[{"url":"u","format":"onnx"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := task.DecodeWorkerReport(b); err != nil && wire.AsError(err).Code == wire.Internal {
			t.Error(err)
		}
		r, err := task.DecodeWorkerResult(b)
		if err != nil {
			if wire.AsError(err).Code == wire.Internal {
				t.Error(err)
			}
			return
		}
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if len(text) > task.MaxWorkerResult {
			return // escaping made it longer
		}
		if again, err := task.DecodeWorkerResult(text); err != nil || cmp.Diff(r.Scalar(), again.Scalar()) != "" {
			t.Errorf("%s: %v", text, err)
		}
	})
}
