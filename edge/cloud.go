package edge

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/lib/identity"
)

// cloudLink knows whether the GlobalManager answers, and renews the node's
// certificate while it does.
type cloudLink struct {
	url    string
	node   *identity.Node
	events func(store.Event)
	log    *slog.Logger

	reachable atomic.Bool
	keys      chan struct{} // capacity 1: a document came that no pinned key has signed
}

// Times of the link.
const (
	probePeriod = 30 * time.Second
	probeWait   = 5 * time.Second
	renewPeriod = time.Hour
	keysPeriod  = 10 * time.Minute // between two looks for new signing keys
)

func newCloudLink(url string, node *identity.Node, events func(store.Event), log *slog.Logger) *cloudLink {
	return &cloudLink{url: url, node: node, events: events, log: log, keys: make(chan struct{}, 1)}
}

// keysWanted has the pinned keys fetched anew, if that was not done lately: the
// cloud may have a new signing key. It does not block.
func (l *cloudLink) keysWanted() {
	select {
	case l.keys <- struct{}{}:
	default:
	}
}

func (l *cloudLink) run(ctx context.Context) {
	var renewed, asked time.Time
	tick := time.NewTicker(probePeriod)
	defer tick.Stop()
	for {
		l.watch(ctx)
		if l.reachable.Load() && time.Since(renewed) >= renewPeriod {
			renewed = time.Now()
			done, err := identity.MaybeRenew(ctx, l.node, renewed)
			l.note(ctx, done, err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-l.keys:
			if time.Since(asked) >= keysPeriod {
				asked = time.Now()
				err := identity.Renew(ctx, l.node)
				l.note(ctx, err == nil, err)
			}
		}
	}
}

// watch looks whether the cloud is there and tells of a change.
func (l *cloudLink) watch(ctx context.Context) {
	up := l.probe(ctx)
	if ctx.Err() != nil || l.reachable.Swap(up) == up {
		return
	}
	reason := "CloudUnreachable"
	if up {
		reason = "CloudReachable"
	}
	l.log.Info("cloud link changed", "reachable", up)
	l.events(store.Event{Kind: "connectivity", Reason: reason})
}

// note tells how a renewal went.
func (l *cloudLink) note(ctx context.Context, renewed bool, err error) {
	switch {
	case err != nil && ctx.Err() == nil:
		l.log.Error("certificate not renewed", "expires", l.node.Certificate().NotAfter, "error", err)
		l.events(store.Event{Kind: "connectivity", Reason: "RenewalFailed", Message: err.Error()})
	case renewed:
		l.log.Info("certificate and pinned keys renewed", "expires", l.node.Certificate().NotAfter)
	}
}

// probe asks for the GlobalManager's health; any answer counts.
func (l *cloudLink) probe(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.url+"/healthz", nil)
	if err != nil {
		return false
	}
	resp, err := l.node.HTTPClient().Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	const enough = 1 << 10
	_, _ = io.CopyN(io.Discard, resp.Body, enough)
	return true
}
