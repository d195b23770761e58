package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// IncrementalLearningJob trains a model on new data, evaluates it against the
// model that serves, and deploys the better one, round after round.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=il,categories=sedna
// +kubebuilder:printcolumn:name="Stage",type=string,JSONPath=`.status.stage`
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Round",type=integer,JSONPath=`.status.round`
// +kubebuilder:printcolumn:name="Dataset",type=string,JSONPath=`.spec.dataset.name`,priority=1
// +kubebuilder:printcolumn:name="Model",type=string,JSONPath=`.spec.deploySpec.model.name`
// +kubebuilder:printcolumn:name="Decision",type=string,JSONPath=`.status.rounds[-1:].decision`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 63",message="metadata.name: expected a DNS label: lower-case letters, digits and '-', at most 63 characters"
type IncrementalLearningJob struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   IncrementalLearningJobSpec `json:"spec"`
	Status LearningStatus             `json:"status,omitempty"`
}

// IncrementalLearningJobSpec describes the three stages.
type IncrementalLearningJobSpec struct {
	// Dataset that grows.
	Dataset TrainingDataset `json:"dataset"`
	// InitialModel is the Model that the first round begins with.
	InitialModel LocalObjectReference `json:"initialModel"`
	// TrainSpec is the stage that trains.
	TrainSpec TrainSpec `json:"trainSpec"`
	// EvalSpec is the stage that evaluates.
	EvalSpec EvalSpec `json:"evalSpec"`
	// DeploySpec is the stage that deploys.
	DeploySpec DeploySpec `json:"deploySpec"`
	// CredentialName of the secret with which data and models are read and written.
	// +kubebuilder:validation:MaxLength=253
	CredentialName string `json:"credentialName,omitempty"`
	// OutputDir is where rounds leave their data and models: a directory on the node, or s3://….
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	OutputDir string `json:"outputDir"`
}

// EvalSpec is the stage that evaluates, by a template's worker or built in.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.template) && has(self.trainer))",message="trainer: expected without a template only"
// +kubebuilder:validation:XValidation:rule="!has(self.trainer) || has(self.trainer.plugin) || self.trainer.name in ['softmax','mlp']",message="trainer.name: expected softmax or mlp, or a plugin"
// +kubebuilder:validation:XValidation:rule="(has(self.nodeName) ? 1 : 0) + (has(self.nodeSelector) ? 1 : 0) + (has(self.template) && (has(self.template.spec.nodeName) || has(self.template.spec.nodeSelector)) ? 1 : 0) <= 1",message="nodeName: expected at most one of nodeName, nodeSelector and template.spec.nodeName (or template.spec.nodeSelector)"
type EvalSpec struct {
	// InitialEvalModel is the Model that the first round's is compared with; by default initialModel.
	InitialEvalModel *LocalObjectReference `json:"initialEvalModel,omitempty"`
	// Template of the worker's pod; without one the models are evaluated built in.
	Template *PodTemplate `json:"template,omitempty"`
	// Trainer that evaluates without a template; by default that of trainSpec.
	Trainer *Algorithm `json:"trainer,omitempty"`
	// Without a node of any kind the stage runs where the Dataset is.
	Placement `json:",inline"`
}

// DeploySpec is the stage that deploys what was trained, and serves it.
//
// +kubebuilder:validation:XValidation:rule="(has(self.nodeName) ? 1 : 0) + (has(self.nodeSelector) ? 1 : 0) + (has(self.template) && (has(self.template.spec.nodeName) || has(self.template.spec.nodeSelector)) ? 1 : 0) <= 1",message="nodeName: expected at most one of nodeName, nodeSelector and template.spec.nodeName (or template.spec.nodeSelector)"
// +kubebuilder:validation:XValidation:rule="has(self.template) || has(self.hardExampleMining.plugin) || self.hardExampleMining.name in ['Threshold','CrossEntropy','IBT','Random','CloudOnly','EdgeOnly']",message="hardExampleMining.name: without a template expected one of Threshold, CrossEntropy, IBT, Random, CloudOnly, EdgeOnly"
// +kubebuilder:validation:XValidation:rule="has(self.template) || has(self.hardExampleMining.plugin) || !has(self.hardExampleMining.parameters) || self.hardExampleMining.parameters.all(p, p.value.matches('^[0-9]+([.][0-9]+)?$'))",message="hardExampleMining.parameters: expected numbers of 0 or more, quoted as text"
// +kubebuilder:validation:XValidation:rule="!has(self.template) || self.strategy == 'replace'",message="strategy: with a template expected replace, as its worker answers by itself"
// +kubebuilder:validation:XValidation:rule="!has(self.canaryPercent) || self.strategy == 'canary'",message="canaryPercent: expected with strategy canary only"
// +kubebuilder:validation:XValidation:rule="!has(self.template) || !has(self.rollbackOn)",message="rollbackOn: expected without a template only, as its worker answers by itself"
type DeploySpec struct {
	// Model that takes the deployed versions.
	Model DeployModel `json:"model"`
	// Trigger says when the new model is deployed.
	Trigger Trigger `json:"trigger"`
	// HardExampleMining decides which samples are worth keeping. Without a template:
	// Threshold, CrossEntropy, IBT, Random, CloudOnly, EdgeOnly or a plugin.
	HardExampleMining Algorithm `json:"hardExampleMining"`
	// Template of the worker's pod; without one the LocalController serves the model.
	Template *PodTemplate `json:"template,omitempty"`
	// Without a node of any kind the model serves where the Dataset is.
	Placement `json:",inline"`

	// Strategy: replace puts the new model in the old one's place, canary gives it
	// a share of the requests first, shadow lets it answer beside the old one unseen.
	// +kubebuilder:validation:Enum=replace;canary;shadow
	// +kubebuilder:default=replace
	Strategy string `json:"strategy,omitempty"`
	// CanaryPercent is the share of requests that a canary answers; 10 by default.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=99
	CanaryPercent *int `json:"canaryPercent,omitempty"`
	// RollbackOn puts the model before back when it holds for what the new one answers.
	RollbackOn *Condition `json:"rollbackOn,omitempty"`
}

// DeployModel is the Model that takes the deployed versions.
type DeployModel struct {
	// Name of the Model.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// HotUpdateEnabled lets a template's worker load new versions by itself.
	HotUpdateEnabled bool `json:"hotUpdateEnabled,omitempty"`
	// PollPeriodSeconds between two looks of that worker for a new version.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=31536000
	// +kubebuilder:default=60
	PollPeriodSeconds int64 `json:"pollPeriodSeconds,omitempty"`
}

// IncrementalLearningJobList is a list of IncrementalLearningJobs.
//
// +kubebuilder:object:root=true
type IncrementalLearningJobList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []IncrementalLearningJob `json:"items"`
}
