package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// JointInferenceService answers at the edge with a small model and sends the
// hard examples to a big model in the cloud.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=ji,categories=sedna
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Edge Model",type=string,JSONPath=`.spec.edgeWorker.model.name`
// +kubebuilder:printcolumn:name="Cloud Model",type=string,JSONPath=`.spec.cloudWorker.model.name`
// +kubebuilder:printcolumn:name="Active",type=integer,JSONPath=`.status.active`
// +kubebuilder:printcolumn:name="Failed",type=integer,JSONPath=`.status.failed`,priority=1
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 63",message="metadata.name: expected a DNS label: lower-case letters, digits and '-', at most 63 characters"
type JointInferenceService struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   JointInferenceServiceSpec `json:"spec"`
	Status ServiceStatus             `json:"status,omitempty"`
}

// JointInferenceServiceSpec describes both workers.
type JointInferenceServiceSpec struct {
	EdgeWorker  EdgeWorker  `json:"edgeWorker"`
	CloudWorker CloudWorker `json:"cloudWorker"`
}

// EdgeWorker serves the small model.
//
// +kubebuilder:validation:XValidation:rule="(has(self.nodeName) ? 1 : 0) + (has(self.nodeSelector) ? 1 : 0) + (has(self.template) && (has(self.template.spec.nodeName) || has(self.template.spec.nodeSelector) || has(self.template.spec.affinity)) ? 1 : 0) == 1",message="nodeName: expected exactly one of nodeName, nodeSelector and template.spec.nodeName (or template.spec.nodeSelector)"
// +kubebuilder:validation:XValidation:rule="has(self.template) || has(self.hardExampleMining.plugin) || self.hardExampleMining.name in ['Threshold','CrossEntropy','IBT','Random','CloudOnly','EdgeOnly']",message="hardExampleMining.name: without a template expected one of Threshold, CrossEntropy, IBT, Random, CloudOnly, EdgeOnly"
// +kubebuilder:validation:XValidation:rule="has(self.template) || has(self.hardExampleMining.plugin) || !has(self.hardExampleMining.parameters) || self.hardExampleMining.parameters.all(p, p.value.matches('^[0-9]+([.][0-9]+)?$'))",message="hardExampleMining.parameters: expected numbers of 0 or more, quoted as text"
// +kubebuilder:validation:XValidation:rule="!has(self.template) || !(has(self.inputs) || has(self.resultProperty))",message="inputs: expected inputs and resultProperty only without a template; its worker reads what it wants itself"
type EdgeWorker struct {
	// Model that is served.
	Model LocalObjectReference `json:"model"`
	// HardExampleMining decides which answers are worth the cloud's opinion. Without a template:
	// Threshold, CrossEntropy, IBT, Random, CloudOnly, EdgeOnly or a plugin.
	HardExampleMining Algorithm `json:"hardExampleMining"`
	// Template of the worker's pod; without one the LocalController serves the model.
	Template *PodTemplate `json:"template,omitempty"`
	// HPA scales the worker of a template.
	// +nullable
	HPA *HPA `json:"hpa,omitempty"`

	Placement `json:",inline"`
	// OnCloudError: local answers with the edge model and says so, error answers an error.
	// +kubebuilder:validation:Enum=local;error
	// +kubebuilder:default=local
	OnCloudError string `json:"onCloudError,omitempty"`
	// Inputs feed the model from sensors, one entry for each tensor that it
	// takes; each answer goes out as a result on the bus. The first source of
	// the first entry sets the pace.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +listType=map
	// +listMapKey=tensor
	Inputs []Input `json:"inputs,omitempty"`
	// ResultProperty takes each answer to inputs and to camera frames as its value.
	ResultProperty *ResultProperty `json:"resultProperty,omitempty"`
}

// Input makes one tensor of the model from readings on the node's bus.
//
// A reading of the first source makes a row of the newest values of all
// sources, in their order; the newest window rows, the oldest first, are the
// tensor. A model whose input has the shape [batch, sources, window] gets it
// source by source.
//
// +kubebuilder:validation:XValidation:rule="!has(self.stride) || !has(self.window) || self.stride <= self.window",message="stride: expected at most window, or readings would be left out"
type Input struct {
	// Tensor is the name of the model's input.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Tensor string `json:"tensor"`
	// Sources of the values, in the order that the model expects.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Sources []InputSource `json:"sources"`
	// Window is how many rows the tensor holds.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65536
	// +kubebuilder:default=1
	Window int `json:"window,omitempty"`
	// Stride is how many new rows there are between two answers.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65536
	// +kubebuilder:default=1
	Stride int `json:"stride,omitempty"`
	// MaxAge is how old a source's newest reading may be in a row, such as 5s;
	// older counts as missing. Default: any age will do.
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1ms') && duration(self) <= duration('24h')",message="expected a duration of 1ms to 24h"
	MaxAge *metav1.Duration `json:"maxAge,omitempty"`
	// OnMissing: skip makes no row while a reading is missing; last takes the
	// last one however old it is, also when the first source is silent for
	// longer than maxAge, and the answer names what was missing.
	// +kubebuilder:validation:Enum=skip;last
	// +kubebuilder:default=skip
	OnMissing string `json:"onMissing,omitempty"`
}

// InputSource is a property of a Device on the node, or a topic of its bus.
//
// +kubebuilder:validation:XValidation:rule="has(self.topic) != has(self.device)",message="device: expected either device and property, or topic"
// +kubebuilder:validation:XValidation:rule="has(self.device) == has(self.property)",message="property: expected together with device"
// +kubebuilder:validation:XValidation:rule="!has(self.jsonPath) || has(self.topic)",message="jsonPath: expected with topic only"
type InputSource struct {
	// Device in the service's namespace; {node} stands for the node's name.
	// +kubebuilder:validation:Pattern=`^[a-z0-9{]([-a-z0-9.{}]*[a-z0-9}])?$`
	// +kubebuilder:validation:MaxLength=253
	Device string `json:"device,omitempty"`
	// Property of the Device, a number or a boolean.
	// +kubebuilder:validation:Pattern=`^[a-zA-Z0-9_.,:@-]+$`
	// +kubebuilder:validation:MaxLength=128
	Property string `json:"property,omitempty"`
	// Topic on the node's bus, without wildcards; {node} stands for the node's name.
	// sedna/{node}/infer/NAME/result stands for all results of the service NAME.
	// +kubebuilder:validation:Pattern=`^[^+#$][^+#]*$`
	// +kubebuilder:validation:MaxLength=1024
	Topic string `json:"topic,omitempty"`
	// JSONPath to the number, boolean or array of them in a message of the
	// topic, such as $.sensors[0].value; without one the message is the number itself.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	JSONPath string `json:"jsonPath,omitempty"`
}

// ResultProperty is the property of a Device that takes the answers: they show
// in its twin, and reach the device itself where the property has a visitor.
type ResultProperty struct {
	// Device in the service's namespace, on the same node; {node} stands for the node's name.
	// +kubebuilder:validation:Pattern=`^[a-z0-9{]([-a-z0-9.{}]*[a-z0-9}])?$`
	// +kubebuilder:validation:MaxLength=253
	Device string `json:"device"`
	// Property of the Device, ReadWrite where it has a visitor.
	// +kubebuilder:validation:Pattern=`^[a-zA-Z0-9_.,:@-]+$`
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Property string `json:"property"`
	// Value that is written: label of the best class, class (its index), score
	// (of the best class) or output (the first number of the first output).
	// Default: label for models whose answer is classes, else output.
	// +kubebuilder:validation:Enum=label;class;score;output
	Value string `json:"value,omitempty"`
}

// CloudWorker answers hard examples.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.template) && has(self.endpoint))",message="endpoint: expected either template or endpoint, or none of them (then the GlobalManager serves the model)"
type CloudWorker struct {
	// Model that is served.
	Model LocalObjectReference `json:"model"`
	// Template of the worker's pod; without one the GlobalManager serves the model.
	Template *PodTemplate `json:"template,omitempty"`
	// HPA scales the worker of a template.
	// +nullable
	HPA *HPA `json:"hpa,omitempty"`

	// Endpoint is the base URL of an Open Inference Protocol v2 server that serves the model under its name.
	// +kubebuilder:validation:Pattern=`^https?://[^\s]+$`
	// +kubebuilder:validation:MaxLength=2048
	Endpoint string `json:"endpoint,omitempty"`
	// TimeoutMilliseconds is how long one answer of the cloud may take.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=600000
	// +kubebuilder:default=2000
	TimeoutMilliseconds int `json:"timeoutMilliseconds,omitempty"`
	// MaxConcurrent calls to the cloud from one node; one more is answered at the edge.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1024
	// +kubebuilder:default=16
	MaxConcurrent int `json:"maxConcurrent,omitempty"`
}

// JointInferenceServiceList is a list of JointInferenceServices.
//
// +kubebuilder:object:root=true
type JointInferenceServiceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []JointInferenceService `json:"items"`
}
