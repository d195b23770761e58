package tasks

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/lib/faults"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// reporter sends the newest report of each task until the cloud has
// acknowledged it: at once, then with back-off, and at every reconnect. What it
// sends it reads from the store at that moment, so that reports coalesce.
type reporter struct {
	o      Options
	sign   signer
	resend Backoff
	wake   chan struct{} // capacity 1: due has changed

	mu  sync.Mutex
	due map[key]*outgoing
}

// outgoing is a report that is to be sent, or was and is not acknowledged.
type outgoing struct {
	news  int // counts what was scheduled
	tries int // since the last news
	next  time.Time
	last  time.Time // zero before the first send
	once  bool      // send even if it is acknowledged: the cloud seems to have lost it
}

// remindGap is the least time between sends of a report that is no news.
const remindGap = 5 * time.Second

// idle is how long the reporter sleeps when nothing is due; every change wakes it.
const idle = time.Hour

func newReporter(o Options) *reporter {
	return &reporter{
		o: o, sign: signer{o.Node, o.Key, o.Bus, o.Limits.PublishWait}, resend: Backoff{o.Limits.ResendBase, o.Limits.ResendMax},
		wake: make(chan struct{}, 1), due: map[key]*outgoing{},
	}
}

// news: the task's report has changed.
func (r *reporter) news(k key) { r.schedule(k, r.o.Limits.ReportGap, false) }

// remind: the cloud has acknowledged less than the newest report.
func (r *reporter) remind(k key) { r.schedule(k, remindGap, true) }

func (r *reporter) schedule(k key, gap time.Duration, once bool) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	g := r.due[k]
	if g == nil {
		g = &outgoing{next: now}
		r.due[k] = g
	} else if next := later(g.last.Add(gap), now); g.last.IsZero() || next.Before(g.next) {
		g.next = next
	}
	g.news++
	g.tries = 0
	g.once = g.once || once
	r.poke()
}

// drop ends the sending of a report that nobody needs, unless there is newer
// news of its task.
func (r *reporter) drop(d due) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if g := r.due[d.key]; g != nil && g.news == d.news {
		delete(r.due, d.key)
	}
}

// reconnected has everything sent again: what was on its way may be lost.
func (r *reporter) reconnected() {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, g := range r.due {
		g.next, g.tries = now, 0
	}
	r.poke()
}

func (r *reporter) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// run sends what is due until ctx ends.
func (r *reporter) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		case <-timer.C:
		}
		wait := idle
		if r.o.Bus.Connected() { // else OnConnect wakes us
			for _, d := range r.ready(time.Now()) {
				if err := r.send(ctx, d); err != nil && ctx.Err() == nil {
					r.o.Log.Debug("report not sent", "task", d.key.String(), "error", err)
				}
			}
			wait = r.wait(time.Now())
		}
		timer.Reset(wait)
	}
}

// due is one report to send, with the news of which it is.
type due struct {
	key  key
	news int
	once bool
}

// ready takes what is due now and sets when each is due again.
func (r *reporter) ready(now time.Time) []due {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []due
	for k, g := range r.due {
		if g.next.After(now) {
			continue
		}
		g.tries++
		g.last, g.next = now, now.Add(r.resend.After(g.tries, k.String()))
		if faults.Off(faults.Resend) {
			g.next = now.Add(idle)
		}
		out = append(out, due{k, g.news, g.once})
		g.once = false
	}
	return out
}

func (r *reporter) wait(now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	wait := idle
	for _, g := range r.due {
		wait = min(wait, g.next.Sub(now))
	}
	return max(wait, 0)
}

// send publishes the newest report of a task, or drops it when nobody needs it.
func (r *reporter) send(ctx context.Context, d due) error {
	uid, report, err := r.load(ctx, d)
	if err != nil {
		return err
	}
	if report == nil {
		r.drop(d)
		return nil
	}
	return r.sign.publish(ctx, d.key, uid, report.Properties())
}

// load gives what is to be said of a task, nil if nothing.
func (r *reporter) load(ctx context.Context, d due) (uid string, report *task.Report, err error) {
	err = r.o.Store.View(ctx, func(tx *store.Tx) error {
		row, err := tx.Task(d.key.namespace, d.key.device)
		if err != nil {
			return err
		}
		if row != nil {
			// A task that is being stopped is reported when it has stopped.
			if row.State == task.Active && (row.Seq > row.Acked || d.once) {
				uid, report = row.UID, reportOf(row)
			}
			return nil
		}
		tomb, err := tx.Untold(d.key.namespace, d.key.device)
		if err != nil || tomb == nil {
			return err
		}
		if d.once || now().Sub(tomb.BuriedAt) < r.o.Limits.StoppedFor {
			uid, report = tomb.UID, &task.Report{Phase: task.Stopped, Generation: tomb.Generation, Seq: tomb.Seq}
		}
		return nil
	})
	return uid, report, err
}

func reportOf(t *store.Task) *task.Report {
	return &task.Report{
		Phase: t.Phase, Generation: t.Generation, Stage: t.Stage, Round: t.Round, Samples: t.Samples, Reason: t.Reason,
		Progress: t.Progress, Metrics: t.Metrics, Model: t.Model, Detail: t.Detail, Seq: t.Seq,
	}
}

// signer puts signed reports on the bus.
type signer struct {
	node string
	key  ed25519.PrivateKey
	bus  Bus
	wait time.Duration // for the broker to take one
}

func (s signer) publish(ctx context.Context, k key, uid string, properties map[string]string) error {
	task.SignProperties(s.key, uid, properties)
	payload, err := json.Marshal(properties)
	if err != nil {
		return fmt.Errorf("report of %s: %w", k, err)
	}
	ctx, cancel := context.WithTimeout(ctx, s.wait)
	defer cancel()
	return s.bus.Publish(ctx, wire.TaskReported(s.node, k.namespace, k.device), 1, false, payload)
}
