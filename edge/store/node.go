package store

import (
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Keys of the node's own state.
const (
	NodeBeatSeq         = "beat_seq"          // of the last beat that was sent
	NodeNonce           = "nonce_n"           // last n seen for the node
	NodeEpoch           = "epoch"             // highest epoch seen in any document
	NodeConfig          = "config"            // the last good configuration document
	NodeConfigSignature = "config_signature"  // of NodeConfig
	NodeConfigGen       = "config_generation" // of NodeConfig
	NodeRoll            = "roll"              // uids of the tasks that the last roll listed, with spaces
)

// NodeText gives one value of the node's state, empty if it was never set.
func (t *Tx) NodeText(key string) (string, error) {
	var v string
	err := t.tx.QueryRowContext(t.ctx, "SELECT value FROM node WHERE key = ?", key).Scan(&v)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return v, err
}

// SetNodeText writes one value of the node's state.
func (t *Tx) SetNodeText(key, value string) error {
	return t.exec("INSERT OR REPLACE INTO node (key, value) VALUES (?,?)", key, value)
}

// NodeInt gives one number of the node's state, 0 if it was never set.
func (t *Tx) NodeInt(key string) (int64, error) {
	s, err := t.NodeText(key)
	if err != nil || s == "" {
		return 0, err
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: node state %s is %.40q", ErrDamaged, key, s)
	}
	return n, nil
}

// SetNodeInt writes one number of the node's state.
func (t *Tx) SetNodeInt(key string, n int64) error {
	return t.SetNodeText(key, strconv.FormatInt(n, 10))
}

// Event is something that happened and that an operator may want to know.
type Event struct {
	Time       time.Time `json:"time"`
	Kind       string    `json:"kind"`   // task, model, config, store, connectivity
	Reason     string    `json:"reason"` // CamelCase, one word, or a wire error code
	Namespace  string    `json:"namespace,omitempty"`
	Device     string    `json:"device,omitempty"`
	UID        string    `json:"uid,omitempty"`
	Generation int64     `json:"generation,omitempty"`
	Message    string    `json:"message,omitempty"`
}

// maxMessage bounds an event's message in bytes.
const maxMessage = 1024

// AddEvent appends to the event log, the oldest entries give way. The zero
// Time means now.
func (t *Tx) AddEvent(e Event) error {
	if e.Time.IsZero() {
		e.Time = t.opts.Now()
	}
	if len(e.Message) > maxMessage {
		e.Message = e.Message[:maxMessage]
	}
	res, err := t.tx.ExecContext(t.ctx, "INSERT INTO events (at, kind, reason, namespace, device, uid, generation, message) VALUES (?,?,?,?,?,?,?,?)",
		micros(e.Time), e.Kind, e.Reason, e.Namespace, e.Device, e.UID, e.Generation, e.Message)
	if err != nil {
		return err
	}
	id, err := res.LastInsertId()
	if err != nil {
		return err
	}
	return t.exec("DELETE FROM events WHERE id <= ?", id-int64(t.opts.MaxEvents))
}

// Events gives the newest entries of the event log, the newest first.
func (t *Tx) Events(limit int) ([]Event, error) {
	rows, err := t.tx.QueryContext(t.ctx, "SELECT at, kind, reason, namespace, device, uid, generation, message FROM events ORDER BY id DESC LIMIT ?", limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []Event
	for rows.Next() {
		var e Event
		var at int64
		if err := rows.Scan(&at, &e.Kind, &e.Reason, &e.Namespace, &e.Device, &e.UID, &e.Generation, &e.Message); err != nil {
			return nil, err
		}
		e.Time = fromMicros(at)
		out = append(out, e)
	}
	return out, rows.Err()
}
