package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Dataset is data on one node.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=sedna
// +kubebuilder:printcolumn:name="Node",type=string,JSONPath=`.spec.nodeName`
// +kubebuilder:printcolumn:name="Format",type=string,JSONPath=`.spec.format`
// +kubebuilder:printcolumn:name="Samples",type=integer,JSONPath=`.status.numberOfSamples`
// +kubebuilder:printcolumn:name="Updated",type=date,JSONPath=`.status.updateTime`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="URL",type=string,JSONPath=`.spec.url`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Dataset struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   DatasetSpec   `json:"spec"`
	Status DatasetStatus `json:"status,omitempty"`
}

// DatasetSpec says where the data is.
type DatasetSpec struct {
	// URL of the data: a path on the node, http(s)://… or s3://….
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	URL string `json:"url"`
	// Format of the data, such as csv or txt.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Format string `json:"format"`
	// NodeName is the node that the data is on.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	NodeName string `json:"nodeName"`
	// CredentialName of the secret with which the url is read.
	// +kubebuilder:validation:MaxLength=253
	CredentialName string `json:"credentialName,omitempty"`
}

// DatasetStatus is what is known of the data.
type DatasetStatus struct {
	// Conditions, one per type.
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// UpdateTime is when the number of samples was last updated.
	UpdateTime *metav1.Time `json:"updateTime,omitempty"`
	// NumberOfSamples in the data.
	// +optional
	NumberOfSamples int `json:"numberOfSamples"`
	// Size of the data in bytes.
	Size int64 `json:"size,omitempty"`
	// Columns of a table, with their statistics; at most the first 256.
	// +kubebuilder:validation:MaxItems=256
	Columns []DatasetColumn `json:"columns,omitempty"`
	// Classes of the samples, where they are known; at most the 256 largest.
	// +kubebuilder:validation:MaxItems=256
	Classes []DatasetClass `json:"classes,omitempty"`
	// Nodes is what the node last said.
	// +listType=map
	// +listMapKey=name
	Nodes []NodeStatus `json:"nodes,omitempty"`
}

// DatasetColumn is a column of a table; its statistics are decimal numbers.
type DatasetColumn struct {
	Name string `json:"name"`
	// Type of the values: number, text or boolean.
	Type string `json:"type,omitempty"`
	// Missing values.
	Missing int64 `json:"missing,omitempty"`
	// Min is the least number.
	Min string `json:"min,omitempty"`
	// Max is the greatest number.
	Max string `json:"max,omitempty"`
	// Mean of the numbers.
	Mean string `json:"mean,omitempty"`
	// Std is the standard deviation of the numbers.
	Std string `json:"std,omitempty"`
}

// DatasetClass counts the samples of one class.
type DatasetClass struct {
	Name    string `json:"name"`
	Samples int64  `json:"samples"`
}

// DatasetList is a list of Datasets.
//
// +kubebuilder:object:root=true
type DatasetList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Dataset `json:"items"`
}
