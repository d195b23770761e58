package twin

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
	"github.com/edgetwin/sedna/models/task"
)

// TaskModel is the DeviceModel of task Devices in a namespace.
func TaskModel(namespace string) *devices.DeviceModel {
	return model(namespace, task.DeviceModel, []string{task.PropTask, task.PropSignature, task.PropNonce}, task.ReportKeys())
}

// NodeModel is the DeviceModel of node Devices in a namespace.
func NodeModel(namespace string) *devices.DeviceModel {
	return model(namespace, task.NodeDeviceModel, []string{task.PropConfig, task.PropSignature, task.PropNonce}, task.BeatKeys())
}

// model makes a DeviceModel whose properties are all text: desired ones can be
// written, reported ones only read.
func model(namespace, name string, desired, reported []string) *devices.DeviceModel {
	m := &devices.DeviceModel{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       devices.DeviceModelSpec{Protocol: task.Protocol},
	}
	for _, p := range desired {
		m.Spec.Properties = append(m.Spec.Properties, devices.ModelProperty{Name: p, Type: "STRING", AccessMode: "ReadWrite"})
	}
	for _, p := range reported {
		m.Spec.Properties = append(m.Spec.Properties, devices.ModelProperty{Name: p, Type: "STRING", AccessMode: "ReadOnly"})
	}
	return m
}

// taskProperties are the properties of a task Device. KubeEdge writes a report
// into the cloud only for properties that the Device declares.
func taskProperties(document, signature string, nonce task.Nonce) []devices.DeviceProperty {
	p := []devices.DeviceProperty{
		{Name: task.PropTask, Desired: &devices.TwinProperty{Value: document}},
		{Name: task.PropSignature, Desired: &devices.TwinProperty{Value: signature}},
		{Name: task.PropNonce, Desired: &devices.TwinProperty{Value: nonce.String()}},
	}
	return append(p, reportedProperties(task.ReportKeys())...)
}

// nodeProperties are the properties of a node Device.
func nodeProperties(nonce task.Nonce) []devices.DeviceProperty {
	p := []devices.DeviceProperty{{Name: task.PropNonce, Desired: &devices.TwinProperty{Value: nonce.String()}}}
	return append(p, reportedProperties(task.BeatKeys())...)
}

func reportedProperties(keys []string) []devices.DeviceProperty {
	var p []devices.DeviceProperty
	for _, k := range keys {
		p = append(p, devices.DeviceProperty{Name: k, ReportToCloud: true})
	}
	return p
}
