// Package history judges, from what outsiders have seen, whether the task
// protocol kept its word while links dropped and processes were killed. Records
// come in as JSON lines, in the order in which each observer saw things;
// observers are not in step with each other to the millisecond. The judge
// knows nothing of the code that it judges.
package history

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"
)

// Kinds of records, by where the observer stands.
const (
	KindRun     = "run"     // the run itself: Begin, Healed, End
	KindProcess = "process" // Started, Killed, Wiped
	KindLink    = "link"    // Up, Down
	KindAPI     = "api"     // a watch on the Kubernetes API: Desired, Reported, Gone; what is done to it: Forced
	KindBus     = "bus"     // a subscriber on a node's MQTT bus: Desired, Cleared, Reported, the node's events, Blind, Seeing
	KindEnd     = "end"     // the state after all has settled: Device, Retained, Task
)

// Events.
const (
	Begin  = "begin"  // Losses says what the links lose
	Healed = "healed" // from here on links are up and processes run
	End    = "end"    // after the end state; Detail is set when things did not settle within the run's bound

	Started = "started"
	Killed  = "killed"
	Wiped   = "wiped" // Node's LocalController may have lost all or some of its memory while it was down
	Up      = "up"
	Down    = "down"

	Desired  = "desired"  // UID, DesiredGeneration, State, Model, Acked
	Reported = "reported" // UID, Generation, Phase, Seq, Model
	Cleared  = "cleared"  // the retained message is gone
	Gone     = "gone"     // the Device is gone
	Forced   = "forced"   // somebody lets the Device UID go without its node's word

	Blind  = "blind"  // the subscriber on Node's bus has lost the broker, and may miss what passes
	Seeing = "seeing" // it is back

	// What the node tells on its event topic: UID, Generation.
	Accepted = "Accepted" // an Active document was stored
	Deleted  = "Deleted"  // a Deleted document was stored
	Served   = "Served"   // the deployment step of a generation is done
	Failing  = "Failing"
	Lost     = "Lost" // what served cannot be brought back from disk and has to be deployed again
	Stopped  = "Stopped"

	Device   = "device"   // a Device that is there at the end: what Desired and Reported have
	Retained = "retained" // a retained desired message that is there at the end: what Desired has
	Task     = "task"     // a task that the node has at the end: what Reported has, and Acked
)

// Record is one thing seen.
type Record struct {
	Time              time.Time `json:"time"`
	Observer          string    `json:"observer"`
	Kind              string    `json:"kind"`
	Event             string    `json:"event"`
	Node              string    `json:"node,omitempty"`
	Part              string    `json:"part,omitempty"` // of a process
	Namespace         string    `json:"namespace,omitempty"`
	Device            string    `json:"device,omitempty"`
	UID               string    `json:"uid,omitempty"`
	DesiredGeneration int64     `json:"desiredGeneration,omitempty"` // of the document
	State             string    `json:"state,omitempty"`             // of the document: Active or Deleted
	Generation        int64     `json:"generation,omitempty"`        // that the node speaks of
	Phase             string    `json:"phase,omitempty"`
	Model             string    `json:"model,omitempty"` // start of the digest: of the model asked for, or of what serves
	Seq               int64     `json:"seq,omitempty"`
	Acked             int64     `json:"acked,omitempty"`  // the seq that the cloud has acknowledged
	Losses            string    `json:"losses,omitempty"` // with commas
	Detail            string    `json:"detail,omitempty"`
}

// Writer writes records; it may be used by several observers at once.
type Writer struct {
	mu  sync.Mutex
	enc *json.Encoder
	err error
}

// NewWriter makes a Writer.
func NewWriter(w io.Writer) *Writer { return &Writer{enc: json.NewEncoder(w)} }

// Write stamps and writes a record. The first error stays, see Err.
func (w *Writer) Write(r Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		r.Time = time.Now().UTC()
		w.err = w.enc.Encode(r)
	}
}

// Err gives the first error of any Write.
func (w *Writer) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return fmt.Errorf("history: %w", w.err)
	}
	return nil
}
