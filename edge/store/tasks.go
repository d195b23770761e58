package store

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Task is one live task: its document, what was last reported of it, and what
// serves meanwhile.
type Task struct {
	Namespace, Device string // the key
	UID               string
	Epoch, Generation int64
	State             string // of the document: Active, or Deleted while the task is being stopped
	Kind, Name, Role  string
	IssuedAt          time.Time
	Document          []byte // the exact signed bytes
	Signature         string
	NonceN            int64 // highest n seen

	Phase, Stage   string
	Round, Samples int64
	Reason         string
	Progress       string
	Metrics        map[string]float64
	Model          string // what serves, name:version:digest12
	Detail         string
	Attempts       int // failed attempts at this generation

	Serving       []byte // the document that is being served, nil if none
	ServingSHA256 string
	ModelSHA256   string // of the document's model, once fetched

	Seq, Acked int64 // last report, and the last one that the cloud has seen
	UpdatedAt  time.Time
}

// Tombstone remembers a deleted task, so that its documents stay dead, and
// carries its last report until the cloud has seen it.
type Tombstone struct {
	UID               string // the key
	Namespace, Device string
	Epoch, Generation int64
	IssuedAt          time.Time // of the last document
	BuriedAt          time.Time
	Seq               int64 // of the report Stopped
	NonceN            int64 // last n seen
	Settled           bool  // the report was seen, or nobody waits for it
}

const taskColumns = `namespace, device, uid, epoch, generation, state, kind, name, role, issued_at, document, signature, nonce_n,
	phase, stage, round, samples, reason, progress, metrics, model, detail, attempts,
	serving, serving_sha256, model_sha256, seq, acked, updated_at`

func scanTask(row interface{ Scan(...any) error }) (*Task, error) {
	var t Task
	var issued, updated int64
	var metrics string
	err := row.Scan(&t.Namespace, &t.Device, &t.UID, &t.Epoch, &t.Generation, &t.State, &t.Kind, &t.Name, &t.Role, &issued, &t.Document, &t.Signature, &t.NonceN,
		&t.Phase, &t.Stage, &t.Round, &t.Samples, &t.Reason, &t.Progress, &metrics, &t.Model, &t.Detail, &t.Attempts,
		&t.Serving, &t.ServingSHA256, &t.ModelSHA256, &t.Seq, &t.Acked, &updated)
	if err != nil {
		return nil, err
	}
	t.IssuedAt, t.UpdatedAt = fromMicros(issued), fromMicros(updated)
	if metrics != "" {
		if err := json.Unmarshal([]byte(metrics), &t.Metrics); err != nil {
			return nil, fmt.Errorf("metrics of task %s/%s: %w", t.Namespace, t.Device, err)
		}
	}
	return &t, nil
}

// Task gives the task of a device, or nil if there is none.
func (t *Tx) Task(namespace, device string) (*Task, error) {
	row, err := scanTask(t.tx.QueryRowContext(t.ctx, "SELECT "+taskColumns+" FROM tasks WHERE namespace = ? AND device = ?", namespace, device))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return row, err
}

// Tasks gives all tasks in key order.
func (t *Tx) Tasks() ([]*Task, error) {
	rows, err := t.tx.QueryContext(t.ctx, "SELECT "+taskColumns+" FROM tasks ORDER BY namespace, device")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []*Task
	for rows.Next() {
		row, err := scanTask(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, row)
	}
	return out, rows.Err()
}

// PutTask writes a task, over one with the same key, and stamps UpdatedAt.
func (t *Tx) PutTask(v *Task) error {
	metrics := ""
	if len(v.Metrics) > 0 {
		b, err := json.Marshal(v.Metrics)
		if err != nil {
			return fmt.Errorf("metrics of task %s/%s: %w", v.Namespace, v.Device, err)
		}
		metrics = string(b)
	}
	v.UpdatedAt = fromMicros(micros(t.opts.Now()))
	return t.exec("INSERT OR REPLACE INTO tasks ("+taskColumns+") VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
		v.Namespace, v.Device, v.UID, v.Epoch, v.Generation, v.State, v.Kind, v.Name, v.Role, micros(v.IssuedAt), v.Document, v.Signature, v.NonceN,
		v.Phase, v.Stage, v.Round, v.Samples, v.Reason, v.Progress, metrics, v.Model, v.Detail, v.Attempts,
		v.Serving, v.ServingSHA256, v.ModelSHA256, v.Seq, v.Acked, micros(v.UpdatedAt))
}

// DeleteTask removes a task; it is no error if there is none.
func (t *Tx) DeleteTask(namespace, device string) error {
	return t.exec("DELETE FROM tasks WHERE namespace = ? AND device = ?", namespace, device)
}

const tombstoneColumns = "uid, namespace, device, epoch, generation, issued_at, buried_at, seq, nonce_n, settled"

func scanTombstone(row interface{ Scan(...any) error }) (*Tombstone, error) {
	var v Tombstone
	var issued, buried int64
	err := row.Scan(&v.UID, &v.Namespace, &v.Device, &v.Epoch, &v.Generation, &issued, &buried, &v.Seq, &v.NonceN, &v.Settled)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	v.IssuedAt, v.BuriedAt = fromMicros(issued), fromMicros(buried)
	return &v, nil
}

// Tombstone gives the tombstone of a uid, or nil.
func (t *Tx) Tombstone(uid string) (*Tombstone, error) {
	return scanTombstone(t.tx.QueryRowContext(t.ctx, "SELECT "+tombstoneColumns+" FROM tombstones WHERE uid = ?", uid))
}

// LastBuried gives the tombstone of a device whose document is the newest, by
// epoch and then time of issue, or nil.
func (t *Tx) LastBuried(namespace, device string) (*Tombstone, error) {
	return scanTombstone(t.tx.QueryRowContext(t.ctx, "SELECT "+tombstoneColumns+` FROM tombstones
		WHERE namespace = ? AND device = ? ORDER BY epoch DESC, issued_at DESC, buried_at DESC LIMIT 1`, namespace, device))
}

// Unsettled gives the tombstones buried after since whose report nobody has
// acknowledged.
func (t *Tx) Unsettled(since time.Time) ([]*Tombstone, error) {
	rows, err := t.tx.QueryContext(t.ctx, "SELECT "+tombstoneColumns+" FROM tombstones WHERE settled = 0 AND buried_at > ? ORDER BY buried_at", micros(since))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []*Tombstone
	for rows.Next() {
		v, err := scanTombstone(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

// Untold gives the tombstone of a device whose report nobody has acknowledged,
// or nil.
func (t *Tx) Untold(namespace, device string) (*Tombstone, error) {
	return scanTombstone(t.tx.QueryRowContext(t.ctx, "SELECT "+tombstoneColumns+" FROM tombstones WHERE namespace = ? AND device = ? AND settled = 0", namespace, device))
}

// Bury writes a tombstone, over one of the same uid, and drops the oldest ones
// over the limits. The zero BuriedAt means now. One that is not settled settles
// the others of its device, whose reports nobody waits for any more.
func (t *Tx) Bury(v *Tombstone) error {
	if v.BuriedAt.IsZero() {
		v.BuriedAt = fromMicros(micros(t.opts.Now()))
	}
	if !v.Settled {
		if err := t.exec("UPDATE tombstones SET settled = 1 WHERE namespace = ? AND device = ? AND settled = 0", v.Namespace, v.Device); err != nil {
			return err
		}
	}
	err := t.exec("INSERT OR REPLACE INTO tombstones ("+tombstoneColumns+") VALUES (?,?,?,?,?,?,?,?,?,?)",
		v.UID, v.Namespace, v.Device, v.Epoch, v.Generation, micros(v.IssuedAt), micros(v.BuriedAt), v.Seq, v.NonceN, v.Settled)
	if err != nil {
		return err
	}
	return t.pruneTombstones()
}

func (t *Tx) pruneTombstones() error {
	err := t.exec(`DELETE FROM tombstones WHERE uid IN (SELECT uid FROM tombstones ORDER BY buried_at
		LIMIT max(0, (SELECT count(*) FROM tombstones) - ?))`, t.opts.MaxTombstones)
	if err != nil {
		return err
	}
	return t.exec("DELETE FROM tombstones WHERE buried_at < ?", micros(t.opts.Now().Add(-t.opts.TombstoneAge)))
}
