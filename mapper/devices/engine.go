package devices

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/mapper/dmi"
	pb "github.com/edgetwin/sedna/models/dmi"
	"github.com/edgetwin/sedna/models/wire"
)

// Engine runs the devices of all protocols of one process. Where locks meet,
// the engine's comes first, then a supervisor's or the reporter's.
type Engine struct {
	c        Config
	m        *counters
	reporter *reporter
	targets  *targets

	ctx    context.Context // of all devices
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	devices map[key]*supervisor
	ending  map[key]*supervisor // removed, and not at their end yet
	models  map[modelKey]*pb.DeviceModel
}

// modelKey names a model as one protocol's mapper was told of it: edgecore
// tells each mapper of its own models.
type modelKey struct{ protocol, ns, name string }

// New makes an Engine and its subscriptions. Start the bus afterwards.
func New(c Config) (*Engine, error) {
	if err := c.normalize(); err != nil {
		return nil, err
	}
	e := &Engine{c: c, devices: map[key]*supervisor{}, ending: map[key]*supervisor{}, models: map[modelKey]*pb.DeviceModel{}}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.m = newCounters(e)
	e.reporter = newReporter(&e.c, e.m)
	e.targets = newTargets(e)
	c.Bus.OnConnect(e.reporter.connected)
	c.Bus.Subscribe(wire.TwinUpdateResultFilter, 1, e.answered)
	c.Bus.Subscribe(wire.SensorSetFilter(c.Node), 1, e.busWrite)
	return e, nil
}

// Run reports until ctx ends, and then stops all devices. Devices start when
// a Handler hears of them.
func (e *Engine) Run(ctx context.Context) error {
	e.reporter.run(ctx)
	e.Close()
	return nil
}

// Close stops all devices and waits for them. Calls after the first change
// nothing.
func (e *Engine) Close() {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.cancel()
	e.wg.Wait()
	e.targets.close()
}

// Handler is the engine for one protocol.
func (e *Engine) Handler(protocol string) (dmi.Handler, error) {
	if e.c.Drivers[protocol] == nil {
		return nil, wire.E(wire.InvalidArgument, "drivers", fmt.Sprintf("there is no driver for protocol %.80q", protocol), "")
	}
	return handler{e, protocol}, nil
}

// handler is what edgecore tells of one protocol.
type handler struct {
	e        *Engine
	protocol string
}

var _ dmi.Handler = handler{}

// Sync takes over everything that edgecore knows of the protocol.
func (h handler) Sync(models []*pb.DeviceModel, devices []*pb.Device) {
	e := h.e
	e.mu.Lock()
	for _, m := range models {
		e.models[modelKey{h.protocol, m.Namespace, m.Name}] = m
	}
	e.mu.Unlock()
	listed := map[key]bool{}
	for _, d := range devices {
		k := key{d.Namespace, d.Name}
		listed[k] = true
		if err := h.Upsert(d); err != nil {
			e.c.Log.Warn("device refused", "device", k.String(), "err", e.c.Metrics.Reject(metrics.DoorTwin, err))
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for k, s := range e.devices {
		if s.protocol == h.protocol && !listed[k] {
			e.removeLocked(k)
		}
	}
	// What was told while edgecore did not know the device is lost.
	for k := range listed {
		e.reporter.repeatState(k)
	}
}

// Upsert starts a new device or hands over what has changed. A configuration
// that cannot be run is the device's state, not an error here.
func (h handler) Upsert(d *pb.Device) error {
	e, k := h.e, key{d.Namespace, d.Name}
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.devices[k]
	if s != nil && s.protocol != h.protocol {
		e.removeLocked(k)
		s = nil
	}
	if s == nil {
		if e.closed {
			return wire.E(wire.Unavailable, "", "shutting down", "")
		}
		if len(e.devices) >= e.c.Limits.Devices {
			return wire.E(wire.ResourceExhausted, "device", fmt.Sprintf("%d devices run here, which is the most", len(e.devices)), "")
		}
		s = newSupervisor(e, k, h.protocol, e.ending[k])
		e.devices[k] = s
		e.reporter.add(k)
		s.tell(d, e.plan(h.protocol, d))
		e.wg.Go(func() {
			s.run()
			e.ended(s)
		})
		return nil
	}
	s.tell(d, e.plan(h.protocol, d))
	return nil
}

func (e *Engine) plan(protocol string, d *pb.Device) *plan {
	return makePlan(&e.c, d, e.models[modelKey{protocol, d.Namespace, d.GetSpec().GetDeviceModelReference()}])
}

// Remove stops the device.
func (h handler) Remove(ns, name string) {
	h.e.mu.Lock()
	defer h.e.mu.Unlock()
	if s := h.e.devices[key{ns, name}]; s != nil && s.protocol == h.protocol {
		h.e.removeLocked(key{ns, name})
	}
}

// removeLocked does not wait: a successor of the same name does.
func (e *Engine) removeLocked(k key) {
	s := e.devices[k]
	delete(e.devices, k)
	e.ending[k] = s
	s.stop()
	e.reporter.forget(k)
}

func (e *Engine) ended(s *supervisor) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ending[s.key] == s {
		delete(e.ending, s.key)
	}
}

// UpsertModel hands the model to the devices that it describes.
func (h handler) UpsertModel(m *pb.DeviceModel) {
	e := h.e
	e.mu.Lock()
	defer e.mu.Unlock()
	e.models[modelKey{h.protocol, m.Namespace, m.Name}] = m
	for k, s := range e.devices {
		d := s.device()
		if s.protocol == h.protocol && k.ns == m.Namespace && d.GetSpec().GetDeviceModelReference() == m.Name {
			s.tell(d, e.plan(h.protocol, d))
		}
	}
}

// RemoveModel leaves the devices of the model as they are: their removal may
// follow.
func (h handler) RemoveModel(ns, name string) {
	h.e.mu.Lock()
	defer h.e.mu.Unlock()
	delete(h.e.models, modelKey{h.protocol, ns, name})
}

// find gives a device by name; nil if it is not here.
func (e *Engine) find(k key) *supervisor {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.devices[k]
}

// answered counts the reports of our devices that edgecore refuses.
func (e *Engine) answered(m bus.Message) {
	ns, name, _, ok := wire.ParseDevice(m.Topic)
	if !ok || len(m.Payload) > maxSet || e.find(key{ns, name}) == nil {
		return
	}
	var answer wire.TwinMessage
	if json.Unmarshal(m.Payload, &answer) == nil && answer.Code != 0 {
		e.m.reportsRefused.Inc()
		e.c.Log.Warn("edgecore refuses a reading", "device", ns+"/"+name, "code", answer.Code, "reason", fmt.Sprintf("%.200s", answer.Reason))
	}
}
