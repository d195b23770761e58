package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Phases of services and jobs.
const (
	PhasePending   = "Pending"
	PhaseRunning   = "Running"
	PhaseSucceeded = "Succeeded"
	PhaseFailed    = "Failed"
	PhaseStopping  = "Stopping"
)

// Stages of incremental and lifelong learning.
const (
	StageTrain  = "Train"
	StageEval   = "Eval"
	StageDeploy = "Deploy"
)

// Phases of a stage.
const (
	StageWaiting   = "Waiting"
	StageReady     = "Ready"
	StageStarting  = "Starting"
	StageRunning   = "Running"
	StageCompleted = "Completed"
	StageFailed    = "Failed"
)

// NodeStatus is what one node last said of its task.
type NodeStatus struct {
	// Name of the node.
	Name string `json:"name"`
	// Phase that the node reported: Pending, Preparing, Running, Succeeded, Failed or Stopped; Unknown before its first report.
	Phase string `json:"phase,omitempty"`
	// Generation of the task document that the phase is about.
	Generation int64 `json:"generation,omitempty"`
	// DesiredGeneration is the generation that the cloud last issued.
	DesiredGeneration int64 `json:"desiredGeneration,omitempty"`
	// Model that the node serves, as name:version:digest.
	Model string `json:"model,omitempty"`
	// Reason, in one word, for a phase other than Running.
	Reason string `json:"reason,omitempty"`
	// Message in words.
	Message string `json:"message,omitempty"`
	// Device is the name of the task's Device.
	Device string `json:"device,omitempty"`
	// LastReport is when the cloud took the node's latest signed report.
	LastReport *metav1.Time `json:"lastReport,omitempty"`
}

// ServiceStatus is what is known of a service.
type ServiceStatus struct {
	// Conditions, one per type: Ready.
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Phase sums up the conditions: Pending, Running, Failed or Stopping.
	Phase string `json:"phase,omitempty"`
	// StartTime is when the service was first seen.
	StartTime *metav1.Time `json:"startTime,omitempty"`
	// Active workers; of joint inference without templates those at the edge.
	// +optional
	Active int32 `json:"active"`
	// Failed workers; of joint inference without templates those at the edge.
	// +optional
	Failed int32 `json:"failed"`
	// Metrics of the service.
	// +kubebuilder:validation:MaxItems=64
	Metrics []Metric `json:"metrics,omitempty"`
	// Nodes is what each node last said.
	// +listType=map
	// +listMapKey=name
	Nodes []NodeStatus `json:"nodes,omitempty"`
}

// JobStatus is what is known of a job that runs to its end.
type JobStatus struct {
	// Conditions, one per type: Ready.
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Phase sums up the conditions: Pending, Running, Succeeded, Failed or Stopping.
	Phase string `json:"phase,omitempty"`
	// StartTime is when the job was first seen.
	StartTime *metav1.Time `json:"startTime,omitempty"`
	// CompletionTime is when the job ended.
	CompletionTime *metav1.Time `json:"completionTime,omitempty"`
	// Active workers.
	// +optional
	Active int32 `json:"active"`
	// Succeeded workers.
	// +optional
	Succeeded int32 `json:"succeeded"`
	// Failed workers.
	// +optional
	Failed int32 `json:"failed"`
	// Nodes is what each node last said.
	// +listType=map
	// +listMapKey=name
	Nodes []NodeStatus `json:"nodes,omitempty"`
}

// LearningStatus is what is known of a job that goes through its stages again
// and again.
type LearningStatus struct {
	// Conditions, one per type: Ready.
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Stage of the current round: Train, Eval or Deploy.
	Stage string `json:"stage,omitempty"`
	// Phase of the stage: Waiting, Ready, Starting, Running, Completed or Failed; Stopping when the job is deleted.
	Phase string `json:"phase,omitempty"`
	// StartTime is when the job was first seen.
	StartTime *metav1.Time `json:"startTime,omitempty"`
	// CompletionTime is when the latest round ended.
	CompletionTime *metav1.Time `json:"completionTime,omitempty"`
	// Round that runs, or ran last; the first is 1.
	Round int64 `json:"round,omitempty"`
	// Rounds that ran last, the newest last; at most 20 are kept.
	// +kubebuilder:validation:MaxItems=20
	// +listType=map
	// +listMapKey=round
	Rounds []RoundStatus `json:"rounds,omitempty"`
	// Nodes is what each node last said.
	// +listType=map
	// +listMapKey=name
	Nodes []NodeStatus `json:"nodes,omitempty"`
}

// Decisions at the end of a round.
const (
	DecisionDeployed   = "Deployed"   // the new model serves
	DecisionRejected   = "Rejected"   // the trigger of deployment did not hold
	DecisionRolledBack = "RolledBack" // deployed, then taken back
	DecisionFailed     = "Failed"     // a stage failed
)

// RoundStatus is one round of training, evaluation and deployment.
type RoundStatus struct {
	// Round is its number.
	Round int64 `json:"round"`
	// Stage that it reached: Train, Eval or Deploy.
	Stage string `json:"stage,omitempty"`
	// Phase of that stage.
	Phase string `json:"phase,omitempty"`
	// Trigger says what set the round off, such as num_of_samples or schedule.
	Trigger string `json:"trigger,omitempty"`
	// StartTime is when training was set off.
	StartTime *metav1.Time `json:"startTime,omitempty"`
	// CompletionTime is when the decision fell.
	CompletionTime *metav1.Time `json:"completionTime,omitempty"`
	// TrainSamples is how many samples it was trained on.
	TrainSamples int64 `json:"trainSamples,omitempty"`
	// EvalSamples is how many samples it was evaluated on.
	EvalSamples int64 `json:"evalSamples,omitempty"`
	// Metrics of the new model.
	// +kubebuilder:validation:MaxItems=32
	Metrics []Metric `json:"metrics,omitempty"`
	// BaseMetrics are those of the model before, on the same samples.
	// +kubebuilder:validation:MaxItems=32
	BaseMetrics []Metric `json:"baseMetrics,omitempty"`
	// Model that came out, as name:version:digest.
	Model string `json:"model,omitempty"`
	// Base is the model that training began from, as name:version:digest.
	Base string `json:"base,omitempty"`
	// Decision: Deployed, Rejected, RolledBack or Failed.
	Decision string `json:"decision,omitempty"`
	// Reason for the decision, in one word.
	Reason string `json:"reason,omitempty"`
	// Message in words.
	Message string `json:"message,omitempty"`
}
