//go:build e2e

package workload_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"google.golang.org/grpc/grpclog"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/edgetwin/sedna/cloud"
	"github.com/edgetwin/sedna/cloud/workload"
	"github.com/edgetwin/sedna/manifests"
	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
	sedna "github.com/edgetwin/sedna/models/sedna/v1alpha1"
)

// envAPIServer is the path of the kube-apiserver that the tests run.
const envAPIServer = "KUBE_APISERVER"

// The API server's users: the tests, and the GlobalManager with the rights of
// its roles and no others.
const (
	adminToken    = "admin"
	managerToken  = "manager"
	managerUser   = "system:serviceaccount:sedna:globalmanager"
	auditPolicy   = `{"apiVersion":"audit.k8s.io/v1","kind":"Policy","omitStages":["RequestReceived"],"rules":[{"level":"Metadata","users":["` + managerUser + `"]},{"level":"None"}]}`
	startPatience = 2 * time.Minute
	patience      = 30 * time.Second // until what has to come is there
)

// kubernetes is a real API server. Nothing runs behind it but the kubelet below.
type kubernetes struct {
	t     *testing.T
	c     client.WithWatch
	rest  *rest.Config
	dir   string
	audit string
}

// startKubernetes runs etcd in this process and kube-apiserver in its own.
func startKubernetes(t *testing.T) *kubernetes {
	t.Helper()
	program := os.Getenv(envAPIServer)
	if program == "" {
		t.Skipf("%s names no kube-apiserver; `make e2e-kube` builds one", envAPIServer)
	}
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard)) // the store's clients end without a word
	k := &kubernetes{t: t, dir: t.TempDir()}
	etcd := k.etcd()
	port := freePort(t)
	k.audit = filepath.Join(k.dir, "audit.log")
	k.write("tokens.csv", adminToken+",admin,admin,system:masters\n"+managerToken+","+managerUser+",manager\n")
	k.write("audit.yaml", auditPolicy)
	k.write("sa.key", serviceAccountKey(t))
	log, err := os.Create(filepath.Join(k.dir, "apiserver.log"))
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(k.dir, "sa.key")
	cmd := exec.Command(program, "--etcd-servers="+etcd, "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--secure-port="+port,
		"--cert-dir="+k.dir, "--service-cluster-ip-range=10.96.0.0/16", "--token-auth-file="+filepath.Join(k.dir, "tokens.csv"), "--authorization-mode=RBAC",
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-signing-key-file="+key, "--service-account-key-file="+key,
		"--endpoint-reconciler-type=none", "--disable-admission-plugins=ServiceAccount",
		"--audit-policy-file="+filepath.Join(k.dir, "audit.yaml"), "--audit-log-path="+k.audit)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // its state is thrown away
		<-ended
		log.Close()
	})
	k.rest = &rest.Config{Host: "https://127.0.0.1:" + port, BearerToken: adminToken, TLSClientConfig: rest.TLSClientConfig{Insecure: true}, QPS: -1}
	k.ready(ended, log.Name())
	k.install()
	return k
}

func (k *kubernetes) write(name, text string) {
	k.t.Helper()
	if err := os.WriteFile(filepath.Join(k.dir, name), []byte(text), 0o600); err != nil {
		k.t.Fatal(err)
	}
}

// serviceAccountKey makes the key for tokens of ServiceAccounts, without which
// the API server does not start.
func serviceAccountKey(t *testing.T) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
}

// etcd starts a store on a unix socket and gives its URL.
func (k *kubernetes) etcd() string {
	k.t.Helper()
	socket, err := os.MkdirTemp("", "etcd") // t.TempDir is too long for a socket
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() { os.RemoveAll(socket) })
	at := url.URL{Scheme: "unix", Host: filepath.Join(socket, "s")}
	cfg := embed.NewConfig()
	cfg.Dir, cfg.UnsafeNoFsync = filepath.Join(k.dir, "etcd"), true
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls, cfg.ListenPeerUrls = []url.URL{at}, []url.URL{at}, nil
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(e.Close)
	<-e.Server.ReadyNotify()
	return "unix://" + at.Host
}

// freePort gives a port that was free; kube-apiserver takes none of the kernel's choice.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// ready waits until the API serves.
func (k *kubernetes) ready(ended <-chan error, log string) {
	k.t.Helper()
	web, err := rest.HTTPClientFor(k.rest)
	if err != nil {
		k.t.Fatal(err)
	}
	for deadline := time.Now().Add(startPatience); ; {
		r, err := web.Get(k.rest.Host + "/readyz")
		if err == nil {
			r.Body.Close()
			if r.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case err := <-ended:
			text, _ := os.ReadFile(log)
			k.t.Fatalf("kube-apiserver ended: %v\n%s", err, text)
		case <-time.After(200 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			k.t.Fatal("kube-apiserver does not get ready")
		}
	}
}

// install applies what a cluster needs: namespaces, definitions, rights.
func (k *kubernetes) install() {
	k.t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{workload.AddToScheme, sedna.AddToScheme, devices.AddToScheme, apiextensionsv1.AddToScheme, rbacv1.AddToScheme} {
		if err := add(scheme); err != nil {
			k.t.Fatal(err)
		}
	}
	var err error
	if k.c, err = client.NewWithWatch(k.rest, client.Options{Scheme: scheme}); err != nil {
		k.t.Fatal(err)
	}
	k.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "sedna"}})
	crds, err := manifests.CRDs()
	if err != nil {
		k.t.Fatal(err)
	}
	for _, crd := range crds {
		k.create(crd)
	}
	for _, crd := range crds {
		k.eventually("definition "+crd.Name, func() bool {
			if k.c.Get(k.t.Context(), client.ObjectKeyFromObject(crd), crd) != nil {
				return false
			}
			for _, c := range crd.Status.Conditions {
				if c.Type == apiextensionsv1.Established && c.Status == apiextensionsv1.ConditionTrue {
					return true
				}
			}
			return false
		})
	}
	for _, o := range k.roles() {
		k.create(o)
	}
}

// roles reads the GlobalManager's rights from its manifest.
func (k *kubernetes) roles() []client.Object {
	k.t.Helper()
	text, err := os.ReadFile("../../manifests/base/globalmanager/rbac.yaml")
	if err != nil {
		k.t.Fatal(err)
	}
	var out []client.Object
	for _, doc := range bytes.Split(text, []byte("\n---\n")) {
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal(doc, &kind); err != nil {
			k.t.Fatal(err)
		}
		var o client.Object
		switch kind.Kind {
		case "ClusterRole":
			o = &rbacv1.ClusterRole{}
		case "ClusterRoleBinding":
			o = &rbacv1.ClusterRoleBinding{}
		default:
			continue
		}
		if err := yaml.UnmarshalStrict(doc, o); err != nil {
			k.t.Fatal(err)
		}
		out = append(out, o)
	}
	return out
}

func (k *kubernetes) create(o client.Object) {
	k.t.Helper()
	if err := k.c.Create(k.t.Context(), o); err != nil {
		k.t.Fatalf("create %T %s: %v", o, o.GetName(), err)
	}
}

// eventually waits for what has no event that could be awaited.
func (k *kubernetes) eventually(what string, ok func() bool) {
	k.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			k.t.Fatalf("did not see %s", what)
		}
	}
}

// manager runs a GlobalManager with the rights of its roles.
func (k *kubernetes) manager() cloud.Endpoints {
	k.t.Helper()
	kc := clientcmdapi.NewConfig()
	kc.Clusters["it"] = &clientcmdapi.Cluster{Server: k.rest.Host, InsecureSkipTLSVerify: true}
	kc.AuthInfos["it"] = &clientcmdapi.AuthInfo{Token: managerToken}
	kc.Contexts["it"] = &clientcmdapi.Context{Cluster: "it", AuthInfo: "it"}
	kc.CurrentContext = "it"
	path := filepath.Join(k.dir, "kubeconfig")
	if err := clientcmd.WriteToFile(*kc, path); err != nil {
		k.t.Fatal(err)
	}
	cfg := cloud.DefaultConfig()
	cfg.DataDir, cfg.HTTP = filepath.Join(k.dir, "manager"), "127.0.0.1:0"
	cfg.Kubernetes, cfg.Edgelink = cloud.Kubernetes{Kubeconfig: path}, false
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan cloud.Endpoints, 1), make(chan error, 1)
	go func() {
		done <- cloud.Run(ctx, cfg, slog.New(slog.NewTextHandler(k.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})), func(e cloud.Endpoints) { ready <- e })
	}()
	k.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			k.t.Error(err)
		}
	})
	select {
	case e := <-ready:
		return e
	case err := <-done:
		done <- err
		k.t.Fatal(err)
	case <-time.After(startPatience):
		k.t.Fatal("the GlobalManager does not get ready")
	}
	return cloud.Endpoints{}
}

// kubelet plays all that runs pods: pods run and, deleted, are gone; Deployments
// have as many as they ask for. What ends or fails, the tests say.
func (k *kubernetes) kubelet() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{}, 2)
	follow := func(list client.ObjectList, act func(client.Object)) {
		defer func() { ended <- struct{}{} }()
		for ctx.Err() == nil {
			w, err := k.c.Watch(ctx, list)
			if err != nil {
				continue
			}
			for e := range w.ResultChan() {
				if o, ok := e.Object.(client.Object); ok && e.Type != watch.Deleted {
					act(o)
				}
			}
		}
	}
	go follow(&corev1.PodList{}, func(o client.Object) {
		p := o.(*corev1.Pod)
		if p.DeletionTimestamp != nil {
			_ = k.c.Delete(ctx, p, client.GracePeriodSeconds(0))
		} else if p.Status.Phase == corev1.PodPending || p.Status.Phase == "" {
			_ = k.status(ctx, p, `{"status":{"phase":"Running"}}`)
		}
	})
	go follow(&appsv1.DeploymentList{}, func(o client.Object) {
		d := o.(*appsv1.Deployment)
		if d.DeletionTimestamp == nil && d.Status.ObservedGeneration != d.Generation {
			n := *d.Spec.Replicas
			_ = k.status(ctx, d, fmt.Sprintf(`{"status":{"observedGeneration":%d,"replicas":%d,"updatedReplicas":%d,"readyReplicas":%d,"availableReplicas":%d}}`, d.Generation, n, n, n, n))
		}
	})
	k.t.Cleanup(func() {
		cancel()
		<-ended
		<-ended
	})
}

func (k *kubernetes) status(ctx context.Context, o client.Object, patch string) error {
	return k.c.Status().Patch(ctx, o.DeepCopyObject().(client.Object), client.RawPatch("application/merge-patch+json", []byte(patch)))
}

// end ends a pod as failed or succeeded, a while ago, so that the next attempt is due.
func (k *kubernetes) end(p *corev1.Pod, phase corev1.PodPhase) {
	k.t.Helper()
	code := map[corev1.PodPhase]int{corev1.PodFailed: 3}[phase]
	at := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	err := k.status(k.t.Context(), p, fmt.Sprintf(`{"status":{"phase":%q,"containerStatuses":[{"name":"w","image":"i","imageID":"","restartCount":0,"ready":false,"state":{"terminated":{"exitCode":%d,"reason":"Error","finishedAt":%q}}}]}}`, phase, code, at))
	if err != nil {
		k.t.Fatal(err)
	}
}

// event is a line of the audit log.
type event struct {
	Verb      string
	ObjectRef *struct{ APIGroup, Resource, Subresource string }
	Status    struct{ Code int } `json:"responseStatus"`
}

// asked gives what the GlobalManager has asked of the API, as rules say it, and
// what was refused.
func (k *kubernetes) asked() (asked map[string]bool, refused []string) {
	k.t.Helper()
	text, err := os.ReadFile(k.audit)
	if err != nil {
		k.t.Fatal(err)
	}
	asked = map[string]bool{}
	for line := range bytes.Lines(text) {
		var e event
		if err := json.Unmarshal(line, &e); err != nil || e.ObjectRef == nil {
			continue
		}
		what := e.ObjectRef.APIGroup + "/" + e.ObjectRef.Resource
		if e.ObjectRef.Subresource != "" {
			what += "/" + e.ObjectRef.Subresource
		}
		asked[what+" "+e.Verb] = true
		if e.Status.Code == http.StatusForbidden {
			refused = append(refused, strings.TrimSpace(string(line)))
		}
	}
	return asked, refused
}

// gone waits until an object does not exist.
func (k *kubernetes) gone(o client.Object) {
	k.t.Helper()
	k.eventually(fmt.Sprintf("%T %s gone", o, o.GetName()), func() bool {
		return apierrors.IsNotFound(k.c.Get(k.t.Context(), client.ObjectKeyFromObject(o), o))
	})
}
