package dataset

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

var errCrash = errors.New("crash")

// crash ends a manager's writing at a step.
type crash struct{ left atomic.Int64 }

func (c *crash) step(string) error {
	if c.left.Add(-1) <= 0 {
		return errCrash
	}
	return nil
}

// never puts the crash off.
func (c *crash) never() { c.left.Store(1 << 40) }

// TestAnyHistory does at random what users, writers and power cuts do. However
// it goes, each job gets each sample once, and one that trains on everything
// gets them in order.
func TestAnyHistory(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { anyHistory(t, rand.New(rand.NewPCG(seed, 1)), 60) })
	}
}

func anyHistory(t *testing.T, rng *rand.Rand, steps int) {
	w := newWorld(t, "txt")
	w.limits = Limits{SegmentBytes: 200, TrainShards: 1 << 20, EvalShards: 1 << 20}
	w.write("")
	c := &crash{}
	c.never()
	w.step = c.step
	w.start()
	w.register("all", Consumer{TrainProb: 1})
	w.register("half", Consumer{TrainProb: 0.5, Seed: 3})

	var log []string  // what was done
	var want []string // samples in order
	open := ""        // the begin of the last line
	line := func(end string) string {
		full := open + fmt.Sprintf("sample-%d", len(want))
		rest := full[len(open):]
		want, open = append(want, full), ""
		return rest + end
	}
	// settled looks until it has come through.
	settled := func() {
		for {
			err := w.m.Look(context.Background(), set)
			if err == nil {
				return
			}
			if !errors.Is(err, errCrash) {
				t.Fatalf("%v after %v", err, log)
			}
			c.never()
			w.restart()
		}
	}
	got := map[string][]string{}
	round := map[string]int64{}
	take := func(job string) {
		round[job]++
		for {
			r, err := w.m.Take(context.Background(), set, job, round[job], int64(rng.IntN(20)))
			if wire.IsCode(err, wire.FailedPrecondition) {
				return
			}
			if err == nil {
				got[job] = append(append(got[job], lines(t, r.Train.Path)...), lines(t, r.Eval.Path)...)
				return
			}
			if !errors.Is(err, errCrash) {
				t.Fatalf("%v after %v", err, log)
			}
			c.never()
			w.restart()
		}
	}
	rotated := 0
	ops := map[string]func(){
		"append": func() {
			var b strings.Builder
			for range 1 + rng.IntN(30) {
				b.WriteString(line([]string{"\n", "\r\n"}[rng.IntN(2)]))
			}
			w.append(b.String())
		},
		"half": func() {
			if open == "" {
				open = fmt.Sprintf("half-%d-", len(log))
				w.append(open)
			}
		},
		"look":    settled,
		"crash":   func() { c.left.Store(1 + rng.Int64N(6)) },
		"restart": func() { c.never(); w.restart() },
		"rotate": func() {
			settled()
			if rotated++; open != "" {
				want, open = append(want, open), ""
			}
			w.rename(fmt.Sprint(w.path, ".", rotated))
			w.write(line("\n"))
			settled()
		},
		"truncate": func() {
			settled()
			open = ""
			w.truncate(0)
			settled()
		},
		"replace": func() {
			settled()
			if open != "" { // it is in a file without a name then, which a crash would end
				c.never()
				want, open = append(want, open), ""
			}
			w.replace(line("\n"))
			settled()
		},
		"copy": func() {
			settled()
			text, err := os.ReadFile(w.path)
			if err != nil {
				t.Fatal(err)
			}
			if len(text) > len(open) { // something was read by which it can be known
				w.replace(string(text) + line("\n"))
			}
		},
		"vanish": func() {
			settled()
			w.rename(w.path + ".away")
			_ = w.m.Look(context.Background(), set)
			if err := os.Rename(w.path+".away", w.path); err != nil {
				t.Fatal(err)
			}
		},
		"take":      func() { take("all") },
		"take half": func() { take("half") },
	}
	names := []string{"append", "half", "look", "crash", "restart", "rotate", "truncate", "replace", "copy", "vanish", "take", "take half"}
	for range steps {
		name := names[rng.IntN(len(names))]
		log = append(log, name)
		ops[name]()
	}
	settled()
	if open != "" {
		w.append(line("\n"))
		settled()
	}
	for _, job := range []string{"all", "half"} {
		for n := -1; n != len(got[job]); {
			n = len(got[job])
			take(job)
		}
	}
	if diff := cmp.Diff(want, got["all"]); diff != "" {
		t.Errorf("%s\nafter %v", diff, log)
	}
	seen := map[string]int{}
	for _, s := range got["half"] {
		seen[s]++
	}
	for _, s := range want {
		if seen[s] != 1 {
			t.Errorf("%q was taken %d times, after %v", s, seen[s], log)
		}
	}
	if len(got["half"]) != len(want) {
		t.Errorf("%d samples, expected %d", len(got["half"]), len(want))
	}
}

// Environment of the process that is killed.
const (
	killDir  = "SEDNA_DATASET_KILL_DIR"
	killRoot = "SEDNA_DATASET_KILL_ROOT"
	killStep = "SEDNA_DATASET_KILL_STEP"
)

func TestMain(m *testing.M) {
	if os.Getenv(killDir) != "" {
		os.Exit(killable())
	}
	os.Exit(m.Run())
}

// killable takes one round after the other, and kills itself at a step.
func killable() int {
	left, err := strconv.Atoi(os.Getenv(killStep))
	if err != nil {
		return 2
	}
	err = func() error {
		ctx := context.Background()
		s, err := store.Open(ctx, store.Options{Dir: os.Getenv(killDir)})
		if err != nil {
			return err
		}
		root := os.Getenv(killRoot)
		m, err := newManager(ctx, Options{Dir: os.Getenv(killDir), Store: s, DataRoots: []string{root}, Limits: Limits{SegmentBytes: 300, Gap: time.Hour}}, func(string) error {
			if left--; left == 0 {
				return syscall.Kill(os.Getpid(), syscall.SIGKILL)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if err := m.Ensure(ctx, set, task.Dataset{URL: filepath.Join(root, "d.csv"), Format: "csv"}); err != nil {
			return err
		}
		if err := m.Register(ctx, set, "job", Consumer{TrainProb: 0.5, Mode: Sequential}); err != nil {
			return err
		}
		if err := m.Look(ctx, set); err != nil {
			return err
		}
		for round := int64(1); ; round++ {
			r, err := m.Take(ctx, set, "job", round, 30)
			if wire.IsCode(err, wire.FailedPrecondition) {
				break
			}
			if err != nil {
				return err
			}
			for _, path := range []string{r.Train.Path, r.Eval.Path} {
				if path == "" { // let go, after an earlier life has taken it
					continue
				}
				b, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				fmt.Print(strings.TrimPrefix(string(b), "n\n"))
			}
		}
		m.Close()
		return s.Close()
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// TestKilledBetweenWrites kills a process before and after each of its writes.
// The next one goes on, and neither loses nor repeats a sample.
func TestKilledBetweenWrites(t *testing.T) {
	text, want := "n\n", ""
	for i := range 120 {
		text += fmt.Sprintf("%d\n", 1000+i)
		want += fmt.Sprintf("%d\n", 1000+i)
	}
	killed := 0
	for step := 1; ; step++ {
		root, dir := t.TempDir(), t.TempDir()
		if err := os.WriteFile(filepath.Join(root, "d.csv"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		life := func(step int) (string, error) {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), killDir+"="+dir, killRoot+"="+root, killStep+"="+strconv.Itoa(step))
			var stderr strings.Builder
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if stderr.Len() > 0 {
				t.Fatal(stderr.String())
			}
			return string(out), err
		}
		out, err := life(step)
		if err != nil {
			killed++
			if out, err = life(0); err != nil {
				t.Fatal(err)
			}
		}
		// Rounds that the first life has printed are given again.
		if out != want {
			t.Fatalf("killed at step %d: %s", step, cmp.Diff(want, out))
		}
		left, err := filepath.Glob(filepath.Join(dir, "datasets", "tmp", "*"))
		if err != nil || len(left) > 0 {
			t.Errorf("left behind: %v %v", left, err)
		}
		if killed < step {
			break
		}
	}
	if killed < 15 {
		t.Errorf("only %d steps", killed)
	}
}
