package serving

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/edgetwin/sedna/models/wire"
)

// Gate lets a number of callers in at a time, a further number wait, and
// refuses the rest.
type Gate struct {
	what    string
	turns   chan struct{} // one element per caller inside
	waiting atomic.Int64
	queue   int64
}

// NewGate makes a gate; what names the thing behind it in refusals.
func NewGate(what string, concurrent, queue int) *Gate {
	return &Gate{what: what, turns: make(chan struct{}, concurrent), queue: int64(queue)}
}

// Enter takes a turn, or waits for one. It is resource_exhausted when too many
// wait, and ContextError when ctx ends first. Leave must follow success.
func (g *Gate) Enter(ctx context.Context) error {
	select {
	case g.turns <- struct{}{}:
		return nil
	default:
	}
	defer g.waiting.Add(-1)
	if g.waiting.Add(1) > g.queue {
		return wire.E(wire.ResourceExhausted, "", fmt.Sprintf("%s: %d calls are waiting", g.what, g.queue), "try again later")
	}
	select {
	case g.turns <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ContextError(ctx, g.what)
	}
}

// Leave gives the turn back.
func (g *Gate) Leave() { <-g.turns }

// ContextError is the refusal of a call whose context ended.
func ContextError(ctx context.Context, what string) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return wire.E(wire.DeadlineExceeded, "", what+": no answer in time", "")
	}
	return wire.E(wire.Unavailable, "", what+": the call was cancelled", "")
}
