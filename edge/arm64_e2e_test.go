//go:build e2e

package edge_test

import (
	"bufio"
	"debug/elf"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edgetwin/sedna/lib/engine/enginetest"
	"github.com/edgetwin/sedna/models/task"
)

// TestARM64 runs the edge's programs as they are built for arm64, which most
// edge nodes are: SQLite, MQTT, TLS, the load test in a child process and
// inference in Go. Elsewhere the kernel hands them to qemu.
func TestARM64(t *testing.T) {
	bin := os.Getenv("SEDNA_ARM64")
	if bin == "" {
		t.Fatal("SEDNA_ARM64 names no directory with localcontroller and mapper; `make e2e` builds them")
	}
	w := newWorld(t)
	cfg := w.config()
	settings := map[string]string{
		"localcontroller": fmt.Sprintf("node: %s\ndataDir: %s\nhttp: 127.0.0.1:0\nbus: {url: %q}\n", node, cfg.DataDir, cfg.Bus.URL),
		"mapper": fmt.Sprintf("node: %s\nidentity: %s/identity\ndmiSocket: %[2]s/dmi.sock\nsocket: %[2]s/mapper.sock\nhttp: 127.0.0.1:0\nbus: {url: %q}\ndrivers: [sedna-camera, sedna-file, sedna-http, sedna-modbus, sedna-mqtt, sedna-simulated]\n",
			node, cfg.DataDir, cfg.Bus.URL),
	}
	urls := map[string]string{}
	for _, program := range []string{"localcontroller", "mapper"} {
		path := filepath.Join(bin, program)
		f, err := elf.Open(path)
		must(t, err)
		if f.Machine != elf.EM_AARCH64 {
			t.Errorf("%s is for %s", program, f.Machine)
		}
		must(t, f.Close())
		config := filepath.Join(t.TempDir(), program+".yaml")
		must(t, os.WriteFile(config, []byte(settings[program]), 0o600))
		for _, flag := range []string{"--version", "--check-config"} {
			out, err := exec.Command(path, "--config", config, flag).CombinedOutput()
			if err != nil || !strings.Contains(string(out), map[string]string{"--version": program, "--check-config": "http: 127.0.0.1:0"}[flag]) {
				t.Fatalf("%s %s: %v: %s", program, flag, err, out)
			}
		}
		urls[program] = daemonARM64(t, path, config)
		if code, body := get(t, urls[program]+"/healthz"); code != http.StatusOK {
			t.Errorf("%s: %d %s", program, code, body)
		}
	}
	w.send("u1", 1, task.Active, w.push(enginetest.Doubler()))
	w.expect("u1", task.Running, 1)
	must(t, infer(urls["localcontroller"]))
	if code, body := get(t, urls["mapper"]+"/metrics"); code != http.StatusOK || !strings.Contains(body, "sedna_") {
		t.Errorf("mapper: %d %.300s", code, body)
	}
}

// daemonARM64 starts a program and gives its base URL when it is ready.
func daemonARM64(t *testing.T, path, config string) string {
	t.Helper()
	cmd := exec.Command(path, "--config", config)
	out, err := cmd.StdoutPipe()
	must(t, err)
	var log strings.Builder
	cmd.Stderr = &log
	must(t, cmd.Start())
	t.Cleanup(func() {
		must(t, cmd.Process.Signal(os.Interrupt))
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v\n%s", path, err, log.String())
		}
	})
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var at struct{ HTTP string }
		if text, ok := strings.CutPrefix(lines.Text(), "ready "); ok {
			must(t, json.Unmarshal([]byte(text), &at))
			return "http://" + at.HTTP
		}
	}
	t.Fatalf("%s ended before it was ready", path)
	return ""
}
