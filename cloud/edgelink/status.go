package edgelink

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strconv"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/edgetwin/sedna/lib/metrics"
	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
	"github.com/edgetwin/sedna/models/wire"
)

// stripes is the number of locks over all Devices.
const stripes = 64

// statusWriter writes DeviceStatus objects and deletes those whose Device is
// gone: an API server without a garbage collector leaves them.
type statusWriter struct {
	c       *Config
	garbage workqueue.TypedRateLimitingInterface[key] // to look at

	// A Device's lock covers the look at the cache and the write: a status is
	// not made for a Device whose status was just collected.
	locks [stripes]sync.Mutex

	mu    sync.Mutex
	known map[key]*knownStatus
}

// knownStatus is the status as we last wrote it; the cache may lag behind.
// It is guarded by the Device's lock.
type knownStatus struct {
	device types.UID
	status devices.DeviceStatusStatus
}

func newStatusWriter(c *Config) *statusWriter {
	return &statusWriter{
		c:       c,
		garbage: workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[key]()),
		known:   map[key]*knownStatus{},
	}
}

func (w *statusWriter) lock(k key) *sync.Mutex {
	h := fnv.New32a()
	_, _ = h.Write([]byte(k.String()))
	return &w.locks[h.Sum32()%stripes]
}

// write brings a report of node into the Device's status, in one patch. A
// report that is not the node's to make is refused, which is no error here.
func (w *statusWriter) write(ctx context.Context, node string, k key, r *report) error {
	l := w.lock(k)
	l.Lock()
	defer l.Unlock()
	ctx, cancel := context.WithTimeout(ctx, w.c.Limits.API)
	defer cancel()
	d := &devices.Device{}
	err := w.c.Cache.Get(ctx, k, d)
	if apierrors.IsNotFound(err) || (err == nil && d.Spec.NodeName != node) {
		w.refuse(errNotBound(k, node))
		return nil
	}
	if err != nil {
		return err
	}
	if r.uid != "" && r.uid != string(d.UID) {
		w.refuse(wire.E(wire.Stale, "uid", "a report about a predecessor of the device", ""))
		return nil
	}
	st, exists, err := w.load(ctx, k, d)
	if err != nil {
		return err
	}
	if !apply(&st.status, d, r, time.Now(), w.c.Lose.FirstReport) {
		return nil
	}
	if exists {
		err = w.patch(ctx, k, &st.status)
	}
	if !exists || apierrors.IsNotFound(err) {
		err = w.create(ctx, d, &st.status)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		delete(w.known, k) // ask the API next time
		return fmt.Errorf("status of device %s: %w", k, err)
	}
	w.known[k] = st
	return nil
}

func (w *statusWriter) refuse(err error) {
	w.c.Log.Warn("report refused", "err", w.c.Metrics.Reject(metrics.DoorEdgelink, err))
}

// load gives a copy of the status as it is, and whether the API has it. One
// that an earlier Device of the name has left is deleted.
func (w *statusWriter) load(ctx context.Context, k key, d *devices.Device) (*knownStatus, bool, error) {
	w.mu.Lock()
	st := w.known[k]
	w.mu.Unlock()
	if st != nil && st.device == d.UID {
		return &knownStatus{st.device, *st.status.DeepCopy()}, true, nil
	}
	fresh := &knownStatus{device: d.UID}
	have := &devices.DeviceStatus{}
	err := w.c.Client.Get(ctx, k, have)
	if apierrors.IsNotFound(err) {
		return fresh, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	if o := metav1.GetControllerOf(have); o != nil && o.UID != d.UID {
		err := w.c.Client.Delete(ctx, have, client.Preconditions{UID: &have.UID})
		return fresh, false, client.IgnoreNotFound(err)
	}
	fresh.status = have.Status
	return fresh, true, nil
}

func (w *statusWriter) patch(ctx context.Context, k key, st *devices.DeviceStatusStatus) error {
	body, err := json.Marshal(map[string]any{"status": st})
	if err != nil {
		return err
	}
	obj := &devices.DeviceStatus{ObjectMeta: metav1.ObjectMeta{Namespace: k.Namespace, Name: k.Name}}
	return w.c.Client.Patch(ctx, obj, client.RawPatch(types.MergePatchType, body))
}

func (w *statusWriter) create(ctx context.Context, d *devices.Device, st *devices.DeviceStatusStatus) error {
	owner := metav1.NewControllerRef(d, devices.GroupVersion.WithKind("Device"))
	obj := &devices.DeviceStatus{
		ObjectMeta: metav1.ObjectMeta{Namespace: d.Namespace, Name: d.Name, OwnerReferences: []metav1.OwnerReference{*owner}},
		Status:     *st.DeepCopy(),
	}
	err := w.c.Client.Create(ctx, obj)
	if apierrors.IsAlreadyExists(err) {
		// The cache, which was asked before, did not show it yet.
		return w.patch(ctx, client.ObjectKeyFromObject(d), st)
	}
	return err
}

// apply puts the report into the status; false when nothing in it may go
// there. Only properties that the Device declares are kept, in its order. With
// loseFirst a property's first report makes an empty entry, as in cloudcore.
func apply(st *devices.DeviceStatusStatus, d *devices.Device, r *report, now time.Time, loseFirst bool) bool {
	have := map[string]devices.Twin{}
	for _, t := range st.Twins {
		have[t.PropertyName] = t
	}
	news := false
	st.Twins = nil
	at := func(value string) devices.TwinProperty {
		return devices.TwinProperty{Value: value, Metadata: map[string]string{"timestamp": strconv.FormatInt(now.UnixMilli(), 10), "type": "string"}}
	}
	for _, p := range d.Spec.Properties {
		t, ok := have[p.Name]
		if v, reported := r.twins[p.Name]; reported && !ok && loseFirst {
			t, ok, news = devices.Twin{PropertyName: p.Name}, true, true
		} else if reported {
			t, ok, news = devices.Twin{PropertyName: p.Name, Reported: at(v.Reported), ObservedDesired: at(v.ObservedDesired)}, true, true
		}
		if ok {
			st.Twins = append(st.Twins, t)
		}
	}
	if r.state != "" {
		news = true
		st.State = r.state
		if r.state == "online" || r.state == "ok" {
			st.LastOnlineTime = now.UTC().Format(time.RFC3339)
		}
	}
	return news
}

// collect deletes statuses without a Device until the queue is shut down.
func (w *statusWriter) collect() {
	for {
		k, stop := w.garbage.Get()
		if stop {
			return
		}
		if err := w.collectOne(k); err != nil {
			w.c.Log.Warn("status without device not deleted, trying on", "device", k.String(), "err", err)
			w.garbage.AddRateLimited(k)
		} else {
			w.garbage.Forget(k)
		}
		w.garbage.Done(k)
	}
}

func (w *statusWriter) collectOne(k key) error {
	l := w.lock(k)
	l.Lock()
	defer l.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), w.c.Limits.API)
	defer cancel()
	d := &devices.Device{}
	err := w.c.Cache.Get(ctx, k, d)
	if err == nil {
		// load deletes what a predecessor has left.
		_, _, err := w.load(ctx, k, d)
		return err
	}
	if !apierrors.IsNotFound(err) {
		return err
	}
	w.mu.Lock()
	delete(w.known, k)
	w.mu.Unlock()
	obj := &devices.DeviceStatus{ObjectMeta: metav1.ObjectMeta{Namespace: k.Namespace, Name: k.Name}}
	return client.IgnoreNotFound(w.c.Client.Delete(ctx, obj))
}
