package store

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Worker is one process that a task wants run, and its current or last life: a
// life is one start of the process, journalled before the process runs.
type Worker struct {
	UID        string // of the task; with Name the key
	Name       string
	Generation int64  // of the task's document that Request is from
	Request    []byte // what is to run

	Phase, Reason, Detail string
	Restarts              int64     // lives that ended and were followed by another, of this request
	Failures              int       // of them in a row that failed early
	NextAt                time.Time // when the next life may begin

	Life       string // id of the life, empty before the first
	LifeHash   string // of the request that the life runs
	Capability string // sha256 of the life's capability, hex; empty when the life is over
	BootID     string // of the machine at the life's start
	PID        int    // of the life's shim; 0: none was started yet
	StartTicks int64  // of that process, in clock ticks since boot
	Cgroup     string // directory, empty if there is none
	LimitedBy  string // what keeps the limits
	Relays     []int  // local ports, in the order of the request's relays

	StartedAt, EndedAt time.Time // of the life
	ExitCode           int       // of the last life; 128 and the signal's number when one ended it
	Result             []byte    // result.json of the last life, nil if there is none
}

const workerColumns = `uid, name, generation, request, phase, reason, detail, restarts, failures, next_at,
	life, life_hash, capability, boot_id, pid, start_ticks, cgroup, limited_by, relays, started_at, ended_at, exit_code, result`

// Workers gives all workers in key order.
func (t *Tx) Workers() ([]*Worker, error) {
	rows, err := t.tx.QueryContext(t.ctx, "SELECT "+workerColumns+" FROM workers ORDER BY uid, name")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []*Worker
	for rows.Next() {
		w, err := scanWorker(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, w)
	}
	return out, rows.Err()
}

// Worker gives one worker, or nil if there is none.
func (t *Tx) Worker(uid, name string) (*Worker, error) {
	w, err := scanWorker(t.tx.QueryRowContext(t.ctx, "SELECT "+workerColumns+" FROM workers WHERE uid = ? AND name = ?", uid, name))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return w, err
}

func scanWorker(row interface{ Scan(...any) error }) (*Worker, error) {
	var w Worker
	var next, started, ended int64
	var relays string
	err := row.Scan(&w.UID, &w.Name, &w.Generation, &w.Request, &w.Phase, &w.Reason, &w.Detail, &w.Restarts, &w.Failures, &next,
		&w.Life, &w.LifeHash, &w.Capability, &w.BootID, &w.PID, &w.StartTicks, &w.Cgroup, &w.LimitedBy, &relays, &started, &ended, &w.ExitCode, &w.Result)
	if err != nil {
		return nil, err
	}
	w.NextAt, w.StartedAt, w.EndedAt = fromMicros(next), fromMicros(started), fromMicros(ended)
	if relays != "" {
		if err := json.Unmarshal([]byte(relays), &w.Relays); err != nil {
			return nil, fmt.Errorf("relays of worker %s/%s: %w", w.UID, w.Name, err)
		}
	}
	return &w, nil
}

// PutWorker writes a worker, over one with the same key.
func (t *Tx) PutWorker(w *Worker) error {
	relays := ""
	if len(w.Relays) > 0 {
		b, err := json.Marshal(w.Relays)
		if err != nil {
			return fmt.Errorf("relays of worker %s/%s: %w", w.UID, w.Name, err)
		}
		relays = string(b)
	}
	return t.exec("INSERT OR REPLACE INTO workers ("+workerColumns+") VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
		w.UID, w.Name, w.Generation, w.Request, w.Phase, w.Reason, w.Detail, w.Restarts, w.Failures, micros(w.NextAt),
		w.Life, w.LifeHash, w.Capability, w.BootID, w.PID, w.StartTicks, w.Cgroup, w.LimitedBy, relays, micros(w.StartedAt), micros(w.EndedAt), w.ExitCode, w.Result)
}

// DeleteWorker removes a worker's row; it is no error if there is none.
func (t *Tx) DeleteWorker(uid, name string) error {
	return t.exec("DELETE FROM workers WHERE uid = ? AND name = ?", uid, name)
}
