package twin

import (
	"context"
	"log/slog"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/edgetwin/sedna/lib/faults"
	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// mismatchPause is the least time between two repairs of a whole node, in
// Timings.RepairAfter: 2 minutes.
const mismatchPause = 12

// NodeController follows the beats of nodes: it acknowledges them, has the
// tasks of a node that returns looked at, and when the node's hash over its
// tasks stays different from the cloud's it asks for everything again and tells
// the node which tasks there are.
type NodeController struct {
	live  client.Reader // not cached: a Device that is missing here is gone
	tasks *Tasks
	nodes *Nodes
	obs   *Observer
	ctl   *Controller
	log   *slog.Logger

	mu   sync.Mutex
	seen map[string]beatSeen // by node
}

type beatSeen struct {
	seq        int64
	differs    time.Time // since when the node tells of other states than the cloud has seen; zero: it does not
	differed   int64     // seq of the beat that told so first
	called     bool      // the node was asked for another beat since
	asked      time.Time // when everything was last asked for again
	refused    string
	repairAt   time.Time // when the Device is bound anew if the node stays silent
	repairWait time.Duration
}

// NewNodeController makes a NodeController.
func NewNodeController(tasks *Tasks, nodes *Nodes, obs *Observer, ctl *Controller, log *slog.Logger) *NodeController {
	return &NodeController{tasks: tasks, nodes: nodes, obs: obs, ctl: ctl, log: log, seen: map[string]beatSeen{}}
}

// SetupWithManager registers the controller.
func (c *NodeController) SetupWithManager(mgr ctrl.Manager) error {
	c.live = mgr.GetAPIReader()
	isNode := predicate.NewPredicateFuncs(func(o client.Object) bool { return IsNode(o.(*devices.Device)) })
	statuses, err := sameName(mgr)
	if err != nil {
		return err
	}
	return ctrl.NewControllerManagedBy(mgr).Named("node-device").
		For(&devices.Device{}, ctrlPredicate(isNode)).
		WatchesRawSource(statuses).
		Complete(c)
}

// Reconcile takes a node's latest beat.
func (c *NodeController) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	return again(c.reconcile(ctx, req))
}

func (c *NodeController) reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	d := &devices.Device{}
	if err := c.tasks.Client.Get(ctx, req.NamespacedName, d); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !IsNode(d) || d.Namespace != c.nodes.Namespace {
		return ctrl.Result{}, nil
	}
	node := d.Labels[task.LabelNode]
	beat, err := c.beat(ctx, d, node)
	if err != nil {
		return ctrl.Result{}, err
	}
	if beat == nil {
		return c.repair(ctx, d, node)
	}
	fresh := c.news(node, beat.Seq)
	if !fresh && !c.differing(node) {
		return c.repair(ctx, d, node)
	}
	own, err := c.tasksOf(ctx, c.tasks.Client, node)
	if err != nil {
		return ctrl.Result{}, err
	}
	if fresh {
		returned := c.nodes.hear(node, c.tasks.Now())
		for i := range own {
			c.ctl.Poke(ctx, &own[i], returned)
		}
		if err := c.acknowledge(ctx, d, beat.Seq); err != nil {
			c.forgetNews(node)
			return ctrl.Result{}, err
		}
	}
	wait, err := c.compare(ctx, d, node, beat, own)
	if err != nil {
		return ctrl.Result{}, err
	}
	result, err := c.repair(ctx, d, node)
	if wait > 0 && (result.RequeueAfter == 0 || wait < result.RequeueAfter) {
		result.RequeueAfter = wait
	}
	return result, err
}

func (c *NodeController) acknowledge(ctx context.Context, d *devices.Device, seq int64) error {
	nonce, err := NonceOf(d)
	if err != nil || nonce.Acked >= seq {
		return err
	}
	nonce.Acked = seq
	return c.tasks.SetNonce(ctx, d, nonce)
}

// news tells whether seq is not that of the beat that was taken last.
func (c *NodeController) news(node string, seq int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.seen[node]
	if s.seq == seq {
		return false
	}
	s.seq, s.repairAt = seq, time.Time{}
	c.seen[node] = s
	return true
}

// forgetNews has the latest beat taken again.
func (c *NodeController) forgetNews(node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.seen[node]
	s.seq = 0
	c.seen[node] = s
}

// differing tells whether the node's tasks have to be looked at between beats.
func (c *NodeController) differing(node string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.seen[node].differs.IsZero()
}

// repair binds the Device of a silent node anew now and then: KubeEdge never
// registers a Device that was made while its link was down, and refuses all
// beats of it.
func (c *NodeController) repair(ctx context.Context, d *devices.Device, node string) (ctrl.Result, error) {
	now := c.tasks.Now()
	if !c.ctl.isBound(d) {
		return c.ctl.bind(ctx, d)
	}
	silent := c.ctl.timings.SilentAfter
	if c.nodes.heardWithin(node, now, silent) {
		return ctrl.Result{RequeueAfter: silent}, nil
	}
	c.mu.Lock()
	s := c.seen[node]
	if s.repairAt.IsZero() {
		s.repairWait = silent
		if s.seq == 0 {
			s.repairWait /= 5 // it was never heard of; a new node is within seconds
		}
		s.repairAt = now.Add(s.repairWait)
	}
	wait := s.repairAt.Sub(now)
	if wait <= 0 {
		s.repairWait = min(2*s.repairWait, max(c.ctl.timings.RepairMax, silent))
		s.repairAt = now.Add(s.repairWait)
	}
	next := s.repairAt.Sub(now)
	c.seen[node] = s
	c.mu.Unlock()
	if wait > 0 {
		return ctrl.Result{RequeueAfter: wait}, nil
	}
	c.log.Info("node is silent, binding its Device anew", "node", node)
	return ctrl.Result{RequeueAfter: next}, c.tasks.Unbind(ctx, d)
}

// beat reads and verifies the node's latest beat; nil if there is no news.
func (c *NodeController) beat(ctx context.Context, d *devices.Device, node string) (*task.Beat, error) {
	props, _, err := reported(ctx, c.tasks.Client, d, task.BeatKeys())
	if err != nil || props == nil {
		return nil, err
	}
	key, err := keyOf(d)
	if err != nil {
		return nil, nil
	}
	nonce, err := NonceOf(d)
	if err != nil {
		return nil, err
	}
	var beat task.Beat
	if err = task.VerifyProperties(key, node, props); err == nil {
		beat, err = task.ParseBeat(props)
	}
	if err == nil && beat.Seq < nonce.Acked {
		err = wire.E(wire.Stale, task.PropSeq, "older than a beat already seen", "")
	}
	if err != nil {
		c.refuse(node, fingerprint(props), err)
		return nil, nil
	}
	return &beat, nil
}

// refuse counts a refused beat, once.
func (c *NodeController) refuse(node, fingerprint string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.seen[node]
	if s.refused == fingerprint {
		return
	}
	s.refused = fingerprint
	c.seen[node] = s
	c.obs.reject(err)
}

// compare looks whether the node tells of the task states that the cloud has
// seen. When it does not, with another beat that was asked for in between, all
// its tasks are asked for again, and it is told which there are. It returns when
// to look again, 0 for not before the next beat.
func (c *NodeController) compare(ctx context.Context, d *devices.Device, node string, beat *task.Beat, own []devices.Device) (time.Duration, error) {
	same, err := c.agrees(ctx, node, beat, own)
	if err != nil {
		return 0, err
	}
	after, now := c.ctl.timings.RepairAfter, c.tasks.Now()
	c.mu.Lock()
	was := c.seen[node]
	s := was
	act, call, wait := false, false, time.Duration(0)
	switch pause := s.asked.Add(mismatchPause * after).Sub(now); {
	case same:
		s.differs = time.Time{}
	case s.differs.IsZero():
		s.differs, s.differed, s.called, wait = now, beat.Seq, false, after
	case now.Sub(s.differs) < after:
		wait = s.differs.Add(after).Sub(now)
	case pause > 0:
		wait = pause
	case beat.Seq == s.differed:
		call, s.called = !s.called, true
	default:
		act, s.asked, s.differs = true, now, time.Time{}
		wait = mismatchPause * after
	}
	c.seen[node] = s
	c.mu.Unlock()
	switch {
	case call:
		err = c.ctl.Ask(ctx, d)
	case act:
		err = c.repairAll(ctx, d, node, beat, own)
	}
	if err != nil {
		c.mu.Lock()
		c.seen[node] = was // tried again
		c.mu.Unlock()
	}
	return wait, err
}

// agrees tells whether the cloud has seen what the beat tells of, and has no
// other reason to doubt that the node knows its tasks.
func (c *NodeController) agrees(ctx context.Context, node string, beat *task.Beat, own []devices.Device) (bool, error) {
	var states []task.TaskState
	for i := range own {
		s, err := c.obs.State(ctx, &own[i])
		if err != nil {
			return false, err
		}
		if s.Report != nil && s.Report.Phase != task.Stopped {
			states = append(states, task.TaskState{UID: string(own[i].UID), Generation: s.Report.Generation, Phase: s.Report.Phase})
		}
	}
	return task.StateHash(states) == beat.StateHash && !c.nodes.doubted(node), nil
}

// repairAll asks for all tasks of the node again and tells it which there are:
// what it has besides is gone from the cloud and cannot be ended in another way.
func (c *NodeController) repairAll(ctx context.Context, d *devices.Device, node string, beat *task.Beat, own []devices.Device) error {
	c.log.Info("node tells of other task states than were seen, asking for all again", "node", node, "tasks", len(own))
	if !faults.Off(faults.Roll) {
		there, err := c.tasksOf(ctx, c.live, node)
		if err != nil {
			return err
		}
		roll := task.Roll{StateHash: beat.StateHash, Tasks: make([]string, len(there))}
		for i := range there {
			roll.Tasks[i] = string(there[i].UID)
		}
		err = c.tasks.SetRoll(ctx, d, roll, beat.ConfigGeneration)
		switch {
		case wire.IsCode(err, wire.TooLarge):
			c.log.Error("node cannot be told which tasks there are", "node", node, "err", err)
		case err != nil:
			return err
		}
		c.nodes.believe(node)
	}
	for i := range own {
		if err := c.ctl.Ask(ctx, &own[i]); err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// tasksOf gives the task Devices of a node, in all namespaces.
func (c *NodeController) tasksOf(ctx context.Context, from client.Reader, node string) ([]devices.Device, error) {
	var list devices.DeviceList
	if err := from.List(ctx, &list, client.MatchingLabels{task.LabelNode: node}); err != nil {
		return nil, err
	}
	own := list.Items[:0]
	for _, d := range list.Items {
		if IsTask(&d) {
			own = append(own, d)
		}
	}
	return own, nil
}

// ctrlPredicate narrows a controller's own objects.
func ctrlPredicate(p predicate.Predicate) builder.ForOption { return builder.WithPredicates(p) }
