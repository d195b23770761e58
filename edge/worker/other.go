//go:build !linux

package worker

import (
	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/models/wire"
)

// Main is for Linux, where workers can be run.
func Main([]string) (handled bool, exitCode int) { return false, 0 }

// noLauncher refuses: what keeps workers from outliving their end is Linux's.
type noLauncher struct{}

func newLauncher(Options) launcher { return noLauncher{} }

func (noLauncher) prepare(*life) (process, error) {
	return nil, wire.E(wire.Unimplemented, "", "worker processes need Linux", "")
}
func (noLauncher) find(*store.Worker) process                      { return nil }
func (noLauncher) outcome(string, *store.Worker) *outcome          { return nil }
func (noLauncher) watch(string, *store.Worker) *running            { return nil }
func (noLauncher) clear(string, string) error                      { return nil }
func (noLauncher) orphan(string) (bool, error)                     { return false, nil }
func (noLauncher) group(string, int64, int64) (string, bool, bool) { return "", false, false }
func (noLauncher) bootID() string                                  { return "" }
