package edge_test

import (
	"testing"
	"time"

	"github.com/edgetwin/sedna/lib/engine/enginetest"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// TestNudge has a report lost that would be repeated in an hour only.
func TestNudge(t *testing.T) {
	w := newWorld(t)
	cfg := w.config()
	cfg.Limits.Tasks.ResendBase, cfg.Limits.Tasks.ResendMax = time.Hour, time.Hour
	w.start(cfg)
	w.send("u1", 1, task.Active, w.push(enginetest.Doubler()))
	first := w.expect("u1", task.Running, 1)
	must(t, w.bus.Publish(t.Context(), wire.Nudge(node), 1, false, []byte("{}")))
	if again := w.expect("u1", task.Running, 1); again.Seq != first.Seq {
		t.Errorf("report %d is followed by %d, without news", first.Seq, again.Seq)
	}
}
