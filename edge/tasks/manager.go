package tasks

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/edgetwin/sedna/edge/model"
	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/lib/faults"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// Bus is the edge's MQTT bus.
type Bus interface {
	Publish(ctx context.Context, topic string, qos byte, retained bool, payload []byte) error
	// Subscribe has h called for each message, one at a time.
	Subscribe(filter string, qos byte, h func(bus.Message))
	// OnConnect has f called after each connect.
	OnConnect(f func())
	Connected() bool
}

// Models is the node's set of model files.
type Models interface {
	// Ensure gives the tested file of a model, fetched if need be.
	Ensure(ctx context.Context, m task.Model) (model.File, error)
	// Local gives the file of a digest if it is here, and asks nobody.
	Local(ctx context.Context, sha256 string) (model.File, error)
	// Check reads a local file again and compares it with its digest.
	Check(ctx context.Context, sha256 string) error
	// Loading runs load and remembers on disk that it does.
	Loading(ctx context.Context, sha256 string, load func() error) error
	// Collect removes the files that no task refers to.
	Collect(ctx context.Context) error
}

// Service is what a task has served.
type Service struct {
	Namespace, Name string
	Model           task.Model
	ModelPath       string
	HardExample     task.Algorithm
	Cloud           *task.CloudSide
	OnCloudError    string
	Inputs          []task.Input
	Result          *task.ResultProperty
}

// Server answers requests with models.
type Server interface {
	// Activate makes a service answer, in place of one of the same namespace and
	// name, which goes on until then and stays when Activate fails.
	Activate(ctx context.Context, s Service) error
	// Deactivate stops a service; it is no error if there is none.
	Deactivate(namespace, name string)
}

// Limits bound the work on tasks. Zero fields mean the defaults.
type Limits struct {
	Workers     int           `yaml:"workers"`     // models fetched or loaded at a time; default 2
	RetryBase   time.Duration `yaml:"retryBase"`   // before the first retry of a task that failed for a passing cause; default 2s
	RetryMax    time.Duration `yaml:"retryMax"`    // before later ones, doubling; default 5m
	ResendBase  time.Duration `yaml:"resendBase"`  // before an unacknowledged report is sent again; default 5s
	ResendMax   time.Duration `yaml:"resendMax"`   // before later ones, doubling; default 5m
	ReportGap   time.Duration `yaml:"reportGap"`   // between two reports of one task; default 100ms
	StoppedFor  time.Duration `yaml:"stoppedFor"`  // how long a deleted task's last report is sent again; default 24h
	PublishWait time.Duration `yaml:"publishWait"` // for the broker to take one report; default 10s
}

// WithDefaults fills in zero fields.
func (l Limits) WithDefaults() Limits {
	if l.Workers == 0 {
		l.Workers = 2
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&l.RetryBase, 2 * time.Second}, {&l.RetryMax, 5 * time.Minute},
		{&l.ResendBase, 5 * time.Second}, {&l.ResendMax, 5 * time.Minute}, {&l.ReportGap, 100 * time.Millisecond},
		{&l.StoppedFor, 24 * time.Hour}, {&l.PublishWait, 10 * time.Second},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	return l
}

// Options of a Manager.
type Options struct {
	Node    string
	Key     ed25519.PrivateKey // the node's, signs reports
	Pinned  func() task.Keys   // the keys of the GlobalManager that are valid now
	Store   *store.Store
	Models  Models
	Server  Server
	Bus     Bus
	Limits  Limits
	Metrics *metrics.Registry // may be nil
	// NodeDesired takes the desired messages of the node's own Device; may be nil.
	NodeDesired func(namespace string, payload []byte)
	Events      func(store.Event) // told of what happens; may be nil, must not block
	Changed     func()            // told when any task's state has changed; may be nil, must not block
	// UnknownKey is told of documents that no pinned key has signed: forged, or
	// signed by a new key. May be nil, must not block.
	UnknownKey func()
	Log        *slog.Logger // may be nil
}

// Manager runs the tasks of one node.
type Manager struct {
	o        Options
	reporter *reporter
	slots    chan struct{} // bounds fetching, testing and loading
	restores chan struct{} // bounds loading of what is here, which waits for no fetch
	logs     *rate.Limiter // of refusals

	configured int64 // generation of the node's configuration that afterRoll has seen; onDesired's own

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	workers map[key]*worker
	serving map[key]active
}

// key names a task on this node.
type key struct{ namespace, device string }

func (k key) String() string { return k.namespace + "/" + k.device }

// active is what the Server holds of a task.
type active struct {
	uid             string
	namespace, name string // of the service
}

// New makes a manager; Start sets it to work.
func New(o Options) *Manager {
	o.Limits = o.Limits.WithDefaults()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Events == nil {
		o.Events = func(store.Event) {}
	}
	if o.NodeDesired == nil {
		o.NodeDesired = func(string, []byte) {}
	}
	if o.UnknownKey == nil {
		o.UnknownKey = func() {}
	}
	if o.Changed == nil {
		o.Changed = func() {}
	}
	return &Manager{
		o: o, reporter: newReporter(o), slots: make(chan struct{}, o.Limits.Workers), restores: make(chan struct{}, o.Limits.Workers), logs: rate.NewLimiter(1, 20),
		workers: map[key]*worker{}, serving: map[key]active{},
	}
}

// Start takes up every stored task, and then listens to the bus, which it
// neither needs nor waits for. It may be called before the bus is started.
func (m *Manager) Start(ctx context.Context) error {
	m.ctx, m.cancel = context.WithCancel(ctx)
	var rows []*store.Task
	var dead []*store.Tombstone
	err := m.o.Store.View(ctx, func(tx *store.Tx) (err error) {
		if rows, err = tx.Tasks(); err != nil {
			return err
		}
		dead, err = tx.Unsettled(now().Add(-m.o.Limits.StoppedFor))
		return err
	})
	if err != nil {
		m.cancel()
		return fmt.Errorf("read the stored tasks: %w", err)
	}
	for _, r := range rows {
		k := key{r.Namespace, r.Device}
		m.kick(k)
		if r.Seq > r.Acked {
			m.reporter.news(k)
		}
	}
	for _, d := range dead {
		m.reporter.news(key{d.Namespace, d.Device})
	}
	m.wg.Go(func() { m.reporter.run(m.ctx) })
	m.o.Bus.OnConnect(m.reporter.reconnected)
	m.o.Bus.Subscribe(wire.TaskDesiredFilter(m.o.Node), 1, m.onDesired)
	return nil
}

// ReportAll sends at once what the cloud has not acknowledged.
func (m *Manager) ReportAll() { m.reporter.reconnected() }

// Close stops the workers and waits for them. Services stay with the Server.
func (m *Manager) Close() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	if m.cancel != nil {
		m.cancel()
	}
	m.wg.Wait()
}

// onDesired handles one message of the bus. When it returns, an accepted
// document is on disk.
func (m *Manager) onDesired(msg bus.Message) {
	ns, device, _, ok := wire.ParseTask(m.o.Node, msg.Topic)
	if !ok || m.ctx.Err() != nil {
		return
	}
	if device == task.NodeDeviceName(m.o.Node) {
		m.o.NodeDesired(ns, msg.Payload)
		m.afterRoll()
		return
	}
	if len(msg.Payload) == 0 {
		m.cleared(key{ns, device})
		return
	}
	if err := m.accept(m.ctx, ns, device, msg.Payload); err != nil {
		m.refused(key{ns, device}, err)
	}
}

// refused counts and tells of a message that changed nothing.
func (m *Manager) refused(k key, err error) {
	_ = m.o.Metrics.Reject(metrics.DoorTwin, err)
	if wire.IsCode(err, wire.BadSignature) {
		m.o.UnknownKey()
	}
	if m.logs.Allow() { // whoever is on the bus must not fill the log
		m.o.Log.Warn("desired message refused", "task", k.String(), "error", err)
	}
	m.o.Events(store.Event{Kind: "task", Reason: string(wire.AsError(err).Code), Namespace: k.namespace, Device: k.device, Message: err.Error()})
}

// cleared handles a retained message that is gone. Absence is not deletion: a
// live task is not touched. For a buried one it means that the Device is gone
// and nobody waits for its last report; if somebody else has cleared it, the
// cloud asks again.
func (m *Manager) cleared(k key) {
	err := m.o.Store.Update(m.ctx, func(tx *store.Tx) error {
		row, err := tx.Task(k.namespace, k.device)
		if err != nil {
			return err
		}
		if row != nil {
			return wire.E(wire.FailedPrecondition, task.PropTask, "the desired message was cleared; only a signed document ends a task", "")
		}
		tomb, err := tx.Untold(k.namespace, k.device)
		if err != nil || tomb == nil {
			return err
		}
		tomb.Settled = true
		return tx.Bury(tomb)
	})
	if err != nil {
		m.refused(k, storeError(err))
	}
}

// afterRoll stops the services of tasks that a new configuration of the node has
// struck off.
func (m *Manager) afterRoll() {
	m.mu.Lock()
	keys := slices.Collect(maps.Keys(m.workers))
	m.mu.Unlock()
	var gone []key
	err := m.o.Store.View(m.ctx, func(tx *store.Tx) error {
		generation, err := tx.NodeInt(store.NodeConfigGen)
		if err != nil || generation == m.configured {
			return err
		}
		for _, k := range keys {
			row, err := tx.Task(k.namespace, k.device)
			if err != nil {
				return err
			}
			if row == nil {
				gone = append(gone, k)
			}
		}
		m.configured = generation
		return nil
	})
	if err != nil && m.ctx.Err() == nil {
		m.o.Log.Error("cannot look for tasks that are struck off", "error", err)
	}
	for _, k := range gone {
		m.kick(k)
		m.reporter.news(k)
		m.o.Changed()
	}
}

// accept checks one desired message and stores what it says. A refusal is a
// *wire.Error and changes nothing; it is counted by the caller.
func (m *Manager) accept(ctx context.Context, ns, device string, payload []byte) error {
	in, err := Decode(m.o.Node, m.o.Pinned(), ns, device, payload)
	if err != nil {
		return err
	}
	k := key{ns, device}
	var out outcome
	// Most messages repeat what is known, and need no write.
	if known, err := m.known(ctx, in); err != nil {
		return storeError(err)
	} else if known {
		return nil
	}
	err = m.o.Store.Update(ctx, func(tx *store.Tx) (err error) {
		if out, err = admit(tx, in); err != nil || !out.work {
			return err
		}
		return tx.AddEvent(acceptance(in))
	})
	if out.work && faults.Off(faults.TransactionalAccept) {
		err = m.storeLate(ctx, k)
	}
	if wire.IsCode(err, wire.Buried) {
		m.tellBuried(ctx, k, in.Document.UID)
	}
	if err != nil {
		return storeError(err)
	}
	switch {
	case out.report:
		m.reporter.news(k)
	case out.remind:
		m.reporter.remind(k)
	}
	if out.work {
		m.o.Events(acceptance(in))
		m.o.Log.Info("task accepted", "task", k.String(), "uid", in.Document.UID, "generation", in.Document.Generation, "state", in.Document.State)
		m.kick(k)
	}
	if out.work || out.report {
		m.o.Changed()
	}
	return nil
}

// known tells whether a message repeats a stored document whose reports are
// all acknowledged: brokers send retained messages again at every connect.
func (m *Manager) known(ctx context.Context, in *Input) (bool, error) {
	var row *store.Task
	err := m.o.Store.View(ctx, func(tx *store.Tx) (err error) {
		row, err = tx.Task(in.Namespace, in.Device)
		return err
	})
	return row != nil && row.UID == in.Document.UID && string(row.Document) == string(in.Bytes) &&
		in.Nonce.N == row.NonceN && in.Nonce.Acked == row.Seq && row.Acked == row.Seq, err
}

// tellBuried has it said again that a task has stopped whose document is on the
// bus once more: edgecore's memory may have gone back to before its end, and the
// mapper takes the document off when it hears this.
func (m *Manager) tellBuried(ctx context.Context, k key, uid string) {
	told := false
	err := m.o.Store.Update(ctx, func(tx *store.Tx) error {
		row, err := tx.Task(k.namespace, k.device)
		if err != nil || row != nil {
			return err
		}
		tomb, err := tx.Tombstone(uid)
		if err != nil || tomb == nil || !tomb.Settled {
			return err
		}
		tomb.Settled, told = false, true
		return tx.Bury(tomb)
	})
	if err != nil {
		m.o.Log.Error("cannot tell that a task has stopped", "task", k.String(), "error", err)
	} else if told {
		m.reporter.remind(k)
	}
}

func acceptance(in *Input) store.Event {
	d := in.Document
	on := Accepted
	if d.State == task.Deleted {
		on = Deleted
	}
	return store.Event{Time: now(), Kind: "task", Reason: string(on), Namespace: in.Namespace, Device: in.Device, UID: d.UID, Generation: d.Generation}
}

// storeError gives errors of the store a code; refusals have theirs.
func storeError(err error) error {
	if e := wire.AsError(err); e.Code != wire.Internal {
		return err
	}
	return wire.E(wire.ResourceExhausted, "", "not stored: "+err.Error(), "")
}
