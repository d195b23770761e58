// Package faults lets test builds go without one of the remedies on which the
// task protocol rests, to prove that the history checker would notice, and with
// a wrong clock. In all other builds Off is a constant, and what hangs on it is
// not compiled, and Clock changes nothing.
package faults

// The remedies.
const (
	NonceRepair         = "nonce-repair"         // an unconfirmed document is delivered again
	Rebinding           = "re-binding"           // a Device that its node does not know is bound anew
	Resend              = "resend"               // a report is sent until it is acknowledged
	GenerationCheck     = "generation-check"     // an older document is refused
	Tombstones          = "tombstones"           // a deleted task is remembered
	TransactionalAccept = "transactional-accept" // a document and what follows from it are stored as one
	Roll                = "roll"                 // a node is told which of its tasks are alive
	Clearing            = "clearing"             // the document of a task that has ended is taken off the bus
)

// Variables of the environment, which builds with the tag faults read.
const (
	Env      = "SEDNA_FAULTS_OFF"   // the remedies to go without, with commas
	EnvClock = "SEDNA_FAULTS_CLOCK" // how far the process's clock is off, such as -90m
)

// Remedies lists them all.
func Remedies() []string {
	return []string{NonceRepair, Rebinding, Resend, GenerationCheck, Tombstones, TransactionalAccept, Roll, Clearing}
}
