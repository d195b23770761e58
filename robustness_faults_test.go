//go:build faults

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/edgetwin/sedna/lib/faults"
)

// TestRobustnessWithWrongClocks has processes start with clocks that are minutes
// or hours off, ahead or behind, and with right ones in between. It is a test of
// builds with the tag because Go reads the clock without asking the kernel, so
// that nothing outside a process can set it for that process alone.
func TestRobustnessWithWrongClocks(t *testing.T) {
	runSeeds(t, startRobustness(t, true), seeds(t, standardSeeds), "go test -tags faults")
}

// TestCheckerNoticesMissingRemedies proves the history checker: without any one
// of the remedies it finds a violation within SEEDS seeds (default 100).
func TestCheckerNoticesMissingRemedies(t *testing.T) {
	for _, remedy := range faults.Remedies() {
		t.Run(remedy, func(t *testing.T) {
			list := seeds(t, nil)
			if list == nil {
				for n := range int64(100) {
					list = append(list, n+1)
				}
			}
			s := startRobustness(t, false, faults.Env+"="+remedy)
			for _, n := range list {
				file := filepath.Join(histories(t), fmt.Sprintf("without-%s-seed-%d.jsonl", remedy, n))
				v, err := s.Run(t.Context(), n, file)
				if err != nil {
					t.Fatalf("seed %d: %v", n, err)
				}
				if !v.OK() {
					t.Logf("noticed by seed %d: %v", n, v)
					return
				}
				if err := os.Remove(file); err != nil {
					t.Error(err)
				}
			}
			t.Errorf("not noticed within %d seeds", len(list))
		})
	}
}
