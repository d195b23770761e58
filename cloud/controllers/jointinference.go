package controllers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/edgetwin/sedna/cloud/twin"
	"github.com/edgetwin/sedna/cloud/workload"
	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
	sedna "github.com/edgetwin/sedna/models/sedna/v1alpha1"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// stoppingRetry is when a job looks again at a Device that is on its way out;
// the Device's own deletion wakes it sooner.
const stoppingRetry = 5 * time.Second

// CloudModels serves big models on the GlobalManager's own /v2 routes.
type CloudModels interface {
	// Serve makes the model answer under the service's name, replacing what
	// answered before. Calling it again with the same model does nothing.
	Serve(ctx context.Context, service string, m task.Model) error
	// Remove ends the service; removing what is not there does nothing.
	Remove(service string)
}

// JointInference plans JointInferenceServices: an edge task for each node, and
// the big model on the GlobalManager unless the manifest names an endpoint.
// Workers with a template are Deployments in their place.
type JointInference struct {
	Jobs
	Cloud   CloudModels
	Workers Pods
	// Changed gets the task Devices about which there is news.
	Changed <-chan event.TypedGenericEvent[*devices.Device]
	// Gone is called when a service is gone, and the blobs that its tasks named
	// may be of no use.
	Gone func()
}

// SetupWithManager registers the controller.
func (r *JointInference) SetupWithManager(mgr ctrl.Manager) error {
	ofTask := handler.TypedEnqueueRequestsFromMapFunc(func(_ context.Context, d *devices.Device) []reconcile.Request {
		if d.Labels[task.LabelKind] != task.KindJointInference {
			return nil
		}
		return []reconcile.Request{{NamespacedName: client.ObjectKey{Namespace: d.Namespace, Name: d.Labels[task.LabelName]}}}
	})
	b := ctrl.NewControllerManagedBy(mgr).Named("jointinferenceservice").For(&sedna.JointInferenceService{}).
		Watches(&sedna.Model{}, handler.EnqueueRequestsFromMapFunc(r.servicesOf)).
		WatchesRawSource(source.Kind(mgr.GetCache(), &devices.Device{}, ofTask)).
		WatchesRawSource(source.Kind(mgr.GetCache(), &devices.Device{}, handler.TypedEnqueueRequestsFromMapFunc(r.waitingFor), nodeMoved())).
		WatchesRawSource(source.Channel(r.Changed, ofTask))
	if r.Workers.Engine != nil {
		for _, s := range r.Workers.Engine.Sources(mgr.GetCache(), task.KindJointInference) {
			b = b.WatchesRawSource(s)
		}
	}
	return b.Complete(r)
}

// servicesOf finds the services that use a Model.
func (r *JointInference) servicesOf(ctx context.Context, m client.Object) []reconcile.Request {
	return r.requests(ctx, m.GetNamespace(), func(s *sedna.JointInferenceService) bool {
		return s.Spec.EdgeWorker.Model.Name == m.GetName() || s.Spec.CloudWorker.Model.Name == m.GetName()
	})
}

// nodeMoved lets pass that a node came, changed its labels or went, and not
// its beats.
func nodeMoved() predicate.TypedFuncs[*devices.Device] {
	return predicate.TypedFuncs[*devices.Device]{
		UpdateFunc: func(e event.TypedUpdateEvent[*devices.Device]) bool {
			return !maps.Equal(e.ObjectOld.Labels, e.ObjectNew.Labels)
		},
	}
}

// waitingFor finds the services that run, or may run, on a node whose Device
// came, changed its labels or went.
func (r *JointInference) waitingFor(ctx context.Context, d *devices.Device) []reconcile.Request {
	if !twin.IsNode(d) {
		return nil
	}
	return r.requests(ctx, "", func(s *sedna.JointInferenceService) bool {
		node, selector := placement(&s.Spec.EdgeWorker)
		placed := slices.ContainsFunc(s.Status.Nodes, func(n sedna.NodeStatus) bool { return n.Name == d.Labels[task.LabelNode] })
		if node != "" {
			return node == d.Labels[task.LabelNode]
		}
		matches := len(selector) > 0
		for k, v := range selector {
			matches = matches && d.Labels[k] == v
		}
		return matches || placed
	})
}

func (r *JointInference) requests(ctx context.Context, namespace string, uses func(*sedna.JointInferenceService) bool) []reconcile.Request {
	var list sedna.JointInferenceServiceList
	if r.Client.List(ctx, &list, client.InNamespace(namespace)) != nil {
		return nil // the services are looked at again with the next resync
	}
	var out []reconcile.Request
	for i := range list.Items {
		if uses(&list.Items[i]) {
			out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return out
}

// Reconcile brings one service forward.
func (r *JointInference) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	s := &sedna.JointInferenceService{}
	err := r.Client.Get(ctx, req.NamespacedName, s)
	if apierrors.IsNotFound(err) {
		// finish may have let the service go before the cache showed the Device
		// that was made last.
		_, err := r.Tasks.Sync(ctx, twin.Owner{Kind: task.KindJointInference, Namespace: req.Namespace, Name: req.Name}, nil)
		r.Gone()
		return ctrl.Result{}, errors.Join(err, r.removeWorkers(ctx, workload.Owner{Kind: task.KindJointInference, Namespace: req.Namespace, Name: req.Name}))
	}
	if err != nil {
		return ctrl.Result{}, err
	}
	owner := twin.Owner{Kind: task.KindJointInference, Namespace: s.Namespace, Name: s.Name, UID: s.UID}
	if !s.DeletionTimestamp.IsZero() {
		return r.finish(ctx, s, owner)
	}
	if !controllerutil.ContainsFinalizer(s, task.Finalizer) {
		before := s.DeepCopy()
		controllerutil.AddFinalizer(s, task.Finalizer)
		return ctrl.Result{}, client.IgnoreNotFound(r.Client.Patch(ctx, s, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})))
	}

	before := s.DeepCopy()
	tasks, state, err := r.carryOut(ctx, s, owner)
	p, ok := asProblem(err)
	if err != nil && !ok && !errors.Is(err, twin.ErrStopping) {
		return ctrl.Result{}, err
	}
	if errors.Is(err, twin.ErrStopping) {
		p = &problem{sedna.ReasonProgressing, twin.ErrStopping.Error()}
	}
	if s.Status.Nodes, err = r.nodeStatuses(ctx, tasks); err != nil {
		return ctrl.Result{}, err
	}
	summarize(s, count(&state), p)
	if !equality.Semantic.DeepEqual(before.Status, s.Status) {
		if err := r.Client.Status().Patch(ctx, s, client.MergeFrom(before)); err != nil {
			return ctrl.Result{}, client.IgnoreNotFound(err)
		}
	}
	if p != nil || len(state.Waiting) > 0 {
		return ctrl.Result{RequeueAfter: stoppingRetry}, nil
	}
	return ctrl.Result{}, nil
}

// removeWorkers takes what runs in pods out of the cluster.
func (r *JointInference) removeWorkers(ctx context.Context, o workload.Owner) error {
	if r.Workers.Engine == nil {
		return nil
	}
	return r.Workers.Engine.Remove(ctx, o)
}

// carryOut plans the service, and writes its tasks and Deployments. On a
// problem what exists stays as it is, since what serves goes on serving; but
// tasks on nodes that were forgotten end, and all when the selector matches no
// node any more.
func (r *JointInference) carryOut(ctx context.Context, s *sedna.JointInferenceService, owner twin.Owner) ([]devices.Device, workload.State, error) {
	o := workload.Owner{Kind: owner.Kind, Namespace: owner.Namespace, Name: owner.Name, UID: owner.UID}
	want, wish, err := r.plan(ctx, s, o)
	if err == nil || errors.Is(err, errNoMatch) {
		tasks, syncErr := r.Tasks.Sync(ctx, owner, want)
		var state workload.State
		var applyErr error
		if r.Workers.Engine != nil {
			state, applyErr = r.Workers.Engine.Apply(ctx, o, wish)
		}
		return tasks, state, errors.Join(err, syncErr, applyErr)
	}
	tasks, listErr := r.Tasks.List(ctx, owner)
	err = errors.Join(err, listErr)
	for i := range tasks {
		if exists, lookErr := r.Nodes.Exists(ctx, tasks[i].Labels[task.LabelNode]); lookErr == nil && !exists {
			err = errors.Join(err, r.Tasks.Stop(ctx, &tasks[i]))
		}
	}
	state, seeErr := r.Workers.see(ctx, o)
	return tasks, state, errors.Join(err, seeErr)
}

// plan says which tasks the service needs, and what else has to be in the cluster.
func (r *JointInference) plan(ctx context.Context, s *sedna.JointInferenceService, owner workload.Owner) ([]twin.Want, workload.Wish, error) {
	w := wisher{p: &r.Workers, owner: owner}
	// An edge worker's template is looked at first, as whatever else it needs
	// is of no use when it cannot run.
	var edgeTemplate *corev1.PodTemplateSpec
	if s.Spec.EdgeWorker.Template != nil {
		edgeTemplate = w.template("edgeWorker", s.Spec.EdgeWorker.Template)
	}
	if s.Spec.CloudWorker.Template != nil {
		r.cloudWorker(ctx, &w, &s.Spec.CloudWorker)
	}
	if w.err != nil {
		return nil, w.wish, orWithout(w.err)
	}
	if edgeTemplate != nil {
		r.Cloud.Remove(wire.Service(s.Namespace, s.Name))
		r.edgeWorker(ctx, &w, s, edgeTemplate)
		return nil, w.wish, w.err
	}
	want, err := r.planTasks(ctx, s)
	return want, w.wish, err
}

// orWithout adds what else can be done about a template that needs pods.
func orWithout(err error) error {
	if p := (*problem)(nil); errors.As(err, &p) && p.reason == sedna.ReasonNeedsPodRuntime {
		return &problem{p.reason, p.message + "; or leave the template out, then Sedna serves the model itself"}
	}
	return err
}

// planTasks says which tasks the service needs where the LocalControllers serve.
func (r *JointInference) planTasks(ctx context.Context, s *sedna.JointInferenceService) ([]twin.Want, error) {
	edge := &s.Spec.EdgeWorker
	if edge.HardExampleMining.Plugin != nil {
		return nil, &problem{sedna.ReasonInvalid, "edgeWorker.hardExampleMining.plugin: the LocalController decides by its own rules only; expected one of those, or a template"}
	}
	_, edgeModel, err := r.model(ctx, s.Namespace, edge.Model.Name)
	if err != nil {
		return nil, err
	}
	side, err := r.cloudSide(ctx, s)
	if err != nil {
		return nil, err
	}
	node, selector := placement(edge)
	nodes, err := r.nodes(ctx, node, selector)
	if err != nil {
		return nil, err
	}
	spec := task.JointInference{
		Model:        edgeModel,
		HardExample:  task.Algorithm{Name: edge.HardExampleMining.Name},
		Cloud:        side,
		OnCloudError: edge.OnCloudError,
	}
	for _, p := range edge.HardExampleMining.Parameters {
		spec.HardExample.Parameters = append(spec.HardExample.Parameters, task.Parameter{Key: p.Key, Value: p.Value})
	}
	var want []twin.Want
	for _, n := range nodes {
		spec.Inputs, spec.Result = inputsOn(n, edge.Inputs), resultOn(n, edge.ResultProperty)
		want = append(want, twin.Want{Role: task.RoleEdge, Node: n, Spec: spec})
	}
	return want, nil
}

// onNode puts the node's name in place of {node}.
func onNode(node, s string) string { return strings.ReplaceAll(s, "{node}", node) }

// inputsOn gives the inputs as they are on one node.
func inputsOn(node string, inputs []sedna.Input) []task.Input {
	var out []task.Input
	for _, in := range inputs {
		t := task.Input{Tensor: in.Tensor, Window: in.Window, Stride: in.Stride, OnMissing: in.OnMissing}
		if in.MaxAge != nil {
			t.MaxAgeMilliseconds = in.MaxAge.Milliseconds()
		}
		for _, s := range in.Sources {
			t.Sources = append(t.Sources, task.InputSource{Device: onNode(node, s.Device), Property: s.Property, Topic: onNode(node, s.Topic), JSONPath: s.JSONPath})
		}
		out = append(out, t)
	}
	return out
}

// resultOn gives the property for answers as it is on one node.
func resultOn(node string, r *sedna.ResultProperty) *task.ResultProperty {
	if r == nil {
		return nil
	}
	return &task.ResultProperty{Device: onNode(node, r.Device), Property: r.Property, Value: r.Value}
}

// cloudSide says where hard examples go: the manifest's endpoint, the Service of
// the cloud worker's template, which has to speak the Open Inference Protocol,
// or the GlobalManager's own routes, on which the big model is then served. A
// Service is reached from nodes that EdgeMesh connects; others answer by
// themselves, as whenever the cloud is away.
func (r *JointInference) cloudSide(ctx context.Context, s *sedna.JointInferenceService) (*task.CloudSide, error) {
	w := &s.Spec.CloudWorker
	side := &task.CloudSide{TimeoutMilliseconds: w.TimeoutMilliseconds, MaxConcurrent: w.MaxConcurrent}
	service := wire.Service(s.Namespace, s.Name)
	if w.Endpoint != "" || w.Template != nil {
		r.Cloud.Remove(service)
		side.URL, side.Model = strings.TrimSuffix(w.Endpoint, "/"), w.Model.Name
		if w.Template != nil {
			side.URL = "http://" + net.JoinHostPort(workload.Host(workload.Owner{Namespace: s.Namespace, Name: s.Name}, workerCloud), strconv.Itoa(portBigModel))
		}
		return side, nil
	}
	_, model, err := r.model(ctx, s.Namespace, w.Model.Name)
	if err != nil {
		return nil, err
	}
	if err := r.Cloud.Serve(ctx, service, model); err != nil {
		return nil, &problem{sedna.ReasonFailed, fmt.Sprintf("cloudWorker: Model %s/%s cannot be served: %v", s.Namespace, w.Model.Name, err)}
	}
	side.URL, side.Model = "/", service
	return side, nil
}

// finish stops all tasks of a service that is being deleted, and lets it go
// when no Device is left.
func (r *JointInference) finish(ctx context.Context, s *sedna.JointInferenceService, owner twin.Owner) (ctrl.Result, error) {
	r.Cloud.Remove(wire.Service(s.Namespace, s.Name))
	if !controllerutil.ContainsFinalizer(s, task.Finalizer) {
		return ctrl.Result{}, nil
	}
	tasks, err := r.Tasks.Sync(ctx, owner, nil)
	err = errors.Join(err, r.removeWorkers(ctx, workload.Owner{Kind: owner.Kind, Namespace: owner.Namespace, Name: owner.Name, UID: owner.UID}))
	if err != nil {
		return ctrl.Result{}, err
	}
	before := s.DeepCopy()
	if len(tasks) == 0 || s.Annotations[twin.AnnotationForceDelete] != "" {
		controllerutil.RemoveFinalizer(s, task.Finalizer)
		return ctrl.Result{}, client.IgnoreNotFound(r.Client.Patch(ctx, s, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})))
	}
	if s.Status.Nodes, err = r.nodeStatuses(ctx, tasks); err != nil {
		return ctrl.Result{}, err
	}
	s.Status.Phase = sedna.PhaseStopping
	setReady(&s.Status.Conditions, s.Generation, metav1.ConditionFalse, sedna.ReasonStopping,
		fmt.Sprintf("%d nodes have yet to confirm; annotate with %s to let go without them", len(tasks), twin.AnnotationForceDelete))
	if !equality.Semantic.DeepEqual(before.Status, s.Status) {
		return ctrl.Result{}, client.IgnoreNotFound(r.Client.Status().Patch(ctx, s, client.MergeFrom(before)))
	}
	return ctrl.Result{}, nil
}

// placement is where the edge worker runs, from either place in the manifest.
func placement(w *sedna.EdgeWorker) (node string, selector map[string]string) {
	if w.NodeName != "" || len(w.NodeSelector) > 0 {
		return w.NodeName, w.NodeSelector
	}
	if w.Template == nil {
		return "", nil
	}
	t, err := w.Template.Decode()
	if err != nil {
		return "", nil // the plan says what is wrong
	}
	return t.Spec.NodeName, t.Spec.NodeSelector
}

// summarize fills phase, counts and the Ready condition from the nodes and from
// the workers in pods.
func summarize(s *sedna.JointInferenceService, pods tally, p *problem) {
	st := &s.Status
	if st.StartTime == nil {
		st.StartTime = &metav1.Time{Time: s.CreationTimestamp.Time}
	}
	st.Active, st.Failed = pods.active, pods.failed
	confirmed, total := int(pods.active), len(st.Nodes)+int(pods.total)
	served := "nodes"
	if pods.total > 0 {
		served = "workers"
	}
	failed := pods.unwell
	for _, n := range st.Nodes {
		switch n.Phase {
		case task.Running:
			st.Active++
		case task.Failed:
			st.Failed++
			failed = fmt.Sprintf("node %s: %s: %s", n.Name, n.Reason, n.Message)
		}
		if n.Phase == task.Running && n.Generation >= n.DesiredGeneration {
			confirmed++
		}
	}
	switch {
	case p != nil:
		st.Phase = sedna.PhasePending
		if st.Active > 0 {
			st.Phase = sedna.PhaseRunning
		}
		setReady(&st.Conditions, s.Generation, metav1.ConditionFalse, p.reason, p.message)
	case st.Failed > 0:
		st.Phase = sedna.PhaseFailed
		setReady(&st.Conditions, s.Generation, metav1.ConditionFalse, sedna.ReasonFailed, failed)
	case confirmed == total && confirmed > 0:
		st.Phase = sedna.PhaseRunning
		setReady(&st.Conditions, s.Generation, metav1.ConditionTrue, sedna.ReasonServing, fmt.Sprintf("%d of %d %s serve", confirmed, total, served))
	default:
		st.Phase = sedna.PhasePending
		if st.Active > 0 {
			st.Phase = sedna.PhaseRunning
		}
		setReady(&st.Conditions, s.Generation, metav1.ConditionFalse, sedna.ReasonProgressing,
			join(fmt.Sprintf("%d of %d %s serve the current generation", confirmed, total, served), pods.unwell))
	}
}
