package workload

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

// ErrTaken says that an object's name belongs to somebody else's object.
var ErrTaken = errors.New("exists and is not Sedna's")

// manager is the field manager of everything that Engine applies.
const manager = client.FieldOwner(Managed)

// Engine keeps the objects of owners in the cluster. It holds no state of its
// own: killed between any two writes, it goes on when called again.
type Engine struct {
	Client client.Client // cached reads
	Reader client.Reader // reads that miss nothing, before a name is taken
	Now    func() time.Time
}

// AddToScheme registers the kinds that Engine makes.
func AddToScheme(s *runtime.Scheme) error {
	return errors.Join(corev1.AddToScheme(s), appsv1.AddToScheme(s), autoscalingv2.AddToScheme(s))
}

// made lists the kinds that Engine makes, in the order in which they go: first
// what would make others anew, last what others are reached by.
func made() []client.Object {
	return []client.Object{&autoscalingv2.HorizontalPodAutoscaler{}, &appsv1.Deployment{}, &corev1.Pod{}, &corev1.Service{}}
}

// Cache keeps what others have in the cluster out of the cache.
func Cache() map[client.Object]cache.ByObject {
	managed := labels.SelectorFromSet(labels.Set{LabelManaged: Managed})
	out := map[client.Object]cache.ByObject{}
	for _, o := range made() {
		out[o] = cache.ByObject{Label: managed}
	}
	return out
}

// Available tells whether an API has what Engine makes; the embedded one has not.
func Available(cfg *rest.Config) (bool, error) {
	d, err := discovery.NewDiscoveryClientForConfig(cfg)
	if err != nil {
		return false, err
	}
	for _, version := range []string{"v1", "apps/v1", "autoscaling/v2"} {
		_, err := d.ServerResourcesForGroupVersion(version)
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("find out whether the cluster runs pods: %w", err)
		}
	}
	return true, nil
}

// New gives the engine of a manager whose cache has the options of Cache.
func New(mgr ctrl.Manager) (*Engine, error) {
	if err := index(context.Background(), mgr.GetFieldIndexer()); err != nil {
		return nil, err
	}
	return &Engine{Client: mgr.GetClient(), Reader: mgr.GetAPIReader(), Now: time.Now}, nil
}

// Sources wake a controller of a kind when an object of its owners changes.
func (e *Engine) Sources(c cache.Cache, kind string) []source.Source {
	name := Label(kind, "name")
	ofOwner := handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request {
		owner := o.GetLabels()[name]
		if owner == "" {
			return nil
		}
		return []reconcile.Request{{NamespacedName: client.ObjectKey{Namespace: o.GetNamespace(), Name: owner}}}
	})
	var out []source.Source
	for _, o := range made() {
		out = append(out, source.Kind(c, o, ofOwner))
	}
	return out
}

// Wish is what an owner wants to have in the cluster.
type Wish struct {
	Services    []*corev1.Service
	Deployments []*appsv1.Deployment
	Autoscalers []*autoscalingv2.HorizontalPodAutoscaler
	Pods        []*corev1.Pod
	// Ends says that the pods work until they are done, and that one that
	// failed more than Retries times stays failed. Else they are made again for ever.
	Ends    bool
	Retries int
	// Ended says that they have: none is made any more.
	Ended bool
}

// State is what an owner has in the cluster.
type State struct {
	Deployments []appsv1.Deployment
	Pods        []corev1.Pod  // the one of each slot that counts
	Waiting     []string      // objects on their way out, which have to be gone first
	Retry       time.Duration // until a failed pod is made again; 0: none waits
	Lost        int           // pods that failed too often
}

// Apply makes the cluster have what an owner wishes, and nothing besides. On an
// error it still does what it can.
func (e *Engine) Apply(ctx context.Context, o Owner, w Wish) (State, error) {
	have, err := e.list(ctx, o)
	if err != nil {
		return State{}, err
	}
	a := &application{Engine: e, ctx: ctx, owner: o, have: have, keep: map[client.Object]bool{}}
	for _, s := range w.Services {
		a.apply(s)
	}
	for _, d := range w.Deployments {
		if got, ok := a.apply(d).(*appsv1.Deployment); ok {
			d = got
		}
		a.state.Deployments = append(a.state.Deployments, *d)
	}
	for _, h := range w.Autoscalers {
		a.apply(h)
	}
	for _, p := range w.Pods {
		a.slot(p, &w)
	}
	for _, old := range have {
		if !a.keep[old] {
			a.fail(old, e.remove(ctx, old))
		}
	}
	return a.state, errors.Join(a.errs...)
}

// See tells what an owner has in the cluster, and changes nothing.
func (e *Engine) See(ctx context.Context, o Owner) (State, error) {
	have, err := e.list(ctx, o)
	var s State
	for _, h := range have {
		if h.GetLabels()[Label(o.Kind, "uid")] != string(o.UID) || !h.GetDeletionTimestamp().IsZero() {
			continue
		}
		switch h := h.(type) {
		case *appsv1.Deployment:
			s.Deployments = append(s.Deployments, *h)
		case *corev1.Pod:
			s.Pods = append(s.Pods, *h)
		}
	}
	return s, err
}

// Remove takes everything of an owner, and of its predecessors, out of the
// cluster. Pods end in their own time, which nobody waits for: a node that is
// away would keep the owner for ever.
func (e *Engine) Remove(ctx context.Context, o Owner) error {
	have, err := e.list(ctx, o)
	for _, old := range have {
		err = errors.Join(err, e.remove(ctx, old))
	}
	return err
}

// byOwner is the index of the cache by the label with the owner's name.
const byOwner = "sedna.io/owner"

func ownerKey(kind, name string) string { return Label(kind, "name") + "=" + name }

// index makes it.
func index(ctx context.Context, to client.FieldIndexer) error {
	for _, o := range made() {
		err := to.IndexField(ctx, o, byOwner, func(o client.Object) []string {
			var keys []string
			for k, v := range o.GetLabels() {
				if kind, ok := strings.CutSuffix(k, ".sedna.io/name"); ok {
					keys = append(keys, ownerKey(kind, v))
				}
			}
			return keys
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// list gives all objects with the owner's name, those of a predecessor too.
func (e *Engine) list(ctx context.Context, o Owner) ([]client.Object, error) {
	var out []client.Object
	for _, l := range []client.ObjectList{&autoscalingv2.HorizontalPodAutoscalerList{}, &appsv1.DeploymentList{}, &corev1.PodList{}, &corev1.ServiceList{}} {
		if err := e.Client.List(ctx, l, client.InNamespace(o.Namespace), client.MatchingFields{byOwner: ownerKey(o.Kind, o.Name)}); err != nil {
			return nil, err
		}
		err := meta.EachListItem(l, func(item runtime.Object) error {
			out = append(out, item.(client.Object))
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// application is one call of Apply.
type application struct {
	*Engine
	ctx   context.Context
	owner Owner
	have  []client.Object
	keep  map[client.Object]bool // of have
	state State
	errs  []error
}

func (a *application) fail(o client.Object, err error) {
	if err != nil {
		a.errs = append(a.errs, fmt.Errorf("%s %s: %w", kindOf(o), o.GetName(), err))
	}
}

// apply makes one object as it is wanted, and gives it as it is then, so far as
// that is known: want itself, without a status, when it was written. It is nil
// when that has to wait.
func (a *application) apply(want client.Object) client.Object {
	have := a.find(want)
	if have == nil {
		var taken bool
		if have, taken = a.look(want); taken {
			return nil
		}
	}
	switch {
	case have == nil:
	case !have.GetDeletionTimestamp().IsZero() || have.GetLabels()[Label(a.owner.Kind, "uid")] != string(a.owner.UID):
		// The name comes free when the predecessor's object is gone.
		a.state.Waiting = append(a.state.Waiting, have.GetName())
		return nil
	default:
		a.keep[have] = true
		if have.GetAnnotations()[AnnotationHash] == want.GetAnnotations()[AnnotationHash] && metav1.IsControlledBy(have, &metav1.ObjectMeta{UID: a.owner.UID}) {
			return have
		}
	}
	if err := a.write(want, have); err != nil {
		a.fail(want, err)
		return have
	}
	return want
}

// find gives the object of a name that the owner has by the cache.
func (a *application) find(want client.Object) client.Object {
	i := slices.IndexFunc(a.have, func(o client.Object) bool { return o.GetName() == want.GetName() && kindOf(o) == kindOf(want) })
	if i < 0 {
		return nil
	}
	return a.have[i]
}

// kindOf is an object's kind, which objects from the cache do not tell.
func kindOf(o client.Object) string { return reflect.TypeOf(o).Elem().Name() }

// look asks the API itself for an object that the cache does not have: it may
// be new, or somebody else's, which would be written over.
func (a *application) look(want client.Object) (have client.Object, taken bool) {
	m := &metav1.PartialObjectMetadata{}
	m.SetGroupVersionKind(want.GetObjectKind().GroupVersionKind())
	err := a.Reader.Get(a.ctx, client.ObjectKeyFromObject(want), m)
	switch {
	case apierrors.IsNotFound(err):
		return nil, false
	case err != nil:
		a.fail(want, err)
		return nil, true
	case m.Labels[LabelManaged] != Managed || m.Labels[Label(a.owner.Kind, "name")] != a.owner.Name:
		a.fail(want, ErrTaken)
		return nil, true
	}
	return m, false
}

// write applies an object, the one that was seen and no other.
func (a *application) write(want, have client.Object) error {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(want)
	if err != nil {
		return err
	}
	delete(content, "status")
	u := &unstructured.Unstructured{Object: dropNull(content)}
	if have != nil {
		u.SetUID(have.GetUID())
	}
	return a.Client.Apply(a.ctx, client.ApplyConfigurationFromUnstructured(u), manager, client.ForceOwnership)
}

// dropNull takes out what a typed object says only because Go has no other
// zero, and what nobody means to own.
func dropNull(m map[string]any) map[string]any {
	for k, v := range m {
		switch v := v.(type) {
		case nil:
			delete(m, k)
		case map[string]any:
			dropNull(v)
		case []any:
			for _, item := range v {
				if item, ok := item.(map[string]any); ok {
					dropNull(item)
				}
			}
		}
	}
	return m
}

// remove deletes an object, the one that was seen and no other.
func (e *Engine) remove(ctx context.Context, o client.Object) error {
	if !o.GetDeletionTimestamp().IsZero() {
		return nil
	}
	uid := o.GetUID()
	return client.IgnoreNotFound(e.Client.Delete(ctx, o, client.Preconditions{UID: &uid}, client.PropagationPolicy(metav1.DeletePropagationBackground)))
}
