package edgelink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/encoding/protojson"
	_ "google.golang.org/protobuf/types/known/wrapperspb" // configData holds wrappers in Any

	"github.com/edgetwin/sedna/lib/metrics"
	pb "github.com/edgetwin/sedna/models/dmi"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// Edge is the running edge half.
type Edge struct {
	c         Config
	store     *store
	mappers   *mappers
	twins     *twins
	uplink    *uplink
	client    *http.Client
	connected atomic.Bool
	lose      *loser
	gate      *gate
	control   net.Listener // nil: none

	ctx    context.Context // ends with Run, for handlers of the bus
	cancel context.CancelFunc
}

// New opens the store and subscribes. Start the bus and call Run afterwards.
func New(c Config) (*Edge, error) {
	if err := c.normalize(); err != nil {
		return nil, err
	}
	s, aside, err := openStore(c.Database)
	if err != nil {
		return nil, err
	}
	if aside != nil {
		c.Log.Error("edgelink store cannot be read, put aside; the cloud will send everything again", "file", c.Database+".bad", "err", aside)
	}
	e := &Edge{c: c, store: s, client: newHTTPClient(&c), lose: newLoser(c.Lose, c.Seed), gate: newGate()}
	if c.Control != "" {
		if e.control, err = net.Listen("tcp", c.Control); err != nil {
			return nil, errors.Join(fmt.Errorf("edgelink control: %w", err), s.close())
		}
	}
	e.uplink = newUplink(c.Limits, c.Metrics, e.lose)
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.mappers = &mappers{store: s, call: c.Limits.Call, log: c.Log, ctx: e.ctx, clients: map[string]*mapperClient{}}
	e.twins = &twins{e: e, values: map[key]map[string]*wire.MsgTwin{}}
	e.twins.subscribe()
	return e, nil
}

// Connected tells whether the link to the cloud is up.
func (e *Edge) Connected() bool { return e.connected.Load() }

// Run serves mappers and keeps the link until ctx ends. It fails only when the
// DMI socket cannot be made. It can be called once.
func (e *Edge) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { e.keepLinked(ctx) })
	wg.Go(func() { e.uplink.run(ctx) })
	if e.control != nil {
		wg.Go(func() { e.serveControl(ctx) })
	}
	err := e.serveDMI(ctx)
	cancel()
	wg.Wait()
	e.stopMappers()
	return errors.Join(err, e.store.close())
}

func (e *Edge) stopMappers() {
	e.mappers.mu.Lock()
	e.cancel()
	e.mappers.mu.Unlock()
	e.mappers.wg.Wait()
}

// take applies one frame of the cloud. An error means that the link has to be
// made anew: the cloud then sends everything again.
func (e *Edge) take(b []byte) error {
	f, err := wire.DecodeFrame(b)
	if err != nil {
		return e.rejectFrame(err)
	}
	switch f.Type {
	case wire.FrameModel:
		return e.takeModel(f)
	case wire.FrameDevice:
		return e.takeDevice(f)
	case wire.FrameRemove:
		return e.remove(key{f.Namespace, f.Name})
	case wire.FrameSynced:
		return e.synced(f.Devices)
	}
	return e.rejectFrame(wire.E(wire.InvalidArgument, "type", fmt.Sprintf("frame %.40q is not for the edge", string(f.Type)), ""))
}

func (e *Edge) rejectFrame(err error) error {
	return e.c.Metrics.Reject(metrics.DoorEdgelink, err)
}

func (e *Edge) takeModel(f *wire.Frame) error {
	m := &pb.DeviceModel{}
	if err := protojson.Unmarshal(f.Model, m); err != nil || !task.ValidName(m.Namespace) || !task.ValidName(m.Name) {
		return e.rejectFrame(wire.E(wire.InvalidArgument, "model", "not a device model", ""))
	}
	changed, err := e.store.putModel(m)
	if err != nil || !changed {
		return err
	}
	// A changed model reaches mappers with its devices, as UpdateDeviceModel.
	for _, k := range e.store.keys() {
		if r := e.store.device(k); r != nil && r.model() == (key{m.Namespace, m.Name}) {
			e.mappers.notify(r.protocol(), k)
		}
	}
	return nil
}

func (e *Edge) takeDevice(f *wire.Frame) error {
	d := &pb.Device{}
	if err := protojson.Unmarshal(f.Device, d); err != nil || d.Namespace != f.Namespace || d.Name != f.Name ||
		!task.ValidName(d.Namespace) || !task.ValidName(d.Name) || d.GetSpec() == nil {
		return e.rejectFrame(wire.E(wire.InvalidArgument, "device", "not a device of the frame's name", ""))
	}
	k, r := key{f.Namespace, f.Name}, newRecord(f.UID, d)
	if lost, err := e.loseDevice(k, r); err != nil || lost {
		return err
	}
	old, changed, err := e.store.putDevice(k, r)
	if err != nil || !changed {
		return err
	}
	if old != nil && old.uid != r.uid {
		e.twins.forget(k)
	}
	if old != nil && old.protocol() != r.protocol() {
		e.mappers.notify(old.protocol(), k)
	}
	e.mappers.notify(r.protocol(), k)
	return nil
}

func (e *Edge) remove(k key) error {
	if e.lose.loseRemoval() {
		return nil
	}
	old, err := e.store.removeDevice(k)
	if err != nil || old == nil {
		return err
	}
	e.twins.forget(k)
	e.mappers.notify(old.protocol(), k)
	return e.store.dropUnusedModels()
}

// synced drops what the cloud no longer has for this node.
func (e *Edge) synced(devices []string) error {
	if e.lose.endSync(); e.lose.DeleteOffline {
		return nil
	}
	listed := make(map[string]bool, len(devices))
	for _, d := range devices {
		listed[d] = true
	}
	for _, k := range append(e.store.keys(), e.store.strangers()...) {
		if !listed[k.String()] {
			if err := e.remove(k); err != nil {
				return err
			}
		}
	}
	return nil
}
