package tasks

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// BeaconOptions are what a Beacon needs.
type BeaconOptions struct {
	Node      string
	Namespace string             // of the node's Device
	Key       ed25519.PrivateKey // the node's
	Pinned    func() task.Keys
	Store     *store.Store
	Bus       Bus
	DataDir   string        // whose free space is told
	Engines   []string      // names of the model engines that run here
	Period    time.Duration // between beats; default task.BeatSeconds
	Gap       time.Duration // the least time between two beats; default 2 s
	LogLevel  *slog.LevelVar
	Metrics   *metrics.Registry
	Events    func(store.Event) // may be nil, must not block
	Log       *slog.Logger      // may be nil
}

const (
	// absentPhase stands in a beat for the phase of a task that is not on the bus.
	absentPhase = "Absent"
	// maxPresent bounds the messages that are remembered: anybody can publish.
	maxPresent = 100_000
	// maxTold is of how many beats is remembered of which tasks they told.
	maxTold = 16
)

// Beacon speaks for the node as a whole: it sends the signed beat of its
// Device, and takes the configuration that comes down on it.
type Beacon struct {
	o    BeaconOptions
	sign signer
	soon chan struct{} // capacity 1: beat as soon as the gap allows
	seq  int64         // of the last beat; Run's own

	unseen atomic.Bool // the Device was not seen yet on this connection

	mu      sync.Mutex
	present map[key]bool // tasks whose desired message the bus has, as far as seen on this connection
	told    []tale       // the newest last
}

// NewBeacon makes a beacon; Run sets it to work.
func NewBeacon(o BeaconOptions) *Beacon {
	if o.Period == 0 {
		o.Period = task.BeatSeconds * time.Second
	}
	if o.Gap == 0 {
		o.Gap = 2 * time.Second
	}
	if o.Events == nil {
		o.Events = func(store.Event) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	b := &Beacon{o: o, present: map[key]bool{}, sign: signer{o.Node, o.Key, o.Bus, 10 * time.Second}, soon: make(chan struct{}, 1)}
	b.unseen.Store(true)
	return b
}

// Soon asks for a beat before the next one is due. It does not block.
func (b *Beacon) Soon() {
	select {
	case b.soon <- struct{}{}:
	default:
	}
}

// Restore brings the last good configuration into force. It needs no bus.
func (b *Beacon) Restore(ctx context.Context) error {
	var text string
	err := b.o.Store.View(ctx, func(tx *store.Tx) (err error) {
		text, err = tx.NodeText(store.NodeConfig)
		return err
	})
	if err != nil || text == "" {
		return err
	}
	c, err := ParseNodeConfig([]byte(text), b.o.Node)
	if err != nil {
		// An older build may not know a key that a newer one took.
		b.o.Log.Warn("stored node configuration not applied", "error", err)
		return nil
	}
	c.apply(b.o.LogLevel)
	return nil
}

// Run beats until ctx ends: every Period, shortly after Soon, and when the
// node's Device is first seen on a new connection: before that the mapper does
// not know it, and would refuse the beat.
func (b *Beacon) Run(ctx context.Context) {
	b.o.Bus.OnConnect(func() {
		b.unseen.Store(true)
		b.mu.Lock()
		defer b.mu.Unlock()
		clear(b.present) // the broker sends again what it has
	})
	b.o.Bus.Subscribe(wire.TaskDesiredFilter(b.o.Node), 1, b.see)
	next := time.NewTimer(b.o.Period)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.soon:
		case <-next.C:
		}
		if b.o.Bus.Connected() { // else the Device's message on the next connection wakes us
			if err := b.beat(ctx); err != nil && ctx.Err() == nil {
				b.o.Log.Warn("beat not sent", "error", err)
			}
			if !sleep(ctx, b.o.Gap) {
				return
			}
		}
		next.Reset(b.o.Period)
	}
}

// sleep is false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func (b *Beacon) beat(ctx context.Context) error {
	beat := task.Beat{
		Version: twinSafe(wire.Version), DiskFreeBytes: diskFree(b.o.DataDir), MemoryBytes: residentBytes(),
	}
	for _, e := range b.o.Engines {
		beat.Engines = append(beat.Engines, twinSafe(e))
	}
	var states []task.TaskState
	err := b.o.Store.View(ctx, func(tx *store.Tx) (err error) {
		if states, err = b.taskStates(tx); err != nil {
			return err
		}
		beat.ConfigGeneration, err = tx.NodeInt(store.NodeConfigGen)
		return err
	})
	if err != nil {
		return fmt.Errorf("beat: %w", err)
	}
	err = b.o.Store.Update(ctx, func(tx *store.Tx) error {
		last, err := tx.NodeInt(store.NodeBeatSeq)
		if err != nil {
			return err
		}
		b.seq = max(last, b.seq) + 1
		return tx.SetNodeInt(store.NodeBeatSeq, b.seq)
	})
	if errors.Is(err, store.ErrFull) {
		// The cloud is to see a node whose disk is full.
		b.o.Log.Error("beat not numbered on disk", "error", err)
	} else if err != nil {
		return fmt.Errorf("beat: %w", err)
	}
	beat.Seq, beat.StateHash = b.seq, task.StateHash(states)
	b.tell(beat.StateHash, states)
	return b.sign.publish(ctx, b.key(), b.o.Node, beat.Properties())
}

func (b *Beacon) key() key { return key{b.o.Namespace, task.NodeDeviceName(b.o.Node)} }

// see notes whether the bus has the desired message of a task.
func (b *Beacon) see(m bus.Message) {
	ns, device, _, ok := wire.ParseTask(b.o.Node, m.Topic)
	if !ok || device == task.NodeDeviceName(b.o.Node) {
		return
	}
	k, there := key{ns, device}, len(m.Payload) > 0
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.present[k] == there:
		return
	case !there:
		delete(b.present, k)
	case len(b.present) < maxPresent:
		b.present[k] = true
	}
	b.Soon()
}

// tale is of which tasks a beat told.
type tale struct {
	hash string
	uids map[string]bool
}

// tell notes of which tasks the beat that goes out tells.
func (b *Beacon) tell(hash string, states []task.TaskState) {
	t := tale{hash, make(map[string]bool, len(states))}
	for _, s := range states {
		t.uids[s.UID] = true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.told = slices.DeleteFunc(b.told, func(old tale) bool { return old.hash == hash })
	b.told = append(b.told, t)
	b.told = b.told[max(0, len(b.told)-maxTold):]
}

// toldOf gives the tasks of which a beat with hash told; nil if none did lately.
func (b *Beacon) toldOf(hash string) map[string]bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range b.told {
		if t.hash == hash {
			return t.uids
		}
	}
	return nil
}

// taskStates gives the live tasks as they were last reported. Those that have
// stopped, or are about to, the cloud leaves out too. One whose message the bus
// does not have is given in no state that the cloud knows, which has it delivered
// again: edgecore may have forgotten its Device.
func (b *Beacon) taskStates(tx *store.Tx) ([]task.TaskState, error) {
	rows, err := tx.Tasks()
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var states []task.TaskState
	for _, r := range rows {
		if r.State != task.Active {
			continue
		}
		s := task.TaskState{UID: r.UID, Generation: r.Generation, Phase: r.Phase}
		if !b.present[key{r.Namespace, r.Device}] {
			s.Phase = absentPhase
		}
		states = append(states, s)
	}
	return states, nil
}

// Desired takes one desired message of the node's Device; refusals are counted
// and change nothing.
func (b *Beacon) Desired(ctx context.Context, namespace string, payload []byte) {
	if len(payload) == 0 {
		return
	}
	if err := b.take(ctx, namespace, payload); err != nil {
		_ = b.o.Metrics.Reject(metrics.DoorTwin, err)
		b.o.Log.Warn("node configuration refused", "error", err)
		b.o.Events(store.Event{Kind: "config", Reason: string(wire.AsError(err).Code), Namespace: namespace, Device: task.NodeDeviceName(b.o.Node), Message: err.Error()})
	}
}

func (b *Beacon) take(ctx context.Context, namespace string, payload []byte) error {
	d, err := decodeMessage(payload)
	if err != nil {
		return err
	}
	if namespace != b.o.Namespace {
		return wire.E(wire.InvalidArgument, "namespace", fmt.Sprintf("this node's Device is in namespace %s, not in %.80s", b.o.Namespace, namespace), "")
	}
	nonce, err := task.ParseNonce(d.Nonce)
	if err != nil {
		return err
	}
	var config *NodeConfig
	if d.Config != "" {
		if err := b.o.Pinned().Verify([]byte(d.Config), d.Signature); err != nil {
			return err
		}
		if config, err = ParseNodeConfig([]byte(d.Config), b.o.Node); err != nil {
			return err
		}
	}
	asked, applied := false, false
	var struck []store.Event
	err = b.o.Store.Update(ctx, func(tx *store.Tx) (err error) {
		if asked, err = takeNodeNonce(tx, nonce); err != nil || config == nil {
			return err
		}
		if applied, err = takeNodeConfig(tx, config, d); err != nil || !applied || config.Roll == nil {
			return err
		}
		struck, err = b.strike(tx, config.Roll)
		return err
	})
	if err != nil {
		return storeError(err)
	}
	if applied {
		config.apply(b.o.LogLevel)
		b.o.Log.Info("node configuration applied", "generation", config.Generation)
		b.o.Events(store.Event{Kind: "config", Reason: "Applied", Generation: config.Generation})
	}
	for _, e := range struck {
		b.o.Log.Info("task has no Device any more", "task", key{e.Namespace, e.Device}.String(), "uid", e.UID)
		b.o.Events(e)
	}
	if b.unseen.Swap(false) || asked || applied {
		b.Soon()
	}
	return nil
}

// strike buries the tasks that the roll leaves out although the cloud has heard
// of them: their Devices were let go without this node's word, or came back
// when an old document was played to a node that had lost its memory. What was
// accepted since that beat is left alone. The Manager stops their services.
func (b *Beacon) strike(tx *store.Tx, roll *task.Roll) (struck []store.Event, err error) {
	told := b.toldOf(roll.StateHash)
	if told == nil {
		return nil, nil // of before this process: the cloud makes another
	}
	rows, err := tx.Tasks()
	if err != nil {
		return nil, err
	}
	alive := make(map[string]bool, len(roll.Tasks))
	for _, uid := range roll.Tasks {
		alive[uid] = true
	}
	for _, row := range rows {
		if alive[row.UID] || !told[row.UID] {
			continue
		}
		if _, err := Next(stateOf(row), Struck); err != nil {
			return nil, err
		}
		err := tx.Bury(&store.Tombstone{
			UID: row.UID, Namespace: row.Namespace, Device: row.Device, Epoch: row.Epoch, Generation: row.Generation,
			IssuedAt: row.IssuedAt, Seq: row.Seq + 1, NonceN: row.NonceN, // its report Stopped has the bus cleared
		})
		if err != nil {
			return nil, err
		}
		if err := tx.DeleteTask(row.Namespace, row.Device); err != nil {
			return nil, err
		}
		e := store.Event{
			Time: now(), Kind: "task", Reason: string(Stopped), Namespace: row.Namespace, Device: row.Device, UID: row.UID, Generation: row.Generation,
			Message: "the cloud has no Device of it any more",
		}
		if err := tx.AddEvent(e); err != nil {
			return nil, err
		}
		struck = append(struck, e)
	}
	return struck, tx.SetNodeText(store.NodeRoll, strings.Join(roll.Tasks, " "))
}

// takeNodeNonce tells whether a beat is due, which it is not when the nonce
// acknowledges the last one.
func takeNodeNonce(tx *store.Tx, n task.Nonce) (asked bool, err error) {
	seq, err := tx.NodeInt(store.NodeBeatSeq)
	if err != nil {
		return false, err
	}
	if err := checkJump(seq, n); err != nil {
		return false, err
	}
	// Behind: the cloud has not seen the last beat, which a mapper that has
	// started anew does not send again by itself. Ahead: this node's memory is
	// older than the cloud's.
	asked = n.Acked != seq
	if n.Acked > seq {
		if err := tx.SetNodeInt(store.NodeBeatSeq, n.Acked); err != nil {
			return false, err
		}
	}
	have, err := tx.NodeInt(store.NodeNonce)
	if err != nil || have == n.N {
		return asked, err
	}
	return true, tx.SetNodeInt(store.NodeNonce, n.N)
}

func takeNodeConfig(tx *store.Tx, c *NodeConfig, d task.Desired) (applied bool, err error) {
	gen, err := tx.NodeInt(store.NodeConfigGen)
	if err != nil {
		return false, err
	}
	text, err := tx.NodeText(store.NodeConfig)
	if err != nil {
		return false, err
	}
	switch {
	case c.Generation < gen:
		return false, wire.E(wire.Stale, "generation", fmt.Sprintf("configuration %d, this node has %d", c.Generation, gen), "")
	case c.Generation == gen && text == d.Config:
		return false, nil
	case c.Generation == gen:
		return false, wire.E(wire.Conflict, "generation", fmt.Sprintf("another configuration %d is here", gen), "raise the generation with every change")
	}
	if err := tx.SetNodeText(store.NodeConfig, d.Config); err != nil {
		return false, err
	}
	if err := tx.SetNodeText(store.NodeConfigSignature, d.Signature); err != nil {
		return false, err
	}
	return true, tx.SetNodeInt(store.NodeConfigGen, c.Generation)
}

// diskFree is what this process may still write under dir, in bytes.
func diskFree(dir string) int64 {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0
	}
	return int64(s.Bavail) * int64(s.Bsize)
}

// residentBytes is the memory that this process takes.
func residentBytes() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
