// Package model keeps the model files of a node: it fetches what a task names,
// checks the digest, renames the file into place, and has a throwaway child
// process load and run it before this process does. A model that was being
// loaded when the process died twice in a row is quarantined. Files that no
// task refers to are collected.
//
// Lock order: a model's own lock (Library.busy) before Library.mu; SQLite
// transactions are taken inside either and never wait for them.
package model
