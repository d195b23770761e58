//go:build faults

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/edgetwin/sedna/lib/faults"
)

// TestCheckerNoticesMissingRemedies proves the history checker: without any one
// of the remedies it finds a violation within SEEDS seeds (default 100).
func TestCheckerNoticesMissingRemedies(t *testing.T) {
	for _, remedy := range faults.Remedies() {
		t.Run(remedy, func(t *testing.T) {
			from, to := seeds(t, 100)
			s := startRobustness(t, kubeEdgeLosses, faults.Env+"="+remedy)
			for n := from; n <= to; n++ {
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
			t.Errorf("not noticed within %d seeds", to-from+1)
		})
	}
}
