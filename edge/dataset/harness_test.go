package dataset

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

var set = Key{Namespace: "default", Name: "d"}

// world is a node with one dataset, whose manager can be ended and begun again.
type world struct {
	t      testing.TB
	root   string // data root
	dir    string // of the node
	path   string // of the dataset
	format string
	limits Limits
	source Source
	label  string
	clock  *atomic.Int64 // ns that were added to the time
	step   func(string) error
	store  *store.Store
	m      *Manager
	rounds int64
}

func newWorld(t testing.TB, format string) *world {
	root := t.TempDir()
	w := &world{t: t, root: root, dir: t.TempDir(), path: filepath.Join(root, "d."+format), format: format, clock: &atomic.Int64{}}
	t.Cleanup(w.stop)
	return w
}

// start begins the manager, which has looked once then; from now on it looks only
// when it is asked.
func (w *world) start() {
	w.t.Helper()
	s, err := store.Open(context.Background(), store.Options{Dir: w.dir})
	if err != nil {
		w.t.Fatal(err)
	}
	w.store = s
	limits := w.limits
	if limits.Gap == 0 {
		limits.Gap = time.Hour
	}
	w.m, err = newManager(context.Background(), Options{
		Dir: w.dir, Store: s, DataRoots: []string{w.root}, Source: w.source, Limits: limits,
		Now: func() time.Time { return time.Now().Add(time.Duration(w.clock.Load())) },
	}, w.step)
	if err == nil {
		err = w.m.Ensure(context.Background(), set, task.Dataset{URL: w.path, Format: w.format, Label: w.label, PeriodSeconds: 3600})
	}
	if err != nil {
		w.t.Fatal(err)
	}
	_ = w.m.Look(context.Background(), set) // there may be nothing yet
}

func (w *world) stop() {
	if w.m != nil {
		w.m.Close()
		_ = w.store.Close()
		w.m = nil
	}
}

func (w *world) restart() {
	w.t.Helper()
	w.stop()
	w.start()
}

func (w *world) register(job string, c Consumer) {
	w.t.Helper()
	if err := w.m.Register(context.Background(), set, job, c); err != nil {
		w.t.Fatal(err)
	}
}

// look has the dataset read, and gives its status.
func (w *world) look() Status {
	w.t.Helper()
	_ = w.m.Look(context.Background(), set) // the status says it too
	s, err := w.m.Status(context.Background(), set)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// take gives what a job's next round takes, in the order of the data.
func (w *world) take(job string) []string {
	w.t.Helper()
	w.rounds++
	r, err := w.m.Take(context.Background(), set, job, w.rounds, 0)
	if wire.IsCode(err, wire.FailedPrecondition) {
		return nil
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return append(lines(w.t, r.Train.Path), lines(w.t, r.Eval.Path)...)
}

func lines(t testing.TB, path string) []string {
	t.Helper()
	if path == "" {
		return nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

// reasons are those of the events so far, the oldest first.
func (w *world) reasons() (out []string) {
	w.t.Helper()
	err := w.store.View(context.Background(), func(tx *store.Tx) error {
		events, err := tx.Events(1000)
		for _, e := range slices.Backward(events) {
			out = append(out, e.Reason)
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// What users do to files.

func (w *world) write(text string) {
	w.t.Helper()
	if err := os.WriteFile(w.path, []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) append(text string) { w.appendTo(w.path, text) }

func (w *world) appendTo(path, text string) {
	w.t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		w.t.Fatal(err)
	}
}

// replace puts another file in the place of the dataset's.
func (w *world) replace(text string) {
	w.t.Helper()
	tmp := w.path + ".new"
	w.appendTo(tmp, text)
	if err := os.Rename(tmp, w.path); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) rename(to string) {
	w.t.Helper()
	if err := os.Rename(w.path, to); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) remove() {
	w.t.Helper()
	if err := os.Remove(w.path); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) truncate(n int64) {
	w.t.Helper()
	if err := os.Truncate(w.path, n); err != nil {
		w.t.Fatal(err)
	}
}

// numbered gives the lines from to to, to not included.
func numbered(from, to int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		fmt.Fprintf(&b, "sample-%d\n", i)
	}
	return b.String()
}

func split(text string) []string {
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}
