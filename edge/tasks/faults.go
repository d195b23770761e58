package tasks

import (
	"context"
	"time"

	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/models/task"
)

// storeLate stores in a second transaction what take was to store in the
// first. Only builds that prove the history checker call it.
func (m *Manager) storeLate(ctx context.Context, k key) error {
	const late = 300 * time.Millisecond
	time.Sleep(late)
	return m.o.Store.Update(ctx, func(tx *store.Tx) error {
		row, err := tx.Task(k.namespace, k.device)
		if err != nil || row == nil || row.State == task.Deleted {
			return err
		}
		row.Phase = string(Pending)
		return tx.PutTask(row)
	})
}
