package tasks

import (
	"fmt"

	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// State is where a task stands. The first five are phases of reports as well.
type State string

// States of one uid.
const (
	Absent    State = ""                    // never seen here
	Pending   State = State(task.Pending)   // stored, not begun
	Preparing State = State(task.Preparing) // its model is being fetched, tested or loaded
	Running   State = State(task.Running)   // this generation serves
	Failed    State = State(task.Failed)    // this generation could not be made to serve
	Stopping  State = "Stopping"            // its Deleted document is stored, the service not yet stopped
	Stopped   State = State(task.Stopped)   // buried
)

// Event is what moves a task on.
type Event string

// Events of the state machine.
const (
	Accepted   Event = "Accepted"   // a newer Active document came
	Deleted    Event = "Deleted"    // a newer Deleted document came
	Superseded Event = "Superseded" // a younger uid took the Device's name
	Begun      Event = "Begun"      // the worker took it up, for the first time or again
	Served     Event = "Served"     // the service answers with this generation
	Failing    Event = "Failing"    // an attempt failed
	Lost       Event = "Lost"       // what had served cannot be brought back from this node's disk
	Halted     Event = "Halted"     // the service of a deleted task has stopped
	Struck     Event = "Struck"     // the cloud has no Device of the task any more
)

type step struct {
	from State
	on   Event
}

// table has every move there is; what it lacks is refused.
var table = map[step]State{
	{Absent, Accepted}: Pending,
	{Absent, Deleted}:  Stopping,

	{Pending, Accepted}:   Pending,
	{Pending, Deleted}:    Stopping,
	{Pending, Superseded}: Stopped,
	{Pending, Struck}:     Stopped,
	{Pending, Begun}:      Preparing,
	{Pending, Lost}:       Pending,

	{Preparing, Accepted}:   Pending,
	{Preparing, Deleted}:    Stopping,
	{Preparing, Superseded}: Stopped,
	{Preparing, Struck}:     Stopped,
	{Preparing, Begun}:      Preparing, // the process died meanwhile
	{Preparing, Served}:     Running,
	{Preparing, Failing}:    Failed,
	{Preparing, Lost}:       Preparing,

	{Running, Accepted}:   Pending,
	{Running, Deleted}:    Stopping,
	{Running, Superseded}: Stopped,
	{Running, Struck}:     Stopped,
	{Running, Lost}:       Pending,

	{Failed, Accepted}:   Pending,
	{Failed, Deleted}:    Stopping,
	{Failed, Superseded}: Stopped,
	{Failed, Struck}:     Stopped,
	{Failed, Begun}:      Preparing,
	{Failed, Lost}:       Failed,

	{Stopping, Deleted}:    Stopping,
	{Stopping, Superseded}: Stopped,
	{Stopping, Struck}:     Stopped,
	{Stopping, Halted}:     Stopped,

	{Stopped, Deleted}: Stopped, // told again until the cloud knows
}

// Next gives the state after an event, or failed_precondition.
func Next(from State, on Event) (State, error) {
	to, ok := table[step{from, on}]
	if !ok {
		return from, wire.E(wire.FailedPrecondition, "", fmt.Sprintf("a task that is %q cannot be %s", string(from), on), "")
	}
	return to, nil
}

// States and Events list all there are.
func States() []State {
	return []State{Absent, Pending, Preparing, Running, Failed, Stopping, Stopped}
}
func Events() []Event {
	return []Event{Accepted, Deleted, Superseded, Begun, Served, Failing, Lost, Halted, Struck}
}

// stateOf is the state of a row; a nil row is absent.
func stateOf(t *store.Task) State {
	switch {
	case t == nil:
		return Absent
	case t.State == task.Deleted:
		return Stopping
	}
	return State(t.Phase)
}

// move applies an event to an Active task's row and numbers the report that
// this causes.
func move(t *store.Task, on Event) error {
	to, err := Next(stateOf(t), on)
	if err != nil {
		return fmt.Errorf("task %s/%s: %w", t.Namespace, t.Device, err)
	}
	t.Phase = string(to)
	t.Seq++
	return nil
}
