package worker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// Supervisor runs the workers of a node. Its methods are safe for concurrent
// use after Start.
type Supervisor struct {
	o       Options
	launch  launcher
	metrics *workerMetrics

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	applying sync.Mutex // before unit.changing, that before mu

	mu      sync.Mutex
	units   map[Key]*unit
	closed  bool
	halting bool // lives are to end, workers to stay
}

// New makes a supervisor; Start sets it to work.
func New(o Options) (*Supervisor, error) { return newSupervisor(o, newLauncher) }

func newSupervisor(o Options, launch func(Options) launcher) (*Supervisor, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	o.Limits = o.Limits.WithDefaults()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Events == nil {
		o.Events = func(store.Event) {}
	}
	if o.Changed == nil {
		o.Changed = func(Key) {}
	}
	s := &Supervisor{o: o, launch: launch(o), units: map[Key]*unit{}}
	s.metrics = newWorkerMetrics(s, o.Metrics)
	return s, nil
}

// Start takes up the stored workers: lives that go on are watched again, those
// that ended meanwhile are followed by what their policy says. Workers that keep
// refuses, and lives of which nothing is stored, are ended.
func (s *Supervisor) Start(ctx context.Context, keep func(Key) bool) error {
	s.mu.Lock()
	s.ctx, s.cancel = context.WithCancel(ctx)
	s.mu.Unlock()
	var rows []*store.Worker
	err := s.o.Store.View(ctx, func(tx *store.Tx) (err error) {
		rows, err = tx.Workers()
		return err
	})
	if err != nil {
		return fmt.Errorf("read the stored workers: %w", err)
	}
	known := map[string]bool{}
	for _, row := range rows {
		known[filepath.Join(row.UID, row.Name)] = true
		on := Unwanted
		if keep(Key{row.UID, row.Name}) {
			if Phase(row.Phase) != Failed || row.Reason != ReasonNotStarted {
				continue
			}
			on = Wanted // what this node lacked it may have now
		}
		if err := move(row, on); err != nil {
			return fmt.Errorf("worker %s/%s: %w", row.UID, row.Name, err)
		}
		if err := s.o.Store.Update(ctx, func(tx *store.Tx) error { return tx.PutWorker(row) }); err != nil {
			return fmt.Errorf("worker %s/%s: %w", row.UID, row.Name, err)
		}
	}
	for _, row := range rows {
		s.add(Key{row.UID, row.Name}, row)
	}
	s.clearOrphans(known)
	return nil
}

// clearOrphans ends what runs in directories that the store does not know, as
// after a lost database, and removes them. What no shim has left its name in is
// not ours, and stays.
func (s *Supervisor) clearOrphans(known map[string]bool) {
	uids, err := os.ReadDir(s.o.Dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.o.Log.Error("cannot look for orphaned workers", "error", err)
	}
	for _, uid := range uids {
		names, err := os.ReadDir(filepath.Join(s.o.Dir, uid.Name()))
		if err != nil {
			continue // no directory
		}
		for _, name := range names {
			k := Key{uid.Name(), name.Name()}
			if known[filepath.Join(k.UID, k.Name)] || !task.ValidUID(k.UID) || !task.ValidWorkerName(k.Name) {
				continue
			}
			d := dirsOf(s.o.Dir, k)
			ours, err := s.launch.orphan(d.top)
			if err == nil && ours {
				err = d.remove()
			}
			switch {
			case err != nil:
				s.o.Log.Error("an orphaned worker does not end", "worker", k.String(), "error", err)
			case ours:
				s.o.Log.Warn("orphaned worker ended", "worker", k.String())
				s.o.Events(store.Event{Time: time.Now().UTC(), Kind: "worker", Reason: "Orphan", UID: k.UID, Message: k.Name})
			}
		}
	}
}

// Close leaves the workers running, for the next Start to find, and waits until
// nothing of the supervisor runs.
func (s *Supervisor) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	if s.cancel != nil {
		s.cancel()
	}
	s.wg.Wait()
}

// Shutdown ends all lives, as their grace times allow, and then closes. The
// workers stay stored: the next Start begins new lives, except of those that
// are never to be restarted. When ctx ends first, what still runs is left so.
func (s *Supervisor) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.halting = true
	var all []*unit
	for _, u := range s.units {
		all = append(all, u)
		u.kick()
	}
	s.mu.Unlock()
	defer s.Close()
	for _, u := range all {
		select {
		case <-u.idle:
		case <-u.gone:
		case <-ctx.Done():
			return fmt.Errorf("worker %s: %w", u.key, ctx.Err())
		}
	}
	return nil
}

// Apply has a request run. It is stored when Apply returns nil. The same request
// again changes nothing, also when it is done or has failed; one that asks for
// something else ends the life of the one before first. A request is refused as
// stale when one of a later generation is known.
func (s *Supervisor) Apply(ctx context.Context, r Request) error {
	if err := r.Worker.Validate("spec.worker"); err != nil {
		return err
	}
	k := Key{r.UID, r.Worker.Name}
	if len(r.Worker.Relays) > 0 && s.o.Dialer == nil {
		return wire.E(wire.Unimplemented, "spec.worker.relays", "this node relays nothing", "")
	}
	if !task.ValidUID(r.UID) {
		return wire.E(wire.InvalidArgument, "uid", fmt.Sprintf("expected a uid, got %.80q", r.UID), "")
	}
	raw, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("worker %s: %w", k, err)
	}
	s.applying.Lock()
	defer s.applying.Unlock()
	s.mu.Lock()
	u, n, closed := s.units[k], len(s.units), s.closed || s.halting || s.ctx == nil
	s.mu.Unlock()
	switch {
	case closed:
		return wire.E(wire.Unavailable, "", "no worker is taken now", "")
	case u == nil && n >= s.o.Limits.Workers:
		return wire.E(wire.ResourceExhausted, "", fmt.Sprintf("this node runs %d workers already", n), "raise workers in its limits")
	case u == nil:
		row := &store.Worker{UID: k.UID, Name: k.Name, Generation: r.Generation, Request: raw}
		if err := move(row, Wanted); err != nil {
			return err
		}
		if err := s.o.Store.Update(ctx, func(tx *store.Tx) error { return tx.PutWorker(row) }); err != nil {
			return fmt.Errorf("worker %s: %w", k, err)
		}
		s.add(k, row)
		s.o.Changed(k)
		return nil
	}
	_, err = s.change(ctx, u, func(w *store.Worker) error {
		switch {
		case Phase(w.Phase) == Removing:
			return errGone
		case r.Generation < w.Generation:
			return wire.E(wire.Stale, "generation", fmt.Sprintf("%d, and %d is known", r.Generation, w.Generation), "")
		}
		same := hashOf(raw) == hashOf(w.Request)
		w.Generation, w.Request = r.Generation, raw
		if same {
			return nil
		}
		w.Failures, w.Restarts, w.NextAt, w.Reason, w.Detail = 0, 0, time.Time{}, "", ""
		return move(w, Wanted)
	})
	u.kick()
	if errors.Is(err, errGone) {
		return wire.E(wire.Unavailable, "", "the worker of this name is being removed", "try again")
	}
	return err
}

// Stop ends a worker and forgets it. When it returns nil nothing of it lives,
// and its directory is gone. It is no error if there is none; when ctx ends
// first, the worker is ended all the same.
func (s *Supervisor) Stop(ctx context.Context, k Key) error {
	s.mu.Lock()
	u := s.units[k]
	s.mu.Unlock()
	if u == nil {
		return nil
	}
	_, err := s.change(ctx, u, func(w *store.Worker) error { return move(w, Unwanted) })
	if err != nil && !errors.Is(err, errGone) {
		return err
	}
	u.kick()
	select {
	case <-u.gone:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.ctx.Done():
		return wire.E(wire.Unavailable, "", "the supervisor was closed before the worker had ended", "")
	}
}

// StopTask stops all workers of a task, at the same time.
func (s *Supervisor) StopTask(ctx context.Context, uid string) error {
	var keys []Key
	s.mu.Lock()
	for k := range s.units {
		if k.UID == uid {
			keys = append(keys, k)
		}
	}
	s.mu.Unlock()
	errs := make([]error, len(keys))
	var wg sync.WaitGroup
	for i, k := range keys {
		wg.Go(func() { errs[i] = s.Stop(ctx, k) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Log gives what a worker has written, the oldest first.
func (s *Supervisor) Log(k Key) (io.ReadCloser, error) {
	s.mu.Lock()
	_, ok := s.units[k]
	s.mu.Unlock()
	if !ok {
		return nil, wire.E(wire.NotFound, "", "no worker "+k.String(), "")
	}
	return openLog(dirsOf(s.o.Dir, k).top, s.o.Limits.LogFiles)
}

// hashOf tells requests apart that ask for different processes; the generation
// alone does not.
func hashOf(request []byte) string {
	var r Request
	if json.Unmarshal(request, &r) != nil {
		return ""
	}
	r.Generation = 0
	b, err := json.Marshal(r)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// errGone: the worker's row is not there any more.
var errGone = errors.New("worker is gone")

// add has a stored worker run.
func (s *Supervisor) add(k Key, row *store.Worker) {
	u := &unit{key: k, dirs: dirsOf(s.o.Dir, k), row: row, wake: make(chan struct{}, 1), idle: make(chan struct{}), gone: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return // the next Start finds it
	}
	s.units[k] = u
	s.wg.Go(func() { s.run(u) })
}

// change edits a worker's row, durably, or gives errGone when it is not stored
// any more.
func (s *Supervisor) change(ctx context.Context, u *unit, edit func(*store.Worker) error) (*store.Worker, error) {
	u.changing.Lock()
	defer u.changing.Unlock()
	var row *store.Worker
	err := s.o.Store.Update(ctx, func(tx *store.Tx) (err error) {
		if row, err = tx.Worker(u.key.UID, u.key.Name); err != nil {
			return err
		}
		if row == nil {
			return errGone
		}
		if err := edit(row); err != nil {
			return err
		}
		return tx.PutWorker(row)
	})
	if err != nil {
		return nil, fmt.Errorf("worker %s: %w", u.key, err)
	}
	s.mu.Lock()
	u.row = row
	s.mu.Unlock()
	s.o.Changed(u.key)
	return row, nil
}

// event tells of a worker.
func (s *Supervisor) event(w *store.Worker, reason, message string) {
	namespace := ""
	var r Request
	if json.Unmarshal(w.Request, &r) == nil {
		namespace = r.Namespace
	}
	s.o.Events(store.Event{Time: time.Now().UTC(), Kind: "worker", Reason: reason, Namespace: namespace, UID: w.UID, Generation: w.Generation, Message: cut(w.Name+": "+message, 1024)})
}
