package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Model is a machine-learning model that jobs and services use.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=sedna
// +kubebuilder:printcolumn:name="Format",type=string,JSONPath=`.spec.format`
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.spec.version`
// +kubebuilder:printcolumn:name="Size",type=integer,JSONPath=`.status.size`
// +kubebuilder:printcolumn:name="Digest",type=string,JSONPath=`.status.digest`,priority=1
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 63",message="metadata.name: expected a DNS label: lower-case letters, digits and '-', at most 63 characters"
type Model struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   ModelSpec   `json:"spec"`
	Status ModelStatus `json:"status,omitempty"`
}

// ModelSpec says where the model's file is and how it is used.
type ModelSpec struct {
	// URL of the model's file: blob://sha256/<hex> (what `sedna model push` makes), http(s)://…, s3://… or a path on the node.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="!self.startsWith('blob://') || self.matches('^blob://sha256/[0-9a-f]{64}$')",message="expected blob://sha256/ and 64 lower-case hex digits"
	URL string `json:"url"`
	// Format of the file, such as onnx, pb, pt or ckpt.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Format string `json:"format"`
	// DeviceSoCVersions the model was built for.
	// +kubebuilder:validation:MaxItems=32
	DeviceSoCVersions []string `json:"device_soc_versions,omitempty"`
	// CredentialName of the secret with which the url is read.
	// +kubebuilder:validation:MaxLength=253
	CredentialName string `json:"credentialName,omitempty"`

	// Version of the model, free text without ':' or ','.
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9._-]{1,63}$`
	Version string `json:"version,omitempty"`
	// SHA256 of the file, 64 hex digits; checked before use.
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{64}$`
	SHA256 string `json:"sha256,omitempty"`
	// Runtime that runs the model where no template does: onnx, builtin or worker; by default what the format asks for.
	// +kubebuilder:validation:Enum=onnx;builtin;worker
	Runtime string `json:"runtime,omitempty"`
	// Labels are the class names, in the order of the model's output.
	// +kubebuilder:validation:MaxItems=10000
	// +kubebuilder:validation:items:MaxLength=256
	Labels []string `json:"labels,omitempty"`
	// Preprocess says how an image becomes the model's input.
	Preprocess *Preprocess `json:"preprocess,omitempty"`
	// Postprocess says what the model's output is: softmax (scores that need softmax), argmax, detections or none.
	// +kubebuilder:validation:Enum=softmax;argmax;detections;none
	Postprocess string `json:"postprocess,omitempty"`
}

// Preprocess says how an image becomes the model's input.
type Preprocess struct {
	// Width of the model's input, in pixels.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=8192
	Width int `json:"width"`
	// Height of the model's input, in pixels.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=8192
	Height int `json:"height"`
	// Resize: stretch fills the frame, letterbox keeps the aspect ratio.
	// +kubebuilder:validation:Enum=stretch;letterbox
	// +kubebuilder:default=stretch
	Resize string `json:"resize,omitempty"`
	// Channels and their order.
	// +kubebuilder:validation:Enum=RGB;BGR;GRAY
	// +kubebuilder:default=RGB
	Channels string `json:"channels,omitempty"`
	// Layout of the input tensor; FLAT is [batch, width*height*channels].
	// +kubebuilder:validation:Enum=NCHW;NHWC;FLAT
	// +kubebuilder:default=NCHW
	Layout string `json:"layout,omitempty"`
	// Scale multiplies the 0…255 value first, as a decimal number; default 1.
	// +kubebuilder:validation:Pattern=`^-?[0-9]+(\.[0-9]+)?$`
	Scale string `json:"scale,omitempty"`
	// Mean is taken away per channel, as decimal numbers.
	// +kubebuilder:validation:MaxItems=4
	// +kubebuilder:validation:items:Pattern=`^-?[0-9]+(\.[0-9]+)?$`
	Mean []string `json:"mean,omitempty"`
	// Std divides per channel, as decimal numbers above 0.
	// +kubebuilder:validation:MaxItems=4
	// +kubebuilder:validation:items:Pattern=`^[0-9]+(\.[0-9]+)?$`
	Std []string `json:"std,omitempty"`
}

// ModelStatus is what is known of the model.
type ModelStatus struct {
	// Conditions, one per type: Ready.
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// UpdateTime is when metrics were last updated.
	UpdateTime *metav1.Time `json:"updateTime,omitempty"`
	// Metrics of the model.
	Metrics []Metric `json:"metrics,omitempty"`
	// Digest of the file, sha256 in hex, when known.
	Digest string `json:"digest,omitempty"`
	// Size of the file in bytes, when known.
	Size int64 `json:"size,omitempty"`
	// Versions that were seen, newest last; at most 32 are kept.
	// +kubebuilder:validation:MaxItems=32
	Versions []ModelVersion `json:"versions,omitempty"`
}

// ModelVersion is one version of a model.
type ModelVersion struct {
	Version string `json:"version"`
	// Digest of the file, sha256 in hex.
	Digest string `json:"digest,omitempty"`
	// Metrics of this version.
	Metrics []Metric `json:"metrics,omitempty"`
	// CreatedAt is when the version was first seen.
	CreatedAt metav1.Time `json:"createdAt,omitempty"`
	// From says what made it: a job, or a user's push.
	From string `json:"from,omitempty"`
	// Size of the file in bytes.
	Size int64 `json:"size,omitempty"`
	// Base is the version that training began from.
	Base string `json:"base,omitempty"`
	// Data that it was trained on: the Dataset and the digest of the shard, as name:digest.
	Data string `json:"data,omitempty"`
}

// ModelList is a list of Models.
//
// +kubebuilder:object:root=true
type ModelList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Model `json:"items"`
}
