package edgelink

import (
	"log/slog"
	"net/http"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/edgetwin/sedna/lib/losses"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/models/wire"
)

// Config of a Server. Zero values mean the defaults.
type Config struct {
	Client client.Client // its scheme knows devices.kubeedge.io/v1beta1; required
	Cache  cache.Cache   // started by the caller; required

	// Node tells which node a request comes from, by its verified client
	// certificate, and refuses with a *wire.Error whom it does not know. It is
	// asked again while a link lives, so that a withdrawn or expired
	// certificate ends it. Required.
	Node func(*http.Request) (string, error)

	Lose losses.Set // what KubeEdge loses, to be lost here too: of it, first-report and quick-rebind are this half's

	Limits  Limits
	Metrics *metrics.Registry // required
	Log     *slog.Logger      // nil: none
}

// Limits bound what nodes can ask of the cloud. Zero values mean the defaults.
type Limits struct {
	Links    int           // at a time, all nodes together, one per node; 10000
	Rate     float64       // frames per second from one node, then it has to wait; 100
	Burst    int           // frames that may follow each other at once; 200
	Ping     time.Duration // between two pings and two looks at the certificate, and for a ping to be answered; 10 s
	Write    time.Duration // of one frame to a node; 10 s
	API      time.Duration // of one write to the Kubernetes API; 10 s
	MaxRetry time.Duration // between two tries of a failed write to the API, doubled from 100 ms; 5 s
}

func (c *Config) normalize() error {
	if c.Client == nil || c.Cache == nil || c.Node == nil || c.Metrics == nil {
		return wire.E(wire.InvalidArgument, "", "edgelink needs client, cache, node and metrics", "")
	}
	l := &c.Limits
	if l.Links <= 0 {
		l.Links = 10000
	}
	if l.Rate <= 0 {
		l.Rate = 100
	}
	if l.Burst <= 0 {
		l.Burst = 200
	}
	for _, d := range []struct {
		to       *time.Duration
		standard time.Duration
	}{{&l.Ping, 10 * time.Second}, {&l.Write, 10 * time.Second}, {&l.API, 10 * time.Second}, {&l.MaxRetry, 5 * time.Second}} {
		if *d.to <= 0 {
			*d.to = d.standard
		}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}
