package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// LifelongLearningJob trains a model for each task that it meets, remembers
// them all in the knowledge base, and notices samples that no task explains.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=ll,categories=sedna
// +kubebuilder:printcolumn:name="Stage",type=string,JSONPath=`.status.stage`
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Round",type=integer,JSONPath=`.status.round`
// +kubebuilder:printcolumn:name="Dataset",type=string,JSONPath=`.spec.dataset.name`,priority=1
// +kubebuilder:printcolumn:name="Models",type=integer,JSONPath=`.status.knowledgeBase.AIModels.numberOfAIModels`
// +kubebuilder:printcolumn:name="Unseen",type=integer,JSONPath=`.status.knowledgeBase.samples.numberOfUnseenSample`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 63",message="metadata.name: expected a DNS label: lower-case letters, digits and '-', at most 63 characters"
type LifelongLearningJob struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   LifelongLearningJobSpec   `json:"spec"`
	Status LifelongLearningJobStatus `json:"status,omitempty"`
}

// LifelongLearningJobSpec describes the three stages.
type LifelongLearningJobSpec struct {
	// Dataset that grows.
	Dataset TrainingDataset `json:"dataset"`
	// TrainSpec is the stage that trains.
	TrainSpec TrainSpec `json:"trainSpec"`
	// EvalSpec is the stage that evaluates.
	EvalSpec LifelongEvalSpec `json:"evalSpec"`
	// DeploySpec is the stage that serves.
	DeploySpec LifelongDeploySpec `json:"deploySpec"`
	// CredentialName of the secret with which data and models are read and written.
	// +kubebuilder:validation:MaxLength=253
	CredentialName string `json:"credentialName,omitempty"`
	// OutputDir is where rounds leave their data and models: a directory on the node, or s3://….
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	OutputDir string `json:"outputDir"`
}

// LifelongEvalSpec is the stage that evaluates, by a template's worker or built in.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.template) && has(self.trainer))",message="trainer: expected without a template only"
// +kubebuilder:validation:XValidation:rule="!has(self.trainer) || has(self.trainer.plugin) || self.trainer.name in ['softmax','mlp']",message="trainer.name: expected softmax or mlp, or a plugin"
// +kubebuilder:validation:XValidation:rule="(has(self.nodeName) ? 1 : 0) + (has(self.nodeSelector) ? 1 : 0) + (has(self.template) && (has(self.template.spec.nodeName) || has(self.template.spec.nodeSelector)) ? 1 : 0) <= 1",message="nodeName: expected at most one of nodeName, nodeSelector and template.spec.nodeName (or template.spec.nodeSelector)"
type LifelongEvalSpec struct {
	// Template of the worker's pod; without one the models are evaluated built in.
	Template *PodTemplate `json:"template,omitempty"`
	// Trainer that evaluates without a template; by default that of trainSpec.
	Trainer *Algorithm `json:"trainer,omitempty"`
	// Without a node of any kind the stage runs where the Dataset is.
	Placement `json:",inline"`
}

// LifelongDeploySpec is the stage that serves the models of all tasks.
//
// +kubebuilder:validation:XValidation:rule="(has(self.nodeName) ? 1 : 0) + (has(self.nodeSelector) ? 1 : 0) + (has(self.template) && (has(self.template.spec.nodeName) || has(self.template.spec.nodeSelector)) ? 1 : 0) <= 1",message="nodeName: expected at most one of nodeName, nodeSelector and template.spec.nodeName (or template.spec.nodeSelector)"
type LifelongDeploySpec struct {
	// Template of the worker's pod; without one the LocalController serves the models.
	Template *PodTemplate `json:"template,omitempty"`
	// Without a node of any kind the models serve where the Dataset is.
	Placement `json:",inline"`
}

// LifelongLearningJobStatus is what is known of the job.
type LifelongLearningJobStatus struct {
	LearningStatus `json:",inline"`
	// KnowledgeBase sums up what was learned so far.
	KnowledgeBase *KnowledgeBase `json:"knowledgeBase,omitempty"`
}

// KnowledgeBase sums up what a job has learned.
type KnowledgeBase struct {
	// AIModels in the knowledge base.
	// +optional
	AIModels AIModels `json:"AIModels"`
	// AIClasses that the models know.
	// +optional
	AIClasses AIClasses `json:"AIClasses"`
	// Samples that no task explained.
	// +optional
	Samples Samples `json:"samples"`
	// Version of the latest snapshot.
	Version int64 `json:"version,omitempty"`
	// Digest of the latest snapshot, sha256 in hex.
	Digest string `json:"digest,omitempty"`
}

// AIModels are the models in a knowledge base.
type AIModels struct {
	// +optional
	NumberOfAIModels int `json:"numberOfAIModels"`
	// ListOfAIModels has at most 256 of them.
	// +kubebuilder:validation:MaxItems=256
	ListOfAIModels []AIModel `json:"listOfAIModels,omitempty"`
}

// AIModel is a model in a knowledge base.
type AIModel struct {
	ModelID string `json:"modelID"`
	// +optional
	AveragePrecision float32 `json:"averagePrecision"`
	// +optional
	NumberOfTrainSamples int `json:"numberOfTrainSamples"`
}

// AIClasses are the classes that the models of a knowledge base know.
type AIClasses struct {
	// +optional
	NumberOfAIClasses int `json:"numberOfAIClasses"`
	// ListOfAIClasses has at most 256 of them.
	// +kubebuilder:validation:MaxItems=256
	ListOfAIClasses []string `json:"listOfAIClasses,omitempty"`
}

// Samples counts samples that no task explained.
type Samples struct {
	// +optional
	NumberOfLabeledUnseenSample int `json:"numberOfLabeledUnseenSample"`
	// +optional
	NumberOfUnseenSample int `json:"numberOfUnseenSample"`
}

// LifelongLearningJobList is a list of LifelongLearningJobs.
//
// +kubebuilder:object:root=true
type LifelongLearningJobList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []LifelongLearningJob `json:"items"`
}
