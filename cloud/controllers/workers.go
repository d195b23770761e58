package controllers

import (
	"context"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/edgetwin/sedna/cloud/workload"
	sedna "github.com/edgetwin/sedna/models/sedna/v1alpha1"
)

// defaultRetries is how often a job's pod is made again after it failed, where
// the manifest does not say; it is that of Kubernetes' own Jobs.
const defaultRetries = 6

// Workers is the controller of a kind whose work is done by pods alone.
//
// It needs no finalizer: what it makes is removed when the object is seen to be
// gone, and by the cluster's garbage collector.
type Workers struct {
	Pods
	kind kindOfWorkers
}

// kindOfWorkers is what sets one such kind apart from another.
type kindOfWorkers struct {
	name string
	// object and list make empty ones.
	object func() client.Object
	list   func() client.ObjectList
	// uses tells whether the object names a Model or Dataset.
	uses func(o client.Object, kind, name string) bool
	// wish says what the object wants to have in the cluster.
	wish func(ctx context.Context, p *Pods, owner workload.Owner, o client.Object) (workload.Wish, error)
	// service or job gives its status; the other is nil.
	service func(o client.Object) *sedna.ServiceStatus
	job     func(o client.Object) *sedna.JobStatus
	// other tells of objects that are not for pods at all; may be nil.
	other func(o client.Object) bool
}

// SetupWithManager registers the controller.
func (r *Workers) SetupWithManager(mgr ctrl.Manager) error {
	b := ctrl.NewControllerManagedBy(mgr).Named(strings.ToLower(r.kind.name)).For(r.kind.object()).
		Watches(&sedna.Model{}, handler.EnqueueRequestsFromMapFunc(r.users("Model"))).
		Watches(&sedna.Dataset{}, handler.EnqueueRequestsFromMapFunc(r.users("Dataset")))
	if r.Engine != nil {
		for _, s := range r.Engine.Sources(mgr.GetCache(), r.kind.name) {
			b = b.WatchesRawSource(s)
		}
	}
	return b.Complete(r)
}

// users finds the objects that use a Model or Dataset.
func (r *Workers) users(kind string) handler.MapFunc {
	return func(ctx context.Context, used client.Object) []reconcile.Request {
		list := r.kind.list()
		if r.Client.List(ctx, list, client.InNamespace(used.GetNamespace())) != nil {
			return nil // they are looked at again with the next resync
		}
		var out []reconcile.Request
		_ = meta.EachListItem(list, func(item runtime.Object) error {
			if o := item.(client.Object); r.kind.uses(o, kind, used.GetName()) {
				out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(o)})
			}
			return nil
		})
		return out
	}
}

// Reconcile brings one object forward.
func (r *Workers) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	o := r.kind.object()
	err := r.Client.Get(ctx, req.NamespacedName, o)
	if client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, err
	}
	owner := workload.Owner{Kind: r.kind.name, Namespace: req.Namespace, Name: req.Name, UID: o.GetUID()}
	if apierrors.IsNotFound(err) || !o.GetDeletionTimestamp().IsZero() || r.kind.other != nil && r.kind.other(o) {
		if r.Engine == nil {
			return ctrl.Result{}, nil
		}
		return ctrl.Result{}, r.Engine.Remove(ctx, owner)
	}
	before := o.DeepCopyObject().(client.Object)
	again, err := r.carryOut(ctx, owner, o)
	if !equality.Semantic.DeepEqual(before, o) {
		if err := r.Client.Status().Patch(ctx, o, client.MergeFrom(before)); err != nil {
			return ctrl.Result{}, client.IgnoreNotFound(err)
		}
	}
	return ctrl.Result{RequeueAfter: again}, err
}

// carryOut makes what the object wishes and fills in its status. It tells when
// to look again without an event.
func (r *Workers) carryOut(ctx context.Context, owner workload.Owner, o client.Object) (time.Duration, error) {
	done := r.kind.job != nil && ended(r.kind.job(o), o.GetGeneration())
	wish, err := r.kind.wish(ctx, &r.Pods, owner, o)
	var state workload.State
	if err == nil {
		wish.Ends, wish.Ended = r.kind.job != nil, done
		state, err = r.Engine.Apply(ctx, owner, wish)
	} else if seen, seeErr := r.see(ctx, owner); seeErr == nil {
		state = seen // what runs goes on
	}
	p, ok := asProblem(err)
	switch {
	case err != nil && !ok:
		return 0, err
	case done:
	case r.kind.job != nil:
		summarizeJob(r.kind.job(o), o, &state, p)
	default:
		summarizeService(r.kind.service(o), o, &state, p)
	}
	switch {
	case state.Retry > 0:
		return state.Retry, nil
	case p != nil || len(state.Waiting) > 0:
		return stoppingRetry, nil
	}
	return 0, nil
}

// ended tells whether a job is done with what its manifest asks now.
func ended(st *sedna.JobStatus, generation int64) bool {
	c := meta.FindStatusCondition(st.Conditions, sedna.ConditionReady)
	return st.CompletionTime != nil && c != nil && c.ObservedGeneration == generation
}

// tally counts workers by their health.
type tally struct {
	total, active, succeeded, failed int32
	unwell                           string // what is wrong with one of them, a failed one if there is
}

func count(state *workload.State) tally {
	var t tally
	for _, w := range state.Reports() {
		t.total++
		switch w.Health {
		case workload.Active:
			t.active++
		case workload.Succeeded:
			t.succeeded++
		case workload.Failed:
			if t.failed++; t.failed == 1 {
				t.unwell = w.Message
			}
		case workload.Starting:
			if t.unwell == "" {
				t.unwell = w.Message
			}
		}
	}
	if t.failed == 0 && len(state.Waiting) > 0 {
		t.unwell = fmt.Sprintf("the predecessor of %s is still on its way out", state.Waiting[0])
	}
	return t
}

// summarizeService fills in phase, counts and the Ready condition. A worker
// that failed is made again: no phase is the last one.
func summarizeService(st *sedna.ServiceStatus, o client.Object, state *workload.State, p *problem) {
	began(&st.StartTime, o)
	t := count(state)
	st.Active, st.Failed = t.active, t.failed
	message := fmt.Sprintf("%d of %d workers serve", t.active, t.total)
	switch {
	case p != nil:
		st.Phase = underWay(t)
		setReady(&st.Conditions, o.GetGeneration(), metav1.ConditionFalse, p.reason, p.message)
	case t.failed > 0:
		st.Phase = sedna.PhaseFailed
		setReady(&st.Conditions, o.GetGeneration(), metav1.ConditionFalse, sedna.ReasonFailed, t.unwell)
	case t.active == t.total:
		st.Phase = sedna.PhaseRunning
		setReady(&st.Conditions, o.GetGeneration(), metav1.ConditionTrue, sedna.ReasonServing, message)
	default:
		st.Phase = underWay(t)
		setReady(&st.Conditions, o.GetGeneration(), metav1.ConditionFalse, sedna.ReasonProgressing, join(message, t.unwell))
	}
}

// summarizeJob does the same for a job, which has an end.
func summarizeJob(st *sedna.JobStatus, o client.Object, state *workload.State, p *problem) {
	began(&st.StartTime, o)
	t := count(state)
	st.Active, st.Succeeded, st.Failed, st.CompletionTime = t.active, t.succeeded, t.failed, nil
	message := fmt.Sprintf("%d of %d workers run, %d are done", t.active, t.total, t.succeeded)
	switch {
	case p != nil:
		st.Phase = underWay(t)
		setReady(&st.Conditions, o.GetGeneration(), metav1.ConditionFalse, p.reason, p.message)
	case state.Lost > 0:
		st.Phase, st.CompletionTime = sedna.PhaseFailed, &metav1.Time{Time: state.End()}
		setReady(&st.Conditions, o.GetGeneration(), metav1.ConditionFalse, sedna.ReasonFailed, t.unwell)
	case t.succeeded == t.total:
		st.Phase, st.CompletionTime = sedna.PhaseSucceeded, &metav1.Time{Time: state.End()}
		setReady(&st.Conditions, o.GetGeneration(), metav1.ConditionTrue, reasonCompleted, fmt.Sprintf("%d workers are done", t.total))
	case t.active+t.succeeded == t.total:
		st.Phase = sedna.PhaseRunning
		setReady(&st.Conditions, o.GetGeneration(), metav1.ConditionTrue, reasonRunning, message)
	default:
		st.Phase = underWay(t)
		setReady(&st.Conditions, o.GetGeneration(), metav1.ConditionFalse, sedna.ReasonProgressing, join(message, t.unwell))
	}
}

// underWay is the phase of what is not as it should be yet.
func underWay(t tally) string {
	if t.active > 0 {
		return sedna.PhaseRunning
	}
	return sedna.PhasePending
}

func began(start **metav1.Time, o client.Object) {
	if *start == nil {
		*start = &metav1.Time{Time: o.GetCreationTimestamp().Time}
	}
}

func join(message, more string) string {
	if more == "" {
		return message
	}
	return message + "; " + more
}
