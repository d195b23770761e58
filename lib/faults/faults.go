//go:build !faults

package faults

// Off is false: only builds with the tag faults can go without a remedy.
func Off(string) bool { return false }
