package worker

import (
	"fmt"

	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/models/wire"
)

// Phase is where a worker stands.
type Phase string

// Phases of a worker.
const (
	Absent    Phase = ""
	Pending   Phase = "Pending"   // stored; its next life begins when it may
	Starting  Phase = "Starting"  // a life is journalled, its shim not yet: nothing has run
	Running   Phase = "Running"   // a life with a shim, which runs or has ended unseen
	Succeeded Phase = "Succeeded" // it is done
	Failed    Phase = "Failed"    // it has failed for good
	Removing  Phase = "Removing"  // being ended, to be forgotten
)

// Event is what moves a worker on.
type Event string

// Events of the state machine.
const (
	Wanted    Event = "Wanted"    // a new request, or one that asks for something else
	Unwanted  Event = "Unwanted"  // it is to go
	Launching Event = "Launching" // a life is about to be started
	Launched  Event = "Launched"  // the life's shim is there
	Again     Event = "Again"     // the life ended or could not begin, and another is to follow
	Done      Event = "Done"      // the life ended well and none is to follow
	Broken    Event = "Broken"    // the life ended badly or cannot begin, and none is to follow
)

type step struct {
	from Phase
	on   Event
}

// table has every move there is; what it lacks is refused.
var table = map[step]Phase{
	{Absent, Wanted}: Pending,

	{Pending, Wanted}:    Pending,
	{Pending, Unwanted}:  Removing,
	{Pending, Launching}: Starting,
	{Pending, Again}:     Pending,
	{Pending, Broken}:    Failed,

	{Starting, Wanted}:   Starting, // what has begun is ended first
	{Starting, Unwanted}: Removing,
	{Starting, Launched}: Running,
	{Starting, Again}:    Pending,

	{Running, Wanted}:   Running,
	{Running, Unwanted}: Removing,
	{Running, Again}:    Pending,
	{Running, Done}:     Succeeded,
	{Running, Broken}:   Failed,

	{Succeeded, Wanted}:   Pending,
	{Succeeded, Unwanted}: Removing,

	{Failed, Wanted}:   Pending,
	{Failed, Unwanted}: Removing,

	{Removing, Unwanted}: Removing,
}

// move applies an event to a row.
func move(w *store.Worker, on Event) error {
	to, ok := table[step{Phase(w.Phase), on}]
	if !ok {
		return wire.E(wire.FailedPrecondition, "", fmt.Sprintf("worker %s that is %q cannot be %s", w.Name, w.Phase, on), "")
	}
	w.Phase = string(to)
	return nil
}
