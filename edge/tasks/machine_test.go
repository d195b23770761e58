package tasks_test

import (
	"testing"

	"github.com/edgetwin/sedna/edge/tasks"
	"github.com/edgetwin/sedna/models/wire"
)

// TestTable states every pair of state and event: where it leads, or that it
// is refused.
func TestTable(t *testing.T) {
	const no = tasks.State("refused")
	events := []tasks.Event{tasks.Accepted, tasks.Deleted, tasks.Superseded, tasks.Begun, tasks.Served, tasks.Failing, tasks.Lost, tasks.Halted, tasks.Struck}
	want := map[tasks.State][]tasks.State{
		tasks.Absent:    {tasks.Pending, tasks.Stopping, no, no, no, no, no, no, no},
		tasks.Pending:   {tasks.Pending, tasks.Stopping, tasks.Stopped, tasks.Preparing, no, no, tasks.Pending, no, tasks.Stopped},
		tasks.Preparing: {tasks.Pending, tasks.Stopping, tasks.Stopped, tasks.Preparing, tasks.Running, tasks.Failed, tasks.Preparing, no, tasks.Stopped},
		tasks.Running:   {tasks.Pending, tasks.Stopping, tasks.Stopped, no, no, no, tasks.Pending, no, tasks.Stopped},
		tasks.Failed:    {tasks.Pending, tasks.Stopping, tasks.Stopped, tasks.Preparing, no, no, tasks.Failed, no, tasks.Stopped},
		tasks.Stopping:  {no, tasks.Stopping, tasks.Stopped, no, no, no, no, tasks.Stopped, tasks.Stopped},
		tasks.Stopped:   {no, tasks.Stopped, no, no, no, no, no, no, no},
	}
	if len(want) != len(tasks.States()) || len(events) != len(tasks.Events()) {
		t.Fatalf("%d states and %d events, the test knows %d and %d", len(tasks.States()), len(tasks.Events()), len(want), len(events))
	}
	for from, row := range want {
		for i, to := range row {
			got, err := tasks.Next(from, events[i])
			switch {
			case to == no && !wire.IsCode(err, wire.FailedPrecondition):
				t.Errorf("%q on %s: %q, %v; want a refusal", from, events[i], got, err)
			case to == no && got != from:
				t.Errorf("%q on %s is refused and moves to %q", from, events[i], got)
			case to != no && (err != nil || got != to):
				t.Errorf("%q on %s: %q, %v; want %q", from, events[i], got, err, to)
			}
		}
	}
}
