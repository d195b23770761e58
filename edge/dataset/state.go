package dataset

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/lib/dataset/format"
	"github.com/edgetwin/sedna/models/task"
)

// state is a dataset's row: it moves on with what was read, in one transaction.
type state struct {
	Spec     task.Dataset `json:"spec"`
	Cursor   cursor       `json:"cursor"`
	Stats    format.Stats `json:"stats"`
	Columns  []string     `json:"columns,omitempty"` // that Stats are of
	Base     int64        `json:"base"`              // ordinal of the first sample of the file
	Next     int64        `json:"next"`              // ordinal of the next sample
	Contents int64        `json:"contents"`
	Version  string       `json:"version,omitempty"` // of a remote file that was read to its end
	Size     int64        `json:"size"`
	Reason   string       `json:"reason,omitempty"`
	Message  string       `json:"message,omitempty"`
	GrewAt   time.Time    `json:"grewAt"`

	events []store.Event
	files  []store.DatasetFile
	skip   span // samples that no consumer may take that is registered now
}

// span is a range of ordinals, To is behind the last.
type span struct {
	From int64 `json:"from"`
	To   int64 `json:"to"`
}

// loadState gives the state of a dataset, or nil if there is none.
func loadState(tx *store.Tx, k Key) (*state, error) {
	row, err := tx.Dataset(k)
	if err != nil || row == nil {
		return nil, err
	}
	var st state
	if err := json.Unmarshal(row.State, &st); err != nil {
		return nil, fmt.Errorf("state of dataset %s/%s: %w", k.Namespace, k.Name, err)
	}
	return &st, nil
}

func saveState(tx *store.Tx, k Key, st *state) error {
	b, err := json.Marshal(st)
	if err != nil {
		return fmt.Errorf("state of dataset %s/%s: %w", k.Namespace, k.Name, err)
	}
	return tx.PutDataset(store.Dataset{DatasetKey: k, State: b})
}

// say notes an event that the next commit writes.
func (st *state) say(k Key, reason, format string, args ...any) {
	st.events = append(st.events, store.Event{Kind: "dataset", Reason: reason, Namespace: k.Namespace, Message: k.Name + ": " + fmt.Sprintf(format, args...)})
}

func (st *state) status(k Key) Status {
	s := Status{
		Key: k, Ready: st.Reason == "", Reason: st.Reason, Message: st.Message, Samples: st.Stats.Samples, Total: st.Next, Size: st.Size,
		Contents: st.Contents, Stats: st.Stats, GrewAt: st.GrewAt,
	}
	if st.Spec.Format != task.DatasetImages {
		s.Waiting = max(0, st.Size-st.Cursor.Scan.Offset)
	}
	return s
}

// scanFormat is the format of segments and shards.
func (st *state) scanFormat() string {
	if st.Spec.Format == task.DatasetImages {
		return format.TXT
	}
	return st.Spec.Format
}

// consumer is a DatasetConsumer's state.
type consumer struct {
	Consumer
	Skips []span `json:"skips,omitempty"`
	Round int64  `json:"round"` // the last one
}

func parseConsumer(row store.DatasetConsumer) (c consumer, err error) {
	if err = json.Unmarshal(row.State, &c); err != nil {
		err = fmt.Errorf("state of consumer %s of dataset %s/%s: %w", row.Job, row.Namespace, row.Name, err)
	}
	return c, err
}

func putConsumer(tx *store.Tx, row store.DatasetConsumer, c consumer) error {
	b, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("state of consumer %s: %w", row.Job, err)
	}
	row.State = b
	return tx.PutDatasetConsumer(row)
}

// after gives the first ordinal from p on that is not in a skip.
func (c *consumer) after(p int64) int64 {
	for _, s := range c.Skips { // in order
		if p >= s.From && p < s.To {
			p = s.To
		}
	}
	return p
}

// commit writes the state, with a segment if there is one, and tells.
func (m *Manager) commit(ctx context.Context, k Key, st *state, seg *store.DatasetSegment) error {
	if err := m.step("segment written"); err != nil {
		return err
	}
	err := m.o.Store.Update(ctx, func(tx *store.Tx) error {
		old, err := tx.Dataset(k)
		if err != nil {
			return err
		}
		if old == nil {
			return errStopped
		}
		if err := saveState(tx, k, st); err != nil {
			return err
		}
		if seg != nil {
			if err := tx.PutDatasetSegment(*seg); err != nil {
				return err
			}
		}
		for _, f := range st.files {
			if err := tx.PutDatasetFile(k, f); err != nil {
				return err
			}
		}
		if err := skipAll(tx, k, st.skip); err != nil {
			return err
		}
		for _, e := range st.events {
			if err := tx.AddEvent(e); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, e := range st.events {
		m.o.Log.Info("dataset", "dataset", k.Namespace+"/"+k.Name, "reason", e.Reason, "message", e.Message)
		m.o.Events(e)
	}
	st.events, st.files, st.skip = nil, nil, span{}
	m.o.Changed(k)
	return m.step("committed")
}

// skipAll has every consumer that is registered leave out s.
func skipAll(tx *store.Tx, k Key, s span) error {
	if s.From == s.To {
		return nil
	}
	rows, err := tx.DatasetConsumers(k)
	if err != nil {
		return err
	}
	for _, row := range rows {
		c, err := parseConsumer(row)
		if err != nil {
			return err
		}
		c.Skips = append(c.Skips, s)
		if err := putConsumer(tx, row, c); err != nil {
			return err
		}
	}
	return nil
}
