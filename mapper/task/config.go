package task

import (
	"crypto/ed25519"
	"log/slog"
	"time"

	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/mapper/budget"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// Config of a Bridge. Zero values mean the defaults.
type Config struct {
	Node string      // name of this node, part of the topics; required
	Bus  *bus.Client // not started yet: the bridge subscribes first; required

	// NodeKey is the key with which the LocalController signs reports; those
	// of tasks are then verified here too. Without it only the cloud does.
	NodeKey ed25519.PublicKey

	// Budget is what all reports of the node share. Nil: one of Limits.Rate and
	// Limits.Burst, of this bridge alone.
	Budget *budget.Budget

	Limits  Limits
	Metrics *metrics.Registry // required
	Log     *slog.Logger      // nil: none
}

// Limits bound what the bridge takes from the bus and sends up. Zero values
// mean the defaults.
type Limits struct {
	Rate         float64       // twin and state updates per second, without a Budget; KubeEdge takes 30 of a node for all its parts; 15
	Burst        int           // updates that may follow each other at once, without a Budget; 10
	Payload      int           // bytes in one report; 16 KiB
	Properties   int           // in one report; 64
	ResendAfter  time.Duration // from a report to its first repetition, doubled each time; 2 s
	ResendAtMost time.Duration // between two repetitions; 60 s
	ClearAfter   time.Duration // from a task's report Stopped to the end of its retained message, when nobody removes its device; 5 s
	Settle       time.Duration // from a foreign change of a retained message to its restoration; 250 ms
	Publish      time.Duration // for the broker to acknowledge one message; 10 s
}

func (c *Config) normalize() error {
	switch {
	case !task.ValidName(c.Node):
		return wire.E(wire.InvalidArgument, "node", "expected a node name", "")
	case c.Bus == nil:
		return wire.E(wire.InvalidArgument, "bus", "missing", "")
	case c.Metrics == nil:
		return wire.E(wire.InvalidArgument, "metrics", "missing", "")
	}
	l := &c.Limits
	if l.Rate <= 0 {
		l.Rate = budget.DefaultRate
	}
	for _, n := range []struct {
		to       *int
		standard int
	}{{&l.Burst, budget.DefaultBurst}, {&l.Payload, 16 << 10}, {&l.Properties, 64}} {
		if *n.to <= 0 {
			*n.to = n.standard
		}
	}
	for _, d := range []struct {
		to       *time.Duration
		standard time.Duration
	}{{&l.ResendAfter, 2 * time.Second}, {&l.ResendAtMost, time.Minute}, {&l.ClearAfter, 5 * time.Second}, {&l.Settle, 250 * time.Millisecond}, {&l.Publish, 10 * time.Second}} {
		if *d.to <= 0 {
			*d.to = d.standard
		}
	}
	if c.Budget == nil {
		c.Budget = budget.New(l.Rate, l.Burst)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}
