package dataset

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// errStopped: the dataset was stopped meanwhile.
var errStopped = errors.New("the dataset was stopped")

// Manager watches the datasets of one node. All methods are safe for concurrent
// use.
type Manager struct {
	o     Options
	dir   string
	spool *spool
	watch *watcher
	step  func(point string) error // told before and after each write; tests end it there

	ctx      context.Context
	cancel   context.CancelFunc
	wg       sync.WaitGroup
	taking   sync.Mutex // one Take at a time; taken before mu
	changing sync.Mutex // one Ensure or Stop at a time; taken before mu

	mu      sync.Mutex
	runners map[Key]*runner
}

// New takes up the datasets that the store knows. They are watched until Close.
func New(ctx context.Context, o Options) (*Manager, error) { return newManager(ctx, o, nil) }

func newManager(ctx context.Context, o Options, step func(string) error) (*Manager, error) {
	o.Limits = o.Limits.WithDefaults()
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	if o.Changed == nil {
		o.Changed = func(Key) {}
	}
	if o.Events == nil {
		o.Events = func(store.Event) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if step == nil {
		step = func(string) error { return nil }
	}
	dir, err := filepath.Abs(filepath.Join(o.Dir, "datasets"))
	if err != nil {
		return nil, fmt.Errorf("dataset directory: %w", err)
	}
	m := &Manager{o: o, dir: dir, step: step, runners: map[Key]*runner{}}
	if m.spool, err = openSpool(ctx, dir, o.Store, o.Limits.QuotaBytes); err != nil {
		return nil, err
	}
	var rows []store.Dataset
	err = o.Store.View(ctx, func(tx *store.Tx) (err error) {
		rows, err = tx.Datasets()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the stored datasets: %w", err)
	}
	m.watch = newWatcher(o.Log)
	m.ctx, m.cancel = context.WithCancel(context.WithoutCancel(ctx))
	m.wg.Go(func() { m.watch.run(m.ctx) })
	for _, row := range rows {
		m.start(row.DatasetKey)
	}
	return m, nil
}

// Close ends the watching; what was read stays.
func (m *Manager) Close() {
	m.cancel()
	m.wg.Wait()
}

// start has a dataset watched; it is no error if it is already.
func (m *Manager) start(k Key) *runner {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.runners[k]
	if r == nil {
		ctx, cancel := context.WithCancel(m.ctx)
		r = &runner{m: m, key: k, cancel: cancel, done: make(chan struct{}), wake: make(chan struct{}, 1), asks: make(chan chan error)}
		m.runners[k] = r
		m.wg.Go(func() { r.run(ctx) })
	}
	return r
}

// Ensure has a dataset watched as spec says. Another URL or format begins it
// anew: what was read so far was of other data, whose samples jobs can take no
// more; their rounds stay.
func (m *Manager) Ensure(ctx context.Context, k Key, spec task.Dataset) error {
	if err := spec.Validate("spec"); err != nil {
		return err
	}
	if path, local := spec.Path(); local {
		if _, _, err := m.rootOf(path); err != nil {
			return err
		}
	} else if m.o.Source == nil {
		return wire.E(wire.Unimplemented, "spec.url", "this node reads no remote data", "")
	}
	m.changing.Lock()
	defer m.changing.Unlock()
	if was, err := m.load(ctx, k); err != nil || was != nil && was.Spec != spec {
		if err != nil {
			return err
		}
		m.halt(k) // or it would write its own state over the new one
	}
	err := m.o.Store.Update(ctx, func(tx *store.Tx) error {
		st, err := loadState(tx, k)
		if err != nil {
			return err
		}
		switch {
		case st == nil:
			st = &state{Reason: NotRead, Message: "nobody has looked yet"}
		case st.Spec == spec:
			return nil
		case st.Spec.URL != spec.URL || st.Spec.Format != spec.Format || st.Spec.Label != spec.Label:
			st = &state{Base: st.Next, Next: st.Next, Contents: st.Contents, Reason: NotRead, Message: "nobody has looked yet"}
			if err := forget(tx, k, st.Next); err != nil {
				return err
			}
		}
		st.Spec = spec
		return saveState(tx, k, st)
	})
	if err != nil {
		return fmt.Errorf("dataset %s/%s: %w", k.Namespace, k.Name, err)
	}
	m.start(k).kick()
	return m.spool.sweep(ctx)
}

// load gives the state of a dataset, or nil.
func (m *Manager) load(ctx context.Context, k Key) (st *state, err error) {
	err = m.o.Store.View(ctx, func(tx *store.Tx) error {
		st, err = loadState(tx, k)
		return err
	})
	return st, err
}

// forget drops what could be taken before an ordinal, and all files.
func forget(tx *store.Tx, k Key, next int64) error {
	rows, err := tx.DatasetConsumers(k)
	if err != nil {
		return err
	}
	for _, row := range rows {
		row.Position = next
		if err := tx.PutDatasetConsumer(row); err != nil {
			return err
		}
	}
	return errors.Join(tx.DeleteDatasetSegments(k, next), tx.DeleteDatasetFiles(k))
}

// halt ends a dataset's runner and waits for it.
func (m *Manager) halt(k Key) {
	m.mu.Lock()
	r := m.runners[k]
	delete(m.runners, k)
	m.mu.Unlock()
	if r != nil {
		r.cancel()
		<-r.done
	}
}

// Stop forgets a dataset with its segments, consumers and shards; it is no error
// if there is none. Its own data stays where it is.
func (m *Manager) Stop(ctx context.Context, k Key) error {
	m.changing.Lock()
	defer m.changing.Unlock()
	m.halt(k)
	if err := m.o.Store.Update(ctx, func(tx *store.Tx) error { return tx.DeleteDataset(k) }); err != nil {
		return fmt.Errorf("dataset %s/%s: %w", k.Namespace, k.Name, err)
	}
	return errors.Join(removeIfThere(m.fetched(k)), m.spool.sweep(ctx))
}

// Look reads what there is of a dataset now, and gives what went wrong.
func (m *Manager) Look(ctx context.Context, k Key) error {
	m.mu.Lock()
	r := m.runners[k]
	m.mu.Unlock()
	if r == nil {
		return noDataset(k)
	}
	answer := make(chan error, 1)
	select {
	case r.asks <- answer:
	case <-r.done:
		return noDataset(k)
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-answer:
		return err
	case <-r.done:
		return noDataset(k)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Status gives what is known of a dataset; not_found if it is not watched.
func (m *Manager) Status(ctx context.Context, k Key) (Status, error) {
	st, err := m.load(ctx, k)
	if err == nil && st == nil {
		err = noDataset(k)
	}
	if err != nil {
		return Status{}, err
	}
	return m.status(k, st), nil
}

// status adds to a row when the dataset was last looked at, which is not stored.
func (m *Manager) status(k Key, st *state) Status {
	s := st.status(k)
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.runners[k]; r != nil && r.looked.Load() != 0 {
		s.LookedAt = time.UnixMicro(r.looked.Load()).UTC()
	}
	return s
}

// List gives what is known of all datasets, in key order.
func (m *Manager) List(ctx context.Context) ([]Status, error) {
	var out []Status
	err := m.o.Store.View(ctx, func(tx *store.Tx) error {
		rows, err := tx.Datasets()
		if err != nil {
			return err
		}
		for _, row := range rows {
			st, err := loadState(tx, row.DatasetKey)
			if err != nil {
				return err
			}
			out = append(out, m.status(row.DatasetKey, st))
		}
		return nil
	})
	return out, err
}

func noDataset(k Key) error {
	return wire.E(wire.NotFound, "dataset", fmt.Sprintf("no dataset %s/%s on this node", k.Namespace, k.Name), "")
}
