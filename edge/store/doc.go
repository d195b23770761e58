// Package store keeps what a LocalController must not forget in one SQLite
// file: tasks with their reports, the tombstones of deleted tasks, the models on
// disk, the node's own counters and a bounded event log.
//
// Writes go through Update, one transaction at a time on one connection with
// synchronous FULL: when Update has returned nil the change survives a power
// cut. View reads beside it from a consistent snapshot. A database that SQLite
// cannot read is moved aside on Open and a fresh one is made, because the cloud
// sends every task again; a full disk and a schema from a newer build are errors.
package store
