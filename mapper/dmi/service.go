package dmi

import (
	"context"
	"fmt"

	pb "github.com/edgetwin/sedna/models/dmi"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// RegisterDevice is edgecore's first word of a device.
func (m *Mapper) RegisterDevice(_ context.Context, r *pb.RegisterDeviceRequest) (*pb.RegisterDeviceResponse, error) {
	if err := m.upsert(r.GetDevice()); err != nil {
		return nil, err
	}
	return &pb.RegisterDeviceResponse{DeviceName: r.Device.Name, DeviceNamespace: r.Device.Namespace}, nil
}

// UpdateDevice carries the whole device. An unknown one is taken as new:
// edgecore loses the registration of what was created while it was offline.
func (m *Mapper) UpdateDevice(_ context.Context, r *pb.UpdateDeviceRequest) (*pb.UpdateDeviceResponse, error) {
	if err := m.upsert(r.GetDevice()); err != nil {
		return nil, err
	}
	return &pb.UpdateDeviceResponse{}, nil
}

// RemoveDevice succeeds for unknown devices too.
func (m *Mapper) RemoveDevice(_ context.Context, r *pb.RemoveDeviceRequest) (*pb.RemoveDeviceResponse, error) {
	ns, name := r.GetDeviceNamespace(), r.GetDeviceName()
	if err := checkNames("device", ns, name); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.touched != nil {
		m.touched[ns+"/"+name] = nil
	}
	m.c.Handler.Remove(ns, name)
	return &pb.RemoveDeviceResponse{}, nil
}

// CreateDeviceModel comes before the first device of a model.
func (m *Mapper) CreateDeviceModel(_ context.Context, r *pb.CreateDeviceModelRequest) (*pb.CreateDeviceModelResponse, error) {
	if err := m.upsertModel(r.GetModel()); err != nil {
		return nil, err
	}
	return &pb.CreateDeviceModelResponse{DeviceModelName: r.Model.Name, DeviceModelNamespace: r.Model.Namespace}, nil
}

// UpdateDeviceModel comes before an update of a device.
func (m *Mapper) UpdateDeviceModel(_ context.Context, r *pb.UpdateDeviceModelRequest) (*pb.UpdateDeviceModelResponse, error) {
	if err := m.upsertModel(r.GetModel()); err != nil {
		return nil, err
	}
	return &pb.UpdateDeviceModelResponse{}, nil
}

// RemoveDeviceModel may come before the removal of the model's last device.
func (m *Mapper) RemoveDeviceModel(_ context.Context, r *pb.RemoveDeviceModelRequest) (*pb.RemoveDeviceModelResponse, error) {
	if err := checkNames("model", r.GetModelNamespace(), r.GetModelName()); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.c.Handler.RemoveModel(r.ModelNamespace, r.ModelName)
	return &pb.RemoveDeviceModelResponse{}, nil
}

func (m *Mapper) upsert(d *pb.Device) error {
	if err := m.check(d); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.c.Handler.Upsert(d); err != nil {
		return err
	}
	if m.touched != nil {
		m.touched[d.Namespace+"/"+d.Name] = d
	}
	return nil
}

func (m *Mapper) upsertModel(model *pb.DeviceModel) error {
	if err := checkNames("model", model.GetNamespace(), model.GetName()); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.c.Handler.UpsertModel(model)
	return nil
}

// check refuses what is not a device of our protocol.
func (m *Mapper) check(d *pb.Device) error {
	if err := checkNames("device", d.GetNamespace(), d.GetName()); err != nil {
		return err
	}
	if p := d.GetSpec().GetProtocol().GetProtocolName(); p != m.c.Protocol {
		return wire.E(wire.InvalidArgument, "device.spec.protocol", fmt.Sprintf("expected protocol %s, got %.80q", m.c.Protocol, p), "")
	}
	return nil
}

func checkNames(what, ns, name string) error {
	if !task.ValidName(ns) || !task.ValidName(name) {
		return wire.E(wire.InvalidArgument, what, fmt.Sprintf("expected a namespace and a name, got %.80q and %.80q", ns, name), "")
	}
	return nil
}
