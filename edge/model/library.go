package model

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// Fetcher brings bytes from elsewhere.
type Fetcher interface {
	// Fetch writes what url names (blob://sha256/<hex>, https:// or http://) to
	// the file dst, which may hold the beginning of it from an interrupted try,
	// and gives up with too_large beyond limit bytes. sha256 may be empty. An
	// interrupted try leaves dst for the next one.
	Fetch(ctx context.Context, url, sha256, dst string, limit int64) error
}

// Limits bound what models may take. Zero fields mean the defaults.
type Limits struct {
	MaxModelBytes   int64         `yaml:"maxModelBytes"`   // one model file; default 512 MiB
	QuotaBytes      int64         `yaml:"quotaBytes"`      // all model files together; default 8 GiB
	LoadTestTimeout time.Duration `yaml:"loadTestTimeout"` // of the throwaway child; default 60s
	LoadTestMemory  int64         `yaml:"loadTestMemory"`  // bytes that the child may take; default 2 GiB
	Crashes         int           `yaml:"crashes"`         // while loading, in a row, before a model is quarantined; default 2
	Quarantine      time.Duration `yaml:"quarantine"`      // how long it stays so; default 168h
	OrphanGrace     time.Duration `yaml:"orphanGrace"`     // after a start, before files that no row knows are removed; default 1h
}

// WithDefaults fills in zero fields.
func (l Limits) WithDefaults() Limits {
	for _, d := range []struct {
		field *int64
		value int64
	}{{&l.MaxModelBytes, 512 << 20}, {&l.QuotaBytes, 8 << 30}, {&l.LoadTestMemory, 2 << 30}} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{{&l.LoadTestTimeout, time.Minute}, {&l.Quarantine, 7 * 24 * time.Hour}, {&l.OrphanGrace, time.Hour}} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if l.Crashes == 0 {
		l.Crashes = 2
	}
	return l
}

// Options of a Library.
type Options struct {
	Dir       string // the node's data directory; files go to Dir/models
	Store     *store.Store
	Fetch     Fetcher
	DataRoots []string // directories that file paths in tasks may point into
	Limits    Limits
	Command   []string          // of the load test's child; default this binary
	Metrics   *metrics.Registry // may be nil
	Events    func(store.Event) // told of quarantines and damage; may be nil
	Log       *slog.Logger      // may be nil
	Now       func() time.Time  // default time.Now
}

// Library is the node's set of model files. All methods are safe for
// concurrent use.
type Library struct {
	o       Options
	tester  Tester
	started time.Time

	mu   sync.Mutex
	pins map[string]int   // files that a caller holds, by digest
	busy map[string]*gate // one fetch, test or load per digest or URL at a time
}

// File is a model file that is whole and has passed the load test. It stays
// until Release is called and no task refers to it.
type File struct {
	SHA256  string
	Path    string // absolute
	Size    int64  // bytes
	Release func()
}

const (
	dirName     = "models"
	partialName = ".partial"
)

// New makes the directories and settles what the last run left behind: a model
// that was being loaded when the process died has crashed once more.
func New(ctx context.Context, o Options) (*Library, error) {
	o.Limits = o.Limits.WithDefaults()
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Events == nil {
		o.Events = func(store.Event) {}
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("model directory: %w", err)
	}
	o.Dir = dir
	l := &Library{
		o:       o,
		tester:  Tester{Command: o.Command, Timeout: o.Limits.LoadTestTimeout, MemoryBytes: o.Limits.LoadTestMemory},
		started: o.Now(),
		pins:    map[string]int{},
		busy:    map[string]*gate{},
	}
	if err := os.MkdirAll(filepath.Join(l.dir(), partialName), 0o700); err != nil {
		return nil, fmt.Errorf("model directory: %w", err)
	}
	return l, l.settle(ctx)
}

func (l *Library) dir() string { return filepath.Join(l.o.Dir, dirName) }

// path is where the file of a digest lies.
func (l *Library) path(sha string) string { return filepath.Join(l.dir(), sha) }

// settle counts crashes and quarantines.
func (l *Library) settle(ctx context.Context) error {
	var gone []*store.Model
	err := l.o.Store.Update(ctx, func(tx *store.Tx) error {
		gone = nil
		models, err := tx.Models()
		if err != nil {
			return err
		}
		for _, m := range models {
			switch {
			case !m.LoadingSince.IsZero():
				m.Crashes++
				m.LoadingSince = time.Time{}
				if m.Crashes >= l.o.Limits.Crashes {
					m.State, m.LastUsed = store.ModelQuarantined, l.o.Now()
					gone = append(gone, m)
				}
				err = tx.PutModel(m)
			case m.State == store.ModelQuarantined && l.o.Now().Sub(m.LastUsed) > l.o.Limits.Quarantine:
				err = tx.DeleteModel(m.SHA256)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("settle models: %w", err)
	}
	for _, m := range gone {
		if err := os.Remove(l.path(m.SHA256)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("quarantine model: %w", err)
		}
		l.o.Log.Error("model quarantined", "model", m.Name, "version", m.Version, "sha256", m.SHA256, "crashes", m.Crashes)
		l.o.Events(store.Event{Kind: "model", Reason: "Quarantined", Message: quarantined(m).Message})
	}
	return nil
}

func quarantined(m *store.Model) *wire.Error {
	return wire.E(wire.Quarantined, "", fmt.Sprintf("model %s %s (%.12s) was being loaded at %d crashes in a row", m.Name, m.Version, m.SHA256, m.Crashes), "push a repaired model")
}

// hold pins a digest so that Collect leaves its file.
func (l *Library) hold(sha string) (release func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pins[sha]++
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.pins[sha]--; l.pins[sha] == 0 {
			delete(l.pins, sha)
		}
	})
}

// gate is a lock that a waiter can give up on.
type gate struct {
	ch    chan struct{} // capacity 1, holds a value while locked
	users int           // that hold it or wait, guarded by Library.mu
}

// exclusive lets one caller at a time work on what key names.
func (l *Library) exclusive(ctx context.Context, key string) (unlock func(), err error) {
	l.mu.Lock()
	g := l.busy[key]
	if g == nil {
		g = &gate{ch: make(chan struct{}, 1)}
		l.busy[key] = g
	}
	g.users++
	l.mu.Unlock()
	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if g.users--; g.users == 0 {
			delete(l.busy, key)
		}
	}
	select {
	case g.ch <- struct{}{}:
		return func() { <-g.ch; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}

// row gives the row of a digest, nil if there is none.
func (l *Library) row(ctx context.Context, sha string) (m *store.Model, err error) {
	err = l.o.Store.View(ctx, func(tx *store.Tx) error {
		m, err = tx.Model(sha)
		return err
	})
	return m, err
}

func (l *Library) put(ctx context.Context, m *store.Model) error {
	return l.o.Store.Update(ctx, func(tx *store.Tx) error { return tx.PutModel(m) })
}

// Local gives the file of a digest without asking anybody: it was tested
// before, and its size is right. Small files are read and checked again; for
// large ones Check does so later.
func (l *Library) Local(ctx context.Context, sha string) (File, error) {
	release := l.hold(sha)
	f, err := l.local(ctx, sha)
	if err != nil {
		release()
		return File{}, err
	}
	f.Release = release
	return f, nil
}

// checkAtOnce is the size in bytes up to which Local reads the whole file.
const checkAtOnce = 32 << 20

func (l *Library) local(ctx context.Context, sha string) (File, error) {
	m, err := l.row(ctx, sha)
	switch {
	case err != nil:
		return File{}, err
	case m == nil:
		return File{}, wire.E(wire.NotFound, "", fmt.Sprintf("model %.12s is not on this node", sha), "")
	case m.State == store.ModelQuarantined:
		return File{}, quarantined(m)
	case m.State == store.ModelFetched:
		return File{}, wire.E(wire.FailedPrecondition, "", fmt.Sprintf("model %.12s was not tested yet", sha), "")
	}
	path := l.path(sha)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() != m.Size {
		return File{}, wire.E(wire.NotFound, "", fmt.Sprintf("the file of model %.12s is gone or cut", sha), "")
	}
	if err != nil {
		return File{}, fmt.Errorf("model %.12s: %w", sha, err)
	}
	if m.Size <= checkAtOnce {
		if err := verify(path, sha); err != nil {
			return File{}, l.o.Metrics.Reject(metrics.DoorFile, err)
		}
	}
	return File{SHA256: sha, Path: path, Size: m.Size}, nil
}

// Check reads the whole file of a digest and compares. When the bytes have
// changed on disk it returns digest_mismatch, and Ensure will not take the file
// for good again.
func (l *Library) Check(ctx context.Context, sha string) error {
	defer l.hold(sha)()
	err := verify(l.path(sha), sha)
	if !wire.IsCode(err, wire.DigestMismatch) {
		return err
	}
	_ = l.o.Metrics.Reject(metrics.DoorFile, err)
	return errors.Join(err, l.o.Store.Update(ctx, func(tx *store.Tx) error {
		m, err := tx.Model(sha)
		if err != nil || m == nil || m.State == store.ModelQuarantined {
			return err
		}
		m.State = store.ModelFetched
		return tx.PutModel(m)
	}))
}

// Loading runs load, which loads the file of a digest into this process, with
// a mark around it on disk: if the process dies in between, the next one knows
// of which model.
func (l *Library) Loading(ctx context.Context, sha string, load func() error) error {
	unlock, err := l.exclusive(ctx, "load "+sha)
	if err != nil {
		return err
	}
	defer unlock()
	mark := func(ctx context.Context, change func(*store.Model)) error {
		return l.o.Store.Update(ctx, func(tx *store.Tx) error {
			m, err := tx.Model(sha)
			if err != nil {
				return err
			}
			if m == nil {
				return wire.E(wire.NotFound, "", fmt.Sprintf("model %.12s is not on this node", sha), "")
			}
			change(m)
			return tx.PutModel(m)
		})
	}
	if err := mark(ctx, func(m *store.Model) { m.LoadingSince = l.o.Now() }); err != nil {
		return err
	}
	loadErr := load()
	// The mark must go even when ctx has ended meanwhile.
	err = mark(context.WithoutCancel(ctx), func(m *store.Model) {
		m.LoadingSince = time.Time{}
		if loadErr == nil {
			m.State, m.Crashes, m.LastUsed = store.ModelLoaded, 0, l.o.Now()
		}
	})
	return errors.Join(loadErr, err)
}

// Collect removes the files that no task refers to and nobody holds.
func (l *Library) Collect(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	known, keep := map[string]bool{}, map[string]bool{}
	for sha := range l.pins {
		keep[sha] = true
	}
	var unused []string
	err := l.o.Store.View(ctx, func(tx *store.Tx) error {
		tasks, err := tx.Tasks()
		if err != nil {
			return err
		}
		for _, t := range tasks {
			if t.State == task.Active {
				keep[t.ModelSHA256], keep[t.ServingSHA256] = true, true
			}
		}
		models, err := tx.Models()
		for _, m := range models {
			known[m.SHA256] = true
			if !keep[m.SHA256] && m.State != store.ModelQuarantined {
				unused = append(unused, m.SHA256)
			}
		}
		return err
	})
	if err == nil && len(unused) > 0 {
		// A task that came since then finds the row gone and fetches again.
		err = l.o.Store.Update(ctx, func(tx *store.Tx) error {
			for _, sha := range unused {
				if err := tx.DeleteModel(sha); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("collect models: %w", err)
	}
	return l.sweep(known, keep)
}

// sweep removes files: those with a row that is going at once, those that no
// row knows when the tasks have had time to come back after a lost database.
func (l *Library) sweep(known, keep map[string]bool) error {
	entries, err := os.ReadDir(l.dir())
	if err != nil {
		return fmt.Errorf("collect models: %w", err)
	}
	settled := l.o.Now().Sub(l.started) >= l.o.Limits.OrphanGrace
	var errs []error
	for _, e := range entries {
		if sha := e.Name(); task.ValidDigest(sha) && !keep[sha] && (known[sha] || settled) {
			errs = append(errs, os.Remove(l.path(sha)))
			l.o.Log.Info("model file removed", "sha256", sha)
		}
	}
	if settled {
		errs = append(errs, l.sweepPartial(keep))
	}
	return errors.Join(errs...)
}

// partialAge is how long an unfinished download waits to be resumed.
const partialAge = 7 * 24 * time.Hour

func (l *Library) sweepPartial(keep map[string]bool) error {
	dir := filepath.Join(l.dir(), partialName)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("collect downloads: %w", err)
	}
	var errs []error
	for _, e := range entries {
		digest, _, _ := strings.Cut(e.Name(), ".")
		info, err := e.Info()
		if err == nil && !keep[digest] && l.o.Now().Sub(info.ModTime()) > partialAge {
			errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}
