// Package tasks is the node's side of a task's life. Desired documents come in
// from the bus, are checked against the pinned keys and against what is stored,
// and are written in one SQLite transaction with the report that they cause.
// One worker per task then fetches the model, has it tested, activates the
// service or stops it. Reports, signed by the node's key, go out until the cloud
// has acknowledged their seq, and a beat of the whole node goes out every minute.
//
// A task's state is a row of the table in machine.go. While a new generation is
// prepared, and when it fails, the old one goes on serving: the phase is then
// that of the new generation, and the property model names what serves.
//
// Lock order: Manager.mu and reporter.mu are never held together, and
// none is held during a transaction, a publish or a call of Server or Models.
package tasks
