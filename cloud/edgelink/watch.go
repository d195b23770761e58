package edgelink

import (
	"context"
	"errors"
	"fmt"

	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
)

// watch follows Devices, DeviceModels and then DeviceStatuses, and returns
// when everything that exists was seen. unwatch is never nil.
func (s *Server) watch(ctx context.Context) (unwatch func(), err error) {
	var undo []func()
	unwatch = func() {
		for _, f := range undo {
			f()
		}
	}
	follow := func(obj client.Object, h toolscache.ResourceEventHandlerFuncs) error {
		inf, err := s.c.Cache.GetInformer(ctx, obj)
		if err != nil {
			return fmt.Errorf("edgelink: watch %T: %w", obj, err)
		}
		reg, err := inf.AddEventHandler(h)
		if err != nil {
			return fmt.Errorf("edgelink: watch %T: %w", obj, err)
		}
		undo = append(undo, func() { _ = inf.RemoveEventHandler(reg) })
		if !toolscache.WaitForCacheSync(ctx.Done(), reg.HasSynced) {
			return errors.New("edgelink: stopped before everything was seen")
		}
		return nil
	}
	err = follow(&devices.DeviceModel{}, toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { s.modelChanged(nil, o) },
		UpdateFunc: s.modelChanged,
	})
	if err == nil {
		err = follow(&devices.Device{}, toolscache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { s.deviceChanged(nil, o) },
			UpdateFunc: s.deviceChanged,
			DeleteFunc: s.deviceDeleted,
		})
	}
	if err == nil {
		// Devices are known by now, so a status without one is garbage.
		err = follow(&devices.DeviceStatus{}, toolscache.ResourceEventHandlerFuncs{AddFunc: s.statusAdded})
	}
	return unwatch, err
}

func (s *Server) modelChanged(old, o any) {
	m, ok := o.(*devices.DeviceModel)
	if before, was := old.(*devices.DeviceModel); !ok || (was && before.ResourceVersion == m.ResourceVersion) {
		return
	}
	for k, node := range s.index.withModel(client.ObjectKeyFromObject(m)) {
		s.notify(node, k)
	}
}

func (s *Server) deviceChanged(old, o any) {
	d, ok := o.(*devices.Device)
	if before, was := old.(*devices.Device); !ok || (was && before.ResourceVersion == d.ResourceVersion) {
		return
	}
	k := client.ObjectKeyFromObject(d)
	if before := s.index.put(d); before != d.Spec.NodeName {
		s.left(before, k)
	}
	s.notify(d.Spec.NodeName, k)
	if before, was := old.(*devices.Device); was && before.UID != d.UID {
		s.status.garbage.Add(k)
	}
}

func (s *Server) deviceDeleted(o any) {
	if gone, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
		o = gone.Obj
	}
	if d, ok := o.(*devices.Device); ok {
		k := client.ObjectKeyFromObject(d)
		s.notify(s.index.remove(k), k)
		s.status.garbage.Add(k)
	}
}

func (s *Server) statusAdded(o any) {
	if st, ok := o.(*devices.DeviceStatus); ok {
		s.status.garbage.Add(client.ObjectKeyFromObject(st))
	}
}
