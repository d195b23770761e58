package edgelink

import (
	"crypto/tls"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"time"

	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/lib/losses"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// Config of an Edge. Zero values mean the defaults.
type Config struct {
	Node          string      // name of this node; required
	Cloud         string      // base URL of the GlobalManager, https://host:port; required
	TLS           *tls.Config // with the node's client certificate; required
	DMISocket     string      // path of the socket that mappers register on; required
	SocketMode    fs.FileMode // of that socket; 0600
	Database      string      // path of the SQLite file; required
	Bus           *bus.Client // not started yet: the edge subscribes first; required
	AnswerUnknown bool        // answer updates of unknown devices with 404, as KubeEdge does; off where several edges share a broker

	Lose    losses.Set // what KubeEdge loses, to be lost here too
	Seed    int64      // makes losses by chance repeatable
	Control string     // loopback host:port that takes POST /link {"up":false}; empty: none

	Limits  Limits
	Metrics *metrics.Registry // required
	Log     *slog.Logger      // nil: none
}

// Limits are KubeEdge's where it has them. Zero values mean the defaults.
type Limits struct {
	UpRate        float64       // messages per second to the cloud; edgeHub's 30
	UpBurst       int           // messages that may follow each other at once; edgeHub's 60
	UpQueue       int           // messages that wait for their turn, more are dropped and counted; 1024
	DMIRate       float64       // reports per second over DMI, all mappers together; edgecore's 1
	DMIBurst      int           // DMI reports that may follow each other at once; edgecore's 100
	Call          time.Duration // of one call to a mapper, which is not repeated; 10 s
	Payload       int           // bytes in one MQTT message; 64 KiB
	Ping          time.Duration // between two pings on the link, and for one to be answered; 10 s
	ConnectWithin time.Duration // for dial, TLS and the handshake together; 10 s
	MinBackoff    time.Duration // before the first try to reconnect; 200 ms
	MaxBackoff    time.Duration // between later tries, before jitter of a fifth; 5 s
}

func (c *Config) normalize() error {
	for _, f := range []struct{ field, value string }{{"dmiSocket", c.DMISocket}, {"database", c.Database}} {
		if f.value == "" {
			return wire.E(wire.InvalidArgument, f.field, "missing", "")
		}
	}
	switch {
	case !task.ValidName(c.Node):
		return wire.E(wire.InvalidArgument, "node", "expected a node name", "")
	case c.TLS == nil || c.Bus == nil || c.Metrics == nil:
		return wire.E(wire.InvalidArgument, "", "edgelink needs tls, bus and metrics", "")
	}
	if c.Control != "" && !loopback(c.Control) {
		return wire.E(wire.InvalidArgument, "control", fmt.Sprintf("expected host:port on loopback, got %.80q", c.Control), "")
	}
	u, err := url.Parse(c.Cloud)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return wire.E(wire.InvalidArgument, "cloud", fmt.Sprintf("expected https://host:port, got %.80q", c.Cloud), "")
	}
	if c.SocketMode == 0 {
		c.SocketMode = 0o600
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Limits.normalize()
	return nil
}

func (l *Limits) normalize() {
	for _, f := range []struct {
		to       *float64
		standard float64
	}{{&l.UpRate, 30}, {&l.DMIRate, 1}} {
		if *f.to <= 0 {
			*f.to = f.standard
		}
	}
	for _, n := range []struct {
		to       *int
		standard int
	}{{&l.UpBurst, 60}, {&l.UpQueue, 1024}, {&l.DMIBurst, 100}, {&l.Payload, 64 << 10}} {
		if *n.to <= 0 {
			*n.to = n.standard
		}
	}
	for _, d := range []struct {
		to       *time.Duration
		standard time.Duration
	}{
		{&l.Call, 10 * time.Second}, {&l.Ping, 10 * time.Second}, {&l.ConnectWithin, 10 * time.Second},
		{&l.MinBackoff, 200 * time.Millisecond}, {&l.MaxBackoff, 5 * time.Second},
	} {
		if *d.to <= 0 {
			*d.to = d.standard
		}
	}
}
