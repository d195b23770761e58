package twin

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/edgetwin/sedna/lib/faults"
	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
	"github.com/edgetwin/sedna/models/task"
)

// Timings of repair; each has a default in NewController.
type Timings struct {
	RepairAfter time.Duration // an unconfirmed document is first delivered again after this long
	RepairMax   time.Duration // the longest time between two repairs
	SilentAfter time.Duration // the Device of a node that is silent for this long is bound anew
	UnboundFor  time.Duration // between taking a Device off its node and binding it again
}

// rebindEvery says which repair takes the Device off its node and binds it
// again instead of raising the nonce: membership that was lost needs it. A
// Device that never reported is bound anew at once. The repair that follows
// raises the nonce, soon: cloudcore may lose the new registration, see Unbind.
const rebindEvery = 3

// earlyRepairs are those that a beat brings forward: the ones before it may
// have been in vain because the link was down.
const earlyRepairs = 6

// Controller looks after task Devices: it acknowledges reports, repairs lost
// deliveries, and releases Devices whose tasks are stopped.
type Controller struct {
	client  client.Client
	tasks   *Tasks
	nodes   *Nodes
	obs     *Observer
	timings Timings
	now     func() time.Time
	log     *slog.Logger
	changed chan<- event.TypedGenericEvent[*devices.Device]
	poked   chan event.TypedGenericEvent[*devices.Device]

	mu      sync.Mutex
	repairs map[types.UID]repair
	unbound map[types.UID]time.Time // when a Device was first seen without a node
	acks    map[types.UID]ack
	asked   map[types.UID]int64 // seq of the last report when the node was asked for another, which then has a higher one
	told    map[types.UID]int64 // seq of the last report that was passed on to the job's controller
}

type repair struct {
	node       string
	generation int64
	count      int
	since      time.Time // when it was first seen not to be confirmed
	last, next time.Time
	rebound    bool // the last repair bound the Device anew
}

// NewController makes a Controller. Each news about a task is sent to changed,
// for the controller of the task's job.
func NewController(tasks *Tasks, nodes *Nodes, obs *Observer, t Timings, changed chan<- event.TypedGenericEvent[*devices.Device], log *slog.Logger) *Controller {
	if t.RepairAfter == 0 {
		t.RepairAfter = 10 * time.Second
	}
	if t.RepairMax == 0 {
		t.RepairMax = 10 * time.Minute
	}
	if t.SilentAfter == 0 {
		t.SilentAfter = min(15*t.RepairAfter, AliveFor)
	}
	if t.UnboundFor == 0 {
		t.UnboundFor = 3 * time.Second
	}
	return &Controller{
		client: tasks.Client, tasks: tasks, nodes: nodes, obs: obs, timings: t, now: tasks.Now, log: log,
		changed: changed, poked: make(chan event.TypedGenericEvent[*devices.Device], 1024),
		repairs: map[types.UID]repair{}, acks: map[types.UID]ack{}, asked: map[types.UID]int64{}, unbound: map[types.UID]time.Time{}, told: map[types.UID]int64{},
	}
}

// SetupWithManager registers the controller.
func (c *Controller) SetupWithManager(mgr ctrl.Manager) error {
	isTask := predicate.NewPredicateFuncs(func(o client.Object) bool { return IsTask(o.(*devices.Device)) })
	statuses, err := sameName(mgr)
	if err != nil {
		return err
	}
	return ctrl.NewControllerManagedBy(mgr).Named("task-device").
		For(&devices.Device{}, ctrlPredicate(isTask)).
		WatchesRawSource(statuses).
		WatchesRawSource(source.Channel(c.poked, &handler.TypedEnqueueRequestForObject[*devices.Device]{})).
		Complete(c)
}

// Reconcile brings one task Device forward.
func (c *Controller) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	return again(c.reconcile(ctx, req))
}

// again has what met another writer looked at anew, soon: cloudcore up to 1.22
// writes reports into the same object, so it happens all the time.
func again(r ctrl.Result, err error) (ctrl.Result, error) {
	if apierrors.IsConflict(err) {
		return ctrl.Result{RequeueAfter: 50 * time.Millisecond}, nil
	}
	return r, err
}

func (c *Controller) reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	d := &devices.Device{}
	if err := c.client.Get(ctx, req.NamespacedName, d); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !IsTask(d) {
		return ctrl.Result{}, nil
	}
	s, err := c.obs.State(ctx, d)
	if err != nil || s.Document == nil {
		return ctrl.Result{}, err
	}
	if !d.DeletionTimestamp.IsZero() {
		gone, err := c.mayGo(ctx, d, s)
		if err != nil {
			return ctrl.Result{}, err
		}
		if gone {
			c.forget(d.UID)
			return ctrl.Result{}, c.tasks.Release(ctx, d)
		}
		if s.Document.State != task.Deleted {
			// Somebody deleted the Device itself: the task ends by document all the same.
			return ctrl.Result{}, c.tasks.Stop(ctx, d)
		}
	}
	if !c.isBound(d) {
		return c.bind(ctx, d)
	}
	if s.Report != nil {
		if err := c.tell(ctx, d, s.Report.Seq); err != nil {
			return ctrl.Result{}, err
		}
		if s.Report.Seq > s.Nonce.Acked {
			s.Nonce.Acked = s.Report.Seq
			return ctrl.Result{}, c.tasks.SetNonce(ctx, d, s.Nonce)
		}
		if c.unheard(d.UID, s) {
			return ctrl.Result{}, c.Ask(ctx, d)
		}
	}
	return c.repair(ctx, d, s)
}

// ack is an acknowledgement on its way down.
type ack struct {
	seq   int64
	since time.Time // ours
	said  time.Time // when the report was made or repeated last, by the edge's clock
}

// unheard tells whether the node goes on repeating a report that was
// acknowledged a while ago: the acknowledgement was lost, and only a change of
// the nonce has it delivered again.
func (c *Controller) unheard(uid types.UID, s State) bool {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.acks[uid]
	if a.seq != s.Report.Seq {
		c.acks[uid] = ack{s.Report.Seq, now, s.RepeatedAt}
		return false
	}
	repeated := !s.RepeatedAt.Equal(a.said)
	a.said = s.RepeatedAt
	late := repeated && now.Sub(a.since) > c.timings.RepairAfter
	if late {
		a.since = now
	}
	c.acks[uid] = a
	return late
}

// mayGo tells whether nothing keeps a Device that is being deleted: its node
// has confirmed, will never be heard of again, or somebody said so.
func (c *Controller) mayGo(ctx context.Context, d *devices.Device, s State) (bool, error) {
	if d.Annotations[AnnotationForceDelete] != "" {
		return true, nil
	}
	if s.Document.State == task.Deleted && s.Confirmed() {
		return true, nil
	}
	exists, err := c.nodes.Exists(ctx, d.Labels[task.LabelNode])
	return err == nil && !exists, err
}

// tell passes a report on to the job's controller, once.
func (c *Controller) tell(ctx context.Context, d *devices.Device, seq int64) error {
	c.mu.Lock()
	known, told := c.told[d.UID]
	c.mu.Unlock()
	if told && known == seq {
		return nil
	}
	select {
	case c.changed <- event.TypedGenericEvent[*devices.Device]{Object: d.DeepCopy()}:
	case <-ctx.Done():
		return ctx.Err()
	}
	c.mu.Lock()
	c.told[d.UID] = seq
	c.mu.Unlock()
	return nil
}

// Waiting lists the nodes that have not confirmed a document for longer than a
// while.
func (c *Controller) Waiting(longer time.Duration) []string {
	limit := c.now().Add(-longer)
	nodes := map[string]bool{}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.repairs {
		if r.since.Before(limit) {
			nodes[r.node] = true
		}
	}
	return slices.Sorted(maps.Keys(nodes))
}

// repair delivers a document again that was not confirmed in time, by raising
// the nonce or by binding the Device anew. Only a node that was heard of lately
// is worth the writes.
func (c *Controller) repair(ctx context.Context, d *devices.Device, s State) (ctrl.Result, error) {
	if s.Confirmed() && c.answered(d.UID, s) {
		c.mu.Lock()
		delete(c.repairs, d.UID)
		c.mu.Unlock()
		return ctrl.Result{}, nil
	}
	now := c.now()
	c.mu.Lock()
	r := c.repairs[d.UID]
	if r.generation != s.Document.Generation {
		r = repair{node: d.Labels[task.LabelNode], generation: s.Document.Generation, since: now, next: now.Add(c.timings.RepairAfter)}
		c.repairs[d.UID] = r
	}
	c.mu.Unlock()
	if wait := r.next.Sub(now); wait > 0 {
		return ctrl.Result{RequeueAfter: wait}, nil
	}
	if !c.nodes.Alive(d.Labels[task.LabelNode], now) {
		return ctrl.Result{RequeueAfter: task.BeatSeconds * time.Second}, nil
	}
	if s.Report != nil && faults.Off(faults.NonceRepair) {
		return ctrl.Result{}, nil
	}
	if r.count++; r.count%rebindEvery == 0 {
		c.nodes.doubt(d.Labels[task.LabelNode])
	}
	rebind := (r.count%rebindEvery == 0 || s.Report == nil) && !r.rebound && !faults.Off(faults.Rebinding)
	doublings := min(r.count, 16)
	if r.rebound {
		doublings-- // what follows a binding is a part of it
	}
	r.last, r.rebound = now, rebind
	r.next = now.Add(min(c.timings.RepairAfter<<doublings, c.timings.RepairMax))
	c.mu.Lock()
	c.repairs[d.UID] = r
	c.mu.Unlock()
	c.log.Info("document not confirmed, delivering again", "device", d.Name, "namespace", d.Namespace, "node", d.Spec.NodeName,
		"generation", s.Document.Generation, "attempt", r.count)
	var err error
	if rebind {
		err = c.tasks.Unbind(ctx, d)
	} else {
		err = c.Ask(ctx, d)
	}
	return ctrl.Result{RequeueAfter: r.next.Sub(now)}, err
}

// answered tells whether the node has reported since it was last asked to. A
// node that does not may have lost the Device after it had confirmed it.
func (c *Controller) answered(uid types.UID, s State) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if seq, asked := c.asked[uid]; asked && s.Report.Seq <= seq {
		return false
	}
	delete(c.asked, uid)
	return true
}

// isBound tells whether d has a node.
func (c *Controller) isBound(d *devices.Device) bool {
	if d.Spec.NodeName == "" {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.unbound, d.UID)
	return true
}

// bind binds a Device again that has been without a node for long enough.
func (c *Controller) bind(ctx context.Context, d *devices.Device) (ctrl.Result, error) {
	now := c.now()
	c.mu.Lock()
	since, ok := c.unbound[d.UID]
	if !ok {
		since = now
		c.unbound[d.UID] = since
	}
	wait := since.Add(c.timings.UnboundFor).Sub(now)
	if r, ok := c.repairs[d.UID]; ok && wait <= 0 {
		r.next = now.Add(c.timings.RepairAfter / 2)
		c.repairs[d.UID] = r
	}
	c.mu.Unlock()
	if wait > 0 {
		return ctrl.Result{RequeueAfter: wait}, nil
	}
	return ctrl.Result{}, c.tasks.Bind(ctx, d)
}

// Ask raises the nonce: the document is delivered once more, and the node
// reports once more.
func (c *Controller) Ask(ctx context.Context, d *devices.Device) error {
	n, err := NonceOf(d)
	if err != nil {
		return err
	}
	n.N++
	// Noted before it is written, which has the Device looked at. If the write
	// fails the node is asked again for want of an answer.
	if seq := c.obs.seq(d.UID); seq > 0 {
		c.mu.Lock()
		c.asked[d.UID] = seq
		c.mu.Unlock()
	}
	return c.tasks.SetNonce(ctx, d, n)
}

// Poke has a Device looked at now that its node was heard of. What was not
// confirmed is delivered again at once, and after a silence as if for the
// first time.
func (c *Controller) Poke(ctx context.Context, d *devices.Device, silence bool) {
	now := c.now()
	c.mu.Lock()
	r, ok := c.repairs[d.UID]
	switch {
	case silence && ok:
		r.next, r.count = now, 0
		c.repairs[d.UID] = r
	case silence:
	case ok && r.next.After(now) && 0 < r.count && r.count <= earlyRepairs && now.Sub(r.last) >= c.timings.UnboundFor:
		r.next = now
		c.repairs[d.UID] = r
	default:
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	select {
	case c.poked <- event.TypedGenericEvent[*devices.Device]{Object: d.DeepCopy()}:
	case <-ctx.Done():
	}
}

func (c *Controller) forget(uid types.UID) {
	c.obs.Forget(uid)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.repairs, uid)
	delete(c.acks, uid)
	delete(c.asked, uid)
	delete(c.unbound, uid)
	delete(c.told, uid)
}
