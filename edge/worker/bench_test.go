package worker_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/edge/worker"
	"github.com/edgetwin/sedna/models/task"
)

// BenchmarkLife is a worker from its request to its recorded success, and what
// its shim takes of memory.
func BenchmarkLife(b *testing.B) {
	dir := b.TempDir()
	db, err := store.Open(b.Context(), store.Options{Dir: dir})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	changed := make(chan struct{}, 1)
	s, err := worker.New(worker.Options{
		Dir: filepath.Join(dir, "workers"), Roots: []string{"/usr/bin"}, Store: db, Reports: &reports{}, Server: func() string { return "" }, Limits: quick(),
		Changed: func(worker.Key) {
			select {
			case changed <- struct{}{}:
			default:
			}
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Start(b.Context(), func(worker.Key) bool { return true }); err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	until := func(k worker.Key, ok func(worker.Status) bool) worker.Status {
		for {
			if st, _ := s.Status(k); ok(st) {
				return st
			}
			<-changed
		}
	}
	request := func(argv ...string) worker.Request {
		return worker.Request{UID: "uid-1", Generation: 1, Worker: task.Worker{Name: "w", Argv: argv, RestartPolicy: task.RestartNever}}
	}
	for b.Loop() {
		if err := s.Apply(b.Context(), request("true")); err != nil {
			b.Fatal(err)
		}
		until(key, func(st worker.Status) bool { return st.Phase == worker.Succeeded })
		if err := s.Stop(b.Context(), key); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	if err := s.Apply(b.Context(), request("sleep", "60")); err != nil {
		b.Fatal(err)
	}
	st := until(key, func(st worker.Status) bool { return st.PID != 0 })
	var shim int
	if err := db.View(b.Context(), func(tx *store.Tx) error {
		w, err := tx.Worker(st.UID, st.Name)
		shim = w.PID
		return err
	}); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(memoryOf(b, shim, "Pss_Anon:"), "own-KiB/shim")
	b.ReportMetric(memoryOf(b, shim, "Rss:"), "rss-KiB/shim")
	if err := s.Stop(b.Context(), key); err != nil {
		b.Fatal(err)
	}
}

// memoryOf reads a line of /proc/PID/smaps_rollup, in KiB.
func memoryOf(b *testing.B, pid int, line string) float64 {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "smaps_rollup"))
	if err != nil {
		b.Fatal(err)
	}
	for l := range strings.Lines(string(text)) {
		if f := strings.Fields(l); len(f) == 3 && f[0] == line {
			n, err := strconv.ParseFloat(f[1], 64)
			if err != nil {
				b.Fatal(err)
			}
			return n
		}
	}
	b.Fatal("no " + line)
	return 0
}
