package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// FederatedLearningJob trains one model on many nodes, of which none gives its
// data away.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=fl,categories=sedna
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Round",type=integer,JSONPath=`.status.round`
// +kubebuilder:printcolumn:name="Rounds",type=integer,JSONPath=`.spec.rounds`
// +kubebuilder:printcolumn:name="Model",type=string,JSONPath=`.spec.aggregationWorker.model.name`
// +kubebuilder:printcolumn:name="Active",type=integer,JSONPath=`.status.active`
// +kubebuilder:printcolumn:name="Succeeded",type=integer,JSONPath=`.status.succeeded`,priority=1
// +kubebuilder:printcolumn:name="Failed",type=integer,JSONPath=`.status.failed`,priority=1
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 63",message="metadata.name: expected a DNS label: lower-case letters, digits and '-', at most 63 characters"
type FederatedLearningJob struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   FederatedLearningJobSpec   `json:"spec"`
	Status FederatedLearningJobStatus `json:"status,omitempty"`
}

// FederatedLearningJobSpec describes who trains, and how that becomes one model.
//
// +kubebuilder:validation:XValidation:rule="has(self.aggregationWorker.template) || !has(self.aggregation) || has(self.aggregation.plugin) || self.aggregation.name in ['FedAvg','FedProx','FedAvgM','FedAdagrad','FedAdam','FedYogi','SCAFFOLD','Median','TrimmedMean','Krum','MultiKrum','MistNet']",message="aggregation.name: without an aggregationWorker.template expected one of FedAvg, FedProx, FedAvgM, FedAdagrad, FedAdam, FedYogi, SCAFFOLD, Median, TrimmedMean, Krum, MultiKrum, MistNet, or a plugin"
// +kubebuilder:validation:XValidation:rule="!has(self.privacy) || !self.privacy.secureAggregation || !has(self.aggregation) || !(self.aggregation.name in ['Median','TrimmedMean','Krum','MultiKrum','MistNet'])",message="privacy.secureAggregation: expected an aggregation of sums, such as FedAvg; this one looks at each client's update"
type FederatedLearningJobSpec struct {
	// AggregationWorker makes one model of the clients' updates.
	AggregationWorker AggregationWorker `json:"aggregationWorker"`
	// TrainingWorkers are the clients.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=1000
	TrainingWorkers []TrainingWorker `json:"trainingWorkers"`
	// PretrainedModel is the Model that training begins with.
	PretrainedModel *PretrainedModel `json:"pretrainedModel,omitempty"`
	// Transmitter says how the updates of templates' workers travel.
	Transmitter *Transmitter `json:"transmitter,omitempty"`

	// Rounds of training at most; 10 by default. A template's aggregator counts its own.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100000
	Rounds int `json:"rounds,omitempty"`
	// Aggregation of the clients' updates; FedAvg by default.
	Aggregation *Algorithm `json:"aggregation,omitempty"`
	// Clients says who takes part in a round.
	Clients *FederatedClients `json:"clients,omitempty"`
	// RoundTimeoutSeconds until a round goes on with the updates that it has.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=604800
	// +kubebuilder:default=600
	RoundTimeoutSeconds int `json:"roundTimeoutSeconds,omitempty"`
	// StopCondition ends the job before its last round.
	StopCondition *StopCondition `json:"stopCondition,omitempty"`
	// Privacy of the clients' updates.
	Privacy *Privacy `json:"privacy,omitempty"`
}

// AggregationWorker makes one model of the clients' updates.
type AggregationWorker struct {
	// Model that takes the result.
	Model LocalObjectReference `json:"model"`
	// Template of the worker's pod; without one the GlobalManager aggregates.
	Template *PodTemplate `json:"template,omitempty"`
}

// TrainingWorker is a client, or one on each node of a selector.
//
// +kubebuilder:validation:XValidation:rule="has(self.template) != has(self.trainer)",message="trainer: expected exactly one of template and trainer"
// +kubebuilder:validation:XValidation:rule="!has(self.trainer) || has(self.trainer.plugin) || self.trainer.name in ['softmax','mlp']",message="trainer.name: expected softmax or mlp, or a plugin"
// +kubebuilder:validation:XValidation:rule="(has(self.nodeName) ? 1 : 0) + (has(self.nodeSelector) ? 1 : 0) + (has(self.template) && (has(self.template.spec.nodeName) || has(self.template.spec.nodeSelector)) ? 1 : 0) <= 1",message="nodeName: expected at most one of nodeName, nodeSelector and template.spec.nodeName (or template.spec.nodeSelector)"
// +kubebuilder:validation:XValidation:rule="has(self.template) || has(self.nodeName) || has(self.nodeSelector)",message="nodeName: without a template expected nodeName or nodeSelector"
type TrainingWorker struct {
	// Dataset that the client trains on.
	Dataset LocalObjectReference `json:"dataset"`
	// Template of the worker's pod; without one the trainer runs built in.
	Template *PodTemplate `json:"template,omitempty"`
	// Trainer that runs without a template: softmax, mlp or a plugin.
	Trainer   *Algorithm `json:"trainer,omitempty"`
	Placement `json:",inline"`
}

// PretrainedModel names a Model; an empty name is none.
type PretrainedModel struct {
	// Name of the Model.
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// Transmitter says how updates travel; ws where both are there.
type Transmitter struct {
	// S3 leaves the updates in a bucket.
	S3 *S3Transmitter `json:"s3,omitempty"`
	// WS sends them to the aggregator.
	WS *WSTransmitter `json:"ws,omitempty"`
}

// S3Transmitter leaves updates in a bucket.
type S3Transmitter struct {
	// AggregationDataPath is the bucket and prefix, as s3://….
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	AggregationDataPath string `json:"aggDataPath"`
	// CredentialName of the secret with which it is read and written.
	// +kubebuilder:validation:MaxLength=253
	CredentialName string `json:"credentialName,omitempty"`
}

// WSTransmitter sends updates to the aggregator; it has no settings.
type WSTransmitter struct{}

// FederatedClients says who takes part in a round.
//
// +kubebuilder:validation:XValidation:rule="!has(self.perRound) || self.min <= self.perRound",message="min: expected at most perRound, or no round could end well"
type FederatedClients struct {
	// Min is how many updates a round needs.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100000
	// +kubebuilder:default=1
	Min int `json:"min,omitempty"`
	// PerRound is how many clients are asked in a round; all by default.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100000
	PerRound *int `json:"perRound,omitempty"`
	// Chooser of those that are asked: all, random, dataSize (more samples, more
	// often), duration (the fastest so far) or powerOfChoice (the highest loss of a random few).
	// +kubebuilder:validation:Enum=all;random;dataSize;duration;powerOfChoice
	// +kubebuilder:default=all
	Chooser string `json:"chooser,omitempty"`
}

// StopCondition ends a job once a metric of the aggregated model has reached a
// threshold, or has not become better for a number of rounds.
//
// +kubebuilder:validation:XValidation:rule="has(self.operator) == has(self.threshold)",message="threshold: expected together with operator"
// +kubebuilder:validation:XValidation:rule="has(self.operator) || has(self.patience)",message="operator: expected operator and threshold, or patience, or both"
type StopCondition struct {
	// Operator: gt or >, ge or >=, eq, = or ==, ne or !=, le or <=, lt or <.
	// +kubebuilder:validation:Pattern=`^(gt|>|ge|>=|eq|=|==|ne|!=|le|<=|lt|<)$`
	Operator string `json:"operator,omitempty"`
	// Threshold that the metric is compared with.
	Threshold *float64 `json:"threshold,omitempty"`
	// Metric by name.
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="self.matches('^[^][ ]+([[][0-9]+])?$')",message="expected a metric's name, or one of its values as name[0]"
	Metric string `json:"metric"`
	// Patience is how many rounds the metric may stay without becoming better.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100000
	Patience *int `json:"patience,omitempty"`
}

// Privacy of the clients' updates.
//
// +kubebuilder:validation:XValidation:rule="!has(self.noiseMultiplier) || self.noiseMultiplier == 0.0 || has(self.clipNorm)",message="clipNorm: expected together with noiseMultiplier, as the noise is relative to it"
type Privacy struct {
	// ClipNorm is the greatest norm of an update; longer ones are scaled down.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:ExclusiveMinimum=true
	ClipNorm *float64 `json:"clipNorm,omitempty"`
	// NoiseMultiplier times clipNorm is the standard deviation of the noise.
	// +kubebuilder:validation:Minimum=0
	NoiseMultiplier *float64 `json:"noiseMultiplier,omitempty"`
	// SecureAggregation hides each update: the aggregator sees only their sum.
	// +kubebuilder:default=false
	SecureAggregation bool `json:"secureAggregation,omitempty"`
}

// FederatedLearningJobStatus is what is known of the job.
type FederatedLearningJobStatus struct {
	JobStatus `json:",inline"`
	// Round that runs, or ran last; the first is 1.
	Round int64 `json:"round,omitempty"`
	// Clients of that round.
	Clients *ClientCounts `json:"clients,omitempty"`
	// Metrics of the aggregated model after the last round.
	// +kubebuilder:validation:MaxItems=32
	Metrics []Metric `json:"metrics,omitempty"`
	// BestRound is the round with the best model so far.
	BestRound int64 `json:"bestRound,omitempty"`
	// Model of the best round, as name:version:digest.
	Model string `json:"model,omitempty"`
	// Digest of the state after the last round, sha256 in hex.
	Digest string `json:"digest,omitempty"`
	// Epsilon that was spent so far, with delta, as decimal numbers.
	Epsilon string `json:"epsilon,omitempty"`
	// Delta that epsilon was reckoned for.
	Delta string `json:"delta,omitempty"`
}

// ClientCounts counts the clients of a round.
type ClientCounts struct {
	// Registered clients, which could be asked.
	// +optional
	Registered int `json:"registered"`
	// Selected clients, which were asked.
	// +optional
	Selected int `json:"selected"`
	// Answered with an update that was taken.
	// +optional
	Answered int `json:"answered"`
	// Dropped out, or came too late.
	// +optional
	Dropped int `json:"dropped"`
	// Rejected updates.
	// +optional
	Rejected int `json:"rejected"`
}

// FederatedLearningJobList is a list of FederatedLearningJobs.
//
// +kubebuilder:object:root=true
type FederatedLearningJobList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []FederatedLearningJob `json:"items"`
}
