package controllers

import (
	"context"
	"encoding/json"
	"net"
	"net/url"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/edgetwin/sedna/cloud/workload"
	sedna "github.com/edgetwin/sedna/models/sedna/v1alpha1"
)

const (
	workerEdge  = "Edge"
	workerCloud = "Cloud"
)

// cloudWorker adds the Deployment of the big model, and the Service before it.
func (r *JointInference) cloudWorker(ctx context.Context, w *wisher, c *sedna.CloudWorker) {
	model, err := w.model(ctx, "cloudWorker", c.Template, c.Model.Name)
	if err != nil {
		w.err = err
		return
	}
	t := w.template("cloudWorker", c.Template)
	if w.err != nil {
		return
	}
	w.add(workload.Worker{Type: workerCloud, Called: "cloudworker", Template: *t, Mounts: []workload.Mount{model},
		Env: map[string]string{"BIG_MODEL_BIND_PORT": strconv.Itoa(portBigModel)}}, appsv1.DeploymentSpec{}, c.HPA)
	w.service(workerCloud, portBigModel)
}

// edgeWorker adds the Deployment of the small model. Its program finds the big
// model by host and port.
func (r *JointInference) edgeWorker(ctx context.Context, w *wisher, s *sedna.JointInferenceService, t *corev1.PodTemplateSpec) {
	e := &s.Spec.EdgeWorker
	host, port, err := bigModel(w.owner, &s.Spec.CloudWorker)
	if err != nil {
		w.err = err
		return
	}
	model, err := w.p.model(ctx, w.owner.Namespace, e.Model.Name, "MODEL_URL")
	if err != nil {
		w.err = err
		return
	}
	parameters, err := json.Marshal(e.HardExampleMining.Parameters)
	if err != nil {
		w.err = err
		return
	}
	place(t, e.Placement)
	w.add(workload.Worker{Type: workerEdge, Called: "edgeworker", Template: *t, Mounts: []workload.Mount{model}, Env: map[string]string{
		"BIG_MODEL_IP": host, "BIG_MODEL_PORT": port,
		"HEM_NAME": e.HardExampleMining.Name, "HEM_PARAMETERS": string(parameters),
		"LC_SERVER": w.p.LocalController,
	}}, appsv1.DeploymentSpec{}, e.HPA)
}

// bigModel says where an edge worker's program finds the big model.
func bigModel(o workload.Owner, c *sedna.CloudWorker) (host, port string, err error) {
	if c.Template != nil {
		return workload.Host(o, workerCloud), strconv.Itoa(portBigModel), nil
	}
	if c.Endpoint == "" {
		return "", "", &problem{sedna.ReasonInvalid, "cloudWorker: expected a template or an endpoint, as edgeWorker has a template: " +
			"a model that the GlobalManager serves answers LocalControllers, which have certificates, and not programs in pods"}
	}
	u, err := url.Parse(c.Endpoint)
	if err != nil || u.Hostname() == "" {
		return "", "", &problem{sedna.ReasonInvalid, "cloudWorker.endpoint: expected http(s)://host:port"}
	}
	if _, port, err = net.SplitHostPort(u.Host); err == nil {
		return u.Hostname(), port, nil
	}
	return u.Hostname(), map[string]string{"http": "80", "https": "443"}[u.Scheme], nil
}
