// Package faults lets test builds go without one of the remedies on which the
// task protocol rests, to prove that the history checker would notice. In all
// other builds Off is a constant, and what hangs on it is not compiled.
package faults

// The remedies.
const (
	NonceRepair         = "nonce-repair"         // an unconfirmed document is delivered again
	Rebinding           = "re-binding"           // a Device that its node does not know is bound anew
	Resend              = "resend"               // a report is sent until it is acknowledged
	GenerationCheck     = "generation-check"     // an older document is refused
	Tombstones          = "tombstones"           // a deleted task is remembered
	TransactionalAccept = "transactional-accept" // a document and what follows from it are stored as one
)

// Remedies lists them all.
func Remedies() []string {
	return []string{NonceRepair, Rebinding, Resend, GenerationCheck, Tombstones, TransactionalAccept}
}
