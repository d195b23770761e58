package edge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/edgetwin/sedna/edge/inference"
	"github.com/edgetwin/sedna/edge/model"
	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/edge/tasks"
	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/lib/engine"
	_ "github.com/edgetwin/sedna/lib/engine/purego" // the engine that every node has
	"github.com/edgetwin/sedna/lib/identity"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/models/wire"
)

// Deps are what Run takes beside its configuration. Zero fields are allowed.
type Deps struct {
	Log *slog.Logger
	// Ready is told once, when the HTTP server listens. Tasks may still be on
	// their way then; /readyz tells.
	Ready func(Endpoints)
	// Command is how to start a binary that calls model.LoadTestMain. Default
	// this one.
	Command []string
}

// Endpoints are where a running LocalController can be reached.
type Endpoints struct {
	Node string `json:"node"`
	HTTP string `json:"http"` // host:port, as bound
}

// controller is a LocalController with all its parts.
type controller struct {
	cfg       Config
	log       *slog.Logger
	level     slog.LevelVar
	started   time.Time
	metrics   *metrics.Registry
	store     *store.Store
	bus       *bus.Client
	cloud     *cloudLink
	announcer *announcer
	inference *inference.Manager
	beacon    *tasks.Beacon
	tasks     *tasks.Manager
}

// Run is a LocalController until ctx ends or its HTTP server fails. The
// binary must call model.LoadTestMain first thing, see Deps.Command.
func Run(ctx context.Context, cfg Config, deps Deps) error {
	if err := cfg.Check(); err != nil {
		return err
	}
	c := &controller{cfg: cfg, started: time.Now().UTC(), metrics: metrics.New()}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	c.log = slog.New(leveled{deps.Log.Handler(), &c.level})
	node, err := c.identify(ctx)
	if err != nil {
		return err
	}
	if c.cfg.Node == "" {
		c.cfg.Node = node.Name()
	}
	if c.cfg.Node != node.Name() {
		return wire.E(wire.InvalidArgument, "node", fmt.Sprintf("%s, but the identity in %s is of node %s", c.cfg.Node, cfg.IdentityDir, node.Name()), "")
	}
	if c.cfg.CloudURL == "" {
		c.cfg.CloudURL = node.CloudURL()
	}
	c.log = c.log.With("node", c.cfg.Node)
	if c.store, err = store.Open(ctx, store.Options{Dir: cfg.DataDir, MaxBytes: cfg.Limits.DatabaseBytes}); err != nil {
		return err
	}
	defer c.store.Close()
	if err := c.build(ctx, node, deps); err != nil {
		return err
	}
	defer c.inference.Close()
	defer c.bus.Close()
	return c.run(ctx, deps)
}

// identify loads the node's identity, or enrols the node where there is none
// yet and a token says that it may.
func (c *controller) identify(ctx context.Context) (*identity.Node, error) {
	node, err := identity.LoadNode(c.cfg.IdentityDir)
	if !wire.IsCode(err, wire.NotFound) || c.cfg.EnrolToken == "" && c.cfg.EnrolTokenFile == "" {
		return node, err
	}
	token, err := c.enrolToken()
	switch {
	case err != nil:
		return nil, err
	case c.cfg.Node == "":
		return nil, wire.E(wire.InvalidArgument, "node", "missing, and this node has yet to enrol", "")
	case c.cfg.CloudURL == "":
		return nil, wire.E(wire.InvalidArgument, "cloudURL", "missing, and this node has yet to enrol", "")
	}
	ctx, cancel := context.WithTimeout(ctx, enrolTimeout)
	defer cancel()
	node, err = identity.Enrol(ctx, c.cfg.CloudURL, token, c.cfg.Node, c.cfg.IdentityDir)
	if err == nil {
		c.log.Info("enrolled", "node", c.cfg.Node, "cloud", c.cfg.CloudURL)
	}
	return node, err
}

// enrolToken is the token from the configuration or its file.
func (c *controller) enrolToken() (string, error) {
	if c.cfg.EnrolTokenFile == "" {
		return string(c.cfg.EnrolToken), nil
	}
	f, err := os.Open(c.cfg.EnrolTokenFile)
	if err != nil {
		return "", wire.E(wire.FailedPrecondition, "enrolTokenFile", err.Error(), "make a token with sedna token create --node "+c.cfg.Node)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxTokenFile))
	if err != nil {
		return "", wire.E(wire.FailedPrecondition, "enrolTokenFile", err.Error(), "")
	}
	return strings.TrimSpace(string(b)), nil
}

// enrolTimeout bounds the enrolment at the first start, and maxTokenFile what
// is read of a token's file, in bytes.
const (
	enrolTimeout = time.Minute
	maxTokenFile = 16 << 10
)

// build makes the parts; nothing runs yet.
func (c *controller) build(ctx context.Context, node *identity.Node, deps Deps) (err error) {
	c.bus, err = bus.New(bus.Options{
		// The session is clean, so no process needs the id of the one before it.
		URL: c.cfg.Bus.URL, ClientID: "sedna-localcontroller-" + c.cfg.Node + "-" + uuid.NewString()[:8], CleanSession: true,
		Username: c.cfg.Bus.Username, Password: c.cfg.Bus.Password, Log: c.log,
	})
	if err != nil {
		return err
	}
	c.announcer = newAnnouncer(c.cfg.Node, c.bus, c.store, c.log)
	c.noteStore()
	c.cloud = newCloudLink(c.cfg.CloudURL, node, c.announcer.tell, c.log)
	library, err := model.New(ctx, model.Options{
		Dir: c.cfg.DataDir, Store: c.store, Fetch: fetcher{c.cfg.CloudURL, node.HTTPClient()}, DataRoots: c.cfg.DataRoots,
		Limits: c.cfg.Limits.Models, Command: deps.Command, Metrics: c.metrics, Events: c.announcer.tell, Log: c.log,
	})
	if err != nil {
		return err
	}
	c.inference, err = inference.New(inference.Config{
		Node: c.cfg.Node, Version: wire.Version, Metrics: c.metrics, CloudURL: c.cfg.CloudURL, CloudClient: node.HTTPClient(), Key: node.Key(), Log: c.log,
	})
	if err != nil {
		return err
	}
	c.beacon = tasks.NewBeacon(tasks.BeaconOptions{
		Node: c.cfg.Node, Namespace: c.cfg.Namespace, Key: node.Key(), Pinned: node.Keys, Store: c.store, Bus: c.bus, DataDir: c.cfg.DataDir,
		Engines: engine.Names(), Period: time.Duration(c.cfg.BeatSeconds) * time.Second, LogLevel: &c.level,
		Metrics: c.metrics, Events: c.announcer.tell, Log: c.log,
	})
	c.tasks = tasks.New(tasks.Options{
		Node: c.cfg.Node, Key: node.Key(), Pinned: node.Keys, Store: c.store, Models: library, Server: server{c.inference}, Bus: c.bus,
		Limits: c.cfg.Limits.Tasks, Metrics: c.metrics, Events: c.announcer.tell, Changed: c.beacon.Soon, UnknownKey: c.cloud.keysWanted,
		NodeDesired: func(ns string, b []byte) { c.beacon.Desired(ctx, ns, b) }, Log: c.log,
	})
	c.register()
	return nil
}

// noteStore says when the memory of the node is new.
func (c *controller) noteStore() {
	switch {
	case c.store.Aside() != "":
		c.log.Error("the database was damaged; it was moved aside and the cloud will fill a new one", "aside", c.store.Aside())
		c.announcer.tell(store.Event{Kind: "store", Reason: "Damaged", Message: "moved to " + c.store.Aside()})
	case c.store.Fresh():
		c.log.Info("new database", "path", c.store.Path())
		c.announcer.tell(store.Event{Kind: "store", Reason: "Created", Message: c.store.Path()})
	}
}

// run serves until ctx ends. What is on disk serves before anything is asked
// of the bus or the cloud.
func (c *controller) run(ctx context.Context, deps Deps) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := c.beacon.Restore(ctx); err != nil {
		return err
	}
	if err := c.tasks.Start(ctx); err != nil {
		return err
	}
	defer c.tasks.Close()
	doors, err := c.open()
	if err != nil {
		return err
	}
	failed := make(chan error, len(doors))
	var wg sync.WaitGroup
	for _, d := range doors {
		wg.Go(func() { failed <- d.server.Serve(d.listener) })
	}
	wg.Go(func() { c.announcer.run(ctx) })
	wg.Go(func() { c.beacon.Run(ctx) })
	wg.Go(func() { c.cloud.run(ctx) })
	var answers sync.WaitGroup
	answers.Go(func() {
		if err := c.inference.ServeBus(ctx, c.bus); err != nil {
			c.log.Error("inference on the bus ended", "error", err)
		}
	})
	c.followNudges()
	c.bus.OnConnect(func() { c.busEvent("BusConnected") })
	c.bus.OnDisconnect(func() { c.busEvent("BusDisconnected") })
	// The bus outlives ctx, for the answers that are under way.
	c.bus.Start(context.WithoutCancel(ctx))
	c.log.Info("local controller up", "http", doors[0].listener.Addr().String(), "version", wire.Version)
	if deps.Ready != nil {
		deps.Ready(Endpoints{Node: c.cfg.Node, HTTP: doors[0].listener.Addr().String()})
	}

	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	cancel()
	stopping, release := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer release()
	for _, d := range doors {
		if d.server.Shutdown(stopping) != nil {
			d.server.Close()
		}
	}
	answers.Wait()
	c.bus.Close()
	wg.Wait()
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("local HTTP: %w", err)
	}
	return nil
}

func (c *controller) busEvent(reason string) {
	c.log.Info("bus link changed", "reason", reason)
	c.announcer.tell(store.Event{Kind: "connectivity", Reason: reason})
}

// leveled has a logger's level follow the node's configuration.
type leveled struct {
	slog.Handler
	level *slog.LevelVar
}

func (l leveled) Enabled(_ context.Context, at slog.Level) bool { return at >= l.level.Level() }

func (l leveled) WithAttrs(a []slog.Attr) slog.Handler {
	return leveled{l.Handler.WithAttrs(a), l.level}
}

func (l leveled) WithGroup(name string) slog.Handler {
	return leveled{l.Handler.WithGroup(name), l.level}
}
