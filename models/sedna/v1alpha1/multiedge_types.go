package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ObjectSearchService finds an object in the pictures of many cameras: workers
// that track, workers that compare, and one that users ask.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=objs,categories=sedna
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Active",type=integer,JSONPath=`.status.active`
// +kubebuilder:printcolumn:name="Failed",type=integer,JSONPath=`.status.failed`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 63",message="metadata.name: expected a DNS label: lower-case letters, digits and '-', at most 63 characters"
type ObjectSearchService struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   ObjectSearchServiceSpec `json:"spec"`
	Status ServiceStatus           `json:"status,omitempty"`
}

// ObjectSearchServiceSpec describes the workers.
type ObjectSearchServiceSpec struct {
	// UserWorker is what users ask.
	UserWorker TemplateWorker `json:"userWorker"`
	// TrackingWorkers follow objects.
	// +kubebuilder:validation:MaxItems=256
	TrackingWorkers []TemplateWorker `json:"trackingWorkers"`
	// ReidWorkers compare objects.
	ReidWorkers DeploymentFields `json:"reidWorkers"`
}

// TemplateWorker is a worker that runs by its template only.
type TemplateWorker struct {
	// Template of the worker's pod.
	Template PodTemplate `json:"template"`
}

// ObjectSearchServiceList is a list of ObjectSearchServices.
//
// +kubebuilder:object:root=true
type ObjectSearchServiceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ObjectSearchService `json:"items"`
}

// ObjectTrackingService follows objects through the pictures of many cameras.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=objt,categories=sedna
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Active",type=integer,JSONPath=`.status.active`
// +kubebuilder:printcolumn:name="Failed",type=integer,JSONPath=`.status.failed`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 63",message="metadata.name: expected a DNS label: lower-case letters, digits and '-', at most 63 characters"
type ObjectTrackingService struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   ObjectTrackingServiceSpec `json:"spec"`
	Status ServiceStatus             `json:"status,omitempty"`
}

// ObjectTrackingServiceSpec describes the workers.
type ObjectTrackingServiceSpec struct {
	// TrackingWorkers follow objects.
	// +kubebuilder:validation:MaxItems=256
	TrackingWorkers []TemplateWorker `json:"trackingWorkers"`
	// ReidWorkers compare objects.
	ReidWorkers DeploymentFields `json:"reidWorkers"`
}

// ObjectTrackingServiceList is a list of ObjectTrackingServices.
//
// +kubebuilder:object:root=true
type ObjectTrackingServiceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ObjectTrackingService `json:"items"`
}

// FeatureExtractionService turns detections into features, for other workers.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=fe,categories=sedna
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Model",type=string,JSONPath=`.spec.model.name`
// +kubebuilder:printcolumn:name="Active",type=integer,JSONPath=`.status.active`
// +kubebuilder:printcolumn:name="Failed",type=integer,JSONPath=`.status.failed`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 63",message="metadata.name: expected a DNS label: lower-case letters, digits and '-', at most 63 characters"
type FeatureExtractionService struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   FeatureExtractionServiceSpec `json:"spec"`
	Status ServiceStatus                `json:"status,omitempty"`
}

// FeatureExtractionServiceSpec is the spec of a Deployment with a model.
type FeatureExtractionServiceSpec struct {
	// Model that extracts.
	Model LocalObjectReference `json:"model"`
	// KafkaSupport: the worker talks to its peers through Kafka.
	KafkaSupport     bool `json:"kafkaSupport,omitempty"`
	DeploymentFields `json:",inline"`
}

// FeatureExtractionServiceList is a list of FeatureExtractionServices.
//
// +kubebuilder:object:root=true
type FeatureExtractionServiceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []FeatureExtractionService `json:"items"`
}

// VideoAnalyticsJob looks for objects in a video.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=va,categories=sedna
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Model",type=string,JSONPath=`.spec.model.name`
// +kubebuilder:printcolumn:name="Active",type=integer,JSONPath=`.status.active`
// +kubebuilder:printcolumn:name="Succeeded",type=integer,JSONPath=`.status.succeeded`
// +kubebuilder:printcolumn:name="Failed",type=integer,JSONPath=`.status.failed`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 63",message="metadata.name: expected a DNS label: lower-case letters, digits and '-', at most 63 characters"
type VideoAnalyticsJob struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   VideoAnalyticsJobSpec `json:"spec"`
	Status JobStatus             `json:"status,omitempty"`
}

// VideoAnalyticsJobSpec is the spec of a Job with a model.
type VideoAnalyticsJobSpec struct {
	// Model that detects.
	Model LocalObjectReference `json:"model"`
	// KafkaSupport: the worker talks to its peers through Kafka.
	KafkaSupport bool `json:"kafkaSupport,omitempty"`
	JobFields    `json:",inline"`
}

// VideoAnalyticsJobList is a list of VideoAnalyticsJobs.
//
// +kubebuilder:object:root=true
type VideoAnalyticsJobList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []VideoAnalyticsJob `json:"items"`
}

// ReidJob looks for the same object among those that others have detected.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=reid,categories=sedna
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Active",type=integer,JSONPath=`.status.active`
// +kubebuilder:printcolumn:name="Succeeded",type=integer,JSONPath=`.status.succeeded`
// +kubebuilder:printcolumn:name="Failed",type=integer,JSONPath=`.status.failed`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 63",message="metadata.name: expected a DNS label: lower-case letters, digits and '-', at most 63 characters"
type ReidJob struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   ReidJobSpec `json:"spec"`
	Status JobStatus   `json:"status,omitempty"`
}

// ReidJobSpec is the spec of a Job.
type ReidJobSpec struct {
	// KafkaSupport: the worker talks to its peers through Kafka.
	KafkaSupport bool `json:"kafkaSupport,omitempty"`
	JobFields    `json:",inline"`
}

// ReidJobList is a list of ReidJobs.
//
// +kubebuilder:object:root=true
type ReidJobList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ReidJob `json:"items"`
}
