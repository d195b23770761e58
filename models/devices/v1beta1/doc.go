// Package v1beta1 holds our own types for KubeEdge's devices.kubeedge.io/v1beta1
// (Device, DeviceModel and, since KubeEdge 1.23, DeviceStatus). Objects of
// these kinds are written with patches only, so that fields unknown to these
// types are never lost.
//
// +kubebuilder:object:generate=true
// +groupName=devices.kubeedge.io
package v1beta1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion of these kinds.
var GroupVersion = schema.GroupVersion{Group: "devices.kubeedge.io", Version: "v1beta1"}

// AddToScheme registers these kinds with s.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion, &Device{}, &DeviceList{}, &DeviceModel{}, &DeviceModelList{}, &DeviceStatus{}, &DeviceStatusList{})
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
