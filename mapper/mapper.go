package mapper

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net"

	"golang.org/x/sync/errgroup"

	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/lib/bus/broker"
	"github.com/edgetwin/sedna/lib/identity"
	"github.com/edgetwin/sedna/lib/losses"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/mapper/budget"
	"github.com/edgetwin/sedna/mapper/dmi"
	"github.com/edgetwin/sedna/mapper/edgelink"
	"github.com/edgetwin/sedna/mapper/task"
	tasks "github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// Endpoints is what others can connect to.
type Endpoints struct {
	Node string `json:"node"`
	MQTT string `json:"mqtt"`           // URL of the broker
	HTTP string `json:"http,omitempty"` // host:port

	Control string `json:"control,omitempty"` // host:port of edgelink's link commands
}

// parts are a mapper put together and not running yet.
type parts struct {
	c       Config
	log     *slog.Logger
	metrics *metrics.Registry
	node    *identity.Node // nil: not joined
	broker  *broker.Broker // nil: another process's
	buses   []*bus.Client
	edge    *edgelink.Edge // nil: edgecore is there
	bridge  *task.Bridge
	dmi     *dmi.Mapper
	budget  *budget.Budget
	driven  *driven      // nil: no sensors or cameras
	http    net.Listener // nil: none
}

// Run runs the mapper until ctx ends. ready is called once, when the broker
// and HTTP listen; registration with edgecore goes on in the background.
func Run(ctx context.Context, c Config, log *slog.Logger, ready func(Endpoints)) (err error) {
	if err := Check(&c); err != nil {
		return err
	}
	p := &parts{c: c, log: log, metrics: metrics.New()}
	defer func() { err = errors.Join(err, p.close()) }()
	if err := p.build(); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	if p.edge != nil {
		g.Go(func() error { return p.edge.Run(ctx) })
	}
	g.Go(func() error { return p.bridge.Run(ctx) })
	g.Go(func() error { return p.dmi.Run(ctx) })
	if p.driven != nil {
		p.driven.run(ctx, g)
	}
	e := Endpoints{Node: p.c.Node, MQTT: p.c.Bus.URL}
	if p.edge != nil {
		e.Control = p.edge.ControlAddr()
	}
	if p.http != nil {
		e.HTTP = p.http.Addr().String()
		g.Go(func() error { return p.serveHTTP(ctx) })
	}
	// The buses outlive their users: close ends them.
	for _, b := range p.buses {
		b.Start(context.WithoutCancel(ctx))
	}
	ready(e)
	return g.Wait()
}

func (p *parts) build() (err error) {
	if err := p.identify(); err != nil {
		return err
	}
	if p.c.Broker.Enabled {
		p.broker, err = broker.Start(broker.Options{Addr: p.c.Broker.Listen, Username: p.c.Bus.Username, Password: p.c.Bus.Password, Log: p.log})
		if err != nil {
			return err
		}
		p.c.Bus.URL = "tcp://" + p.broker.Addr()
	}
	if p.c.Edgelink.Enabled {
		if err := p.buildEdgelink(); err != nil {
			return err
		}
	}
	b, err := p.bus("sedna-mapper-")
	if err != nil {
		return err
	}
	p.budget = budget.New(p.c.Devices.ReportRate, 0)
	p.bridge, err = task.New(task.Config{Node: p.c.Node, Bus: b, NodeKey: p.nodeKey(), Budget: p.budget, Metrics: p.metrics, Log: p.log})
	if err != nil {
		return err
	}
	p.dmi, err = dmi.New(dmi.Config{
		Version: wire.Version, Protocol: tasks.Protocol, Socket: p.c.Socket, EdgeSocket: p.c.DMISocket,
		Handler: p.bridge, Metrics: p.metrics, Log: p.log,
	})
	if err != nil {
		return err
	}
	if err := p.buildDevices(); err != nil {
		return err
	}
	if p.c.HTTP != "" {
		p.http, err = net.Listen("tcp", p.c.HTTP)
	}
	return err
}

// identify loads the node's identity, which only edgelink cannot do without,
// and settles the node's name.
func (p *parts) identify() (err error) {
	p.node, err = identity.LoadNode(p.c.Identity)
	if err != nil && (p.c.Edgelink.Enabled || !wire.IsCode(err, wire.NotFound)) {
		return err
	}
	if p.node != nil && p.c.Node == "" {
		p.c.Node = p.node.Name()
	}
	switch {
	case p.c.Node == "":
		return wire.E(wire.InvalidArgument, "node", "missing", "set it, or join the node first")
	case p.node != nil && p.c.Node != p.node.Name():
		return wire.E(wire.InvalidArgument, "node", fmt.Sprintf("%s, but the identity in %s is of %s", p.c.Node, p.c.Identity, p.node.Name()), "")
	}
	return nil
}

// nodeKey is what the LocalController's signatures verify with; nil where the
// node has not joined.
func (p *parts) nodeKey() ed25519.PublicKey {
	if p.node == nil {
		return nil
	}
	return p.node.Key().Public().(ed25519.PublicKey)
}

func (p *parts) buildEdgelink() error {
	b, err := p.bus("sedna-edgelink-")
	if err != nil {
		return err
	}
	cloud := p.c.Edgelink.Cloud
	if cloud == "" {
		cloud = p.node.CloudURL()
	}
	lose, err := losses.Parse("edgelink.lose", p.c.Edgelink.Lose)
	if err != nil {
		return err
	}
	p.edge, err = edgelink.New(edgelink.Config{
		Lose: lose, Seed: p.c.Edgelink.Seed, Control: p.c.Edgelink.Control,
		Node: p.c.Node, Cloud: cloud, TLS: p.node.TLSConfig(),
		DMISocket: p.c.DMISocket, Database: p.c.Edgelink.Database,
		Bus: b, AnswerUnknown: !p.c.Edgelink.SharedBroker,
		Metrics: p.metrics, Log: p.log,
	})
	return err
}

// bus gives a client of its own for each part, as edgecore and mappers have.
func (p *parts) bus(idPrefix string) (*bus.Client, error) {
	b, err := bus.New(bus.Options{
		URL: p.c.Bus.URL, ClientID: idPrefix + p.c.Node, CleanSession: true,
		Username: p.c.Bus.Username, Password: p.c.Bus.Password, Log: p.log,
	})
	if err != nil {
		return nil, fmt.Errorf("bus: %w", err)
	}
	p.buses = append(p.buses, b)
	return b, nil
}

// close ends what Run's context does not.
func (p *parts) close() error {
	if p.driven != nil {
		p.driven.close()
	}
	for _, b := range p.buses {
		b.Close()
	}
	if p.http != nil {
		_ = p.http.Close()
	}
	if p.broker != nil {
		return p.broker.Close()
	}
	return nil
}
