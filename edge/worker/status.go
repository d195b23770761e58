package worker

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/edgetwin/sedna/models/task"
)

// Status is how a worker does.
type Status struct {
	UID        string             `json:"uid"` // of the task
	Name       string             `json:"name"`
	Generation int64              `json:"generation"`
	Phase      Phase              `json:"phase"`
	Reason     string             `json:"reason,omitempty"`
	Detail     string             `json:"detail,omitempty"`
	Progress   task.Progress      `json:"progress"`
	Metrics    map[string]float64 `json:"metrics,omitempty"` // of the last progress line
	Result     *task.WorkerResult `json:"result,omitempty"`  // of the last life that left one
	PID        int                `json:"pid,omitempty"`     // of the worker, while it runs
	LimitedBy  string             `json:"limitedBy,omitempty"`
	Restarts   int64              `json:"restarts"`
	ExitCode   int                `json:"exitCode"` // of the last life
	StartedAt  time.Time          `json:"startedAt,omitzero"`
	EndedAt    time.Time          `json:"endedAt,omitzero"`
	NextAt     time.Time          `json:"nextAt,omitzero"` // when it is started again
	LastLines  []string           `json:"lastLines,omitempty"`
}

// Status tells how a worker does, false if there is none.
func (s *Supervisor) Status(k Key) (Status, bool) {
	s.mu.Lock()
	u := s.units[k]
	if u == nil {
		s.mu.Unlock()
		return Status{}, false
	}
	w, live := u.row, u.live
	s.mu.Unlock()
	st := Status{
		UID: w.UID, Name: w.Name, Generation: w.Generation, Phase: Phase(w.Phase), Reason: w.Reason, Detail: w.Detail,
		LimitedBy: w.LimitedBy, Restarts: w.Restarts, ExitCode: w.ExitCode, StartedAt: w.StartedAt, EndedAt: w.EndedAt,
		LastLines: tail(u.dirs.top),
	}
	if st.Phase == Pending {
		st.NextAt = w.NextAt
	}
	if live != nil && live.Life == w.Life {
		st.Progress, st.Metrics = live.Progress, maps.Clone(live.Metrics)
		if w.EndedAt.IsZero() {
			st.PID = live.PID
		}
	}
	var r task.WorkerResult
	if w.Result != nil && json.Unmarshal(w.Result, &r) == nil {
		st.Result = &r
	}
	return st, true
}

// Statuses tells how all workers of a task do, or all there are when uid is
// empty, in the order of their names.
func (s *Supervisor) Statuses(uid string) []Status {
	s.mu.Lock()
	keys := slices.Collect(maps.Keys(s.units))
	s.mu.Unlock()
	slices.SortFunc(keys, func(a, b Key) int { return strings.Compare(a.String(), b.String()) })
	var out []Status
	for _, k := range keys {
		if uid != "" && k.UID != uid {
			continue
		}
		if st, ok := s.Status(k); ok {
			out = append(out, st)
		}
	}
	return out
}
