package tasks

import (
	"context"
	"fmt"
	"time"

	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/models/task"
)

// worker brings one task to where its document says. It always looks at the
// newest row; an attempt at an older one is cancelled.
type worker struct {
	key    key
	wake   chan struct{}      // capacity 1: the row may have changed
	cancel context.CancelFunc // of the running attempt, guarded by Manager.mu
}

// kick has a task looked at, by a new worker if it has none.
func (m *Manager) kick(k key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	w := m.workers[k]
	if w == nil {
		w = &worker{key: k, wake: make(chan struct{}, 1)}
		m.workers[k] = w
		m.wg.Go(func() { m.work(w) })
	}
	if w.cancel != nil {
		w.cancel()
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (m *Manager) work(w *worker) {
	retry := time.NewTimer(0)
	defer retry.Stop()
	retry.Stop()
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-w.wake:
		case <-retry.C:
		}
		ctx, cancel := context.WithCancel(m.ctx)
		m.mu.Lock()
		w.cancel = cancel
		m.mu.Unlock()
		wait, gone := m.reconcile(ctx, w.key)
		m.mu.Lock()
		w.cancel = nil
		// A kick since then has left a value in wake.
		if gone && len(w.wake) == 0 {
			delete(m.workers, w.key)
			m.mu.Unlock()
			cancel()
			return
		}
		m.mu.Unlock()
		cancel()
		retry.Stop()
		if wait > 0 {
			retry.Reset(wait)
		}
	}
}

// reconcile does what the row asks for now. It returns when to look again, 0
// for not before a kick, and whether the task is gone.
func (m *Manager) reconcile(ctx context.Context, k key) (wait time.Duration, gone bool) {
	row, err := m.row(ctx, k)
	if err != nil {
		return m.trouble(ctx, k, err), false
	}
	if row == nil || m.servingUID(k) != row.UID {
		m.deactivate(k)
	}
	if row == nil {
		return 0, true
	}
	if row.State == task.Deleted {
		m.deactivate(k)
		if err := m.bury(ctx, k); err != nil {
			return m.trouble(ctx, k, err), false
		}
		return 0, true
	}
	if row.Serving != nil && m.servingUID(k) == "" {
		if err := m.restore(ctx, row); err != nil {
			return m.trouble(ctx, k, err), false
		}
		if row, err = m.row(ctx, k); err != nil || row == nil {
			return m.trouble(ctx, k, err), false
		}
	}
	switch State(row.Phase) {
	case Running:
		return 0, false
	case Failed:
		if permanent[row.Reason] {
			return 0, false
		}
		full := m.retry().After(row.Attempts, k.String())
		if left := min(full, full-now().Sub(row.UpdatedAt)); left > 0 {
			return left, false
		}
	}
	return m.attempt(ctx, row), false
}

func (m *Manager) retry() Backoff { return Backoff{m.o.Limits.RetryBase, m.o.Limits.RetryMax} }

// trouble is met when the store fails: nothing is lost, the task is looked at
// again.
func (m *Manager) trouble(ctx context.Context, k key, err error) time.Duration {
	if ctx.Err() == nil && err != nil {
		m.o.Log.Error("task cannot go on", "task", k.String(), "error", err)
		m.o.Events(store.Event{Kind: "task", Reason: "StoreFailed", Namespace: k.namespace, Device: k.device, Message: err.Error()})
	}
	return m.o.Limits.RetryBase
}

func (m *Manager) row(ctx context.Context, k key) (row *store.Task, err error) {
	err = m.o.Store.View(ctx, func(tx *store.Tx) (err error) {
		row, err = tx.Task(k.namespace, k.device)
		return err
	})
	return row, err
}

func (m *Manager) servingUID(k key) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.serving[k].uid
}

func (m *Manager) deactivate(k key) {
	m.mu.Lock()
	a, ok := m.serving[k]
	delete(m.serving, k)
	m.mu.Unlock()
	if ok {
		m.o.Server.Deactivate(a.namespace, a.name)
	}
}

// bury ends a task whose service has stopped: the tombstone, the report
// Stopped and the row's end are one transaction.
func (m *Manager) bury(ctx context.Context, k key) error {
	var e store.Event
	err := m.o.Store.Update(ctx, func(tx *store.Tx) error {
		row, err := tx.Task(k.namespace, k.device)
		if err != nil || row == nil || row.State != task.Deleted {
			return err // a successor came meanwhile
		}
		if _, err := Next(stateOf(row), Halted); err != nil {
			return err
		}
		err = tx.Bury(&store.Tombstone{
			UID: row.UID, Namespace: row.Namespace, Device: row.Device, Epoch: row.Epoch, Generation: row.Generation,
			IssuedAt: row.IssuedAt, Seq: row.Seq + 1, NonceN: row.NonceN,
		})
		if err != nil {
			return err
		}
		if err := tx.DeleteTask(k.namespace, k.device); err != nil {
			return err
		}
		e = store.Event{Time: now(), Kind: "task", Reason: string(Stopped), Namespace: row.Namespace, Device: row.Device, UID: row.UID, Generation: row.Generation}
		return tx.AddEvent(e)
	})
	if err != nil {
		return fmt.Errorf("bury task %s: %w", k, err)
	}
	if e.Kind == "" {
		return nil
	}
	m.reporter.news(k)
	m.o.Events(e)
	m.o.Changed()
	m.o.Log.Info("task stopped", "task", k.String(), "uid", e.UID, "generation", e.Generation)
	if err := m.o.Models.Collect(ctx); err != nil {
		m.o.Log.Error("cannot collect models", "error", err)
	}
	return nil
}
