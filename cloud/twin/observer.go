package twin

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/edgetwin/sedna/lib/metrics"
	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// State is what is known of one task.
type State struct {
	Document   *task.Document // nil before the first was issued
	Nonce      task.Nonce
	Report     *task.Report // the latest that the node has signed; nil before the first
	ReportedAt time.Time    // when the cloud wrote that report
	RepeatedAt time.Time    // the same of its latest repetition
}

// Confirmed tells whether the node has said that it knows the latest document:
// for a deletion, that the task is stopped.
func (s State) Confirmed() bool {
	if s.Document == nil || s.Report == nil || s.Report.Generation < s.Document.Generation {
		return false
	}
	return s.Document.State == task.Active || s.Report.Phase == task.Stopped
}

// Observer reads what nodes report. A report counts only when it carries the
// node's signature and is newer than what was seen: whoever else writes into a
// DeviceStatus changes nothing, the last signed report stays.
type Observer struct {
	client  client.Client
	nodes   *Nodes
	metrics *metrics.Registry

	mu   sync.Mutex
	last map[types.UID]observed
}

type observed struct {
	report  task.Report
	at      time.Time
	again   time.Time // at, of the latest repetition
	refused string    // fingerprint of what was refused last, so that it is counted once
}

// NewObserver makes an Observer; metrics may be nil.
func NewObserver(c client.Client, nodes *Nodes, m *metrics.Registry) *Observer {
	return &Observer{client: c, nodes: nodes, metrics: m, last: map[types.UID]observed{}}
}

// State gives what is known of the task of d.
func (o *Observer) State(ctx context.Context, d *devices.Device) (State, error) {
	var s State
	var err error
	if s.Document, err = Document(d); err != nil {
		return s, err
	}
	if s.Nonce, err = NonceOf(d); err != nil {
		return s, err
	}
	props, at, err := reported(ctx, o.client, d, task.ReportKeys())
	if err != nil {
		return s, err
	}
	if props != nil {
		key, err := o.nodes.Key(ctx, d.Labels[task.LabelNode])
		if client.IgnoreNotFound(err) != nil && !wire.IsCode(err, wire.Unauthenticated) {
			return s, err
		}
		if key != nil {
			o.take(d.UID, key, props, at, s.Nonce.Acked)
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if seen, ok := o.last[d.UID]; ok && seen.report.Phase != "" {
		s.Report, s.ReportedAt, s.RepeatedAt = &seen.report, seen.at, seen.again
	}
	return s, nil
}

// seq gives the seq of the last report on a Device, 0 for none.
func (o *Observer) seq(uid types.UID) int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last[uid].report.Seq
}

// take verifies a report and remembers it if it is news.
func (o *Observer) take(uid types.UID, key ed25519.PublicKey, props map[string]string, at time.Time, acked int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	seen := o.last[uid]
	print := fingerprint(props)
	if seen.refused == print {
		return
	}
	r, err := verified(key, string(uid), props)
	if err == nil && (r.Seq < seen.report.Seq || r.Seq < acked) {
		err = wire.E(wire.Stale, task.PropSeq, "report "+strconv.FormatInt(r.Seq, 10)+" is older than one already seen", "")
	}
	if err != nil {
		seen.refused = print
		o.reject(err)
	} else if r.Seq > seen.report.Seq || seen.report.Phase == "" {
		seen = observed{report: r, at: at, again: at}
	} else {
		seen.again = at
	}
	o.last[uid] = seen
}

// fingerprint tells reports apart. It sums up every property: KubeEdge may
// write one report in steps, and what is not valid yet becomes so.
func fingerprint(props map[string]string) string {
	b, err := json.Marshal(props) // sorted by name
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(b)
	return string(sum[:])
}

func verified(key ed25519.PublicKey, uid string, props map[string]string) (task.Report, error) {
	if err := task.VerifyProperties(key, uid, props); err != nil {
		return task.Report{}, err
	}
	return task.ParseReport(props)
}

// Forget drops what is remembered of a Device that is gone.
func (o *Observer) Forget(uid types.UID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.last, uid)
}

// reported reads the twins of d that are named in keys, and when the edge
// wrote the report's seq. It gives nil while nothing was reported or the
// report is not complete: KubeEdge leaves the values of a property's first
// report empty.
func reported(ctx context.Context, c client.Client, d *devices.Device, keys []string) (map[string]string, time.Time, error) {
	// KubeEdge up to 1.22 writes into the Device itself, and has no DeviceStatus.
	// Where there is one, the Device's schema knows no twins.
	twins := d.Status.Twins
	if len(twins) == 0 {
		st := &devices.DeviceStatus{}
		err := c.Get(ctx, client.ObjectKeyFromObject(d), st)
		if apierrors.IsNotFound(err) || meta.IsNoMatchError(err) {
			return nil, time.Time{}, nil
		}
		if err != nil {
			return nil, time.Time{}, err
		}
		twins = st.Status.Twins
	}
	wanted := make(map[string]bool, len(keys))
	for _, k := range keys {
		wanted[k] = true
	}
	props := map[string]string{}
	var at time.Time
	for _, t := range twins {
		if !wanted[t.PropertyName] {
			continue
		}
		props[t.PropertyName] = t.Reported.Value
		if t.PropertyName == task.PropSeq {
			if ms, err := strconv.ParseInt(t.Reported.Metadata["timestamp"], 10, 64); err == nil {
				at = time.UnixMilli(ms)
			}
		}
	}
	if len(props) < len(keys) || props[task.PropSeq] == "" || props[task.PropSig] == "" {
		return nil, time.Time{}, nil
	}
	return props, at, nil
}

// sameName has a controller look at the Devices whose DeviceStatus changes. It
// watches nothing where KubeEdge, up to 1.22, has no such kind.
func sameName(mgr ctrl.Manager) (source.Source, error) {
	_, err := mgr.GetRESTMapper().RESTMapping(devices.GroupVersion.WithKind("DeviceStatus").GroupKind(), devices.GroupVersion.Version)
	if meta.IsNoMatchError(err) {
		return source.Func(func(context.Context, workqueue.TypedRateLimitingInterface[reconcile.Request]) error { return nil }), nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for DeviceStatus: %w", err)
	}
	return source.Kind(mgr.GetCache(), &devices.DeviceStatus{}, handler.TypedEnqueueRequestsFromMapFunc(
		func(_ context.Context, s *devices.DeviceStatus) []reconcile.Request {
			return []reconcile.Request{{NamespacedName: client.ObjectKeyFromObject(s)}}
		})), nil
}

// reject counts a refused report.
func (o *Observer) reject(err error) { _ = o.metrics.Reject(metrics.DoorTwin, err) }
