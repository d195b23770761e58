//go:build e2e

package demo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/edgetwin/sedna/models/wire"
)

// The system against other people's programs, as their makers ship them:
// mosquitto as the bus, mosquitto_pub and mosquitto_sub as the sensor, curl as
// the edge application, kubectl as the user. `make e2e` runs these.

// stock starts the system with mosquitto as the bus.
func stock(t *testing.T) (*run, *broker) {
	t.Helper()
	r := newSystem(t)
	r.foreignBus = true
	b := &broker{t: t, addr: r.mqtt, config: filepath.Join(r.dir, "mosquitto.conf")}
	b.start()
	for _, step := range []func(context.Context) error{r.bringUp, r.trainAndPush} {
		if err := step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return r, b
}

// broker is a mosquitto.
type broker struct {
	t      *testing.T
	addr   string
	config string
	cmd    *exec.Cmd
}

func (b *broker) port() string {
	_, port, err := net.SplitHostPort(b.addr)
	if err != nil {
		b.t.Fatal(err)
	}
	return port
}

// start returns when mosquitto takes connections.
func (b *broker) start() {
	b.t.Helper()
	path, err := exec.LookPath("mosquitto")
	if err != nil {
		path = "/usr/sbin/mosquitto" // not on everybody's PATH
	}
	conf := "listener " + b.port() + " 127.0.0.1\nallow_anonymous true\npersistence false\nlog_dest stderr\n"
	if err := os.WriteFile(b.config, []byte(conf), 0o644); err != nil {
		b.t.Fatal(err)
	}
	b.cmd = exec.Command(path, "-c", b.config)
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var log bytes.Buffer
	b.cmd.Stderr = &log
	if err := b.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	started := b.cmd
	b.t.Cleanup(func() { end(started) })
	eventually(b.t, 10*time.Second, "mosquitto takes no connections", func() error {
		c, err := net.Dial("tcp", b.addr)
		if err == nil {
			c.Close()
		}
		return err
	})
}

// kill ends mosquitto as a power cut would.
func (b *broker) kill() { end(b.cmd) }

// end kills a process, if it is still there, and waits for it.
func end(cmd *exec.Cmd) {
	if cmd.ProcessState == nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// eventually tries f until it succeeds.
func eventually(t *testing.T, within time.Duration, what string, f func() error) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(within)
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s within %s: %v", what, within, err)
		}
	}
}

// publish sends one message with mosquitto_pub.
func (b *broker) publish(payload []byte, args ...string) error {
	cmd := exec.CommandContext(b.t.Context(), "mosquitto_pub", append([]string{"-h", "127.0.0.1", "-p", b.port(), "-q", "1", "-s"}, args...)...)
	cmd.Stdin = bytes.NewReader(payload)
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mosquitto_pub: %w: %s", err, text)
	}
	return nil
}

// ask publishes a sample with mosquitto_pub and gives what mosquitto_sub
// receives as its result. mosquitto_sub has subscribed when it prints the
// retained marker.
func (b *broker) ask(service string, s Sample) (Answer, error) {
	const marker = "e2e/marker"
	a := Answer{ID: s.ID, Label: s.Label}
	if err := b.publish([]byte("subscribed"), "-t", marker, "-r"); err != nil {
		return a, err
	}
	var stderr bytes.Buffer
	sub := exec.CommandContext(b.t.Context(), "mosquitto_sub", "-h", "127.0.0.1", "-p", b.port(), "-q", "1",
		"-t", marker, "-t", wire.InferResult(nodeName, service, s.ID), "-C", "2", "-W", "5")
	sub.Stderr = &stderr
	out, err := sub.StdoutPipe()
	if err != nil {
		return a, err
	}
	if err := sub.Start(); err != nil {
		return a, err
	}
	defer end(sub)
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "subscribed" {
		return a, fmt.Errorf("mosquitto_sub received no marker: %q %s", lines.Text(), &stderr)
	}
	if err := b.publish(s.request(), "-t", wire.InferRequest(nodeName, service)); err != nil {
		return a, err
	}
	if !lines.Scan() {
		return a, fmt.Errorf("mosquitto_sub received no result: %s", &stderr)
	}
	a.read(lines.Bytes())
	return a, nil
}

// curl posts a sample, with curl where it is installed.
func (r *run) curl(t *testing.T, s Sample) (Answer, error) {
	path, err := exec.LookPath("curl")
	if err != nil {
		t.Log("curl is not on PATH, Go's client posts in its place")
		return post(t.Context(), http.DefaultClient, r.inferURL(), s, "")
	}
	cmd := exec.CommandContext(t.Context(), path, "-sS", "--fail-with-body", "--data-binary", "@-", "-H", "Content-Type: application/json", r.inferURL())
	cmd.Stdin = bytes.NewReader(s.request())
	body, err := cmd.Output()
	a := Answer{ID: s.ID, Label: s.Label}
	if err == nil {
		a.read(body)
	}
	return a, err
}

// TestStockClients has the main job done through mosquitto, by mosquitto's own
// clients and curl, before and after mosquitto loses all that it held.
func TestStockClients(t *testing.T) {
	r, mosquitto := stock(t)
	if err := r.serve(t.Context()); err != nil {
		t.Fatal(err)
	}
	asked := 0
	sample := func() Sample { // each request has an id of its own
		asked++
		return rename(r.samples[:1], fmt.Sprint(asked))[0]
	}
	right := func(a Answer, err error) error {
		if err == nil && a.Final != a.Label {
			err = fmt.Errorf("not the right answer: %+v", a)
		}
		return err
	}
	if err := right(mosquitto.ask("digits", sample())); err != nil {
		t.Error(err)
	}
	if err := right(r.curl(t, sample())); err != nil {
		t.Error(err)
	}

	before := r.tasks(t)
	mosquitto.kill()
	mosquitto.start()
	eventually(t, 30*time.Second, "no right answer after mosquitto was killed", func() error {
		return right(mosquitto.ask("digits", sample()))
	})
	if err := right(r.curl(t, sample())); err != nil {
		t.Error(err)
	}
	if after := r.tasks(t); len(before) != 1 || after[0] != before[0] {
		t.Errorf("tasks before mosquitto was killed %v, after %v", before, after)
	}

	t.Run("the new mosquitto has the task", func(t *testing.T) {
		out, err := exec.CommandContext(t.Context(), "mosquitto_sub", "-h", "127.0.0.1", "-p", mosquitto.port(), "-q", "1",
			"-t", wire.TaskDesired(nodeName, "default", before[0].Device), "-C", "1", "-W", "20").CombinedOutput()
		var desired struct{ Task, Signature string }
		if err != nil || json.Unmarshal(out, &desired) != nil || !strings.Contains(desired.Task, `"digits"`) || desired.Signature == "" {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("the next change goes through it", func(t *testing.T) {
		manifest := bytes.Replace(DigitsManifest, []byte(`"0.5"`), []byte(`"0.6"`), 1)
		if err := errors.Join(r.kube.ApplyManifest(t.Context(), manifest), r.kube.AwaitReady(t.Context(), "digits")); err != nil {
			t.Fatal(err)
		}
		if after := r.tasks(t); len(after) != 1 || after[0].Generation <= before[0].Generation {
			t.Errorf("tasks after a change %v, before %v", after, before)
		}
	})
}

// taskView is what the LocalController tells of a task.
type taskView struct {
	Device     string
	UID        string
	Generation int64
	Phase      string
}

func (r *run) tasks(t *testing.T) []taskView {
	t.Helper()
	resp, err := http.Get("http://" + r.http + "/v1/tasks")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	var list struct{ Tasks []taskView }
	if err != nil || json.Unmarshal(body, &list) != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return list.Tasks
}
