package tasks

import (
	"bytes"
	"context"
	"encoding/json"
	"time"

	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// View is one task as the LocalController's HTTP shows it.
type View struct {
	Namespace         string             `json:"namespace"`
	Device            string             `json:"device"`
	UID               string             `json:"uid"`
	Kind              string             `json:"kind"`
	Name              string             `json:"name"`
	Role              string             `json:"role"`
	State             string             `json:"state"`
	Epoch             int64              `json:"epoch"`
	Generation        int64              `json:"generation"`
	ServingGeneration int64              `json:"servingGeneration,omitempty"` // 0: nothing serves
	Serving           bool               `json:"serving"`                     // the service answers now
	Phase             string             `json:"phase"`
	Stage             string             `json:"stage,omitempty"`
	Reason            string             `json:"reason,omitempty"`
	Detail            string             `json:"detail,omitempty"`
	Model             string             `json:"model,omitempty"` // name:version:digest12 of what serves
	Metrics           map[string]float64 `json:"metrics,omitempty"`
	Attempts          int                `json:"attempts,omitempty"` // failed ones at this generation
	Seq               int64              `json:"seq"`
	Acked             int64              `json:"acked"`
	IssuedAt          time.Time          `json:"issuedAt"`
	UpdatedAt         time.Time          `json:"updatedAt"`
	Document          json.RawMessage    `json:"document,omitempty"` // of one task only
}

// Tasks shows all tasks of the node.
func (m *Manager) Tasks(ctx context.Context) ([]View, error) {
	var rows []*store.Task
	err := m.o.Store.View(ctx, func(tx *store.Tx) (err error) {
		rows, err = tx.Tasks()
		return err
	})
	if err != nil {
		return nil, err
	}
	out := make([]View, len(rows))
	for i, r := range rows {
		out[i] = m.view(r)
	}
	return out, nil
}

// Task shows one task with its document, or not_found.
func (m *Manager) Task(ctx context.Context, namespace, device string) (View, error) {
	row, err := m.row(ctx, key{namespace, device})
	if err != nil {
		return View{}, err
	}
	if row == nil {
		return View{}, wire.E(wire.NotFound, "", "no task "+namespace+"/"+device+" on this node", "")
	}
	v := m.view(row)
	v.Document = row.Document
	return v, nil
}

func (m *Manager) view(r *store.Task) View {
	v := View{
		Namespace: r.Namespace, Device: r.Device, UID: r.UID, Kind: r.Kind, Name: r.Name, Role: r.Role, State: r.State,
		Epoch: r.Epoch, Generation: r.Generation, Phase: string(stateOf(r)), Stage: r.Stage, Reason: r.Reason, Detail: r.Detail,
		Model: r.Model, Metrics: r.Metrics, Attempts: r.Attempts, Seq: r.Seq, Acked: r.Acked, IssuedAt: r.IssuedAt, UpdatedAt: r.UpdatedAt,
	}
	v.Serving = m.servingUID(key{r.Namespace, r.Device}) == r.UID
	if bytes.Equal(r.Serving, r.Document) {
		v.ServingGeneration = r.Generation
	} else if r.Serving != nil {
		if doc, err := task.Parse(r.Serving); err == nil {
			v.ServingGeneration = doc.Generation
		}
	}
	return v
}

// NotServing lists the tasks that ought to serve and do not: those that are
// Running, or have an older generation to serve meanwhile.
func (m *Manager) NotServing(ctx context.Context) ([]string, error) {
	views, err := m.Tasks(ctx)
	var out []string
	for _, v := range views {
		if v.State == task.Active && v.ServingGeneration > 0 && !v.Serving {
			out = append(out, v.Namespace+"/"+v.Device)
		}
	}
	return out, err
}
