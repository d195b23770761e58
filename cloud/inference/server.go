package inference

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"sync"

	"github.com/edgetwin/sedna/lib/identity"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/lib/serving"
	"github.com/edgetwin/sedna/lib/serving/oiphttp"
	"github.com/edgetwin/sedna/models/oip"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// Config is what a Server needs. Zero fields mean the defaults.
type Config struct {
	// Version is this program's, shown by GET /v2.
	Version string
	// Node gives the node that a request comes from, by its client certificate;
	// a wire error where there is none. Required.
	Node func(r *http.Request) (string, error)
	// Admin tells whether a request comes from an administrator, who may use
	// every service. Default identity.IsAdmin.
	Admin func(r *http.Request) bool
	// May tells whether a node works for a service. Required.
	May func(node, service string) bool
	// Limits bound request bodies and tensors.
	Limits oip.Limits
	// Model bounds what one model may use, and says how model files are loaded.
	Model serving.Options
	// MaxMemory is what all models together may hold, in bytes, those not
	// counted that only finish their last requests. Default 2 GiB.
	MaxMemory int64
	// Metrics counts refusals. Default: none are counted.
	Metrics *metrics.Registry
	// Log tells of models set and removed. Default: none.
	Log *slog.Logger
}

// Spec is what a service answers with: a model, and its file here.
type Spec struct {
	Model task.Model
	Path  string
}

// Server holds the models. Its methods may be called from any goroutine.
type Server struct {
	cfg      Config
	handler  *oiphttp.Handler
	draining sync.WaitGroup // one per model that is not drained

	mu       sync.RWMutex
	services map[string]*entry
	memory   int64 // of the models in services, in bytes
}

// entry is one service by name. Lock order: entry.mu, then Server.mu.
type entry struct {
	slot serving.Slot[*serving.Model]

	mu   sync.Mutex // held while a model is put in place
	spec *Spec      // of the model in slot; nil before the first
	gone bool       // not in Server.services any more

	bytes int64 // of the model in slot, counted in Server.memory; under Server.mu
}

var (
	_ oiphttp.Backend = (*Server)(nil)
	_ http.Handler    = (*Server)(nil)
)

// New makes a Server without models.
func New(cfg Config) (*Server, error) {
	if cfg.Node == nil || cfg.May == nil {
		return nil, wire.E(wire.InvalidArgument, "node", "Node and May are required", "")
	}
	if cfg.Admin == nil {
		cfg.Admin = identity.IsAdmin
	}
	if cfg.MaxMemory == 0 {
		cfg.MaxMemory = 2 << 30
	}
	if cfg.Metrics == nil {
		cfg.Metrics = metrics.New()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, services: map[string]*entry{}}
	s.handler = oiphttp.New(s, oiphttp.Config{
		Name: "sedna-globalmanager", Version: cfg.Version, Limits: cfg.Limits, Authorize: s.authorize,
		Reject: func(err error) { _ = cfg.Metrics.Reject(metrics.DoorHTTP, err) },
	})
	return s, nil
}

// Routes mounts /v2 and what is below it.
func (s *Server) Routes(mux *http.ServeMux) {
	mux.Handle("/v2", s)
	mux.Handle("/v2/", s)
}

// ServeHTTP answers on /v2 and below.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// authorize lets admins use all services and a node those that it works for.
func (s *Server) authorize(r *http.Request, service string) error {
	if s.cfg.Admin(r) {
		return nil
	}
	node, err := s.cfg.Node(r)
	if err != nil {
		return err
	}
	if !s.cfg.May(node, service) {
		return wire.E(wire.PermissionDenied, "", fmt.Sprintf("node %s has no task of service %.300q", node, service), "")
	}
	return nil
}

// Set loads and warms the model and has the service answer with it, in place of
// another, which goes on until then and stays when Set fails. The same spec
// again does nothing. Errors are wire errors.
func (s *Server) Set(ctx context.Context, service string, spec Spec) error {
	e := s.enter(service)
	defer e.mu.Unlock()
	if e.spec != nil && reflect.DeepEqual(*e.spec, spec) {
		return nil
	}
	m, err := s.load(ctx, service, e, spec)
	if err != nil {
		if e.spec == nil {
			s.drop(service, e)
		}
		return err
	}
	s.draining.Add(1)
	e.spec = &spec
	e.slot.Swap(m, func() {
		defer s.draining.Done()
		if err := m.Close(); err != nil {
			s.cfg.Log.Warn("model not closed", "service", service, "error", err)
		}
	})
	s.cfg.Log.Info("cloud model set", "service", service, "model", spec.Model.Name, "version", spec.Model.Version)
	return nil
}

// load loads a model and counts its memory in place of that of the entry's
// present one.
func (s *Server) load(ctx context.Context, service string, e *entry, spec Spec) (*serving.Model, error) {
	m, err := serving.Load(ctx, service, spec.Model, spec.Path, s.cfg.Model)
	if err != nil {
		return nil, err
	}
	n := m.MemoryBytes()
	s.mu.Lock()
	others := s.memory - e.bytes
	fits := others+n <= s.cfg.MaxMemory
	if fits {
		s.memory, e.bytes = others+n, n
	}
	s.mu.Unlock()
	if !fits {
		refusal := wire.E(wire.ResourceExhausted, "limits.modelMemory",
			fmt.Sprintf("the model needs %d bytes, the others hold %d, and %d are allowed", n, others, s.cfg.MaxMemory), "remove a service, or raise the limit")
		return nil, errors.Join(refusal, m.Close())
	}
	return m, nil
}

// enter locks the entry of a service, which it makes if there is none.
func (s *Server) enter(service string) *entry {
	for {
		s.mu.Lock()
		e := s.services[service]
		if e == nil {
			e = &entry{}
			s.services[service] = e
		}
		s.mu.Unlock()
		e.mu.Lock()
		if !e.gone {
			return e
		}
		e.mu.Unlock()
	}
}

// drop takes an entry that is locked out of service.
func (s *Server) drop(service string, e *entry) {
	e.gone = true
	s.mu.Lock()
	delete(s.services, service)
	s.memory -= e.bytes
	e.bytes = 0
	s.mu.Unlock()
}

// Remove stops a service; it is no error if there is none. Requests that run
// are answered.
func (s *Server) Remove(service string) {
	s.mu.RLock()
	e := s.services[service]
	s.mu.RUnlock()
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.gone {
		s.drop(service, e)
		e.slot.Clear()
		s.cfg.Log.Info("cloud model removed", "service", service)
	}
}

// Close removes all services and waits for requests that run.
func (s *Server) Close() {
	s.mu.RLock()
	names := make([]string, 0, len(s.services))
	for name := range s.services {
		names = append(names, name)
	}
	s.mu.RUnlock()
	for _, name := range names {
		s.Remove(name)
	}
	s.draining.Wait()
}

func (s *Server) lease(service, version string) (*serving.Lease[*serving.Model], error) {
	s.mu.RLock()
	e := s.services[service]
	s.mu.RUnlock()
	if e != nil {
		if l := e.slot.Acquire(); l != nil {
			if version == "" || version == l.Value.Spec().Version {
				return l, nil
			}
			l.Release()
			return nil, wire.E(wire.NotFound, "", fmt.Sprintf("service %.300q has no version %.80q", service, version), "")
		}
	}
	return nil, wire.E(wire.NotFound, "", fmt.Sprintf("no service %.300q", service), "")
}

// Ready is always nil: models are added one by one.
func (s *Server) Ready() error { return nil }

// Model describes the model of a service.
func (s *Server) Model(service, version string) (*oip.ModelMetadata, error) {
	l, err := s.lease(service, version)
	if err != nil {
		return nil, err
	}
	defer l.Release()
	return l.Value.Metadata(), nil
}

// Infer answers one request.
func (s *Server) Infer(ctx context.Context, service, version string, req *oip.InferRequest) (*oip.InferResponse, error) {
	l, err := s.lease(service, version)
	if err != nil {
		return nil, err
	}
	defer l.Release()
	return l.Value.Infer(ctx, req)
}
