package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/edgetwin/sedna/examples/robustness"
	"github.com/edgetwin/sedna/lib/history"
)

// kubeEdgeLosses is everything that KubeEdge was seen to lose, and some by chance.
var kubeEdgeLosses = []string{"first-report", "first-empty", "offline-report", "desired-offline", "create-offline", "delete-offline", "quick-rebind", "coalesce", "drop-up=0.05", "drop-down=0.1"}

// startRobustness brings up a stack whose processes are this test binary.
func startRobustness(t *testing.T, clocks bool, environ ...string) *robustness.Stack {
	t.Helper()
	dir, err := os.MkdirTemp("", "sedna-r") // t.TempDir is too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	mosquitto, err := exec.LookPath("mosquitto")
	if err != nil {
		t.Log("no mosquitto: a bus that is restarted has always lost what it had retained")
	}
	lose := kubeEdgeLosses
	if text := os.Getenv("LOSSES"); text != "" {
		lose = strings.Split(text, ",")
	}
	s, err := robustness.Start(t.Context(), robustness.Options{
		Argv: []string{os.Args[0]}, Environ: append(append(os.Environ(), asSedna+"=1"), environ...), Dir: dir,
		Losses: lose, Mosquitto: mosquitto, Clocks: clocks, Log: t.Logf,
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

// standardSeeds together do everything that a seed can do.
var standardSeeds = []int64{4, 9, 16}

// seeds gives the seeds to run: SEED=17 is that one, SEEDS=100 the first
// hundred, SEEDS=101-200 the next, and nothing the standard ones.
func seeds(t *testing.T, standard []int64) []int64 {
	t.Helper()
	text, from := os.Getenv("SEED"), ""
	if text != "" {
		from = text
	} else if text = os.Getenv("SEEDS"); text == "" {
		return standard
	} else if first, last, ok := strings.Cut(text, "-"); ok {
		from, text = first, last
	} else {
		from = "1"
	}
	a, err1 := strconv.ParseInt(from, 10, 64)
	b, err2 := strconv.ParseInt(text, 10, 64)
	if err1 != nil || err2 != nil || a < 1 || b < a {
		t.Fatalf("SEED=%s SEEDS=%s: expected a number from 1, SEEDS also a range such as 101-200", os.Getenv("SEED"), os.Getenv("SEEDS"))
	}
	var list []int64
	for n := a; n <= b; n++ {
		list = append(list, n)
	}
	return list
}

// TestRobustness holds the task protocol to its word while everything that
// KubeEdge loses is lost, links drop, processes are killed and disks go bad.
func TestRobustness(t *testing.T) {
	runSeeds(t, startRobustness(t, false), seeds(t, standardSeeds), "go test")
}

// runSeeds runs seeds one after the other. goTest is how to run this test.
func runSeeds(t *testing.T, s *robustness.Stack, seeds []int64, goTest string) {
	t.Helper()
	for _, n := range seeds {
		file := filepath.Join(histories(t), fmt.Sprintf("%s-seed-%d.jsonl", t.Name(), n))
		since := time.Now()
		v, err := s.Run(t.Context(), n, file)
		if err != nil {
			t.Fatalf("seed %d: %v", n, err)
		}
		if !v.OK() {
			losses := ""
			if text := os.Getenv("LOSSES"); text != "" {
				losses = "LOSSES=" + text + " "
			}
			t.Errorf("seed %d: %v\nhistory: %s\nreplay:  %sSEED=%d %s -count=1 -run '^%s$' .", n, v, file, losses, n, goTest, t.Name())
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
