package controlplane

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"k8s.io/apiextensions-apiserver/pkg/apiserver"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
)

const (
	// startTimeout bounds what takes about a second.
	startTimeout = 60 * time.Second
	readyPoll    = 20 * time.Millisecond
)

var errStoppedEarly = errors.New("stopped while starting")

// Server is a running control plane.
type Server struct {
	addr     string
	loopback *rest.Config
	api      *apiserver.CustomResourceDefinitions
	store    *etcdStore

	stop context.CancelFunc // starts the shutdown
	done chan struct{}      // closed when all is shut down
	err  error              // why it ended unasked, set before done is closed
}

// Start opens the data directory, serves, installs the CRDs and returns when all of it is ready. Cancelling ctx abandons
// starting, at a point where that is safe; after Start has returned it has no effect, Stop ends the server.
//
// The library tells systemd READY=1 and unsets NOTIFY_SOCKET on the way: a daemon of Type=notify that has more to start
// keeps the variable from it.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	routeKlog(cfg.Log)
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()

	ln, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("control plane: %w", err)
	}
	store, err := startEtcd(ctx, filepath.Join(cfg.Dir, "etcd"), cfg.Log)
	if err != nil {
		ln.Close()
		return nil, fmt.Errorf("control plane: %w", err)
	}
	api, err := newAPIServer(cfg, ln, store.endpoint)
	if err != nil {
		ln.Close()
		store.close()
		return nil, fmt.Errorf("control plane: %w", err)
	}

	runCtx, stop := context.WithCancel(context.Background())
	s := &Server{
		addr:     ln.Addr().String(),
		loopback: api.GenericAPIServer.LoopbackClientConfig,
		api:      api,
		store:    store,
		stop:     stop,
		done:     make(chan struct{}),
	}
	go s.run(runCtx)
	if err := s.prepare(ctx, cfg); err != nil {
		stop()
		<-s.done
		return nil, fmt.Errorf("control plane: %w", err)
	}
	return s, nil
}

// run serves until ctx ends, then closes the store. The API server goes first, so that what it still has to write arrives.
func (s *Server) run(ctx context.Context) {
	defer close(s.done)
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-s.store.Server.StopNotify():
			cancel(ErrStoreDied)
		case <-ctx.Done():
		}
	}()
	err := s.api.GenericAPIServer.PrepareRun().RunWithContext(ctx)
	if err == nil && errors.Is(context.Cause(ctx), ErrStoreDied) {
		err = ErrStoreDied
	}
	cancel(nil)
	s.store.close()
	s.err = err
}

// prepare waits for readiness and installs the CRDs. It does not heed ctx before the server is ready: a server that is
// stopped while its informers still start takes the whole process with it (klog.Fatal in the library's start hooks).
func (s *Server) prepare(ctx context.Context, cfg Config) error {
	client, err := discovery.NewDiscoveryClientForConfig(s.loopback)
	if err != nil {
		return err
	}
	var last error
	err = wait.PollUntilContextTimeout(context.WithoutCancel(ctx), readyPoll, startTimeout, true, func(ctx context.Context) (bool, error) {
		select {
		case <-s.done:
			return false, errStoppedEarly
		default:
		}
		last = client.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
		return last == nil, nil
	})
	if errors.Is(err, errStoppedEarly) {
		return errors.Join(err, s.err)
	}
	if err != nil {
		return fmt.Errorf("not ready: %w", last)
	}
	crds, err := newCRDInstaller(s.api, s.loopback)
	if err != nil {
		return err
	}
	return crds.install(ctx, cfg.CRDs)
}

// Addr returns the host:port that the server listens on.
func (s *Server) Addr() string { return s.addr }

// RESTConfig returns a client configuration with all rights, for this process: its credential is a random token that the
// server made for itself and that ends with it.
func (s *Server) RESTConfig() *rest.Config { return rest.CopyConfig(s.loopback) }

// Wait returns when the server has ended: nil after Stop, else why it died.
func (s *Server) Wait() error {
	<-s.done
	return s.err
}

// Stop ends watches, lets requests in flight finish, and closes etcd; then the directory can be opened again. If ctx ends
// first it returns the error of ctx and the shutdown goes on behind it. It may be called more than once.
func (s *Server) Stop(ctx context.Context) error {
	s.stop()
	select {
	case <-s.done:
		return s.err
	case <-ctx.Done():
		return fmt.Errorf("control plane: stopping: %w", ctx.Err())
	}
}
