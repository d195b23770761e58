package twin

import (
	"context"
	"log/slog"
	"sync"
	"time"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

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
	at         time.Time
	mismatched bool      // the beat before already differed
	asked      time.Time // when everything was last asked for again
	refused    string
}

// NewNodeController makes a NodeController.
func NewNodeController(tasks *Tasks, nodes *Nodes, obs *Observer, ctl *Controller, log *slog.Logger) *NodeController {
	return &NodeController{tasks: tasks, nodes: nodes, obs: obs, ctl: ctl, log: log, seen: map[string]beatSeen{}}
}

// SetupWithManager registers the controller.
func (c *NodeController) SetupWithManager(mgr ctrl.Manager) error {
	isNode := predicate.NewPredicateFuncs(func(o client.Object) bool { return IsNode(o.(*devices.Device)) })
	sameName := handler.TypedEnqueueRequestsFromMapFunc(func(_ context.Context, s *devices.DeviceStatus) []reconcile.Request {
		if s.Namespace != c.nodes.Namespace {
			return nil
		}
		return []reconcile.Request{{NamespacedName: client.ObjectKeyFromObject(s)}}
	})
	return ctrl.NewControllerManagedBy(mgr).Named("node-device").
		For(&devices.Device{}, ctrlPredicate(isNode)).
		WatchesRawSource(source.Kind(mgr.GetCache(), &devices.DeviceStatus{}, sameName)).
		Complete(c)
}

// Reconcile takes a node's latest beat.
func (c *NodeController) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	d := &devices.Device{}
	if err := c.tasks.Client.Get(ctx, req.NamespacedName, d); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !IsNode(d) || d.Namespace != c.nodes.Namespace {
		return ctrl.Result{}, nil
	}
	node := d.Labels[task.LabelNode]
	beat, at, err := c.beat(ctx, d, node)
	if err != nil || beat == nil {
		return ctrl.Result{}, err
	}
	c.mu.Lock()
	before := c.seen[node]
	now := before
	now.seq, now.at = beat.Seq, at
	c.seen[node] = now
	c.mu.Unlock()
	if beat.Seq == before.seq {
		return ctrl.Result{}, nil
	}
	own, err := c.tasksOf(ctx, node)
	if err != nil {
		return ctrl.Result{}, err
	}
	returned := before.at.IsZero() || at.Sub(before.at) > AliveFor
	if returned {
		for i := range own {
			c.ctl.Poke(ctx, &own[i])
		}
	}
	if err := c.compare(ctx, node, beat, own); err != nil {
		return ctrl.Result{}, err
	}
	nonce, err := NonceOf(d)
	if err != nil || nonce.Acked >= beat.Seq {
		return ctrl.Result{}, err
	}
	nonce.Acked = beat.Seq
	return ctrl.Result{}, c.tasks.SetNonce(ctx, d, nonce)
}

// beat reads and verifies the node's latest beat; nil if there is no news.
func (c *NodeController) beat(ctx context.Context, d *devices.Device, node string) (*task.Beat, time.Time, error) {
	props, at, err := reported(ctx, c.tasks.Client, d.Namespace, d.Name, task.BeatKeys())
	if err != nil || props == nil {
		return nil, at, err
	}
	key, err := keyOf(d)
	if err != nil {
		return nil, at, nil
	}
	nonce, err := NonceOf(d)
	if err != nil {
		return nil, at, err
	}
	var beat task.Beat
	if err = task.VerifyProperties(key, node, props); err == nil {
		beat, err = task.ParseBeat(props)
	}
	if err == nil && beat.Seq < nonce.Acked {
		err = wire.E(wire.Stale, task.PropSeq, "older than a beat already seen", "")
	}
	if err != nil {
		c.refuse(node, props[task.PropSeq]+" "+props[task.PropSig], err)
		return nil, at, nil
	}
	return &beat, at, nil
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
