package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Types of condition that our kinds carry; one condition of each type.
const (
	// ConditionReady is True when the object does what its manifest asks.
	ConditionReady = "Ready"
)

// Reasons of conditions.
const (
	ReasonServing         = "Serving"         // every node serves
	ReasonProgressing     = "Progressing"     // some node has not confirmed the current generation
	ReasonFailed          = "Failed"          // some node reports Failed
	ReasonModelNotFound   = "ModelNotFound"   // a Model that the manifest names does not exist
	ReasonNodeNotFound    = "NodeNotFound"    // no enrolled node matches
	ReasonNeedsPodRuntime = "NeedsPodRuntime" // a template needs a cluster to run its containers
	ReasonInvalid         = "Invalid"         // the manifest asks for what cannot be
	ReasonStopping        = "Stopping"        // deleted, nodes have yet to confirm
	ReasonAvailable       = "Available"       // a Model's file can be fetched
	ReasonNotStored       = "NotStored"       // a Model's blob is not in the blob store
	ReasonReadByNodes     = "ReadByNodes"     // the nodes read the Model's url themselves, the cloud cannot tell
)

// LocalObjectReference names an object in the same namespace.
type LocalObjectReference struct {
	// Name of the object.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// Parameter is one parameter of an algorithm; the value is text.
type Parameter struct {
	// Key of the parameter.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Key string `json:"key"`
	// Value of the parameter, quoted: "0.9".
	// +kubebuilder:validation:MaxLength=1024
	Value string `json:"value"`
}

// Metric is a named value.
type Metric struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

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
