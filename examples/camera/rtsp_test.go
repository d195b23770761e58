//go:build e2e

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/edgetwin/sedna/examples/internal/standalone"
)

// TestRTSP runs the example with a camera that pushes H.264, with the binary
// that `make build` leaves in bin or SEDNA_BIN names.
func TestRTSP(t *testing.T) {
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		t.Skip("ffmpeg is not installed: RTSP is not tried")
	}
	bin := os.Getenv("SEDNA_BIN")
	if bin == "" {
		bin = filepath.Join("..", "..", "bin")
	}
	e := example{source: "rtsp", hold: defaultHold, floor: defaultFloor, Example: standalone.Example{
		Sedna: filepath.Join(bin, "sedna"), Dir: t.TempDir(), Seed: 1, Seconds: 15,
	}}
	if code := e.Main(e.run); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
