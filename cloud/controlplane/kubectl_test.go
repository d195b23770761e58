package controlplane_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgetwin/sedna/cloud/controlplane"
	"github.com/edgetwin/sedna/cloud/controlplane/controlplanetest"
)

const widgetManifest = `
apiVersion: test.sedna.io/v1
kind: Widget
metadata: {name: w, namespace: factory}
spec: {size: 5, max: 10}
`

// testKubectl does with stock kubectl what people do.
func testKubectl(t *testing.T, ca *controlplanetest.CA, addr string) {
	if _, err := exec.LookPath("kubectl"); err != nil {
		t.Skip("kubectl is not on PATH")
	}
	k := newKubectl(t, ca, addr)

	k.run(widgetManifest, "apply", "-f", "-").contains("created")
	k.run(widgetManifest, "apply", "-f", "-").contains("unchanged")
	k.run(strings.Replace(widgetManifest, "size: 5", "size: 6", 1), "apply", "-f", "-").contains("configured")
	k.run(widgetManifest, "apply", "--server-side", "--force-conflicts", "-f", "-").contains("serverside-applied")
	k.run(widgetManifest, "diff", "-f", "-")
	k.run("", "get", "wd", "-n", "factory").contains("SIZE", "PHASE", "5")
	k.run("", "get", "sedna", "-A").contains("factory")
	k.run("", "patch", "widget", "w", "-n", "factory", "--type=merge", "-p", `{"spec":{"size":8}}`).contains("patched")
	k.run("", "patch", "widget", "w", "-n", "factory", "--subresource=status", "--type=merge", "-p", `{"status":{"phase":"Ready"}}`)
	k.run("", "wait", "widget/w", "-n", "factory", "--for=jsonpath={.status.phase}=Ready", "--timeout=20s").contains("condition met")
	k.run("", "describe", "widget", "w", "-n", "factory").contains("Size:", "8", "Ready")
	k.run("", "explain", "widget.spec.size").contains("Edge length in millimetres", "integer")
	k.run("", "api-resources", "--api-group=test.sedna.io").contains("widgets", "wd", "true", "Widget")
	k.run("", "api-versions").contains("test.sedna.io/v1")
	k.run("", "label", "widget", "w", "-n", "factory", "a=b").contains("labeled")
	k.run("", "version").contains("Server Version")
	k.watch("get", "widgets", "-n", "factory", "-w")

	k.fail(strings.Replace(widgetManifest, "size: 5", "size: 11", 1), "apply", "-f", "-").contains("spec.size", "size must not exceed max")
	k.fail(strings.Replace(widgetManifest, "max:", "maximum:", 1), "apply", "-f", "-").contains(`unknown field "spec.maximum"`)

	k.run("", "delete", "widget", "w", "-n", "factory").contains("deleted")
	k.run("", "get", "widgets", "-n", "factory").contains("No resources found")
}

// kubectl runs kubectl with a kubeconfig and caches of its own.
type kubectl struct {
	t   *testing.T
	env []string
}

func newKubectl(t *testing.T, ca *controlplanetest.CA, addr string) *kubectl {
	t.Helper()
	certPEM, keyPEM := ca.Client(t, "admin", "system:masters")
	data, err := controlplane.Kubeconfig(addr, ca.PEM, certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	path := filepath.Join(home, "kubeconfig")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return &kubectl{t: t, env: append(os.Environ(), "HOME="+home, "KUBECONFIG="+path)}
}

type output struct {
	t    *testing.T
	args []string
	text string
}

func (o output) contains(words ...string) {
	o.t.Helper()
	for _, w := range words {
		if !strings.Contains(o.text, w) {
			o.t.Errorf("kubectl %s: no %q in\n%s", strings.Join(o.args, " "), w, o.text)
		}
	}
}

func (k *kubectl) command(stdin string, args ...string) (output, error) {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(k.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "kubectl", args...)
	cmd.Env = k.env
	cmd.Stdin = strings.NewReader(stdin)
	text, err := cmd.CombinedOutput()
	return output{t: k.t, args: args, text: string(text)}, err
}

func (k *kubectl) run(stdin string, args ...string) output {
	k.t.Helper()
	out, err := k.command(stdin, args...)
	if err != nil {
		k.t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out.text)
	}
	return out
}

func (k *kubectl) fail(stdin string, args ...string) output {
	k.t.Helper()
	out, err := k.command(stdin, args...)
	if err == nil {
		k.t.Fatalf("kubectl %s succeeded:\n%s", strings.Join(args, " "), out.text)
	}
	return out
}

// watch waits for a change to appear in the output of a command that does not end.
func (k *kubectl) watch(args ...string) {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(k.t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "kubectl", args...)
	cmd.Env = k.env
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		k.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	defer cmd.Wait()
	defer cancel()
	var seen bytes.Buffer
	buf := make([]byte, 4096)
	changed := false
	for !strings.Contains(seen.String(), "Watched") {
		n, err := pipe.Read(buf)
		if err != nil {
			k.t.Fatalf("kubectl %s: %v after\n%s", strings.Join(args, " "), err, seen.String())
		}
		seen.Write(buf[:n])
		if !changed {
			changed = true
			k.run("", "patch", "widget", "w", "-n", "factory", "--subresource=status", "--type=merge", "-p", `{"status":{"phase":"Watched"}}`)
		}
	}
}
