//go:build faults

package faults

import (
	"os"
	"slices"
	"strings"
)

// Env is the variable that lists the remedies to go without, with commas.
const Env = "SEDNA_FAULTS_OFF"

var off = strings.Split(os.Getenv(Env), ",")

// Off tells whether to go without a remedy.
func Off(remedy string) bool { return slices.Contains(off, remedy) }
