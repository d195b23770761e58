package twin

import (
	"context"
	"log/slog"
	"sync"
	"time"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// mismatchPause is the least time between two repairs of a whole node.
const mismatchPause = 2 * time.Minute

// NodeController follows the beats of nodes: it acknowledges them, has the
// tasks of a node that returns looked at, and asks for everything again when
// the node's hash over its tasks stays different from the cloud's.
type NodeController struct {
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
	mismatched bool      // the beat before already differed
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
	if beat == nil || !c.news(node, beat.Seq) {
		return c.repair(ctx, d, node)
	}
	returned := c.nodes.hear(node, c.tasks.Now())
	own, err := c.tasksOf(ctx, node)
	if err != nil {
		return ctrl.Result{}, err
	}
	for i := range own {
		c.ctl.Poke(ctx, &own[i], returned)
	}
	if err := c.compare(ctx, node, beat, own); err != nil {
		return ctrl.Result{}, err
	}
	nonce, err := NonceOf(d)
	if err != nil || nonce.Acked >= beat.Seq {
		return ctrl.Result{RequeueAfter: AliveFor}, err
	}
	nonce.Acked = beat.Seq
	return ctrl.Result{RequeueAfter: AliveFor}, c.tasks.SetNonce(ctx, d, nonce)
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

// repair binds the Device of a silent node anew now and then: KubeEdge never
// registers a Device that was made while its link was down, and refuses all
// beats of it.
func (c *NodeController) repair(ctx context.Context, d *devices.Device, node string) (ctrl.Result, error) {
	now := c.tasks.Now()
	if !c.ctl.isBound(d) {
		return c.ctl.bind(ctx, d)
	}
	if c.nodes.Alive(node, now) {
		return ctrl.Result{RequeueAfter: AliveFor}, nil
	}
	c.mu.Lock()
	s := c.seen[node]
	if s.repairAt.IsZero() {
		s.repairWait = c.ctl.timings.SilentAfter
		if s.seq == 0 {
			s.repairWait /= 5 // it was never heard of; a new node is within seconds
		}
		s.repairAt = now.Add(s.repairWait)
	}
	wait := s.repairAt.Sub(now)
	if wait <= 0 {
		s.repairWait = min(2*s.repairWait, c.ctl.timings.RepairMax)
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

// compare asks for all tasks of the node again when two beats in a row tell of
// other states than the cloud has seen.
func (c *NodeController) compare(ctx context.Context, node string, beat *task.Beat, own []devices.Device) error {
	var states []task.TaskState
	for i := range own {
		s, err := c.obs.State(ctx, &own[i])
		if err != nil {
			return err
		}
		if s.Report != nil && s.Report.Phase != task.Stopped {
			states = append(states, task.TaskState{UID: string(own[i].UID), Generation: s.Report.Generation, Phase: s.Report.Phase})
		}
	}
	differs := task.StateHash(states) != beat.StateHash
	now := c.tasks.Now()
	c.mu.Lock()
	seen := c.seen[node]
	ask := differs && seen.mismatched && now.Sub(seen.asked) > mismatchPause
	seen.mismatched = differs
	if ask {
		seen.asked = now
	}
	c.seen[node] = seen
	c.mu.Unlock()
	if !ask {
		return nil
	}
	c.log.Info("node tells of other task states than were seen, asking for all again", "node", node, "tasks", len(own))
	for i := range own {
		if err := c.ctl.Ask(ctx, &own[i]); err != nil {
			return err
		}
	}
	return nil
}

// tasksOf gives the task Devices of a node, in all namespaces.
func (c *NodeController) tasksOf(ctx context.Context, node string) ([]devices.Device, error) {
	var list devices.DeviceList
	if err := c.tasks.Client.List(ctx, &list, client.MatchingLabels{task.LabelNode: node}); err != nil {
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
