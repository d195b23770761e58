package cloud

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/edgetwin/sedna/cloud/blobserver"
	"github.com/edgetwin/sedna/cloud/controllers"
	"github.com/edgetwin/sedna/cloud/controlplane"
	"github.com/edgetwin/sedna/cloud/edgelink"
	"github.com/edgetwin/sedna/cloud/enrol"
	"github.com/edgetwin/sedna/cloud/inference"
	"github.com/edgetwin/sedna/cloud/twin"
	"github.com/edgetwin/sedna/cloud/workload"
	"github.com/edgetwin/sedna/lib/daemon"
	"github.com/edgetwin/sedna/lib/identity"
	"github.com/edgetwin/sedna/lib/losses"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/manifests"
	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
	"github.com/edgetwin/sedna/models/oip"
	sedna "github.com/edgetwin/sedna/models/sedna/v1alpha1"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"

	_ "github.com/edgetwin/sedna/lib/engine/purego" // runs the cloud's models
)

// stopTimeout bounds an orderly stop of HTTP and of the embedded API.
const stopTimeout = 10 * time.Second

// manager is a GlobalManager put together and not running yet.
type manager struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics.Registry
	ca      *identity.CA
	keys    *identity.SigningKeys
	blobs   *blobStore

	api  *controlplane.Server // nil with a cluster
	rest *rest.Config
	ctrl ctrl.Manager
	gate *gate

	inference *inference.Server
	link      *edgelink.Server // nil where KubeEdge runs
	collector *blobserver.Collector
	mux       *http.ServeMux
}

// CreateToken makes a one-time enrolment token for node, in the data directory
// of a GlobalManager; ttl 0 is ten minutes.
func CreateToken(dataDir, node string, ttl time.Duration) (string, error) {
	cfg := Config{DataDir: dataDir}
	// The name becomes a label and a part of names of Devices.
	if len(validation.IsDNS1123Subdomain(node)) > 0 || len(node) > validation.LabelValueMaxLength {
		return "", wire.E(wire.InvalidArgument, "node", fmt.Sprintf("expected a node name of at most %d lower-case letters, digits, '-' and '.', got %.80q",
			validation.LabelValueMaxLength, node), "")
	}
	if _, err := os.Stat(cfg.pkiDir()); err != nil {
		return "", fmt.Errorf("no GlobalManager has been started on %s: %w", dataDir, err)
	}
	ca, err := identity.OpenCA(cfg.pkiDir(), time.Now)
	if err != nil {
		return "", err
	}
	return identity.CreateToken(cfg.tokensDir(), ca.Pin(), node, ttl, time.Now())
}

// DropTokens makes the unused tokens of node worthless, for when it is revoked.
func DropTokens(dataDir, node string) error {
	cfg := Config{DataDir: dataDir}
	return identity.DropTokens(cfg.tokensDir(), node)
}

// Run runs a GlobalManager until ctx ends. It calls ready once, when nodes and
// users can connect.
func Run(ctx context.Context, cfg Config, log *slog.Logger, ready func(Endpoints)) (err error) {
	if err := cfg.Check(); err != nil {
		return err
	}
	m := &manager{cfg: cfg, log: log, metrics: metrics.New(), mux: http.NewServeMux()}
	if err := m.open(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.blobs.Close()) }()
	if err := m.kubernetes(ctx); err != nil {
		return err
	}
	if m.api != nil {
		defer func() {
			stop, cancel := context.WithTimeout(context.Background(), stopTimeout)
			defer cancel()
			err = errors.Join(err, m.api.Stop(stop))
		}()
	}
	if err := m.assemble(); err != nil {
		return err
	}
	defer m.inference.Close()
	return m.run(ctx, ready)
}

// open opens what lies in the data directory.
func (m *manager) open(ctx context.Context) (err error) {
	if err := os.MkdirAll(m.cfg.DataDir, 0o700); err != nil {
		return err
	}
	if m.ca, err = identity.OpenCA(m.cfg.pkiDir(), time.Now); err != nil {
		return err
	}
	if m.keys, err = identity.OpenSigningKeys(m.cfg.keysDir()); err != nil {
		return err
	}
	m.blobs = &blobStore{stored: make(chan event.TypedGenericEvent[string], 64)}
	m.blobs.Backend, err = openBlobs(ctx, &m.cfg)
	return err
}

// kubernetes starts the embedded API or finds the cluster's.
func (m *manager) kubernetes(ctx context.Context) (err error) {
	if !m.cfg.Kubernetes.Embedded {
		if m.cfg.Kubernetes.Kubeconfig == "" {
			m.rest, err = rest.InClusterConfig()
		} else {
			m.rest, err = clientcmd.BuildConfigFromFlags("", m.cfg.Kubernetes.Kubeconfig)
		}
		return err
	}
	crds, err := manifests.CRDs()
	if err != nil {
		return err
	}
	serving, err := m.ca.ServerCert(m.cfg.hosts()...)
	if err != nil {
		return err
	}
	m.api, err = controlplane.Start(ctx, controlplane.Config{
		Dir: m.cfg.DataDir, Addr: m.cfg.Kubernetes.Addr, ServingCert: serving, ClientCA: m.ca.CertPEM(), CRDs: crds, Log: m.log,
	})
	if err != nil {
		return err
	}
	m.rest = m.api.RESTConfig()
	return nil
}

// assemble wires controllers and doors together.
func (m *manager) assemble() (err error) {
	// What controllers do is logged by ours; of controller-runtime's own log
	// the errors matter.
	logger := logr.FromSlogHandler(daemon.AtLeast(slog.LevelWarn, m.log.Handler()))
	ctrl.SetLogger(logger)
	scheme := runtime.NewScheme()
	if err := errors.Join(sedna.AddToScheme(scheme), devices.AddToScheme(scheme), workload.AddToScheme(scheme)); err != nil {
		return err
	}
	cfg := rest.CopyConfig(m.rest)
	cfg.QPS = -1 // the work queues limit retries; the API has its own limits
	pods, err := workload.Available(cfg)
	if err != nil {
		return err
	}
	var cached cache.Options
	if pods {
		cached.ByObject = workload.Cache()
	}
	again := true
	m.ctrl, err = ctrl.NewManager(cfg, ctrl.Options{
		Scheme: scheme, Metrics: server.Options{BindAddress: "0"}, Logger: logger, Cache: cached,
		Controller: config.Controller{SkipNameValidation: &again}, // several GlobalManagers may live in one process
	})
	if err != nil {
		return err
	}
	kube := m.ctrl.GetClient()
	nodes := &twin.Nodes{Client: kube, Namespace: m.cfg.Namespace}
	m.gate = &gate{client: kube, nodes: nodes}
	m.collector, err = blobserver.NewCollector(blobserver.CollectorConfig{
		Store: m.blobs.Backend, References: references{kube}, Grace: m.cfg.Limits.BlobGrace, Quota: m.cfg.Limits.BlobQuota,
		Exclusive: m.cfg.Blobs.S3.Bucket == "", Metrics: m.metrics, Log: m.log,
	})
	if err != nil {
		return err
	}
	m.blobs.collector = m.collector
	m.inference, err = inference.New(inference.Config{
		Version: wire.Version, Node: m.gate.Node, May: m.gate.MayAsk,
		Limits: oip.Limits{MaxBody: m.cfg.Limits.InferenceBody}, MaxMemory: m.cfg.Limits.ModelMemory, Metrics: m.metrics, Log: m.log,
	})
	if err != nil {
		return err
	}
	workers := controllers.Pods{Client: kube, Render: workload.Renderer{Image: m.cfg.Workers.StorageImage}, LocalController: m.cfg.Workers.LocalController}
	if pods {
		if workers.Engine, err = workload.New(m.ctrl); err != nil {
			return err
		}
	}
	if err := m.controllers(nodes, workers); err != nil {
		return err
	}
	return m.doors(nodes)
}

// controllers registers all controllers.
func (m *manager) controllers(nodes *twin.Nodes, workers controllers.Pods) error {
	kube := m.ctrl.GetClient()
	tasks := &twin.Tasks{Client: kube, Signer: signer{m.keys}, Now: time.Now}
	obs := twin.NewObserver(kube, nodes, m.metrics)
	changed := make(chan event.TypedGenericEvent[*devices.Device], 1024)
	deviceCtl := twin.NewController(tasks, nodes, obs, twin.Timings{RepairAfter: m.cfg.RepairAfter, RepairMax: m.cfg.RepairMax, UnboundFor: m.cfg.UnboundFor}, changed, m.log)
	jobs := controllers.Jobs{Client: kube, Tasks: tasks, Nodes: nodes, Obs: obs}
	for _, c := range []interface{ SetupWithManager(ctrl.Manager) error }{
		deviceCtl,
		twin.NewNodeController(tasks, nodes, obs, deviceCtl, m.log),
		&controllers.Model{Client: kube, Size: m.blobs.Size, Stored: m.blobs.stored, Used: m.collector.Used, Gone: m.collector.Kick},
		&controllers.JointInference{Jobs: jobs, Cloud: &cloudModels{m.inference, m.blobs}, Workers: workers, Changed: changed, Gone: m.collector.Kick},
	} {
		if err := c.SetupWithManager(m.ctrl); err != nil {
			return err
		}
	}
	if m.cfg.Nudge.URL != "" {
		n, err := newNudger(m.cfg.Nudge, deviceCtl.Waiting, m.metrics, m.log)
		if err != nil {
			return err
		}
		if err := m.ctrl.Add(n); err != nil {
			return err
		}
	}
	for _, c := range controllers.WorkersOfAll(workers) {
		if err := c.SetupWithManager(m.ctrl); err != nil {
			return err
		}
	}
	return m.ctrl.Add(m.collector)
}

// doors mounts everything that the TLS port serves.
func (m *manager) doors(nodes *twin.Nodes) error {
	enrolment, err := enrol.New(enrol.Config{CA: m.ca, Keys: m.keys, TokenDir: m.cfg.tokensDir(), Registry: nodes, Metrics: m.metrics, Log: m.log})
	if err != nil {
		return err
	}
	enrolment.Routes(m.mux)
	blobs, err := blobserver.New(blobserver.Config{Store: m.blobs, Grants: m.gate, Node: m.gate.Node, MaxBlob: m.cfg.Limits.Blob, Metrics: m.metrics, Log: m.log})
	if err != nil {
		return err
	}
	blobs.Routes(m.mux)
	m.mux.Handle("/v2", m.inference)
	m.mux.Handle("/v2/", m.inference)
	if m.cfg.Edgelink {
		lose, err := losses.Parse("lose", m.cfg.Lose)
		if err != nil {
			return err
		}
		m.link, err = edgelink.New(edgelink.Config{Lose: lose, Client: m.ctrl.GetClient(), Cache: m.ctrl.GetCache(), Node: m.gate.Node, Metrics: m.metrics, Log: m.log})
		if err != nil {
			return err
		}
		m.mux.Handle(wire.EdgelinkPath, m.link)
		if err := m.ctrl.Add(m.link); err != nil {
			return err
		}
	}
	m.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	m.mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	m.mux.Handle("GET /metrics", adminOnly(m.metrics, m.metrics.Handler()))
	return nil
}

// run starts everything and waits for the end of ctx, or of a part.
func (m *manager) run(ctx context.Context, ready func(Endpoints)) error {
	listener, err := net.Listen("tcp", m.cfg.HTTP)
	if err != nil {
		return err
	}
	tlsConfig, err := m.ca.ServerTLS(m.cfg.hosts()...)
	if err != nil {
		listener.Close()
		return err
	}
	srv := &http.Server{
		Handler: m.mux, TLSConfig: tlsConfig, ErrorLog: slog.NewLogLogger(m.log.Handler(), slog.LevelDebug),
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.ctrl.Start(ctx) })
	if m.api != nil {
		g.Go(func() error {
			died := make(chan error, 1)
			go func() { died <- m.api.Wait() }()
			select {
			case err := <-died:
				return fmt.Errorf("the Kubernetes API ended: %w", err)
			case <-ctx.Done():
				return nil // Run stops it after everything that uses it
			}
		})
	}
	g.Go(func() error {
		if err := m.settled(ctx); err != nil {
			listener.Close()
			return err
		}
		ends := m.endpoints(listener.Addr())
		admin := m.credentials(ends)
		if err := admin.write(); err != nil {
			listener.Close()
			return err
		}
		g.Go(func() error { return serve(srv, listener) })
		g.Go(func() error {
			admin.renew(ctx, func(err error) { m.log.Warn("the administrator's files were not renewed", "error", err) })
			return nil
		})
		ready(ends)
		<-ctx.Done()
		stop, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		if srv.Shutdown(stop) != nil {
			return srv.Close() // edgelinks are hijacked or long; they end with their nodes' retry
		}
		return nil
	})
	err = g.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// settled waits until the caches are filled and nodes can link.
func (m *manager) settled(ctx context.Context) error {
	if !m.ctrl.GetCache().WaitForCacheSync(ctx) {
		return ctx.Err()
	}
	if m.link == nil {
		return nil
	}
	select {
	case <-m.link.Serving():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func serve(srv *http.Server, l net.Listener) error {
	if err := srv.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (m *manager) endpoints(addr net.Addr) Endpoints {
	host, port, err := net.SplitHostPort(addr.String())
	if err == nil && unspecified(host) {
		host = "127.0.0.1"
	}
	e := Endpoints{GlobalManager: "https://" + net.JoinHostPort(host, port), Kubeconfig: m.cfg.Kubernetes.Kubeconfig}
	if m.api != nil {
		e.API, e.Kubeconfig = "https://"+m.api.Addr(), m.cfg.kubeconfig()
	}
	return e
}

// credentials gives the administrator's files for these endpoints.
func (m *manager) credentials(e Endpoints) *credentials {
	files := map[string]string{m.cfg.adminFile(): e.GlobalManager}
	if e.API != "" {
		files[e.Kubeconfig] = e.API
	}
	return &credentials{ca: m.ca, life: adminLife, files: files}
}

// signer signs task documents with the key that is active at the time.
type signer struct{ keys *identity.SigningKeys }

// Sign gives the signature property for a document.
func (s signer) Sign(document []byte) string { return task.Sign(s.keys.Active(), document) }

// adminOnly lets administrators in.
func adminOnly(m *metrics.Registry, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := mayAdminister(r); err != nil {
			_ = m.Reject(metrics.DoorHTTP, err)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(err.Code.Status())
			_, _ = w.Write(err.JSON())
			return
		}
		h.ServeHTTP(w, r)
	})
}

// writePrivate writes a file of mode 0600, whole or not at all.
func writePrivate(path string, b []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(b)
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
