package controllers

import (
	"context"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/edgetwin/sedna/cloud/workload"
	sedna "github.com/edgetwin/sedna/models/sedna/v1alpha1"
	"github.com/edgetwin/sedna/models/task"
)

// Kind is the kind that the controller is for.
func (r *Workers) Kind() string { return r.kind.name }

// Wish says what an object wants to have in the cluster.
func (r *Workers) Wish(ctx context.Context, o client.Object) (workload.Wish, error) {
	return r.kind.wish(ctx, &r.Pods, owned(r.kind.name, o), o)
}

// Wish says what a service wants to have in the cluster.
func (r *JointInference) Wish(ctx context.Context, s *sedna.JointInferenceService) (workload.Wish, error) {
	_, wish, err := r.plan(ctx, s, owned(task.KindJointInference, s))
	return wish, err
}

func owned(kind string, o client.Object) workload.Owner {
	return workload.Owner{Kind: kind, Namespace: o.GetNamespace(), Name: o.GetName(), UID: o.GetUID()}
}
