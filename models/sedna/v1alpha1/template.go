package v1alpha1

import (
	"encoding/json"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Object is a part of a manifest of one of Kubernetes' own types, kept as it
// was written. The definitions of our kinds check the fields that people write
// most; the rest waits for Decode, so that an object with nonsense in it can
// still be listed and watched with all others.
//
// +kubebuilder:validation:Type=object
// +kubebuilder:pruning:PreserveUnknownFields
type Object struct {
	// Raw is the part as JSON.
	Raw json.RawMessage `json:"-"`
}

// UnmarshalJSON keeps b.
func (o *Object) UnmarshalJSON(b []byte) error {
	o.Raw = append(json.RawMessage(nil), b...)
	return nil
}

// MarshalJSON gives what was kept.
func (o Object) MarshalJSON() ([]byte, error) {
	if len(o.Raw) == 0 {
		return []byte("{}"), nil
	}
	return o.Raw, nil
}

// AnnotationRuntime on a template says how its containers run.
const (
	AnnotationRuntime = "sedna.io/runtime"
	RuntimeProcess    = "process" // by their commands, as processes of the LocalController
	RuntimePod        = "pod"     // as pods of the cluster
)

// PodTemplate is the template of a worker's pod, as in a Deployment.
//
// +kubebuilder:validation:Type=object
// +kubebuilder:validation:Format=kubernetes-pod-template
type PodTemplate struct {
	Object `json:",inline"`
}

// NewPodTemplate keeps t.
func NewPodTemplate(t corev1.PodTemplateSpec) (*PodTemplate, error) {
	b, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	return &PodTemplate{Object{Raw: b}}, nil
}

// Decode reads the template; the error is a *wire.Error that names the field
// that is wrong, from the template on.
func (t *PodTemplate) Decode() (*corev1.PodTemplateSpec, error) {
	return decode[corev1.PodTemplateSpec](t)
}

// HPA is a horizontal pod autoscaler of a template's worker.
//
// +kubebuilder:validation:XValidation:rule="!has(self.minReplicas) || self.minReplicas <= self.maxReplicas",message="minReplicas: expected at most maxReplicas"
type HPA struct {
	// MinReplicas is the lower limit; 1 by default.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=2147483647
	MinReplicas *int32 `json:"minReplicas,omitempty"`
	// MaxReplicas is the upper limit.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=2147483647
	MaxReplicas int32 `json:"maxReplicas"`
	// Metrics that decide on the number of replicas, as in autoscaling/v2.
	// +kubebuilder:validation:MaxItems=64
	Metrics []MetricSpec `json:"metrics,omitempty"`
	// Behavior of scaling up and down, as in autoscaling/v2.
	Behavior *Object `json:"behavior,omitempty"`
}

// MetricSpec is a metric of an autoscaler.
//
// +kubebuilder:validation:Type=object
// +kubebuilder:validation:Format=kubernetes-metric
type MetricSpec struct {
	Object `json:",inline"`
}

// Decode reads the autoscaler; what it scales is left open.
func (h *HPA) Decode() (*autoscalingv2.HorizontalPodAutoscalerSpec, error) {
	return decode[autoscalingv2.HorizontalPodAutoscalerSpec](h)
}

// DeploymentFields are the fields of a Deployment's spec.
type DeploymentFields struct {
	// Replicas of the worker; 1 by default.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=2147483647
	Replicas *int32 `json:"replicas,omitempty"`
	// Selector of the pods; by default the labels that Sedna gives them.
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
	// Template of the worker's pod.
	Template PodTemplate `json:"template"`
	// Strategy of replacing pods.
	Strategy *Object `json:"strategy,omitempty"`
	// MinReadySeconds until a new pod counts as available.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=2147483647
	MinReadySeconds int32 `json:"minReadySeconds,omitempty"`
	// RevisionHistoryLimit is how many old ReplicaSets are kept.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=2147483647
	RevisionHistoryLimit *int32 `json:"revisionHistoryLimit,omitempty"`
	// Paused Deployments are not rolled.
	Paused bool `json:"paused,omitempty"`
	// ProgressDeadlineSeconds until a Deployment that does not progress has failed.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=2147483647
	ProgressDeadlineSeconds *int32 `json:"progressDeadlineSeconds,omitempty"`
}

// Decode reads the fields as a Deployment's spec.
func (f *DeploymentFields) Decode() (*appsv1.DeploymentSpec, error) {
	return decode[appsv1.DeploymentSpec](f)
}

// JobFields are the fields of a batch Job's spec. Sedna runs one worker; of the
// rest it honours what its kinds say.
type JobFields struct {
	// Parallelism is how many pods run at a time.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=2147483647
	Parallelism *int32 `json:"parallelism,omitempty"`
	// Completions is how many pods must succeed.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=2147483647
	Completions *int32 `json:"completions,omitempty"`
	// ActiveDeadlineSeconds is how long the job may take.
	// +kubebuilder:validation:Minimum=0
	ActiveDeadlineSeconds *int64 `json:"activeDeadlineSeconds,omitempty"`
	// PodFailurePolicy says what a failed pod means.
	PodFailurePolicy *Object `json:"podFailurePolicy,omitempty"`
	// SuccessPolicy says when the job has succeeded.
	SuccessPolicy *Object `json:"successPolicy,omitempty"`
	// BackoffLimit is how often a failed pod is tried again.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=2147483647
	BackoffLimit *int32 `json:"backoffLimit,omitempty"`
	// BackoffLimitPerIndex is the same for each index.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=2147483647
	BackoffLimitPerIndex *int32 `json:"backoffLimitPerIndex,omitempty"`
	// MaxFailedIndexes until the job has failed.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=2147483647
	MaxFailedIndexes *int32 `json:"maxFailedIndexes,omitempty"`
	// Selector of the pods.
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
	// ManualSelector says that selector was chosen by hand.
	ManualSelector *bool `json:"manualSelector,omitempty"`
	// Template of the worker's pod.
	Template PodTemplate `json:"template"`
	// TTLSecondsAfterFinished is how long a finished job is kept.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=2147483647
	TTLSecondsAfterFinished *int32 `json:"ttlSecondsAfterFinished,omitempty"`
	// CompletionMode: NonIndexed or Indexed.
	// +kubebuilder:validation:MaxLength=63
	CompletionMode *string `json:"completionMode,omitempty"`
	// Suspend keeps the job from running.
	Suspend *bool `json:"suspend,omitempty"`
	// PodReplacementPolicy says when a pod is replaced.
	// +kubebuilder:validation:MaxLength=63
	PodReplacementPolicy *string `json:"podReplacementPolicy,omitempty"`
	// ManagedBy names the controller of the job.
	// +kubebuilder:validation:MaxLength=63
	ManagedBy *string `json:"managedBy,omitempty"`
}

// Decode reads the fields as a batch Job's spec.
func (f *JobFields) Decode() (*batchv1.JobSpec, error) {
	return decode[batchv1.JobSpec](f)
}
