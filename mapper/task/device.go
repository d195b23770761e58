package task

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"slices"
	"time"

	"github.com/edgetwin/sedna/lib/faults"
	pb "github.com/edgetwin/sedna/models/dmi"
	"github.com/edgetwin/sedna/models/task"
)

// key names a device.
type key struct{ ns, name string }

func (k key) String() string { return k.ns + "/" + k.name }

// device is what the bridge knows of one device.
type device struct {
	declared map[string]bool // its properties
	uid      string          // of the task document; empty when there is none
	deleted  bool            // the task document says so
	asks     string          // document and n of the nonce: what the node has to answer
	nonce    task.Nonce
	clearAt  time.Time // when the retained message ends, because the task has; zero: not
	cleared  bool      // it has ended, until something else is asked for
	report   *report   // the latest that is not acknowledged
	announce bool      // its state has to be told
}

// report is one report on its way up.
type report struct {
	props map[string]string
	seq   int64
	once  bool      // the cloud has it already and is told again, once
	tries int       // how often it was sent
	due   time.Time // when to send it next
}

// retained is what a desired topic is to hold.
type retained struct {
	payload  []byte   // empty: nothing
	ours     []uint64 // hashes of what it held before, the newest last
	done     bool     // the broker has it
	mismatch bool     // an earlier message of ours was last seen on the topic
	foreign  bool     // somebody else's message was seen on the topic
	checkAt  time.Time
}

// maxOurs is how many earlier messages of ours are remembered; they can come
// back from the broker after newer ones were handed over.
const maxOurs = 8

var hashSeed = maphash.MakeSeed()

// successor gives what the topic is to hold from now on; r may be nil.
func (r *retained) successor(payload []byte) *retained {
	next := &retained{payload: payload}
	if r != nil {
		next.ours = append(slices.Clone(r.ours), maphash.Bytes(hashSeed, r.payload))
		if len(next.ours) > maxOurs {
			next.ours = next.ours[1:]
		}
	}
	return next
}

// see notes a message that came by on the topic and tells whether it is not
// what the topic is to hold. That a foreign message was followed by ours proves
// nothing: two publishers' messages can come to us and to the broker's memory
// in different orders.
func (r *retained) see(payload []byte) (differs bool) {
	r.mismatch = !bytes.Equal(payload, r.payload)
	if r.mismatch && !slices.Contains(r.ours, maphash.Bytes(hashSeed, payload)) {
		r.foreign = true
	}
	return r.mismatch
}

// disturbed tells whether the broker may hold something else by now.
func (r *retained) disturbed() bool { return r.mismatch || r.foreign }

// parseDevice reads the twin properties that matter here.
func parseDevice(d *pb.Device) (*device, task.Desired, error) {
	dev := &device{declared: map[string]bool{}}
	var desired task.Desired
	for _, p := range d.GetSpec().GetProperties() {
		dev.declared[p.GetName()] = true
		value := p.GetDesired().GetValue()
		switch p.GetName() {
		case task.PropTask:
			desired.Task = value
		case task.PropConfig:
			desired.Config = value
		case task.PropSignature:
			desired.Signature = value
		case task.PropNonce:
			desired.Nonce = value
		}
	}
	var err error
	if dev.nonce, err = task.ParseNonce(desired.Nonce); err != nil {
		return nil, desired, err
	}
	dev.asks = fmt.Sprintf("%d %s", dev.nonce.N, desired.Task)
	var document struct{ UID, State string }
	// What is wrong with a document is for the LocalController to say.
	if json.Unmarshal([]byte(desired.Task), &document) == nil {
		dev.uid, dev.deleted = document.UID, document.State == task.Deleted
	}
	return dev, desired, nil
}

// encode gives the retained message: the document's text is kept readable.
func encode(d task.Desired) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(d); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// inherit takes over what is known from d's predecessor.
func (d *device) inherit(old *device) {
	d.announce = old.announce
	if old.uid != d.uid {
		return
	}
	d.report = old.report
	if old.asks == d.asks {
		d.clearAt, d.cleared = old.clearAt, old.cleared
	}
}

// ended notes that the node has said Stopped: it never runs a task of this uid
// again, so that its document is of no use on the bus. If the cloud has not
// heard it, it asks anew.
func (d *device) ended(at time.Time) {
	if !d.cleared && d.clearAt.IsZero() && !faults.Off(faults.Clearing) {
		d.clearAt = at
	}
}

// acknowledge drops the report if the nonce says that the cloud has it.
func (d *device) acknowledge() (acked bool) {
	if d.report == nil || d.report.once || d.report.seq > d.nonce.Acked {
		return false
	}
	d.report = nil
	return true
}
