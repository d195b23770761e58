package task

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/edgetwin/sedna/mapper/dmi"
	pb "github.com/edgetwin/sedna/models/dmi"
	"github.com/edgetwin/sedna/models/wire"
)

// Bridge carries tasks between DMI and the bus. It is the dmi.Handler of
// protocol sedna.
type Bridge struct {
	c Config
	m counters

	wakeDesired, wakeReports chan struct{} // capacity 1

	mu      sync.Mutex
	devices map[key]*device
	topics  map[key]*retained
	synced  bool // edgecore has told at least once what there is
	session int  // counts the bus connections
}

var _ dmi.Handler = (*Bridge)(nil)

// New makes a Bridge and its subscriptions. Start the bus afterwards.
func New(c Config) (*Bridge, error) {
	if err := c.normalize(); err != nil {
		return nil, err
	}
	b := &Bridge{
		c:           c,
		wakeDesired: make(chan struct{}, 1),
		wakeReports: make(chan struct{}, 1),
		devices:     map[key]*device{},
		topics:      map[key]*retained{},
	}
	b.m = newCounters(b)
	c.Bus.OnConnect(b.connected)
	c.Bus.Subscribe(wire.TaskDesiredFilter(c.Node), 1, b.seen)
	c.Bus.Subscribe(wire.TaskReportedFilter(c.Node), 1, b.reported)
	c.Bus.Subscribe(wire.TwinUpdateResultFilter, 1, b.answered)
	c.Bus.Subscribe(wire.TwinRejected, 1, b.answered)
	return b, nil
}

// Run publishes and reports until ctx ends.
func (b *Bridge) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { b.publishLoop(ctx) })
	b.reportLoop(ctx)
	return nil
}

// Devices is the number of devices that edgecore has told of.
func (b *Bridge) Devices() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.devices)
}

// connected publishes everything anew: the broker may have lost all.
func (b *Bridge) connected() {
	b.mu.Lock()
	b.session++
	for _, r := range b.topics {
		r.done, r.mismatch, r.foreign = false, false, false
	}
	for _, d := range b.devices {
		d.announce = true
	}
	b.mu.Unlock()
	wake(b.wakeDesired)
	wake(b.wakeReports)
}

// Sync takes over everything that edgecore knows.
func (b *Bridge) Sync(_ []*pb.DeviceModel, devices []*pb.Device) {
	listed := map[key]bool{}
	for _, d := range devices {
		k := key{d.Namespace, d.Name}
		listed[k] = true
		if err := b.Upsert(d); err != nil {
			b.c.Log.Warn("device refused", "device", k.String(), "err", b.c.Metrics.Reject(doorTwin, err))
		}
	}
	b.mu.Lock()
	for k := range b.devices {
		if !listed[k] {
			b.removeLocked(k)
		}
	}
	for k := range listed {
		if d := b.devices[k]; d != nil {
			d.announce = true
		}
	}
	b.synced = true
	b.mu.Unlock()
	wake(b.wakeDesired)
	wake(b.wakeReports)
}

// Upsert takes a new or changed device.
func (b *Bridge) Upsert(d *pb.Device) error {
	k := key{d.Namespace, d.Name}
	dev, desired, err := parseDevice(d)
	if err != nil {
		return err
	}
	payload, err := encode(desired)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.devices[k]
	if old == nil {
		dev.announce = true
	} else {
		dev.inherit(old)
	}
	b.devices[k] = dev
	if dev.acknowledge() {
		b.m.acked.Inc()
	}
	if dev.cleared {
		payload = nil
	}
	if r := b.topics[k]; r == nil || !slices.Equal(r.payload, payload) {
		b.topics[k] = r.successor(payload)
		wake(b.wakeDesired)
	}
	wake(b.wakeReports)
	return nil
}

// Remove forgets the device and clears its retained message.
func (b *Bridge) Remove(ns, name string) {
	b.mu.Lock()
	b.removeLocked(key{ns, name})
	b.mu.Unlock()
	wake(b.wakeDesired)
}

func (b *Bridge) removeLocked(k key) {
	if b.devices[k] != nil {
		delete(b.devices, k)
		b.topics[k] = b.topics[k].successor(nil)
	}
}

// UpsertModel is not of interest: tasks need no model here.
func (b *Bridge) UpsertModel(*pb.DeviceModel) {}

// RemoveModel is not of interest either.
func (b *Bridge) RemoveModel(_, _ string) {}

// pendingReports counts the reports that the cloud has not acknowledged.
func (b *Bridge) pendingReports() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for d := range maps.Values(b.devices) {
		if d.report != nil {
			n++
		}
	}
	return n
}

// wake tells the loop that reads ch that there may be work.
func wake(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
