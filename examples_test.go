package main

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestExamples runs the examples as users do, for some seconds each, with this
// binary as sedna. They judge themselves; the figures say that they did not
// judge nothing.
func TestExamples(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", dir, "./examples/camera", "./examples/sensor").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for _, c := range []struct {
		name  string
		args  []string
		above map[string]float64
	}{
		{"camera", []string{"--source", "mjpeg", "--seconds", "5", "--hold", "500ms", "--floor", "0.7"},
			map[string]float64{"judged": 20, "accuracy": 0.69, "answers_per_second": 5, "latency_ms.digits": 5}},
		{"sensor", []string{"--seconds", "8", "--floor", "0.5"},
			map[string]float64{"decisions": 20, "readings_per_second": 20, "live.true_positives": 3, "alarm_changes": 2, "cloud_away.detected": 0.9}},
	} {
		t.Run(c.name, func(t *testing.T) {
			// Failing, it leaves its logs where the test's own files go.
			figures := filepath.Join(dir, c.name+".json")
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, filepath.Join(dir, c.name), append(c.args, "--sedna", os.Args[0], "--json", figures, "--data-dir", filepath.Join(dir, c.name+"-data"))...)
			cmd.Env = append(os.Environ(), asSedna+"=1")
			cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
			cmd.WaitDelay = 30 * time.Second
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			t.Logf("%s", out)
			b, err := os.ReadFile(figures)
			if err != nil {
				t.Fatal(err)
			}
			var report map[string]any
			if err := json.Unmarshal(b, &report); err != nil {
				t.Fatal(err)
			}
			for path, least := range c.above {
				if got := figure(t, report, path); got <= least {
					t.Errorf("%s is %v, expected more than %v", path, got, least)
				}
			}
		})
	}
}
