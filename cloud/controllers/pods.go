package controllers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/edgetwin/sedna/cloud/workload"
	sedna "github.com/edgetwin/sedna/models/sedna/v1alpha1"
	"github.com/edgetwin/sedna/models/wire"
)

// AnnotationRuntime on a template says what runs its worker: process or pod.
const AnnotationRuntime = "sedna.io/runtime"

// Reasons of conditions, besides those of the API.
const (
	reasonCredential = "CredentialNotFound" // the Secret of a Model or Dataset does not exist, or names no server
	reasonDataset    = "DatasetNotFound"    // a Dataset that the manifest names does not exist
	reasonCompleted  = "Completed"          // the job has done its work
	reasonRunning    = "Running"            // the job is at work
)

// Annotations of a Secret for S3, as KubeEdge Sedna has them.
const (
	annotationEndpoint = "s3-endpoint"
	annotationHTTPS    = "s3-usehttps" // 0: plain http
)

// Pods is what the controllers share whose workers are pods.
type Pods struct {
	// Engine makes them; nil where the Kubernetes API has none.
	Engine *workload.Engine
	Render workload.Renderer
	Client client.Client
	// LocalController is where a worker finds it on its node: LC_SERVER.
	LocalController string
}

// decode reads a worker's template; field says where it stands in the manifest.
func (p *Pods) decode(field string, template *sedna.PodTemplate) (*corev1.PodTemplateSpec, error) {
	t, err := template.Decode()
	if err != nil {
		return nil, &problem{sedna.ReasonInvalid, fmt.Sprintf("%s.template: %v", field, err)}
	}
	return t, p.runnable(field, t)
}

// runnable says why the containers of a template cannot run.
func (p *Pods) runnable(field string, t *corev1.PodTemplateSpec) error {
	switch runtime := t.Annotations[AnnotationRuntime]; {
	case runtime != "" && runtime != "pod" && runtime != "process":
		return &problem{sedna.ReasonInvalid, fmt.Sprintf("%s.template.metadata.annotations[%s]: expected pod or process, got %.40q", field, AnnotationRuntime, runtime)}
	case runtime == "process":
		return &problem{sedna.ReasonNeedsPodRuntime, fmt.Sprintf("%s.template: %s is marked %s: process, and this kind's workers run as pods; take the mark away on a cluster that runs pods",
			field, workload.First(t), AnnotationRuntime)}
	case p.Engine == nil:
		return &problem{sedna.ReasonNeedsPodRuntime, fmt.Sprintf("%s.template: %s needs a cluster that runs pods", field, workload.First(t))}
	case len(t.Spec.Containers) == 0:
		return &problem{sedna.ReasonInvalid, field + ".template.spec.containers: expected a container"}
	}
	return nil
}

// see tells what an owner has in the cluster.
func (p *Pods) see(ctx context.Context, o workload.Owner) (workload.State, error) {
	if p.Engine == nil {
		return workload.State{}, nil
	}
	return p.Engine.See(ctx, o)
}

// place puts the worker where the manifest says beside the template.
func place(t *corev1.PodTemplateSpec, at sedna.Placement) {
	t.Spec.NodeName = cmp.Or(at.NodeName, t.Spec.NodeName)
	for k, v := range at.NodeSelector {
		if t.Spec.NodeSelector == nil {
			t.Spec.NodeSelector = map[string]string{}
		}
		t.Spec.NodeSelector[k] = v
	}
}

// model gives the mount of a Model's file.
func (p *Pods) model(ctx context.Context, namespace, name, env string) (workload.Mount, error) {
	m := &sedna.Model{}
	if err := p.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, m); err != nil {
		if apierrors.IsNotFound(err) {
			err = &problem{sedna.ReasonModelNotFound, fmt.Sprintf("Model %s/%s does not exist", namespace, name)}
		}
		return workload.Mount{}, err
	}
	return p.mount(ctx, namespace, env, m.Spec.URL, m.Spec.CredentialName, true)
}

// dataset gives the mount of a Dataset's data.
func (p *Pods) dataset(ctx context.Context, namespace, name, env string) (workload.Mount, error) {
	d := &sedna.Dataset{}
	if err := p.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, d); err != nil {
		if apierrors.IsNotFound(err) {
			err = &problem{reasonDataset, fmt.Sprintf("Dataset %s/%s does not exist", namespace, name)}
		}
		return workload.Mount{}, err
	}
	return p.mount(ctx, namespace, env, d.Spec.URL, d.Spec.CredentialName, true)
}

// mount gives the mount of a URL, which is fetched unless the worker writes there.
func (p *Pods) mount(ctx context.Context, namespace, env, url, credential string, fetch bool) (workload.Mount, error) {
	u := workload.URL{URL: url, Download: fetch}
	if credential != "" && strings.HasPrefix(strings.ToLower(url), "s3:") {
		c, err := p.credential(ctx, namespace, credential)
		if err != nil {
			return workload.Mount{}, err
		}
		u.Credential = c
	}
	return workload.Mount{Env: env, URLs: []workload.URL{u}}, nil
}

// credential finds out where the server of a Secret is. It asks for the
// Secret's metadata alone: the keys are for the containers, which read them
// by reference.
func (p *Pods) credential(ctx context.Context, namespace, name string) (*workload.Credential, error) {
	s := &metav1.PartialObjectMetadata{}
	s.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
	if err := p.Engine.Reader.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, s); err != nil {
		if apierrors.IsNotFound(err) {
			err = &problem{reasonCredential, fmt.Sprintf("Secret %s/%s does not exist", namespace, name)}
		}
		return nil, err
	}
	endpoint := s.Annotations[annotationEndpoint]
	if endpoint == "" {
		return nil, &problem{reasonCredential, fmt.Sprintf("Secret %s/%s: expected the annotation %s with the S3 server's host and port", namespace, name, annotationEndpoint)}
	}
	scheme := "https://"
	if s.Annotations[annotationHTTPS] == "0" {
		scheme = "http://"
	}
	return &workload.Credential{Secret: name, Endpoint: scheme + endpoint}, nil
}

// asProblem turns what a user can cure into a problem: what a manifest has
// wrong, and what the Kubernetes API refuses.
func asProblem(err error) (*problem, bool) {
	var p *problem
	var w *wire.Error
	var status apierrors.APIStatus
	switch {
	case errors.As(err, &p):
		return p, true
	case errors.As(err, &w), errors.Is(err, workload.ErrTaken):
		return &problem{sedna.ReasonInvalid, err.Error()}, true
	case errors.As(err, &status):
		if code := status.Status().Code; code == 400 || code == 403 || code == 422 {
			return &problem{sedna.ReasonInvalid, err.Error()}, true
		}
	}
	return nil, false
}
