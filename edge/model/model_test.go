package model_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/edgetwin/sedna/edge/model"
	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/lib/engine"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// testEngine does what the file's first word says, in the load test's child.
type testEngine struct{}

func (testEngine) Name() string      { return "test" }
func (testEngine) Formats() []string { return []string{"test"} }

func (testEngine) Load(_ context.Context, path string, _ engine.Options) (engine.Session, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	word, _, _ := strings.Cut(string(b), " ")
	switch word {
	case "good":
		return session{}, nil
	case "crash":
		return nil, syscall.Kill(os.Getpid(), syscall.SIGSEGV)
	case "panic":
		panic("the model made me")
	case "hang":
		select {}
	case "hog":
		var hold [][]byte
		for {
			p := make([]byte, 64<<20)
			for i := range p {
				p[i] = 1
			}
			hold = append(hold, p)
			runtime.KeepAlive(hold)
		}
	case "talk":
		fmt.Fprintln(os.Stderr, strings.Repeat("x", 1<<20))
		os.Exit(0)
	}
	return nil, fmt.Errorf("%w: first word is %.20q", engine.ErrInvalidModel, word)
}

type session struct{}

func (session) Inputs() []engine.TensorInfo  { return nil }
func (session) Outputs() []engine.TensorInfo { return nil }
func (session) MemoryBytes() int64           { return 0 }
func (session) Close() error                 { return nil }
func (session) Infer(context.Context, []engine.Tensor) ([]engine.Tensor, error) {
	return nil, nil
}

func TestMain(m *testing.M) {
	engine.Register(testEngine{}, 0)
	if handled, code := model.LoadTestMain(os.Args[1:]); handled {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// web fetches over real HTTP from a server that has files by path.
type web struct {
	*httptest.Server
	files   map[string][]byte
	fetches atomic.Int64
}

func newWeb(t *testing.T, files map[string][]byte) *web {
	w := &web{files: files}
	w.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		b, ok := w.files[r.URL.Path]
		if !ok {
			http.NotFound(rw, r)
			return
		}
		_, _ = rw.Write(b)
	}))
	t.Cleanup(w.Close)
	return w
}

func (w *web) Fetch(ctx context.Context, url, _, dst string, limit int64) error {
	w.fetches.Add(1)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := w.Client().Do(req)
	if err != nil {
		return wire.E(wire.Unavailable, "", err.Error(), "")
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	switch {
	case err != nil:
		return err
	case resp.StatusCode != http.StatusOK:
		return wire.ParseError(resp.StatusCode, b)
	case int64(len(b)) > limit:
		return wire.E(wire.TooLarge, "", "too large", "")
	}
	return os.WriteFile(dst, b, 0o600)
}

type fixture struct {
	*model.Library
	store   *store.Store
	metrics *metrics.Registry
	dir     string
	events  []store.Event
}

func library(t *testing.T, dir string, o model.Options) *fixture {
	t.Helper()
	s, err := store.Open(t.Context(), store.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	f := &fixture{store: s, metrics: metrics.New(), dir: dir}
	o.Dir, o.Store, o.Metrics = dir, s, f.metrics
	o.Events = func(e store.Event) { f.events = append(f.events, e) }
	if f.Library, err = model.New(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) files(t *testing.T) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(f.dir, "models"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

// refer makes a task refer to a digest.
func (f *fixture) refer(t *testing.T, sha string) {
	t.Helper()
	err := f.store.Update(t.Context(), func(tx *store.Tx) error {
		return tx.PutTask(&store.Task{Namespace: "n", Device: "d-" + sha[:8], UID: sha, State: task.Active, ModelSHA256: sha, Document: []byte("{}")})
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestEnsure(t *testing.T) {
	good := []byte("good model")
	w := newWeb(t, map[string][]byte{"/m": good})
	dir := t.TempDir()
	f := library(t, dir, model.Options{Fetch: w})
	for i, m := range []task.Model{
		{Name: "m", URL: w.URL + "/m", SHA256: digest(good), Format: "test"},
		{Name: "m", URL: w.URL + "/m", SHA256: digest(good), Format: "TEST"}, // is here
		{Name: "m", URL: w.URL + "/m", Format: "test"},                       // digest unknown
	} {
		file, err := f.Ensure(t.Context(), m)
		if err != nil {
			t.Fatal(i, err)
		}
		if b, err := os.ReadFile(file.Path); err != nil || string(b) != string(good) || file.SHA256 != digest(good) || file.Size != int64(len(good)) {
			t.Fatal(i, file, err)
		}
		file.Release()
	}
	if n := w.fetches.Load(); n != 2 {
		t.Errorf("%d fetches", n)
	}
	info, err := os.Stat(filepath.Join(dir, "models", digest(good)))
	if err != nil || info.Mode().Perm() != 0o400 {
		t.Error(info.Mode(), err)
	}
	// A damaged file is fetched again.
	path := filepath.Join(dir, "models", digest(good))
	if err := errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, []byte("bad! model"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := f.Check(t.Context(), digest(good)); !wire.IsCode(err, wire.DigestMismatch) {
		t.Error(err)
	}
	if _, err := f.Local(t.Context(), digest(good)); err == nil {
		t.Error("damaged file taken for good")
	}
	file, err := f.Ensure(t.Context(), task.Model{Name: "m", URL: w.URL + "/m", SHA256: digest(good), Format: "test"})
	if err != nil {
		t.Fatal(err)
	}
	file.Release()
}

func TestRefusals(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	for _, p := range []string{filepath.Join(root, "m"), filepath.Join(outside, "m")} {
		if err := os.WriteFile(p, []byte("good one"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(outside, "m"), filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"/hang": []byte("hang x"), "/other": []byte("other"), "/big": make([]byte, 2000)}
	for _, k := range []string{"crash", "panic", "hog", "talk", "garbage"} {
		files["/"+k] = []byte(k + " x")
	}
	w := newWeb(t, files)
	memory := int64(256 << 20)
	for name, c := range map[string]struct {
		m    task.Model
		code wire.Code
		says string
		door string
	}{
		"says no":           {task.Model{URL: w.URL + "/garbage"}, wire.BadModel, "first word", metrics.DoorFile},
		"crashes":           {task.Model{URL: w.URL + "/crash"}, wire.BadModel, "segmentation", metrics.DoorFile},
		"panics":            {task.Model{URL: w.URL + "/panic"}, wire.BadModel, "the model made me", metrics.DoorFile},
		"hangs":             {task.Model{URL: w.URL + "/hang"}, wire.BadModel, "within 3s", metrics.DoorFile},
		"takes all memory":  {task.Model{URL: w.URL + "/hog"}, wire.BadModel, "", metrics.DoorFile},
		"talks":             {task.Model{URL: w.URL + "/talk"}, wire.BadModel, "xxx", metrics.DoorFile},
		"unknown format":    {task.Model{URL: w.URL + "/other", Format: "pt"}, wire.UnsupportedMedia, "pt", metrics.DoorFile},
		"worker runtime":    {task.Model{URL: w.URL + "/other", Runtime: "worker"}, wire.Unimplemented, "worker", ""},
		"wrong digest":      {task.Model{URL: w.URL + "/other", SHA256: digest([]byte("else"))}, wire.DigestMismatch, "expected", metrics.DoorBlob},
		"too large":         {task.Model{URL: w.URL + "/big"}, wire.TooLarge, "", metrics.DoorBlob},
		"not there":         {task.Model{URL: w.URL + "/none"}, wire.NotFound, "", metrics.DoorBlob},
		"outside the roots": {task.Model{URL: filepath.Join(outside, "m")}, wire.PermissionDenied, "data roots", metrics.DoorBlob},
		"dots":              {task.Model{URL: root + "/../" + filepath.Base(outside) + "/m"}, wire.PermissionDenied, "data roots", metrics.DoorBlob},
		"link out":          {task.Model{URL: "file://" + filepath.Join(root, "link")}, wire.NotFound, "", metrics.DoorBlob},
		"directory":         {task.Model{URL: root}, wire.InvalidArgument, "not a file", metrics.DoorBlob},
	} {
		t.Run(name, func(t *testing.T) {
			limits := model.Limits{MaxModelBytes: 1999, LoadTestTimeout: 30 * time.Second, LoadTestMemory: memory}
			if name == "hangs" {
				limits.LoadTestTimeout = 3 * time.Second
			}
			f := library(t, t.TempDir(), model.Options{Fetch: w, DataRoots: []string{root}, Limits: limits})
			c.m.Name = "m"
			if c.m.Format == "" {
				c.m.Format = "test"
			}
			_, err := f.Ensure(t.Context(), c.m)
			if !wire.IsCode(err, c.code) || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("got %v, want %s with %q", err, c.code, c.says)
			}
			if left := f.files(t); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			_ = f.store.View(t.Context(), func(tx *store.Tx) error {
				if models, err := tx.Models(); err != nil || len(models) > 0 {
					t.Errorf("stored: %v %v", models, err)
				}
				return nil
			})
			want := 1.0
			if c.door == "" {
				want = 0
			}
			if got := rejected(t, f.metrics, c.door, string(c.code)); got != want {
				t.Errorf("sedna_rejected_total{%s,%s} = %v", c.door, c.code, got)
			}
		})
	}
	f := library(t, t.TempDir(), model.Options{DataRoots: []string{root}})
	file, err := f.Ensure(t.Context(), task.Model{Name: "m", URL: filepath.Join(root, "m"), Format: "test"})
	if err != nil {
		t.Fatal(err)
	}
	file.Release()
}

func rejected(t *testing.T, r *metrics.Registry, door, code string) float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, fam := range families {
		if fam.GetName() != "sedna_rejected_total" {
			continue
		}
		for _, m := range fam.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if labels["door"] == door && labels["code"] == code {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

func TestQuarantineAfterTwoCrashes(t *testing.T) {
	good := []byte("good model")
	w := newWeb(t, map[string][]byte{"/m": good})
	m := task.Model{Name: "m", Version: "1", URL: w.URL + "/m", SHA256: digest(good), Format: "test"}
	dir := t.TempDir()
	now := time.Now()
	start := func(run func(f *fixture)) {
		t.Helper()
		s, err := store.Open(t.Context(), store.Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		f := &fixture{store: s, dir: dir}
		f.Library, err = model.New(t.Context(), model.Options{Dir: dir, Store: s, Fetch: w, Now: func() time.Time { return now }, Events: func(e store.Event) { f.events = append(f.events, e) }})
		if err != nil {
			t.Fatal(err)
		}
		run(f)
	}
	// A process that dies while it loads leaves the mark: here the store is
	// copied at that moment, as a kill would leave it.
	die := func(f *fixture) {
		t.Helper()
		file, err := f.Ensure(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Release()
		defer func() { _ = recover() }()
		_ = f.Loading(t.Context(), file.SHA256, func() error { panic("the process is gone") })
	}
	start(die)
	start(func(f *fixture) {
		// One crash: it gets another chance, and a success clears the count.
		file, err := f.Local(t.Context(), m.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Release()
		if err := f.Loading(t.Context(), m.SHA256, func() error { return nil }); err != nil {
			t.Fatal(err)
		}
	})
	start(die)
	start(die)
	start(func(f *fixture) {
		if _, err := f.Local(t.Context(), m.SHA256); !wire.IsCode(err, wire.Quarantined) {
			t.Errorf("local: %v", err)
		}
		if _, err := f.Ensure(t.Context(), m); !wire.IsCode(err, wire.Quarantined) {
			t.Errorf("ensure: %v", err)
		}
		if len(f.events) != 1 || f.events[0].Reason != "Quarantined" {
			t.Error(f.events)
		}
		if err := f.Collect(t.Context()); err != nil {
			t.Error(err)
		}
		if left := f.files(t); len(left) != 0 {
			t.Error(left)
		}
	})
	now = now.Add(8 * 24 * time.Hour)
	start(func(f *fixture) {
		file, err := f.Ensure(t.Context(), m)
		if err != nil {
			t.Fatalf("after the quarantine: %v", err)
		}
		file.Release()
	})
}

func TestCollect(t *testing.T) {
	files := map[string][]byte{}
	var ms []task.Model
	w := newWeb(t, files)
	for i := range 4 {
		b := fmt.Appendf(nil, "good %d", i)
		files[fmt.Sprintf("/%d", i)] = b
		ms = append(ms, task.Model{Name: "m", URL: fmt.Sprintf("%s/%d", w.URL, i), SHA256: digest(b), Format: "test"})
	}
	now := time.Now()
	f := library(t, t.TempDir(), model.Options{Fetch: w, Now: func() time.Time { return now }})
	var held []model.File
	for _, m := range ms[:3] {
		file, err := f.Ensure(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, file)
	}
	f.refer(t, ms[0].SHA256)
	held[0].Release()
	held[1].Release()
	orphan := filepath.Join(f.dir, "models", ms[3].SHA256)
	if err := os.WriteFile(orphan, files["/3"], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := f.files(t); len(got) != 3 { // referred to, held, and the orphan in its grace time
		t.Error(got)
	}
	// An orphan, as a lost database leaves it, is adopted without a fetch.
	before := w.fetches.Load()
	file, err := f.Ensure(t.Context(), ms[3])
	if err != nil || w.fetches.Load() != before {
		t.Error(err, w.fetches.Load()-before)
	}
	file.Release()
	held[2].Release()
	if err := os.WriteFile(filepath.Join(f.dir, "models", strings.Repeat("0", 64)), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	now = now.Add(2 * time.Hour)
	if err := f.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := f.files(t); len(got) != 1 || got[0] != ms[0].SHA256 {
		t.Error(got)
	}
}

func TestQuota(t *testing.T) {
	a, b := []byte("good "+strings.Repeat("a", 95)), []byte("good "+strings.Repeat("b", 95))
	w := newWeb(t, map[string][]byte{"/a": a, "/b": b})
	f := library(t, t.TempDir(), model.Options{Fetch: w, Limits: model.Limits{QuotaBytes: 199}})
	file, err := f.Ensure(t.Context(), task.Model{Name: "a", URL: w.URL + "/a", SHA256: digest(a), Format: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer file.Release()
	if _, err := f.Ensure(t.Context(), task.Model{Name: "b", URL: w.URL + "/b", SHA256: digest(b), Format: "test"}); !wire.IsCode(err, wire.ResourceExhausted) {
		t.Errorf("over the quota: %v", err)
	}
}

func TestCancelledLoadTestSaysNothing(t *testing.T) {
	b := []byte("hang x")
	w := newWeb(t, map[string][]byte{"/m": b})
	f := library(t, t.TempDir(), model.Options{Fetch: w})
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(300*time.Millisecond, cancel)
	if _, err := f.Ensure(ctx, task.Model{Name: "m", URL: w.URL + "/m", SHA256: digest(b), Format: "test"}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
