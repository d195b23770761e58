package controllers

import (
	"context"
	"fmt"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/edgetwin/sedna/cloud/workload"
	sedna "github.com/edgetwin/sedna/models/sedna/v1alpha1"
)

// Ports of workers, as KubeEdge Sedna has them.
const (
	portBigModel   = 5000
	portFeatures   = 6000
	portVideo      = 4000
	portReid       = 9378
	portUser       = 9379
	portAggregator = 7363
)

// Types of workers: parts of the names of their objects.
const (
	workerFeatures = "fe"
	workerVideo    = "videoanalytics"
	workerReidJob  = "reid"
	workerReid     = "reidworker"
	workerUser     = "userworker"
	workerTracking = "trackingworker"
)

// WorkersOfAll gives the controllers of all kinds whose work is done by pods.
func WorkersOfAll(p Pods) []*Workers {
	var out []*Workers
	for _, k := range []kindOfWorkers{featureExtraction, videoAnalytics, reidJob, objectSearch, objectTracking, federatedLearning} {
		out = append(out, &Workers{Pods: p, kind: k})
	}
	return out
}

var featureExtraction = kindOfWorkers{
	name:    "FeatureExtractionService",
	object:  func() client.Object { return &sedna.FeatureExtractionService{} },
	list:    func() client.ObjectList { return &sedna.FeatureExtractionServiceList{} },
	service: func(o client.Object) *sedna.ServiceStatus { return &o.(*sedna.FeatureExtractionService).Status },
	uses: func(o client.Object, kind, name string) bool {
		return kind == "Model" && o.(*sedna.FeatureExtractionService).Spec.Model.Name == name
	},
	wish: func(ctx context.Context, p *Pods, owner workload.Owner, o client.Object) (workload.Wish, error) {
		s := &o.(*sedna.FeatureExtractionService).Spec
		w := wisher{p: p, owner: owner}
		model, err := w.model(ctx, "spec", &s.Template, s.Model.Name)
		if err != nil {
			return w.wish, err
		}
		w.deployment("spec", workload.Worker{Type: workerFeatures, Called: workerFeatures, Env: p.reporting(s.KafkaSupport), Mounts: []workload.Mount{model}}, s.DeploymentFields)
		w.service(workerFeatures, portFeatures)
		return w.wish, w.err
	},
}

var videoAnalytics = kindOfWorkers{
	name:   "VideoAnalyticsJob",
	object: func() client.Object { return &sedna.VideoAnalyticsJob{} },
	list:   func() client.ObjectList { return &sedna.VideoAnalyticsJobList{} },
	job:    func(o client.Object) *sedna.JobStatus { return &o.(*sedna.VideoAnalyticsJob).Status },
	uses: func(o client.Object, kind, name string) bool {
		return kind == "Model" && o.(*sedna.VideoAnalyticsJob).Spec.Model.Name == name
	},
	wish: func(ctx context.Context, p *Pods, owner workload.Owner, o client.Object) (workload.Wish, error) {
		s := &o.(*sedna.VideoAnalyticsJob).Spec
		w := wisher{p: p, owner: owner}
		model, err := w.model(ctx, "spec", &s.Template, s.Model.Name)
		if err != nil {
			return w.wish, err
		}
		env := p.reporting(s.KafkaSupport)
		env["MODEL_NAME"] = s.Model.Name
		w.job(workload.Worker{Type: workerVideo, Called: workerVideo, Env: env, Mounts: []workload.Mount{model}}, s.JobFields)
		w.service(workerVideo, portVideo)
		return w.wish, w.err
	},
}

var reidJob = kindOfWorkers{
	name:   "ReidJob",
	object: func() client.Object { return &sedna.ReidJob{} },
	list:   func() client.ObjectList { return &sedna.ReidJobList{} },
	job:    func(o client.Object) *sedna.JobStatus { return &o.(*sedna.ReidJob).Status },
	uses:   func(client.Object, string, string) bool { return false },
	wish: func(_ context.Context, p *Pods, owner workload.Owner, o client.Object) (workload.Wish, error) {
		s := &o.(*sedna.ReidJob).Spec
		w := wisher{p: p, owner: owner}
		w.job(workload.Worker{Type: workerReidJob, Called: workerReidJob, Env: p.reporting(s.KafkaSupport)}, s.JobFields)
		return w.wish, w.err
	},
}

var objectSearch = kindOfWorkers{
	name:    "ObjectSearchService",
	object:  func() client.Object { return &sedna.ObjectSearchService{} },
	list:    func() client.ObjectList { return &sedna.ObjectSearchServiceList{} },
	service: func(o client.Object) *sedna.ServiceStatus { return &o.(*sedna.ObjectSearchService).Status },
	uses:    func(client.Object, string, string) bool { return false },
	wish: func(_ context.Context, p *Pods, owner workload.Owner, o client.Object) (workload.Wish, error) {
		s := &o.(*sedna.ObjectSearchService).Spec
		w := wisher{p: p, owner: owner}
		user := workload.Worker{Type: workerUser, Called: workerUser}
		w.deployment("spec.userWorker", user, sedna.DeploymentFields{Template: s.UserWorker.Template})
		w.service(workerUser, portUser)
		w.reid(s.ReidWorkers)
		w.trackers(s.TrackingWorkers, map[string]string{
			"USERWORKER_URL": fmt.Sprintf("%s:%d", workload.Host(owner, workerUser), portUser),
			"EDGEMESH_URL":   fmt.Sprintf("%s:%d", workload.Host(owner, workerReid), portReid),
		})
		return w.wish, w.err
	},
}

var objectTracking = kindOfWorkers{
	name:    "ObjectTrackingService",
	object:  func() client.Object { return &sedna.ObjectTrackingService{} },
	list:    func() client.ObjectList { return &sedna.ObjectTrackingServiceList{} },
	service: func(o client.Object) *sedna.ServiceStatus { return &o.(*sedna.ObjectTrackingService).Status },
	uses:    func(client.Object, string, string) bool { return false },
	wish: func(_ context.Context, p *Pods, owner workload.Owner, o client.Object) (workload.Wish, error) {
		s := &o.(*sedna.ObjectTrackingService).Spec
		w := wisher{p: p, owner: owner}
		w.reid(s.ReidWorkers)
		w.trackers(s.TrackingWorkers, map[string]string{"EDGEMESH_URL": fmt.Sprintf("%s:%d", workload.Host(owner, workerReid), portReid)})
		return w.wish, w.err
	},
}

// reporting are the variables of workers that report to their LocalController.
func (p *Pods) reporting(kafka bool) map[string]string {
	env := map[string]string{"LC_SERVER": p.LocalController}
	if kafka {
		env["KAFKA_ENABLED"] = "true"
	}
	return env
}

// wisher gathers a wish; after an error, which is the first one, it makes no more.
type wisher struct {
	p     *Pods
	owner workload.Owner
	wish  workload.Wish
	err   error
}

// template reads a template, unless there was an error before.
func (w *wisher) template(field string, template *sedna.PodTemplate) *corev1.PodTemplateSpec {
	if w.err != nil {
		return nil
	}
	var t *corev1.PodTemplateSpec
	t, w.err = w.p.decode(field, template)
	return t
}

// model gives the mount of a Model, once it is known that the template can run.
func (w *wisher) model(ctx context.Context, field string, template *sedna.PodTemplate, name string) (workload.Mount, error) {
	if w.template(field, template); w.err != nil {
		return workload.Mount{}, w.err
	}
	return w.p.model(ctx, w.owner.Namespace, name, "MODEL_URL")
}

// deployment adds a Deployment; the worker's template is that of the fields.
func (w *wisher) deployment(field string, worker workload.Worker, fields sedna.DeploymentFields) {
	if w.template(field, &fields.Template); w.err != nil {
		return
	}
	spec, err := fields.Decode()
	if err != nil {
		w.err = &problem{sedna.ReasonInvalid, fmt.Sprintf("%s: %v", field, err)}
		return
	}
	worker.Template = spec.Template
	w.add(worker, *spec, nil)
}

// add adds a Deployment and, with hpa, its autoscaler.
func (w *wisher) add(worker workload.Worker, spec appsv1.DeploymentSpec, hpa *sedna.HPA) {
	if w.err != nil {
		return
	}
	d, err := w.p.Render.Deployment(w.owner, worker, spec, hpa != nil)
	if err != nil {
		w.err = err
		return
	}
	w.wish.Deployments = append(w.wish.Deployments, d)
	if hpa == nil {
		return
	}
	decoded, err := hpa.Decode()
	if err != nil {
		w.err = &problem{sedna.ReasonInvalid, fmt.Sprintf("%s worker: hpa: %v", worker.Type, err)}
		return
	}
	h, err := w.p.Render.Autoscaler(w.owner, worker.Type, *decoded)
	if err != nil {
		w.err = err
		return
	}
	w.wish.Autoscalers = append(w.wish.Autoscalers, h)
}

// service adds a Service.
func (w *wisher) service(workerType string, port int32) {
	if w.err != nil {
		return
	}
	var s *corev1.Service
	if s, w.err = w.p.Render.Service(w.owner, workerType, port); w.err == nil {
		w.wish.Services = append(w.wish.Services, s)
	}
}

// pod adds a pod that stands alone.
func (w *wisher) pod(worker workload.Worker) {
	if w.err != nil {
		return
	}
	var p *corev1.Pod
	if p, w.err = w.p.Render.Pod(w.owner, worker); w.err == nil {
		w.wish.Pods = append(w.wish.Pods, p)
	}
}

// job adds the pod of a Job's fields. Of these it honours, besides the
// template, backoffLimit and activeDeadlineSeconds: there is one worker.
func (w *wisher) job(worker workload.Worker, fields sedna.JobFields) {
	if w.template("spec", &fields.Template); w.err != nil {
		return
	}
	spec, err := fields.Decode()
	if err != nil {
		w.err = &problem{sedna.ReasonInvalid, fmt.Sprintf("spec: %v", err)}
		return
	}
	worker.Template, worker.RestartPolicy = spec.Template, corev1.RestartPolicyOnFailure
	if worker.Template.Spec.ActiveDeadlineSeconds == nil {
		worker.Template.Spec.ActiveDeadlineSeconds = spec.ActiveDeadlineSeconds
	}
	w.wish.Retries = defaultRetries
	if spec.BackoffLimit != nil {
		w.wish.Retries = int(*spec.BackoffLimit)
	}
	w.pod(worker)
}

// reid adds the workers that compare, and the Service before them.
func (w *wisher) reid(fields sedna.DeploymentFields) {
	w.deployment("spec.reidWorkers", workload.Worker{Type: workerReid, Called: workerReid}, fields)
	w.service(workerReid, portReid)
}

// trackers adds a pod for each tracking worker.
func (w *wisher) trackers(workers []sedna.TemplateWorker, env map[string]string) {
	for i := range workers {
		if t := w.template("spec.trackingWorkers["+strconv.Itoa(i)+"]", &workers[i].Template); t != nil {
			w.pod(workload.Worker{Type: workerTracking, Index: i, Called: workerTracking, Template: *t, Env: env})
		}
	}
}
