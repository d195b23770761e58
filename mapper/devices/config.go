package devices

import (
	"context"
	"crypto/ed25519"
	"log/slog"
	"time"

	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/mapper/budget"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// Bus is what the engine needs of the node's broker; *bus.Client is one.
type Bus interface {
	// Publish hands one message over; without a connection it fails at once.
	Publish(ctx context.Context, topic string, qos byte, retained bool, payload []byte) error
	// Subscribe has h called for each message of filter, one at a time.
	Subscribe(filter string, qos byte, h func(bus.Message))
	// OnConnect has f called after each connect.
	OnConnect(f func())
	Connected() bool
}

// Config of an Engine. Zero values mean the defaults.
type Config struct {
	Node    string             // name of this node, part of the topics; required
	Bus     Bus                // the node's broker, not started yet; required
	Drivers map[string]Factory // by protocol name; required
	Budget  *budget.Budget     // shared with all else on the node that reports to the cloud; nil: one of its own

	// NodeKey is the key with which the node's LocalController signs its
	// writes. Without it none of them is taken.
	NodeKey ed25519.PublicKey

	// LocalWrites lets every program on the bus write properties, by {"value":…}
	// on the property's sensor topic + "/set". Whoever may publish on the bus
	// can then move actuators. Default: only the cloud and the LocalController
	// write.
	LocalWrites bool

	Limits  Limits
	Metrics *metrics.Registry // required
	Log     *slog.Logger      // nil: none
}

// Limits bound what the engine does for devices. Zero values mean the defaults.
type Limits struct {
	Devices       int           // that run at a time, of all protocols; 1024
	Properties    int           // of one device; 128
	Collect       time.Duration // between two readings where the Device does not say; 1 s
	MinCollect    time.Duration // least time between two readings; a shorter collectCycle is raised; 10 ms
	Report        time.Duration // between two reports of a property where the Device does not say; 10 s
	MinReport     time.Duration // least time between two reports of a property; 1 s
	MaxCycle      time.Duration // longest cycle; 24 h
	Call          time.Duration // of one call to a driver; 15 s
	Health        time.Duration // between two looks at whether a device without readings is there; 5 s
	MinBackoff    time.Duration // before the first new try to connect, doubled each time; 1 s
	MaxBackoff    time.Duration // between later tries, before jitter of a fifth; 60 s
	StateInterval time.Duration // least time between two states of one device; 5 s
	StateRepeat   time.Duration // after which an unchanged state is told again, as reports get lost; 5 min
	Publish       time.Duration // of one message to the bus; 5 s
	PushTargets   int           // MQTT brokers of pushMethod, all devices together; 32
	Push          time.Duration // of one push, where the Device does not say; 3 s
}

func (c *Config) normalize() error {
	switch {
	case !task.ValidName(c.Node):
		return wire.E(wire.InvalidArgument, "node", "expected a node name", "")
	case c.Bus == nil:
		return wire.E(wire.InvalidArgument, "bus", "missing", "")
	case len(c.Drivers) == 0:
		return wire.E(wire.InvalidArgument, "drivers", "missing", "")
	case c.Metrics == nil:
		return wire.E(wire.InvalidArgument, "metrics", "missing", "")
	}
	if c.Budget == nil {
		c.Budget = budget.New(0, 0)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	l := &c.Limits
	for _, n := range []struct {
		to       *int
		standard int
	}{{&l.Devices, 1024}, {&l.Properties, 128}, {&l.PushTargets, 32}} {
		if *n.to <= 0 {
			*n.to = n.standard
		}
	}
	for _, d := range []struct {
		to       *time.Duration
		standard time.Duration
	}{
		{&l.Collect, time.Second}, {&l.MinCollect, 10 * time.Millisecond}, {&l.Report, 10 * time.Second}, {&l.MinReport, time.Second},
		{&l.MaxCycle, 24 * time.Hour}, {&l.Call, 15 * time.Second}, {&l.Health, 5 * time.Second},
		{&l.MinBackoff, time.Second}, {&l.MaxBackoff, time.Minute}, {&l.StateInterval, 5 * time.Second}, {&l.StateRepeat, 5 * time.Minute},
		{&l.Publish, 5 * time.Second}, {&l.Push, 3 * time.Second},
	} {
		if *d.to <= 0 {
			*d.to = d.standard
		}
	}
	return nil
}
