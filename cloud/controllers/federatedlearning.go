package controllers

import (
	"context"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/edgetwin/sedna/cloud/workload"
	sedna "github.com/edgetwin/sedna/models/sedna/v1alpha1"
)

const (
	workerAggregation = "Aggregation"
	workerTrain       = "train"
)

// federatedLearning are the jobs whose aggregator and clients are the user's
// own containers. They talk to each other; Sedna runs them.
var federatedLearning = kindOfWorkers{
	name:   "FederatedLearningJob",
	object: func() client.Object { return &sedna.FederatedLearningJob{} },
	list:   func() client.ObjectList { return &sedna.FederatedLearningJobList{} },
	job:    func(o client.Object) *sedna.JobStatus { return &o.(*sedna.FederatedLearningJob).Status.JobStatus },
	other: func(o client.Object) bool {
		s := &o.(*sedna.FederatedLearningJob).Spec
		if s.AggregationWorker.Template != nil {
			return false
		}
		for i := range s.TrainingWorkers {
			if s.TrainingWorkers[i].Template != nil {
				return false
			}
		}
		return true
	},
	uses: func(o client.Object, kind, name string) bool {
		s := &o.(*sedna.FederatedLearningJob).Spec
		if kind == "Model" {
			return s.AggregationWorker.Model.Name == name || s.PretrainedModel != nil && s.PretrainedModel.Name == name
		}
		for i := range s.TrainingWorkers {
			if s.TrainingWorkers[i].Dataset.Name == name {
				return true
			}
		}
		return false
	},
	wish: func(ctx context.Context, p *Pods, owner workload.Owner, o client.Object) (workload.Wish, error) {
		s := &o.(*sedna.FederatedLearningJob).Spec
		w := wisher{p: p, owner: owner, wish: workload.Wish{Retries: defaultRetries}}
		if s.AggregationWorker.Template == nil {
			return w.wish, &problem{sedna.ReasonInvalid, "spec.aggregationWorker.template: expected, as a training worker has one: either all are templates or none is"}
		}
		aggregator := w.template("spec.aggregationWorker", s.AggregationWorker.Template)
		if w.err != nil {
			return w.wish, w.err
		}
		env := map[string]string{"PARTICIPANTS_COUNT": strconv.Itoa(len(s.TrainingWorkers)), "TRANSMITTER": "ws"}
		mounts, err := p.federatedMounts(ctx, owner.Namespace, s, env)
		if err != nil {
			return w.wish, err
		}
		w.pod(workload.Worker{Type: workerAggregation, Called: "aggworker", Template: *aggregator, RestartPolicy: corev1.RestartPolicyOnFailure, Mounts: mounts,
			Env: with(env, "AGG_BIND_PORT", strconv.Itoa(portAggregator))})
		w.service(workerAggregation, portAggregator)
		env = with(env, "AGG_IP", workload.Host(owner, workerAggregation), "AGG_PORT", strconv.Itoa(portAggregator),
			"MODEL_NAME", s.AggregationWorker.Model.Name, "LC_SERVER", p.LocalController)
		for i := range s.TrainingWorkers {
			if w.err == nil {
				w.err = w.client(ctx, i, &s.TrainingWorkers[i], env, mounts)
			}
		}
		return w.wish, w.err
	},
}

// client adds the pod of one training worker.
func (w *wisher) client(ctx context.Context, i int, t *sedna.TrainingWorker, env map[string]string, mounts []workload.Mount) error {
	field := fmt.Sprintf("spec.trainingWorkers[%d]", i)
	if t.Template == nil {
		return &problem{sedna.ReasonInvalid, field + ".template: expected, as the aggregation worker has one: either all are templates or none is"}
	}
	template := w.template(field, t.Template)
	if w.err != nil {
		return w.err
	}
	place(template, t.Placement)
	data, err := w.p.dataset(ctx, w.owner.Namespace, t.Dataset.Name, "TRAIN_DATASET_URL")
	if err != nil {
		return err
	}
	w.pod(workload.Worker{Type: workerTrain, Index: i, Called: "trainworker", Template: *template, RestartPolicy: corev1.RestartPolicyOnFailure, HostNetwork: true,
		Mounts: append([]workload.Mount{data}, mounts...), Env: with(env, "DATASET_NAME", t.Dataset.Name)})
	return w.err
}

// federatedMounts gives what aggregator and clients mount alike, and puts what
// follows from the transmitter into env.
func (p *Pods) federatedMounts(ctx context.Context, namespace string, s *sedna.FederatedLearningJobSpec, env map[string]string) ([]workload.Mount, error) {
	model, err := p.model(ctx, namespace, s.AggregationWorker.Model.Name, "MODEL_URL")
	if err != nil {
		return nil, err
	}
	mounts := []workload.Mount{model}
	if s.PretrainedModel != nil && s.PretrainedModel.Name != "" {
		m, err := p.model(ctx, namespace, s.PretrainedModel.Name, "PRETRAINED_MODEL_URL")
		if err != nil {
			return nil, err
		}
		mounts = append(mounts, m)
	}
	// Of both, ws is taken, as the API says.
	if t := s.Transmitter; t != nil && t.S3 != nil && t.WS == nil {
		env["TRANSMITTER"] = "s3"
		m, err := p.mount(ctx, namespace, "AGG_DATA_PATH", t.S3.AggregationDataPath, t.S3.CredentialName, false)
		if err != nil {
			return nil, err
		}
		mounts = append(mounts, m)
	}
	return mounts, nil
}

// with gives a copy of env with more variables, name and value in turn.
func with(env map[string]string, more ...string) map[string]string {
	out := make(map[string]string, len(env)+len(more)/2)
	for k, v := range env {
		out[k] = v
	}
	for i := 0; i < len(more); i += 2 {
		out[more[i]] = more[i+1]
	}
	return out
}
