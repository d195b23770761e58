package inference

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/lib/serving"
	"github.com/edgetwin/sedna/lib/serving/oiphttp"
	"github.com/edgetwin/sedna/models/oip"
	"github.com/edgetwin/sedna/models/wire"
)

// Manager holds the node's services. Its methods may be called from any
// goroutine.
type Manager struct {
	cfg      Config
	observed *observed
	oip      *oiphttp.Handler
	images   *serving.Gate
	router   *router
	stamps   stamps
	link     atomic.Pointer[gateway] // nil while the bus is not served
	draining sync.WaitGroup          // one per service value that is not drained, and per feed and writer

	mu       sync.RWMutex
	services map[string]*entry
	closed   bool
}

// entry is one service by name: what serves now, and what was counted over all
// that served before.
type entry struct {
	name  string
	slot  serving.Slot[*service]
	stats stats
	frame frame

	mu      sync.Mutex // held while a spec is put in place
	current *service   // in slot; nil before the first
	gone    bool       // not in Manager.services any more

	// These end the goroutines of current's feed and writer; nil without.
	stopFeed, stopWriter context.CancelFunc
}

var _ oiphttp.Backend = door{}

// New makes a Manager without services.
func New(cfg Config) (*Manager, error) {
	if err := cfg.normalize(); err != nil {
		return nil, err
	}
	m := &Manager{
		cfg: cfg, services: map[string]*entry{}, images: serving.NewGate("images", cfg.Limits.ImageConcurrent, cfg.Limits.ImageQueue),
		router: newRouter(cfg.Node), stamps: stamps{last: map[string]int64{}},
	}
	m.observed = newObserved(m)
	if err := m.observed.register(cfg.Metrics); err != nil {
		return nil, fmt.Errorf("inference metrics: %w", err)
	}
	m.oip = oiphttp.New(door{m}, oiphttp.Config{
		Name: "sedna-localcontroller", Version: cfg.Version, Limits: cfg.Limits.Request, Reject: m.rejectHTTP,
	})
	return m, nil
}

// Activate loads and warms the service's model and has the service answer, in
// place of what answered under its name, which goes on until then and stays
// when Activate fails. The same spec again does nothing. Errors are wire
// errors: bad_model, invalid_argument for the rule or the cloud side,
// resource_exhausted for too many services.
func (m *Manager) Activate(ctx context.Context, spec ServiceSpec) error {
	e, err := m.enter(wire.Service(spec.Namespace, spec.Name))
	if err != nil {
		return err
	}
	defer m.leave(e)
	old := e.current
	if old != nil && reflect.DeepEqual(old.spec, spec) {
		return nil
	}
	s, err := m.load(ctx, e, spec, old)
	if err != nil {
		return err
	}
	m.draining.Add(1)
	e.current = s
	e.slot.Swap(s, func() {
		defer m.draining.Done()
		if err := s.model.Close(); err != nil {
			m.cfg.Log.Warn("model not closed", "service", e.name, "error", err)
		}
	})
	if old != nil && old.cloud != nil && old.cloud != s.cloud {
		old.cloud.Close()
	}
	if old == nil {
		old = &service{}
	}
	m.exchange(e, old, s)
	m.cfg.Log.Info("service active", "service", e.name, "model", spec.Model.Name, "version", spec.Model.Version)
	return nil
}

// exchange has feed and writer of a service work in place of those of another
// that are not the same. The entry is locked.
func (m *Manager) exchange(e *entry, old, with *service) {
	if old.feed != with.feed {
		m.router.exchange(old.feed, with.feed)
		if old.feed != nil {
			old.feed.close()
			e.stopFeed()
		}
		if with.feed != nil {
			e.stopFeed = m.background(with.feed.work)
		}
	}
	if old.writer != with.writer {
		if old.writer != nil {
			e.stopWriter()
		}
		if with.writer != nil {
			e.stopWriter = m.background(with.writer.work)
		}
	}
}

// background runs f until it is told to stop. Close waits for it.
func (m *Manager) background(f func(context.Context)) (stop context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	m.draining.Go(func() { f(ctx) })
	return cancel
}

// enter locks the entry of a service, which it makes if there is none.
func (m *Manager) enter(name string) (*entry, error) {
	for {
		m.mu.Lock()
		e := m.services[name]
		switch {
		case m.closed:
			m.mu.Unlock()
			return nil, errStopping()
		case e == nil && len(m.services) >= m.cfg.Limits.MaxServices:
			m.mu.Unlock()
			return nil, wire.E(wire.ResourceExhausted, "", fmt.Sprintf("this node serves at most %d services", m.cfg.Limits.MaxServices), "")
		case e == nil:
			e = &entry{name: name}
			m.services[name] = e
		}
		m.mu.Unlock()
		e.mu.Lock()
		if !e.gone {
			return e, nil
		}
		e.mu.Unlock()
	}
}

// leave unlocks an entry, and drops it when nothing serves.
func (m *Manager) leave(e *entry) {
	if e.current == nil {
		m.drop(e)
	}
	e.mu.Unlock()
}

// drop takes an entry that is locked out of service.
func (m *Manager) drop(e *entry) {
	e.gone = true
	m.mu.Lock()
	delete(m.services, e.name)
	m.mu.Unlock()
	m.observed.forget(e.name)
}

func errStopping() error { return wire.E(wire.Unavailable, "", "this node is stopping", "") }

// Deactivate stops a service; it is no error if there is none. Requests that
// run are answered.
func (m *Manager) Deactivate(ns, name string) {
	if e, err := m.find(wire.Service(ns, name)); err == nil {
		m.stop(e)
	}
}

func (m *Manager) stop(e *entry) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.gone {
		return
	}
	m.drop(e)
	e.slot.Clear()
	if e.current != nil {
		m.exchange(e, e.current, &service{})
		if e.current.cloud != nil {
			e.current.cloud.Close()
		}
	}
	m.cfg.Log.Info("service stopped", "service", e.name)
}

// Close stops all services and waits for requests that run.
func (m *Manager) Close() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	for _, e := range m.entries() {
		m.stop(e)
	}
	m.draining.Wait()
}

// entries lists the services by name.
func (m *Manager) entries() []*entry {
	m.mu.RLock()
	defer m.mu.RUnlock()
	list := make([]*entry, 0, len(m.services))
	for _, e := range m.services {
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b *entry) int { return strings.Compare(a.name, b.name) })
	return list
}

// find finds a service, which may not serve yet or any more.
func (m *Manager) find(name string) (*entry, error) {
	m.mu.RLock()
	e := m.services[name]
	m.mu.RUnlock()
	if e == nil {
		return nil, m.unknown(name)
	}
	return e, nil
}

func (m *Manager) unknown(name string) error {
	return wire.E(wire.NotFound, "", fmt.Sprintf("no service %.300q on node %s", name, m.cfg.Node), "")
}

// lease finds a service and keeps what serves now until the lease is released.
func (m *Manager) lease(name string) (*entry, *serving.Lease[*service], error) {
	e, err := m.find(name)
	if err != nil {
		return nil, nil, err
	}
	if l := e.slot.Acquire(); l != nil {
		return e, l, nil
	}
	return nil, nil, m.unknown(name)
}

// Infer answers one request by the service's cascade. It keeps neither the
// request nor the answer. Errors are wire errors.
func (m *Manager) Infer(ctx context.Context, service string, req *oip.InferRequest) (*oip.InferResponse, error) {
	return m.infer(ctx, service, "", req)
}

func (m *Manager) infer(ctx context.Context, service, version string, req *oip.InferRequest) (*oip.InferResponse, error) {
	e, l, err := m.lease(service)
	if err != nil {
		return nil, err
	}
	defer l.Release()
	if err := l.Value.checkVersion(version); err != nil {
		return nil, err
	}
	o, err := l.Value.infer(ctx, &e.stats, req)
	if err != nil {
		return nil, err
	}
	return o.resp, nil
}

func (m *Manager) rejectHTTP(err error) { _ = m.cfg.Metrics.Reject(metrics.DoorHTTP, err) }

// door is the Manager as the HTTP door sees it.
type door struct{ m *Manager }

// Ready is nil until Close.
func (d door) Ready() error {
	d.m.mu.RLock()
	defer d.m.mu.RUnlock()
	if d.m.closed {
		return errStopping()
	}
	return nil
}

// Model describes the edge model of a service.
func (d door) Model(service, version string) (*oip.ModelMetadata, error) {
	_, l, err := d.m.lease(service)
	if err != nil {
		return nil, err
	}
	defer l.Release()
	if err := l.Value.checkVersion(version); err != nil {
		return nil, err
	}
	return l.Value.model.Metadata(), nil
}

// Infer answers one request.
func (d door) Infer(ctx context.Context, service, version string, req *oip.InferRequest) (*oip.InferResponse, error) {
	return d.m.infer(ctx, service, version, req)
}
