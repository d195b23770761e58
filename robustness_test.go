package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/edgetwin/sedna/examples/robustness"
	"github.com/edgetwin/sedna/lib/history"
)

// kubeEdgeLosses is everything that KubeEdge was seen to lose, and some by chance.
var kubeEdgeLosses = []string{"first-report", "offline-report", "desired-offline", "create-offline", "delete-offline", "quick-rebind", "coalesce", "drop-up=0.05", "drop-down=0.1"}

// startRobustness brings up a stack whose processes are this test binary.
func startRobustness(t *testing.T, losses []string, environ ...string) *robustness.Stack {
	t.Helper()
	dir, err := os.MkdirTemp("", "sedna-r") // t.TempDir is too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	s, err := robustness.Start(t.Context(), robustness.Options{
		Argv: []string{os.Args[0]}, Environ: append(append(os.Environ(), asSedna+"=1"), environ...), Dir: dir, Losses: losses, Log: t.Logf,
	})
	if err != nil {
		t.Fatalf("%v (state in %s)", err, dir)
	}
	t.Cleanup(func() {
		s.Close()
		if t.Failed() {
			t.Logf("state and logs are kept in %s", dir)
		} else if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return s
}

// histories is where the histories of failed seeds go.
func histories(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(os.TempDir(), "sedna-histories")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// seeds gives the seeds to run: SEED=17 is that one, SEEDS=100 the first
// hundred, and nothing the first few.
func seeds(t *testing.T, standard int64) (from, to int64) {
	t.Helper()
	number := func(name string) int64 {
		n, err := strconv.ParseInt(os.Getenv(name), 10, 64)
		if err != nil || n < 1 {
			t.Fatalf("%s=%s: expected a number from 1", name, os.Getenv(name))
		}
		return n
	}
	switch {
	case os.Getenv("SEED") != "":
		n := number("SEED")
		return n, n
	case os.Getenv("SEEDS") != "":
		return 1, number("SEEDS")
	}
	return 1, standard
}

// TestRobustness holds the task protocol to its word while everything that
// KubeEdge loses is lost, links drop and processes are killed.
func TestRobustness(t *testing.T) {
	from, to := seeds(t, 3)
	s := startRobustness(t, kubeEdgeLosses)
	for n := from; n <= to; n++ {
		file := filepath.Join(histories(t), fmt.Sprintf("seed-%d.jsonl", n))
		since := time.Now()
		v, err := s.Run(t.Context(), n, file)
		if err != nil {
			t.Fatalf("seed %d: %v", n, err)
		}
		if !v.OK() {
			t.Errorf("seed %d: %v\nhistory: %s\nreplay:  SEED=%d go test -count=1 -run '^TestRobustness$' .", n, v, file, n)
			continue
		}
		t.Logf("seed %d, %.1f s: %v", n, time.Since(since).Seconds(), v)
		if err := os.Remove(file); err != nil {
			t.Error(err)
		}
	}
}

// runHere runs a command in this process.
func runHere(t *testing.T, environ []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, environ, &out, &errs)
	return code, out.String(), errs.String()
}

func TestCheckHistoryCommand(t *testing.T) {
	write := func(records ...history.Record) string {
		t.Helper()
		var b bytes.Buffer
		w := history.NewWriter(&b)
		for _, r := range records {
			w.Write(r)
		}
		file := filepath.Join(t.TempDir(), "history.jsonl")
		if err := errors.Join(w.Err(), os.WriteFile(file, b.Bytes(), 0o600)); err != nil {
			t.Fatal(err)
		}
		return file
	}
	begin, healed, end := history.Record{Kind: history.KindRun, Event: history.Begin}, history.Record{Kind: history.KindRun, Event: history.Healed}, history.Record{Kind: history.KindRun, Event: history.End}
	again := history.Record{Kind: history.KindBus, Event: history.Served, UID: "u1", Generation: 1}
	for _, c := range []struct {
		file string
		code int
		says string
	}{
		{write(begin, healed, end), 0, "no violations"},
		{write(begin, again, again, healed, end), 1, "line 3: a deployment step runs once: task u1"},
		{write(begin), 1, "incomplete"},
		{filepath.Join(t.TempDir(), "none"), 1, "no such file"},
	} {
		code, out, errs := runHere(t, nil, "check-history", c.file)
		if code != c.code || !strings.Contains(out+errs, c.says) {
			t.Errorf("exit code %d, expected %d and %q:\n%s%s", code, c.code, c.says, out, errs)
		}
	}
	if code, _, _ := runHere(t, nil, "check-history"); code != 2 {
		t.Errorf("without a file: exit code %d", code)
	}
}

func TestUnknownLossesAreConfigurationErrors(t *testing.T) {
	for _, c := range []struct {
		environ []string
		args    []string
	}{
		{nil, []string{"up", "--lose", "first-report,everything", "--data-dir", t.TempDir()}},
		{nil, []string{"join", "--cloud", "https://127.0.0.1:1", "--lose", "everything", "--data-dir", t.TempDir()}},
		{[]string{"SEDNA_EDGELINK_LOSE=everything"}, []string{"mapper", "--check-config"}},
		{[]string{"SEDNA_LOSE=everything"}, []string{"globalmanager", "--check-config"}},
	} {
		code, _, errs := runHere(t, c.environ, c.args...)
		if code != 2 || !strings.Contains(errs, `unknown loss "everything"`) || !strings.Contains(errs, "create-offline") {
			t.Errorf("%v %v: exit code %d: %s", c.environ, c.args, code, errs)
		}
	}
	if code, out, errs := runHere(t, []string{"SEDNA_EDGELINK_LOSE=first-report,drop-up=0.5"}, "mapper", "--check-config"); code != 0 {
		t.Errorf("known losses: exit code %d: %s%s", code, out, errs)
	}
}
