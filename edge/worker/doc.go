// Package worker runs the processes of tasks and keeps them running: start,
// limits, restart with back-off, logs, progress, results, and an end of which
// nothing is left.
//
// Each start of a process is a life. It is journalled in SQLite, then a shim of
// this binary is started, journalled with its pid and start time, and only then
// told what to run; a shim that is told nothing ends. The shim is the parent of
// all that the process starts, writes the log, keeps the time limit and leaves
// the outcome in a file, so a life goes on when the LocalController dies, is
// found again by pid, start time and boot, and is never run twice.
//
// On disk a worker has DIR/UID/NAME with log, log.1 and so on, work, home, tmp
// and out, and the files lock, run.json and exit.json of its shim.
package worker
