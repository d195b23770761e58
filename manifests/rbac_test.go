package manifests_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/edgetwin/sedna/cloud"
	"github.com/edgetwin/sedna/cloud/admin"
	"github.com/edgetwin/sedna/cloud/controlplane/controlplanetest"
	"github.com/edgetwin/sedna/cloud/twin"
	"github.com/edgetwin/sedna/lib/identity"
	"github.com/edgetwin/sedna/manifests"
	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
	"github.com/edgetwin/sedna/models/task"
)

// recorder stands before an API server and notes what is asked of it, in the
// words of a role: "group/resource verb".
type recorder struct {
	proxy *httputil.ReverseProxy

	mu    sync.Mutex
	asked map[string]bool
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if what, ok := attributes(req); ok {
		r.mu.Lock()
		r.asked[what] = true
		r.mu.Unlock()
	}
	r.proxy.ServeHTTP(w, req)
}

func (r *recorder) all() map[string]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.asked)
}

// attributes says what a request needs to be allowed; false for discovery,
// which everybody may do.
func attributes(r *http.Request) (string, bool) {
	p := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if len(p) < 4 || p[0] != "apis" {
		return "", false
	}
	group, rest := p[1], p[3:]
	if rest[0] == "namespaces" && len(rest) > 2 {
		rest = rest[2:]
	}
	resource, named := rest[0], len(rest) > 1
	if len(rest) > 2 {
		resource += "/" + rest[2]
	}
	verb := map[string]string{"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete", "GET": "list"}[r.Method]
	switch {
	case r.Method == http.MethodGet && named:
		verb = "get"
	case r.URL.Query().Has("watch"):
		verb = "watch"
	case r.Method == http.MethodDelete && !named:
		verb = "deletecollection"
	}
	return group + "/" + resource + " " + verb, true
}

// The GlobalManager's role allows what it does in the life of nodes, models and
// services, and nothing that it does not do.
func TestRoleIsWhatTheGlobalManagerDoes(t *testing.T) {
	crds, err := manifests.CRDs()
	if err != nil {
		t.Fatal(err)
	}
	api := controlplanetest.Start(t, crds...)
	r, kubeconfig := record(t, api)
	dir := t.TempDir()
	at := runManager(t, dir, kubeconfig)
	scheme := runtime.NewScheme()
	if err := devices.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	user, err := client.NewWithWatch(api, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}

	for range 2 { // the second time a node's key is replaced
		token, err := cloud.CreateToken(dir, "edge1", 0)
		if err != nil {
			t.Fatal(err)
		}
		node, err := identity.Enrol(t.Context(), at.GlobalManager, token, "edge1", filepath.Join(t.TempDir(), "identity"))
		if err != nil {
			t.Fatal(err)
		}
		node.HTTPClient().CloseIdleConnections()
	}
	command(t, kubeconfig, "node", "list", "--data-dir", dir)
	file := filepath.Join(dir, "small.onnx")
	if err := os.WriteFile(file, []byte("any bytes"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Whoever pushes a model does that with rights of his own.
	command(t, writeKubeconfig(t, api), "model", "push", file, "--name", "small", "--data-dir", dir)
	service := parse(t, "JointInferenceService", "digits", `spec: {edgeWorker: {nodeName: edge1, model: {name: small}, hardExampleMining: {name: EdgeOnly}}, cloudWorker: {model: {name: small}, endpoint: "http://127.0.0.1:9"}}`)
	if err := user.Create(t.Context(), service); err != nil {
		t.Fatal(err)
	}
	taskDevice := follow(t, user, func(d *devices.Device) bool { return twin.IsTask(d) })
	for _, kind := range []string{"featureextractionservice", "federatedlearningjob", "objectsearchservice", "objecttrackingservice", "reidjob", "videoanalyticsjob"} {
		text, err := os.ReadFile(filepath.Join("samples", "reference", kind+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		judged(t, user, parse(t, "", "", string(text)))
	}
	if err := user.Delete(t.Context(), service); err != nil {
		t.Fatal(err)
	}
	follow(t, user, func(d *devices.Device) bool {
		doc, err := twin.Document(d)
		return d.Name == taskDevice.Name && err == nil && doc.State == task.Deleted
	})
	command(t, kubeconfig, "node", "forget", "edge1", "--data-dir", dir) // so the task ends without the node's word
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if err := user.Get(t.Context(), client.ObjectKeyFromObject(service), service); client.IgnoreNotFound(err) != nil {
			t.Fatal(err)
		} else if err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the service does not go")
		}
	}

	allowed := map[string]bool{}
	for _, rule := range render(t, "overlays/cluster")["ClusterRole/sedna-globalmanager"].(*rbacv1.ClusterRole).Rules {
		for _, g := range rule.APIGroups {
			for _, res := range rule.Resources {
				for _, v := range rule.Verbs {
					allowed[g+"/"+res+" "+v] = true
				}
			}
		}
	}
	asked := r.all()
	for _, what := range slices.Sorted(maps.Keys(asked)) {
		if !allowed[what] {
			t.Errorf("the role does not allow %s", what)
		}
	}
	for _, what := range slices.Sorted(maps.Keys(allowed)) {
		// API servers that cannot stream lists are asked to list before a watch.
		resource, isList := strings.CutSuffix(what, " list")
		if !asked[what] && !(isList && asked[resource+" watch"]) {
			t.Errorf("the role allows %s, which nothing needs", what)
		}
	}
}

// judged creates an object and waits until its status has a condition.
func judged(t *testing.T, c client.Client, o *unstructured.Unstructured) {
	t.Helper()
	o.SetNamespace(cmp.Or(o.GetNamespace(), "default"))
	if err := c.Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
			t.Fatal(err)
		}
		if conditions, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions"); len(conditions) > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s gets no condition", o.GetKind())
		}
	}
}

// record gives a recorder before the API and a kubeconfig that leads to it.
func record(t *testing.T, api *rest.Config) (*recorder, string) {
	t.Helper()
	target, err := url.Parse(api.Host)
	if err != nil {
		t.Fatal(err)
	}
	transport, err := rest.TransportFor(api)
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{asked: map[string]bool{}, proxy: &httputil.ReverseProxy{
		Rewrite:       func(p *httputil.ProxyRequest) { p.SetURL(target) },
		Transport:     transport,
		FlushInterval: -1,
		ErrorHandler:  func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }, // of a watch that was ended
	}}
	srv := httptest.NewServer(r)
	t.Cleanup(srv.Close)
	return r, writeKubeconfig(t, &rest.Config{Host: srv.URL})
}

func writeKubeconfig(t *testing.T, api *rest.Config) string {
	t.Helper()
	cfg := clientcmdapi.NewConfig()
	cfg.Clusters["it"] = &clientcmdapi.Cluster{Server: api.Host, CertificateAuthorityData: api.CAData}
	cfg.AuthInfos["it"] = &clientcmdapi.AuthInfo{ClientCertificateData: api.CertData, ClientKeyData: api.KeyData}
	cfg.Contexts["it"] = &clientcmdapi.Context{Cluster: "it", AuthInfo: "it"}
	cfg.CurrentContext = "it"
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*cfg, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// runManager runs a GlobalManager as on a cluster until the test ends.
func runManager(t *testing.T, dir, kubeconfig string) cloud.Endpoints {
	t.Helper()
	cfg := cloud.DefaultConfig()
	cfg.DataDir, cfg.HTTP, cfg.Edgelink = dir, "127.0.0.1:0", false
	cfg.Kubernetes, cfg.RepairAfter = cloud.Kubernetes{Kubeconfig: kubeconfig}, 200*time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan cloud.Endpoints, 1), make(chan error, 1)
	go func() {
		done <- cloud.Run(ctx, cfg, slog.New(slog.DiscardHandler), func(e cloud.Endpoints) { ready <- e })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	select {
	case e := <-ready:
		return e
	case err := <-done:
		done <- err
		t.Fatal(err)
	case <-time.After(time.Minute):
		t.Fatal("the GlobalManager does not get ready")
	}
	return cloud.Endpoints{}
}

// command runs one of the administrator's commands with a kubeconfig.
func command(t *testing.T, kubeconfig string, args ...string) {
	t.Helper()
	root := &cobra.Command{Use: "sedna", SilenceUsage: true}
	root.AddCommand(admin.Commands()...)
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetArgs(append(args, "--kubeconfig", kubeconfig))
	if err := root.ExecuteContext(t.Context()); err != nil {
		t.Fatalf("sedna %s: %v\n%s", strings.Join(args, " "), err, out.String())
	}
}

// follow waits for a Device.
func follow(t *testing.T, c client.WithWatch, is func(*devices.Device) bool) *devices.Device {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	w, err := c.Watch(ctx, &devices.DeviceList{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	var seen []string
	for {
		select {
		case e := <-w.ResultChan():
			if d, ok := e.Object.(*devices.Device); ok && is(d) {
				return d
			}
			seen = append(seen, fmt.Sprintf("%s %T", e.Type, e.Object))
		case <-ctx.Done():
			t.Fatalf("no such Device; seen %v", seen)
		}
	}
}
