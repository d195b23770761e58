package edge

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"golang.org/x/time/rate"

	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/edge/tasks"
	"github.com/edgetwin/sedna/models/wire"
)

// announcer publishes events on the bus, as well as it can: what comes too
// fast is not published, and of what comes while the broker is away the newest
// of the kinds in kept wait.
type announcer struct {
	node  string
	bus   tasks.Bus
	store *store.Store
	log   *slog.Logger
	limit *rate.Limiter
	queue chan store.Event
	up    chan struct{} // capacity 1: the broker is there again

	waiting []store.Event // for the broker; run's own
}

// Bounds of events on the bus.
const (
	eventsQueued    = 256 // between tell and run
	eventsWaiting   = 64  // for the broker
	eventsPerSecond = 20
	eventsBurst     = 100
	eventWait       = 5 * time.Second
)

func newAnnouncer(node string, bus tasks.Bus, s *store.Store, log *slog.Logger) *announcer {
	return &announcer{node: node, bus: bus, store: s, log: log, limit: rate.NewLimiter(eventsPerSecond, eventsBurst), queue: make(chan store.Event, eventsQueued), up: make(chan struct{}, 1)}
}

// tell takes an event. It does not block.
func (a *announcer) tell(e store.Event) {
	if e.Time.IsZero() {
		e.Time = time.Now().UTC()
	}
	select {
	case a.queue <- e:
	default:
	}
}

// kept are the kinds whose events go into the log on disk here. Those of tasks
// are written with the change that they tell of; refusals are not, so that
// nobody can fill the disk with them.
var kept = map[string]bool{"store": true, "model": true, "connectivity": true}

func (a *announcer) run(ctx context.Context) {
	a.bus.OnConnect(func() {
		select {
		case a.up <- struct{}{}:
		default:
		}
	})
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-a.queue:
			a.take(ctx, e)
		case <-a.up:
			list := a.waiting
			a.waiting = nil
			for _, e := range list {
				a.announce(ctx, e)
			}
		}
	}
}

// take keeps an event on disk, if it is to be, and publishes it.
func (a *announcer) take(ctx context.Context, e store.Event) {
	if kept[e.Kind] {
		if err := a.store.Update(ctx, func(tx *store.Tx) error { return tx.AddEvent(e) }); err != nil && ctx.Err() == nil {
			a.log.Error("event not kept", "kind", e.Kind, "reason", e.Reason, "error", err)
		}
	}
	a.announce(ctx, e)
}

func (a *announcer) announce(ctx context.Context, e store.Event) {
	if !a.bus.Connected() {
		if kept[e.Kind] {
			a.waiting = append(a.waiting, e)
			a.waiting = a.waiting[max(0, len(a.waiting)-eventsWaiting):]
		}
		return
	}
	if !a.limit.Allow() {
		return
	}
	payload, err := json.Marshal(e)
	if err != nil {
		a.log.Error("event not published", "kind", e.Kind, "error", err)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, eventWait)
	defer cancel()
	if err := a.bus.Publish(ctx, wire.Event(a.node, e.Kind), 1, false, payload); err != nil {
		a.log.Debug("event not published", "kind", e.Kind, "error", err)
	}
}
