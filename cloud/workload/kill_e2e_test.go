//go:build e2e

package workload_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/edgetwin/sedna/cloud/workload"
)

var errKilled = errors.New("killed")

// mortal is a client that dies before its writes are all done.
type mortal struct {
	client.Client
	left int
}

func (m *mortal) spend() error {
	if m.left == 0 {
		return errKilled
	}
	m.left--
	return nil
}

func (m *mortal) Apply(ctx context.Context, o runtime.ApplyConfiguration, opts ...client.ApplyOption) error {
	if err := m.spend(); err != nil {
		return err
	}
	return m.Client.Apply(ctx, o, opts...)
}

func (m *mortal) Delete(ctx context.Context, o client.Object, opts ...client.DeleteOption) error {
	if err := m.spend(); err != nil {
		return err
	}
	return m.Client.Delete(ctx, o, opts...)
}

// TestKilledBetweenWrites ends the engine after each number of writes, and has
// another go on: the outcome is that of an engine which was never ended.
func TestKilledBetweenWrites(t *testing.T) {
	k := startKubernetes(t)
	engine := k.engine()
	const ns = "kills"
	k.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}})
	for n := 0; ; n++ {
		owner := workload.Owner{Kind: "ReidJob", Namespace: ns, Name: fmt.Sprintf("after-%d", n), UID: types.UID(fmt.Sprintf("00000000-0000-4000-8000-%012d", n))}
		killed := 0
		for step, wish := range []workload.Wish{wished(t, owner, "v1", 3), wished(t, owner, "v2", 2), {}} {
			dying := *engine
			dying.Client = &mortal{engine.Client, n}
			if _, err := dying.Apply(t.Context(), owner, wish); errors.Is(err, errKilled) {
				killed++
			} else if err != nil {
				t.Fatal(err)
			}
			k.eventually(fmt.Sprintf("what is wished, killed after %d writes of step %d", n, step), func() bool {
				if _, err := engine.Apply(t.Context(), owner, wish); err != nil {
					t.Fatal(err)
				}
				return slices.Equal(k.have(owner), names(wish))
			})
		}
		if killed == 0 {
			if n < 5 { // the first step alone makes five objects
				t.Fatalf("killed after at most %d writes; the steps need more", n)
			}
			t.Logf("killed after 0 to %d writes", n-1)
			return
		}
	}
}

// wished is a wish of a Service, a Deployment and pods.
func wished(t *testing.T, o workload.Owner, image string, pods int) workload.Wish {
	t.Helper()
	var w workload.Wish
	worker := workload.Worker{Type: "reid", Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "w", Image: image}}}}}
	for i := range pods {
		worker.Index = i
		p, err := workload.Renderer{}.Pod(o, worker)
		if err != nil {
			t.Fatal(err)
		}
		w.Pods = append(w.Pods, p)
	}
	d, err := workload.Renderer{}.Deployment(o, worker, appsv1.DeploymentSpec{}, false)
	if err != nil {
		t.Fatal(err)
	}
	s, err := workload.Renderer{}.Service(o, "reid", 5000)
	if err != nil {
		t.Fatal(err)
	}
	w.Deployments, w.Services = []*appsv1.Deployment{d}, []*corev1.Service{s}
	return w
}

// engine gives an engine without controllers.
func (k *kubernetes) engine() *workload.Engine {
	k.t.Helper()
	mgr, err := ctrl.NewManager(k.rest, ctrl.Options{Scheme: k.c.Scheme(), Metrics: server.Options{BindAddress: "0"}, Cache: cache.Options{ByObject: workload.Cache()}})
	if err != nil {
		k.t.Fatal(err)
	}
	e, err := workload.New(mgr)
	if err != nil {
		k.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	k.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			k.t.Error(err)
		}
	})
	if !mgr.GetCache().WaitForCacheSync(ctx) {
		k.t.Fatal("the cache does not fill")
	}
	return e
}

// have lists what an owner has, by the API itself.
func (k *kubernetes) have(o workload.Owner) []string {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(k.t.Context(), time.Minute)
	defer cancel()
	own := client.MatchingLabels{workload.Label(o.Kind, "name"): o.Name}
	var pods corev1.PodList
	var deployments appsv1.DeploymentList
	var services corev1.ServiceList
	for _, l := range []client.ObjectList{&pods, &deployments, &services} {
		if err := k.c.List(ctx, l, client.InNamespace(o.Namespace), own); err != nil {
			k.t.Fatal(err)
		}
	}
	var out []string
	for i := range pods.Items {
		out = append(out, "pod "+pods.Items[i].Name)
	}
	for _, d := range deployments.Items {
		out = append(out, "deployment "+d.Name+" "+d.Spec.Template.Spec.Containers[0].Image)
	}
	for _, s := range services.Items {
		out = append(out, "service "+s.Name)
	}
	slices.Sort(out)
	return out
}

// names lists the same of a wish.
func names(w workload.Wish) []string {
	var out []string
	for _, p := range w.Pods {
		out = append(out, "pod "+p.Name)
	}
	for _, d := range w.Deployments {
		out = append(out, "deployment "+d.Name+" "+d.Spec.Template.Spec.Containers[0].Image)
	}
	for _, s := range w.Services {
		out = append(out, "service "+s.Name)
	}
	slices.Sort(out)
	return out
}
