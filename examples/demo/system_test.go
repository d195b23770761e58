package demo

import (
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// newSystem gives the whole system, not started yet, made of the binaries that
// `make build` leaves in bin or SEDNA_BIN names. It ends with the test.
func newSystem(tb testing.TB) *run {
	tb.Helper()
	sedna, err := filepath.Abs(filepath.Join(binDir(), "sedna"))
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := os.Stat(sedna); err != nil {
		tb.Skipf("the binaries are not there, run make build or set SEDNA_BIN: %v", err)
	}
	s, err := newStack(tb.TempDir())
	if err != nil {
		tb.Fatal(err)
	}
	s.self = sedna
	tb.Cleanup(func() {
		if err := s.stop(); err != nil {
			tb.Error(err)
		}
	})
	return &run{stack: s, o: Options{Seed: 1}, out: io.Discard, began: time.Now()}
}

func binDir() string {
	if dir := os.Getenv("SEDNA_BIN"); dir != "" {
		return dir
	}
	return filepath.Join("..", "..", "bin")
}
