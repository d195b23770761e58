package task

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/edgetwin/sedna/models/wire"
)

// Worker is a process that the LocalController runs for a task. There is no
// shell: Argv[0] is a program, the rest are its arguments as they are.
type Worker struct {
	Name             string        `json:"name"` // the worker's, as in its reports
	Argv             []string      `json:"argv"`
	Env              []WorkerEnv   `json:"env,omitempty"`              // the worker contract's variables, and the template's
	WorkingDir       string        `json:"workingDir,omitempty"`       // relative: under the worker's own directory; empty: that one
	User             *uint32       `json:"user,omitempty"`             // numeric; absent: as the node is configured
	Group            *uint32       `json:"group,omitempty"`            // numeric; absent: as the node is configured
	CPUMilli         int64         `json:"cpuMilli,omitempty"`         // thousandths of a CPU; 0: no limit
	MemoryBytes      int64         `json:"memoryBytes,omitempty"`      // 0: no limit
	TimeLimitSeconds int64         `json:"timeLimitSeconds,omitempty"` // of one run, by the clock on the wall; 0: no limit
	RestartPolicy    string        `json:"restartPolicy,omitempty"`    // Always, OnFailure (default) or Never
	GraceSeconds     int64         `json:"graceSeconds,omitempty"`     // between SIGTERM and SIGKILL; 0: 30
	Relays           []WorkerRelay `json:"relays,omitempty"`
}

// WorkerEnv is one variable of a worker's environment.
type WorkerEnv struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// WorkerRelay is a TCP service elsewhere that the worker finds on loopback.
type WorkerRelay struct {
	HostEnv string `json:"hostEnv,omitempty"` // variable that takes the local host, such as BIG_MODEL_IP
	PortEnv string `json:"portEnv,omitempty"` // variable that takes the local port, such as BIG_MODEL_PORT
	Port    int    `json:"port"`              // local port; with PortEnv another is taken when it is in use; 0: any
	Target  string `json:"target"`            // host:port of the service
}

// Restart policies.
const (
	RestartAlways    = "Always"
	RestartOnFailure = "OnFailure"
	RestartNever     = "Never"
)

// Limits of a worker's specification.
const (
	MaxWorkerArgs     = 256
	MaxWorkerArgBytes = 64 << 10 // all arguments together
	MaxWorkerEnv      = 256
	MaxWorkerEnvBytes = 96 << 10 // all names and values together
	MaxWorkerRelays   = 16
	maxWorkerPath     = 1024
	maxCPUMilli       = 1_000_000
	minMemory         = 4 << 20
	maxMemory         = 1 << 44
	maxTimeLimit      = 30 * 24 * 3600
	maxGrace          = 3600
	defaultGrace      = 30
)

// Grace is the time between SIGTERM and SIGKILL.
func (w *Worker) Grace() time.Duration { return time.Duration(w.GraceSeconds) * time.Second }

// TimeLimit is how long one run may take; 0: any time.
func (w *Worker) TimeLimit() time.Duration { return time.Duration(w.TimeLimitSeconds) * time.Second }

// The names of workers and variables: the first are parts of paths and of URLs.
var (
	workerNameRE = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,126}[a-z0-9])?$`)
	envNameRE    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,255}$`)
)

// ValidWorkerName tells whether s can be a worker's name.
func ValidWorkerName(s string) bool { return workerNameRE.MatchString(s) && !strings.Contains(s, "..") }

// Validate checks a worker and fills in what it leaves out. field is where it
// stands in the document, such as spec.worker.
func (w *Worker) Validate(field string) error {
	bad := func(name, format string, args ...any) error {
		return wire.E(wire.InvalidArgument, field+"."+name, fmt.Sprintf(format, args...), "")
	}
	if w.RestartPolicy == "" {
		w.RestartPolicy = RestartOnFailure
	}
	if w.GraceSeconds == 0 {
		w.GraceSeconds = defaultGrace
	}
	switch {
	case !ValidWorkerName(w.Name):
		return bad("name", "expected a worker name of at most 128 characters, got %.80q", w.Name)
	case len(w.Argv) == 0 || w.Argv[0] == "":
		return bad("argv", "missing; a process needs a program to run")
	case len(w.Argv) > MaxWorkerArgs:
		return bad("argv", "expected at most %d, got %d", MaxWorkerArgs, len(w.Argv))
	case len(w.Env) > MaxWorkerEnv:
		return bad("env", "expected at most %d, got %d", MaxWorkerEnv, len(w.Env))
	case len(w.WorkingDir) > maxWorkerPath || strings.ContainsRune(w.WorkingDir, 0):
		return bad("workingDir", "expected a path of at most %d bytes", maxWorkerPath)
	case w.CPUMilli != 0 && (w.CPUMilli < 1 || w.CPUMilli > maxCPUMilli):
		return bad("cpuMilli", "expected 1 to %d, or 0 for no limit, got %d", maxCPUMilli, w.CPUMilli)
	case w.MemoryBytes != 0 && (w.MemoryBytes < minMemory || w.MemoryBytes > maxMemory):
		return bad("memoryBytes", "expected %d to %d, or 0 for no limit, got %d", int64(minMemory), int64(maxMemory), w.MemoryBytes)
	case w.TimeLimitSeconds < 0 || w.TimeLimitSeconds > maxTimeLimit:
		return bad("timeLimitSeconds", "expected 0 to %d, got %d", maxTimeLimit, w.TimeLimitSeconds)
	case w.RestartPolicy != RestartAlways && w.RestartPolicy != RestartOnFailure && w.RestartPolicy != RestartNever:
		return bad("restartPolicy", "expected Always, OnFailure or Never, got %.40q", w.RestartPolicy)
	case w.GraceSeconds < 1 || w.GraceSeconds > maxGrace:
		return bad("graceSeconds", "expected 1 to %d, got %d", maxGrace, w.GraceSeconds)
	case len(w.Relays) > MaxWorkerRelays:
		return bad("relays", "expected at most %d, got %d", MaxWorkerRelays, len(w.Relays))
	}
	size := 0
	for i, a := range w.Argv {
		if strings.ContainsRune(a, 0) {
			return bad(fmt.Sprintf("argv[%d]", i), "holds a zero byte")
		}
		if size += len(a) + 1; size > MaxWorkerArgBytes {
			return bad("argv", "longer than %d bytes", MaxWorkerArgBytes)
		}
	}
	size = 0
	for i, e := range w.Env {
		switch {
		case !envNameRE.MatchString(e.Name):
			return bad(fmt.Sprintf("env[%d].name", i), "expected the name of a variable, got %.80q", e.Name)
		case strings.ContainsRune(e.Value, 0):
			return bad(fmt.Sprintf("env[%d].value", i), "holds a zero byte")
		}
		if size += len(e.Name) + len(e.Value) + 2; size > MaxWorkerEnvBytes {
			return bad("env", "longer than %d bytes", MaxWorkerEnvBytes)
		}
	}
	for i := range w.Relays {
		if err := w.Relays[i].validate(fmt.Sprintf("%s.relays[%d]", field, i)); err != nil {
			return err
		}
	}
	return nil
}

func (r *WorkerRelay) validate(field string) error {
	bad := func(name, format string, args ...any) error {
		return wire.E(wire.InvalidArgument, field+"."+name, fmt.Sprintf(format, args...), "")
	}
	host, port, err := net.SplitHostPort(r.Target)
	n, portErr := strconv.ParseUint(port, 10, 16)
	switch {
	case err != nil || portErr != nil || host == "" || n == 0 || len(r.Target) > maxWorkerPath:
		return bad("target", "expected host:port, got %.80q", r.Target)
	case r.Port < 0 || r.Port > 65535:
		return bad("port", "expected 0 to 65535, got %d", r.Port)
	case r.Port == 0 && r.PortEnv == "":
		return bad("port", "missing, and portEnv names no variable to tell it by")
	case r.HostEnv != "" && !envNameRE.MatchString(r.HostEnv):
		return bad("hostEnv", "expected the name of a variable, got %.80q", r.HostEnv)
	case r.PortEnv != "" && !envNameRE.MatchString(r.PortEnv):
		return bad("portEnv", "expected the name of a variable, got %.80q", r.PortEnv)
	}
	return nil
}

// Limits of what a worker says.
const (
	MaxWorkerResult  = 256 << 10 // of result.json, bytes
	MaxWorkerReport  = 1 << 20   // of the body of a report, bytes
	MaxProgressLine  = 16 << 10  // longer lines are log, bytes
	MaxWorkerModels  = 64
	MaxWorkerMetrics = 64
	maxMetricValues  = 4096
	maxReportName    = 253
	maxReportURL     = 4096
)

// WorkerModel is a model that a worker has made.
type WorkerModel struct {
	URL    string `json:"url"`
	Format string `json:"format"`
}

// Metric is a metric's values: one number, or one for each class or output.
type Metric []float64

// UnmarshalJSON reads a number or an array of numbers.
func (m *Metric) UnmarshalJSON(b []byte) error {
	var one float64
	if json.Unmarshal(b, &one) == nil && !bytes.Equal(b, []byte("null")) {
		*m = Metric{one}
		return nil
	}
	var many []float64
	if err := json.Unmarshal(b, &many); err != nil || many == nil {
		return fmt.Errorf("expected a number or an array of numbers, got %.40q", b)
	}
	*m = many
	return nil
}

// MarshalJSON writes one value as a number.
func (m Metric) MarshalJSON() ([]byte, error) {
	if len(m) == 1 {
		return json.Marshal(m[0])
	}
	return json.Marshal([]float64(m))
}

// WorkerResult is the file result.json of a worker that is done.
type WorkerResult struct {
	Metrics map[string]Metric `json:"metrics,omitempty"`
	Models  []WorkerModel     `json:"models,omitempty"`
}

// Scalar gives the metrics of a result as single numbers, an array's last
// element for it.
func (r *WorkerResult) Scalar() map[string]float64 {
	out := make(map[string]float64, len(r.Metrics))
	for name, m := range r.Metrics {
		if n := len(m); n > 0 {
			out[name] = m[n-1]
		}
	}
	return out
}

// DecodeWorkerResult reads a result.json; unknown keys are let be.
func DecodeWorkerResult(b []byte) (*WorkerResult, error) {
	const field = "result.json"
	if len(b) > MaxWorkerResult {
		return nil, wire.E(wire.TooLarge, field, fmt.Sprintf("larger than %d bytes", MaxWorkerResult), "")
	}
	var r WorkerResult
	if err := decodeOne(b, &r); err != nil {
		return nil, wire.E(wire.InvalidArgument, field, "expected {metrics, models}: "+err.Error(), "")
	}
	if len(r.Metrics) > MaxWorkerMetrics {
		return nil, wire.E(wire.InvalidArgument, "metrics", fmt.Sprintf("expected at most %d, got %d", MaxWorkerMetrics, len(r.Metrics)), "")
	}
	for name, m := range r.Metrics {
		if name == "" || len(name) > maxReportName || len(m) > maxMetricValues {
			return nil, wire.E(wire.InvalidArgument, "metrics", fmt.Sprintf("expected a name of 1 to %d bytes and at most %d values at %.80q", maxReportName, maxMetricValues, name), "")
		}
	}
	if len(r.Models) > MaxWorkerModels {
		return nil, wire.E(wire.InvalidArgument, "models", fmt.Sprintf("expected at most %d, got %d", MaxWorkerModels, len(r.Models)), "")
	}
	for i, m := range r.Models {
		if m.URL == "" || len(m.URL) > maxReportURL || len(m.Format) > maxReportName {
			return nil, wire.E(wire.InvalidArgument, fmt.Sprintf("models[%d].url", i), fmt.Sprintf("expected a path or URL of 1 to %d bytes", maxReportURL), "")
		}
	}
	return &r, nil
}

// Progress is how far a worker has come.
type Progress struct {
	Step  int64 `json:"step"`
	Steps int64 `json:"steps"` // 0: not known
}

// String is the form of reports, 3/10; empty before the first step.
func (p Progress) String() string {
	switch {
	case p == Progress{}:
		return ""
	case p.Steps == 0:
		return strconv.FormatInt(p.Step, 10)
	}
	return strconv.FormatInt(p.Step, 10) + "/" + strconv.FormatInt(p.Steps, 10)
}

// ProgressLine is one line of a worker's stdout that tells how far it is.
type ProgressLine struct {
	Progress *Progress          `json:"progress"`
	Metrics  map[string]float64 `json:"metrics"`
}

// DecodeProgress reads a line of stdout; ok is false for a line that is log.
func DecodeProgress(line []byte) (p ProgressLine, ok bool) {
	line = bytes.TrimSpace(line)
	if len(line) < 2 || line[0] != '{' || len(line) > MaxProgressLine {
		return ProgressLine{}, false
	}
	if decodeOne(line, &p) != nil || p.Progress == nil && p.Metrics == nil {
		return ProgressLine{}, false
	}
	if s := p.Progress; s != nil && (s.Step < 0 || s.Steps < 0 || s.Steps > 0 && s.Step > s.Steps) {
		return ProgressLine{}, false
	}
	if len(p.Metrics) > MaxMetrics {
		return ProgressLine{}, false
	}
	for name := range p.Metrics {
		if name == "" || len(name) > 64 {
			return ProgressLine{}, false
		}
	}
	return p, true
}

// WorkerReport is what a worker posts to its LocalController: the body of
// POST /sedna/workers/{name}/info in the reference system.
type WorkerReport struct {
	Name      string                     `json:"name"` // of the worker
	Namespace string                     `json:"namespace"`
	OwnerName string                     `json:"ownerName"` // of the job or service
	OwnerKind string                     `json:"ownerKind"`
	OwnerInfo map[string]json.RawMessage `json:"ownerInfo,omitempty"`
	Kind      string                     `json:"kind"`   // train, eval, deploy or inference
	Status    string                     `json:"status"` // such as running, completed or failed
	Results   []json.RawMessage          `json:"results,omitempty"`
}

// DecodeWorkerReport reads the body of a report.
func DecodeWorkerReport(b []byte) (*WorkerReport, error) {
	if len(b) > MaxWorkerReport {
		return nil, wire.E(wire.TooLarge, "", fmt.Sprintf("body larger than %d bytes", MaxWorkerReport), "")
	}
	var r WorkerReport
	if err := decodeOne(b, &r); err != nil {
		return nil, wire.E(wire.InvalidArgument, "", "not a worker's report in JSON: "+err.Error(), "NaN and Infinity are no JSON numbers")
	}
	for _, s := range []struct {
		field, value string
		max          int
	}{{"namespace", r.Namespace, maxReportName}, {"ownerName", r.OwnerName, maxReportName}, {"ownerKind", r.OwnerKind, 64}, {"kind", r.Kind, 64}, {"status", r.Status, 64}} {
		if len(s.value) > s.max {
			return nil, wire.E(wire.InvalidArgument, s.field, fmt.Sprintf("longer than %d bytes", s.max), "")
		}
	}
	if r.Name == "" || len(r.Name) > maxReportName {
		return nil, wire.E(wire.InvalidArgument, "name", fmt.Sprintf("expected a worker's name, got %.80q", r.Name), "")
	}
	if len(r.Results) > MaxWorkerModels {
		return nil, wire.E(wire.InvalidArgument, "results", fmt.Sprintf("expected at most %d, got %d", MaxWorkerModels, len(r.Results)), "")
	}
	return &r, nil
}

// decodeOne reads exactly one JSON object.
func decodeOne(b []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return fmt.Errorf("data after the object")
	}
	if b = bytes.TrimSpace(b); len(b) == 0 || b[0] != '{' {
		return fmt.Errorf("expected an object")
	}
	return nil
}

// ValidUID tells whether s can be the uid of a task.
func ValidUID(s string) bool { return uidRE.MatchString(s) }
