package v1beta1

import (
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Device is a device, or whatever else is driven by twins, bound to one node.
//
// +kubebuilder:object:root=true
// +kubebuilder:printcolumn:name="Node",type=string,JSONPath=`.spec.nodeName`
// +kubebuilder:printcolumn:name="Model",type=string,JSONPath=`.spec.deviceModelRef.name`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Device struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec DeviceSpec `json:"spec,omitempty"`
	// Status is what the edge reported, up to KubeEdge 1.22; since 1.23 that is
	// in the DeviceStatus of the same name.
	// +optional
	Status DeviceStatusStatus `json:"status,omitzero"`
}

// DeviceSpec says what the device is, where it is bound and what is desired.
type DeviceSpec struct {
	// DeviceModelRef names the DeviceModel in the same namespace.
	DeviceModelRef *corev1.LocalObjectReference `json:"deviceModelRef,omitempty"`
	// NodeName is the node that the device is bound to.
	NodeName string `json:"nodeName,omitempty"`
	// Properties are the device's properties with desired values and visitors.
	Properties []DeviceProperty `json:"properties,omitempty"`
	// Protocol says by which protocol, and so by which mapper, the device is driven.
	Protocol ProtocolConfig `json:"protocol,omitempty"`
	// Methods are calls that applications can make.
	Methods []DeviceMethod `json:"methods,omitempty"`
}

// DeviceProperty is one property of a device.
type DeviceProperty struct {
	// Name of the property, as in the DeviceModel.
	Name string `json:"name"`
	// Desired is what the cloud wants the property to be.
	Desired *TwinProperty `json:"desired,omitempty"`
	// Visitors say how the mapper reads or writes the property.
	Visitors *VisitorConfig `json:"visitors,omitempty"`
	// ReportCycle is the time between two reports, in milliseconds.
	ReportCycle int64 `json:"reportCycle,omitempty"`
	// CollectCycle is the time between two readings, in milliseconds.
	CollectCycle int64 `json:"collectCycle,omitempty"`
	// ReportToCloud says whether readings go to the cloud.
	ReportToCloud bool `json:"reportToCloud,omitempty"`
	// PushMethod says where the mapper pushes readings.
	PushMethod *PushMethod `json:"pushMethod,omitempty"`
}

// TwinProperty is a value of a property.
type TwinProperty struct {
	// Value as text.
	Value string `json:"value"`
	// Metadata such as timestamp (milliseconds since 1970) and type.
	Metadata map[string]string `json:"metadata,omitempty"`
}

// VisitorConfig says how a property is read or written.
type VisitorConfig struct {
	// ProtocolName of the visitor.
	ProtocolName string `json:"protocolName"`
	// ConfigData is the protocol's own configuration.
	ConfigData *CustomizedValue `json:"configData,omitempty"`
}

// ProtocolConfig names the protocol of a device and its configuration.
type ProtocolConfig struct {
	// ProtocolName that a mapper registers for.
	ProtocolName string `json:"protocolName,omitempty"`
	// ConfigData is the protocol's own configuration.
	ConfigData *CustomizedValue `json:"configData,omitempty"`
}

// CustomizedValue is a free-form object.
//
// +kubebuilder:pruning:PreserveUnknownFields
// +kubebuilder:validation:Type=object
type CustomizedValue struct {
	apiextensionsv1.JSON `json:",inline"`
}

// PushMethod says where readings are pushed.
//
// +kubebuilder:pruning:PreserveUnknownFields
type PushMethod struct {
	HTTP *PushMethodHTTP `json:"http,omitempty"`
	MQTT *PushMethodMQTT `json:"mqtt,omitempty"`
}

// PushMethodHTTP pushes by HTTP POST.
type PushMethodHTTP struct {
	HostName    string `json:"hostName,omitempty"`
	Port        int64  `json:"port,omitempty"`
	RequestPath string `json:"requestPath,omitempty"`
	Timeout     int64  `json:"timeout,omitempty"`
}

// PushMethodMQTT pushes by MQTT.
type PushMethodMQTT struct {
	Address  string `json:"address,omitempty"`
	Topic    string `json:"topic,omitempty"`
	QoS      int32  `json:"qos,omitempty"`
	Retained bool   `json:"retained,omitempty"`
}

// DeviceMethod is a call that applications can make.
type DeviceMethod struct {
	Name          string   `json:"name,omitempty"`
	Description   string   `json:"description,omitempty"`
	PropertyNames []string `json:"propertyNames,omitempty"`
}

// DeviceList is a list of Devices.
//
// +kubebuilder:object:root=true
type DeviceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Device `json:"items"`
}

// DeviceModel describes a class of devices.
//
// +kubebuilder:object:root=true
type DeviceModel struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec DeviceModelSpec `json:"spec,omitempty"`
}

// DeviceModelSpec lists the properties of a class of devices.
type DeviceModelSpec struct {
	// Protocol that devices of this model speak.
	Protocol string `json:"protocol,omitempty"`
	// Properties of such devices.
	Properties []ModelProperty `json:"properties,omitempty"`
}

// ModelProperty describes one property.
type ModelProperty struct {
	Name        string `json:"name,omitempty"`
	Description string `json:"description,omitempty"`
	// +kubebuilder:validation:Enum=INT;FLOAT;DOUBLE;STRING;BOOLEAN;BYTES;STREAM
	Type string `json:"type,omitempty"`
	// +kubebuilder:validation:Enum=ReadWrite;ReadOnly
	AccessMode string `json:"accessMode,omitempty"`
	Minimum    string `json:"minimum,omitempty"`
	Maximum    string `json:"maximum,omitempty"`
	Unit       string `json:"unit,omitempty"`
}

// DeviceModelList is a list of DeviceModels.
//
// +kubebuilder:object:root=true
type DeviceModelList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []DeviceModel `json:"items"`
}

// DeviceStatus is what the edge reported of the Device of the same name, since
// KubeEdge 1.23.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:path=devicestatuses
// +kubebuilder:printcolumn:name="State",type=string,JSONPath=`.status.state`
// +kubebuilder:printcolumn:name="LastOnline",type=string,JSONPath=`.status.lastOnlineTime`
type DeviceStatus struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   DeviceStatusSpec   `json:"spec,omitempty"`
	Status DeviceStatusStatus `json:"status,omitempty"`
}

// DeviceStatusSpec is empty.
type DeviceStatusSpec struct{}

// DeviceStatusStatus holds the reported twins.
type DeviceStatusStatus struct {
	// Twins are the reported values by property.
	Twins []Twin `json:"twins,omitempty"`
	// State of the device: online, offline, ok, unknown or unhealthy.
	State string `json:"state,omitempty"`
	// LastOnlineTime in RFC 3339.
	LastOnlineTime string `json:"lastOnlineTime,omitempty"`
}

// Twin is one property as seen at the edge.
type Twin struct {
	PropertyName    string       `json:"propertyName"`
	ObservedDesired TwinProperty `json:"observedDesired,omitempty"`
	Reported        TwinProperty `json:"reported,omitempty"`
}

// DeviceStatusList is a list of DeviceStatuses.
//
// +kubebuilder:object:root=true
type DeviceStatusList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []DeviceStatus `json:"items"`
}
