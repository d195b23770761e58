//go:build e2e

package demo

import (
	"bufio"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	sedna "github.com/edgetwin/sedna/models/sedna/v1alpha1"
)

// TestKeep runs the demo with --keep, uses what it left running by what it
// wrote, and ends it as Ctrl-C does.
func TestKeep(t *testing.T) {
	self := newSystem(t).self // nothing of it is started
	dir := filepath.Join(t.TempDir(), "demo")
	figures := filepath.Join(t.TempDir(), "figures.json")
	cmd := exec.Command(self, "demo", "--keep", "--data-dir", dir, "--json", figures)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(cmd) })
	ready, said := make(chan struct{}), make(chan string, 1)
	go func() {
		text := ""
		for lines := bufio.NewScanner(out); lines.Scan(); {
			text += lines.Text() + "\n"
			if lines.Text() == "ready" {
				close(ready)
			}
		}
		said <- text
	}()
	select {
	case <-ready:
	case text := <-said:
		t.Fatalf("no ready line in\n%s", text)
	case <-time.After(2 * time.Minute):
		t.Fatal("not ready within two minutes")
	}

	var ends struct {
		API, GlobalManager, MQTT string
		Nodes                    []struct {
			Name, HTTP string
			PID        int
		}
		PIDs []int
	}
	b, err := os.ReadFile(filepath.Join(dir, "endpoints.json"))
	if err := errors.Join(err, json.Unmarshal(b, &ends)); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	if ends.API == "" || ends.GlobalManager == "" || ends.MQTT == "" || len(ends.Nodes) != 1 || len(ends.PIDs) != 3 {
		t.Fatalf("endpoints.json: %s", b)
	}
	for _, pid := range append(ends.PIDs, ends.Nodes[0].PID) {
		if err := syscall.Kill(pid, 0); err != nil {
			t.Errorf("process %d of endpoints.json: %v", pid, err)
		}
	}
	kube, err := OpenKube(filepath.Join(dir, "kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	var services sedna.JointInferenceServiceList
	if err := kube.List(t.Context(), &services); err != nil || len(services.Items) != 3 {
		t.Errorf("%v, %d services", err, len(services.Items))
	}
	resp, err := http.Get(ends.Nodes[0].HTTP + "/v2/models/digits/ready")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("digits is not ready: %s", resp.Status)
	}
	var report Report
	b, err = os.ReadFile(figures)
	if err := errors.Join(err, json.Unmarshal(b, &report)); err != nil || report.JointInference.Samples == 0 {
		t.Errorf("%v: %s", err, b)
	}

	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	text := <-said // the pipe is closed when all that hold it have ended
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGINT: %v\n%s", err, text)
	}
	for _, pid := range ends.PIDs {
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("process %d is still there: %v", pid, err)
		}
	}
}
