package tasks

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/lib/faults"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// outcome is what an admitted message asks of the rest of the program, after
// its transaction.
type outcome struct {
	work   bool // the task is to be worked on: its document is new
	report bool // its report is news
	remind bool // the cloud seems not to have its report
}

// maxSeqJump bounds how far a nonce, which nobody signs, may move a seq.
const maxSeqJump = 1 << 40

// admit compares a message with what is stored and writes what follows from
// it. A refusal writes nothing.
//
// Within one uid (epoch, generation) decides. Between uids of one device it is
// (epoch, issuedAt): a document of a uid that was never seen here is refused
// when it was issued before the newest known one, as it may be an old one
// played again, unless the cloud's roll lists it: the cloud's clock may have
// gone back. A uid that was buried stays so.
func admit(tx *store.Tx, in *Input) (outcome, error) {
	tomb, err := tx.Tombstone(in.Document.UID)
	if err != nil {
		return outcome{}, err
	}
	row, err := tx.Task(in.Namespace, in.Device)
	if err != nil {
		return outcome{}, err
	}
	switch {
	case tomb != nil && !faults.Off(faults.Tombstones):
		return admitBuried(tx, tomb, row, in)
	case row == nil:
		return admitNew(tx, in)
	case row.UID != in.Document.UID:
		return admitSuccessor(tx, row, in)
	}
	return admitKnown(tx, row, in)
}

func admitBuried(tx *store.Tx, tomb *store.Tombstone, row *store.Task, in *Input) (outcome, error) {
	d := in.Document
	if d.State != task.Deleted {
		return outcome{}, wire.E(wire.Buried, "uid", fmt.Sprintf("task %s was deleted here at generation %d", tomb.UID, tomb.Generation), "a new Device has a new uid")
	}
	age := compareVersion(d.Epoch, d.Generation, tomb.Epoch, tomb.Generation)
	if age < 0 || row != nil {
		return outcome{}, wire.E(wire.Stale, "generation", fmt.Sprintf("generation %d of a task that was buried at %d", d.Generation, tomb.Generation), "")
	}
	if err := checkJump(tomb.Seq, in.Nonce); err != nil {
		return outcome{}, err
	}
	switch {
	case age > 0 || in.Nonce.N != tomb.NonceN || in.Nonce.Acked > tomb.Seq:
		if _, err := Next(Stopped, Deleted); err != nil {
			return outcome{}, err
		}
		tomb.Epoch, tomb.Generation, tomb.IssuedAt = d.Epoch, d.Generation, d.IssuedAt
		tomb.Seq = max(tomb.Seq, in.Nonce.Acked) + 1
		tomb.NonceN, tomb.Settled = in.Nonce.N, false
		return outcome{report: true}, tx.Bury(tomb)
	case in.Nonce.Acked == tomb.Seq:
		if tomb.Settled {
			return outcome{}, nil
		}
		tomb.Settled = true
		return outcome{}, tx.Bury(tomb)
	case tomb.Settled:
		// The message was cleared, and comes back from a cloud that has not
		// heard of the end: it has bound the Device anew.
		tomb.Settled = false
		return outcome{report: true}, tx.Bury(tomb)
	}
	return outcome{remind: true}, nil
}

// admitNew takes the first document of a uid for a device that has no task.
func admitNew(tx *store.Tx, in *Input) (outcome, error) {
	last, err := tx.LastBuried(in.Namespace, in.Device)
	if err != nil {
		return outcome{}, err
	}
	if last != nil && !faults.Off(faults.Tombstones) {
		if err := checkIssue(tx, in, last.UID, last.Epoch, last.IssuedAt); err != nil {
			return outcome{}, err
		}
	}
	return insert(tx, in)
}

// admitSuccessor takes the first document of a uid for a device that has a
// task of another uid: its Device was deleted and made again.
func admitSuccessor(tx *store.Tx, row *store.Task, in *Input) (outcome, error) {
	if err := checkIssue(tx, in, row.UID, row.Epoch, row.IssuedAt); err != nil {
		return outcome{}, err
	}
	if _, err := Next(stateOf(row), Superseded); err != nil {
		return outcome{}, err
	}
	err := tx.Bury(&store.Tombstone{
		UID: row.UID, Namespace: row.Namespace, Device: row.Device, Epoch: row.Epoch, Generation: row.Generation,
		IssuedAt: row.IssuedAt, Seq: row.Seq, NonceN: row.NonceN, Settled: true,
	})
	if err != nil {
		return outcome{}, err
	}
	return insert(tx, in)
}

func insert(tx *store.Tx, in *Input) (outcome, error) {
	if err := checkJump(0, in.Nonce); err != nil {
		return outcome{}, err
	}
	d := in.Document
	row := &store.Task{
		Namespace: in.Namespace, Device: in.Device, UID: d.UID, Kind: d.Kind, Name: d.Name, Role: d.Role,
		// A lost database must not make reports look older than those seen.
		Seq: in.Nonce.Acked,
	}
	return take(tx, row, Absent, in)
}

// admitKnown takes a further message of the stored uid.
func admitKnown(tx *store.Tx, row *store.Task, in *Input) (outcome, error) {
	d := in.Document
	age := compareVersion(d.Epoch, d.Generation, row.Epoch, row.Generation)
	switch {
	case age < 0 && !faults.Off(faults.GenerationCheck):
		return outcome{}, wire.E(wire.Stale, "generation", fmt.Sprintf("generation %d of epoch %d, this node has %d of %d", d.Generation, d.Epoch, row.Generation, row.Epoch), "")
	case age == 0 && !bytes.Equal(in.Bytes, row.Document) && in.Keys.Verify(row.Document, row.Signature) != nil:
		age = 1 // what is stored was damaged on the disk
	case age == 0 && !bytes.Equal(in.Bytes, row.Document):
		return outcome{}, wire.E(wire.Conflict, "generation", fmt.Sprintf("another document of generation %d is here", d.Generation), "raise the generation with every change")
	case age > 0 && d.State == task.Active && row.State == task.Deleted:
		return outcome{}, wire.E(wire.Buried, "uid", fmt.Sprintf("task %s was deleted at generation %d", row.UID, row.Generation), "a new Device has a new uid")
	}
	if err := checkJump(row.Seq, in.Nonce); err != nil {
		return outcome{}, err
	}
	if age == 0 {
		return nonceOnly(tx, row, in.Nonce)
	}
	row.Seq = max(row.Seq, in.Nonce.Acked)
	return take(tx, row, stateOf(row), in)
}

// take makes in's document the row's.
func take(tx *store.Tx, row *store.Task, from State, in *Input) (outcome, error) {
	d, on := in.Document, Accepted
	if d.State == task.Deleted {
		on = Deleted
	}
	to, err := Next(from, on)
	if err != nil {
		return outcome{}, err
	}
	if err := raiseEpoch(tx, d.Epoch); err != nil {
		return outcome{}, err
	}
	row.Epoch, row.Generation, row.State, row.IssuedAt = d.Epoch, d.Generation, d.State, d.IssuedAt
	row.Document, row.Signature = in.Bytes, in.Signature
	row.NonceN = in.Nonce.N
	if to == Stopping {
		return outcome{work: true}, tx.PutTask(row)
	}
	row.Phase = string(to)
	row.Stage, row.Reason, row.Detail, row.Progress, row.Metrics, row.Attempts = "", "", "", "", nil, 0
	row.ModelSHA256 = in.Spec.Model.SHA256
	row.Seq++
	if from != Absent && faults.Off(faults.TransactionalAccept) {
		row.Phase = string(from) // until storeLate
	}
	return outcome{work: true, report: true}, tx.PutTask(row)
}

// nonceOnly takes a message whose document is the stored one. Any other n
// asks for a report, a lower one too: nobody signs the nonce, and a forged high
// one must not make the cloud's own unheard.
func nonceOnly(tx *store.Tx, row *store.Task, n task.Nonce) (outcome, error) {
	if row.State == task.Deleted {
		return outcome{}, nil // its report comes with its burial
	}
	switch {
	case n.N != row.NonceN || n.Acked > row.Seq:
		row.NonceN = n.N
		row.Acked = min(n.Acked, row.Seq)
		row.Seq = max(row.Seq, n.Acked) + 1
		return outcome{report: true}, tx.PutTask(row)
	case n.Acked < row.Seq:
		return outcome{remind: !faults.Off(faults.Resend)}, nil
	case row.Acked < n.Acked:
		row.Acked = n.Acked
		return outcome{}, tx.PutTask(row)
	}
	return outcome{}, nil
}

// raiseEpoch remembers the highest epoch of any document.
func raiseEpoch(tx *store.Tx, epoch int64) error {
	have, err := tx.NodeInt(store.NodeEpoch)
	if err != nil || epoch <= have {
		return err
	}
	return tx.SetNodeInt(store.NodeEpoch, epoch)
}

func checkJump(seq int64, n task.Nonce) error {
	if n.Acked-seq > maxSeqJump {
		return wire.E(wire.InvalidArgument, task.PropNonce, fmt.Sprintf("acknowledges report %d, the last was %d", n.Acked, seq), "")
	}
	return nil
}

// checkIssue refuses the first document of a uid that was issued before one of
// another uid that is known here.
func checkIssue(tx *store.Tx, in *Input, have string, epoch int64, issued time.Time) error {
	if compareIssue(in.Document, epoch, issued) >= 0 {
		return nil
	}
	roll, err := tx.NodeText(store.NodeRoll)
	if err != nil || slices.Contains(strings.Fields(roll), in.Document.UID) {
		return err
	}
	return wire.E(wire.Stale, "issuedAt", fmt.Sprintf("task %s was issued at %s, before task %s that this node knows", in.Document.UID, in.Document.IssuedAt.UTC().Format(time.RFC3339), have), "")
}

func compareVersion(epoch, generation, thanEpoch, thanGeneration int64) int {
	return cmp.Or(cmp.Compare(epoch, thanEpoch), cmp.Compare(generation, thanGeneration))
}

// compareIssue orders documents of different uids. The store keeps
// microseconds.
func compareIssue(d *task.Document, epoch int64, issued time.Time) int {
	return cmp.Or(cmp.Compare(d.Epoch, epoch), d.IssuedAt.Truncate(time.Microsecond).Compare(issued))
}
