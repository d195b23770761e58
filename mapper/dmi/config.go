package dmi

import (
	"io/fs"
	"log/slog"
	"time"

	"github.com/edgetwin/sedna/lib/metrics"
	pb "github.com/edgetwin/sedna/models/dmi"
	"github.com/edgetwin/sedna/models/wire"
)

// Handler is told what edgecore knows of our protocol. Calls come one at a
// time and must not block for long: edgecore waits, and gives up after 10 s.
// All calls are idempotent. Messages may be kept, not changed.
type Handler interface {
	// Sync gives everything after a registration; devices and models that are
	// not listed are gone.
	Sync(models []*pb.DeviceModel, devices []*pb.Device)
	// Upsert gives a new or changed device, always whole. Its model may be
	// unknown. An error is edgecore's answer.
	Upsert(device *pb.Device) error
	// Remove tells that a device is gone; it may never have been known.
	Remove(namespace, name string)
	// UpsertModel gives a new or changed model.
	UpsertModel(model *pb.DeviceModel)
	// RemoveModel tells that a model is gone; devices of it may still follow
	// with their own removal.
	RemoveModel(namespace, name string)
}

// Config of a Mapper. Zero values mean the defaults.
type Config struct {
	Name       string        // of the mapper; "sedna-mapper"
	Version    string        // of the mapper; "1"
	Protocol   string        // that we register for; the last mapper of a protocol wins; required
	Socket     string        // path of our own unix socket; required
	SocketMode fs.FileMode   // of our socket; 0600
	EdgeSocket string        // path of edgecore's dmi.sock; required
	Check      time.Duration // between two looks at whether EdgeSocket was replaced; 2 s
	Timeout    time.Duration // of one registration; 10 s
	MinBackoff time.Duration // before the first new try to register; 200 ms
	MaxBackoff time.Duration // between later tries; 5 s
	MaxMessage int           // bytes in one call from edgecore; 8 MiB. A registration's answer may be eight times that

	Handler Handler           // required
	Metrics *metrics.Registry // nil: refusals are not counted
	Log     *slog.Logger      // nil: none
}

func (c *Config) normalize() error {
	for _, f := range []struct{ field, value string }{{"protocol", c.Protocol}, {"socket", c.Socket}, {"edgeSocket", c.EdgeSocket}} {
		if f.value == "" {
			return wire.E(wire.InvalidArgument, f.field, "missing", "")
		}
	}
	if c.Handler == nil {
		return wire.E(wire.InvalidArgument, "handler", "missing", "")
	}
	if c.Name == "" {
		c.Name = "sedna-mapper"
	}
	if c.Version == "" {
		c.Version = "1"
	}
	if c.SocketMode == 0 {
		c.SocketMode = 0o600
	}
	for _, d := range []struct {
		to     *time.Duration
		defVal time.Duration
	}{{&c.Check, 2 * time.Second}, {&c.Timeout, 10 * time.Second}, {&c.MinBackoff, 200 * time.Millisecond}, {&c.MaxBackoff, 5 * time.Second}} {
		if *d.to <= 0 {
			*d.to = d.defVal
		}
	}
	if c.MaxMessage <= 0 {
		c.MaxMessage = 8 << 20
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}
