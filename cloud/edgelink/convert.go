package edgelink

import (
	"bytes"
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
	pb "github.com/edgetwin/sedna/models/dmi"
)

// toDevice gives the DMI form of a Device. Like cloudcore it fills unset
// desired values and visitors with empty messages.
func toDevice(d *devices.Device) (*pb.Device, error) {
	spec := &pb.DeviceSpec{DeviceModelReference: modelKey(d).Name, Protocol: &pb.ProtocolConfig{ProtocolName: d.Spec.Protocol.ProtocolName}}
	var err error
	if spec.Protocol.ConfigData, err = toCustomized(d.Spec.Protocol.ConfigData); err != nil {
		return nil, fmt.Errorf("spec.protocol.configData: %w", err)
	}
	for i := range d.Spec.Properties {
		p, err := toProperty(&d.Spec.Properties[i])
		if err != nil {
			return nil, fmt.Errorf("spec.properties[%d].visitors.configData: %w", i, err)
		}
		spec.Properties = append(spec.Properties, p)
	}
	for _, m := range d.Spec.Methods {
		spec.Methods = append(spec.Methods, &pb.DeviceMethod{Name: m.Name, Description: m.Description, PropertyNames: m.PropertyNames})
	}
	return &pb.Device{Namespace: d.Namespace, Name: d.Name, Spec: spec, Status: &pb.DeviceStatus{}}, nil
}

func toProperty(p *devices.DeviceProperty) (*pb.DeviceProperty, error) {
	out := &pb.DeviceProperty{
		Name: p.Name, Desired: &pb.TwinProperty{}, Visitors: &pb.VisitorConfig{},
		ReportCycle: p.ReportCycle, CollectCycle: p.CollectCycle, ReportToCloud: p.ReportToCloud,
	}
	if p.Desired != nil {
		out.Desired = &pb.TwinProperty{Value: p.Desired.Value, Metadata: p.Desired.Metadata}
	}
	if p.Visitors != nil {
		data, err := toCustomized(p.Visitors.ConfigData)
		if err != nil {
			return nil, err
		}
		out.Visitors = &pb.VisitorConfig{ProtocolName: p.Visitors.ProtocolName, ConfigData: data}
	}
	if m := p.PushMethod; m != nil {
		out.PushMethod = &pb.PushMethod{}
		if h := m.HTTP; h != nil {
			out.PushMethod.Http = &pb.PushMethodHTTP{Hostname: h.HostName, Port: h.Port, Requestpath: h.RequestPath, Timeout: h.Timeout}
		}
		if q := m.MQTT; q != nil {
			out.PushMethod.Mqtt = &pb.PushMethodMQTT{Address: q.Address, Topic: q.Topic, Qos: q.QoS, Retained: q.Retained}
		}
	}
	return out, nil
}

// toCustomized wraps each value of a free-form object: texts, booleans, whole
// numbers and fractions as protobuf's wrappers, anything nested as JSON text.
func toCustomized(v *devices.CustomizedValue) (*pb.CustomizedValue, error) {
	if v == nil || len(v.Raw) == 0 {
		return nil, nil
	}
	dec := json.NewDecoder(bytes.NewReader(v.Raw))
	dec.UseNumber()
	var fields map[string]any
	if err := dec.Decode(&fields); err != nil {
		return nil, err
	}
	out := &pb.CustomizedValue{Data: make(map[string]*anypb.Any, len(fields))}
	for name, f := range fields {
		m, err := toWrapper(f)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if out.Data[name], err = anypb.New(m); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return out, nil
}

func toWrapper(v any) (proto.Message, error) {
	switch v := v.(type) {
	case string:
		return wrapperspb.String(v), nil
	case bool:
		return wrapperspb.Bool(v), nil
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return wrapperspb.Int64(n), nil
		}
		f, err := v.Float64()
		return wrapperspb.Double(f), err
	}
	b, err := json.Marshal(v)
	return wrapperspb.String(string(b)), err
}

// toModel gives the DMI form of a DeviceModel.
func toModel(m *devices.DeviceModel) *pb.DeviceModel {
	spec := &pb.DeviceModelSpec{}
	for _, p := range m.Spec.Properties {
		spec.Properties = append(spec.Properties, &pb.ModelProperty{
			Name: p.Name, Description: p.Description, Type: p.Type, AccessMode: p.AccessMode,
			Minimum: p.Minimum, Maximum: p.Maximum, Unit: p.Unit,
		})
	}
	return &pb.DeviceModel{Namespace: m.Namespace, Name: m.Name, Spec: spec}
}
