//go:build e2e

package demo

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestKubectl has stock kubectl do with the demo's manifests what people do.
func TestKubectl(t *testing.T) {
	if _, err := exec.LookPath("kubectl"); err != nil {
		t.Skip("kubectl is not on PATH")
	}
	r := newSystem(t)
	for _, step := range []func(context.Context) error{r.bringUp, r.trainAndPush} {
		if err := step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	k := kubectl{t, append(os.Environ(), "HOME="+t.TempDir(), "KUBECONFIG="+r.cloudEnds.Kubeconfig)}
	const digitsFile, baselinesFile = "manifests/digits.yaml", "manifests/baselines.yaml"

	k.says("jointinferenceservice.sedna.io/digits created", "apply", "-f", digitsFile)
	k.says("jointinferenceservice.sedna.io/digits unchanged", "apply", "-f", digitsFile)
	k.says("jointinferenceservice.sedna.io/digits-edge-only serverside-applied", "apply", "--server-side", "-f", baselinesFile)
	for _, name := range []string{"digits", "digits-edge-only", "digits-cloud-only"} {
		k.says("condition met", "wait", "--for=condition=Ready", "ji/"+name, "--timeout=30s")
	}
	if err := r.firstAnswer(t.Context(), time.Now().Add(10*time.Second)); err != nil {
		t.Error(err) // Ready, and yet no right answer
	}
	changed := bytes.Replace(DigitsManifest, []byte(`"0.5"`), []byte(`"0.6"`), 1)
	k.with(changed).says("configured", "apply", "-f", "-")
	k.says("condition met", "wait", "--for=condition=Ready", "ji/digits", "--timeout=30s")

	k.table([]string{"NAME", "PHASE", "EDGE", "CLOUD", "ACTIVE", "READY", "REASON", "AGE"}, []string{"digits", "Running", "digits-small", "digits-big", "1", "True"}, "get", "ji", "digits")
	k.table([]string{"NAME", "FORMAT", "VERSION", "SIZE", "READY"}, []string{"digits-small", "onnx", "True"}, "get", "models", "digits-small")
	k.table([]string{"NAME", "NODE"}, []string{"edge1"}, "get", "devices", "-l", "sedna.io/name=digits")
	k.says("digits-edge-only", "get", "sedna", "-A")
	for _, want := range []string{"Hard Example Mining", "threshold_cross_entropy", "0.6", "Conditions:", "Ready", "Nodes:", "edge1"} {
		k.says(want, "describe", "ji", "digits")
	}
	k.says("decides which answers are worth the cloud's opinion", "explain", "ji.spec.edgeWorker.hardExampleMining")
	k.says("<integer>", "explain", "ji.spec.cloudWorker.timeoutMilliseconds")

	t.Run("bad manifests are refused with the field named", func(t *testing.T) {
		k := kubectl{t, k.env}
		for _, c := range []struct{ old, bad, field string }{
			{"onCloudError: local", "onCloudErr: local", "spec.edgeWorker.onCloudErr"},
			{"onCloudError: local", "onCloudError: panic", "spec.edgeWorker.onCloudError"},
			{"    nodeName: edge1\n", "", "nodeName: expected exactly one of"},
			{"    nodeName: edge1\n", "    nodeName: edge1\n    nodeSelector: {a: b}\n", "nodeName: expected exactly one of"},
			{"    model: {name: digits-small}\n", "", "spec.edgeWorker.model"},
			{"name: CrossEntropy", "name: Magic", "hardExampleMining.name"},
			{`value: "0.5"`, `value: "lots"`, "hardExampleMining.parameters"},
			{`value: "0.5"`, `value: 0.5`, "spec.edgeWorker.hardExampleMining.parameters[0].value"},
			{"timeoutMilliseconds: 2000", "timeoutMilliseconds: 0", "spec.cloudWorker.timeoutMilliseconds"},
			{"timeoutMilliseconds: 2000", "timeoutMilliseconds: soon", "spec.cloudWorker.timeoutMilliseconds"},
			{"timeoutMilliseconds: 2000", "endpoint: gopher://cloud", "spec.cloudWorker.endpoint"},
			{"name: refused\n", "name: refused.v2\n", "metadata.name"},
		} {
			good := strings.Replace(string(DigitsManifest), "name: digits\n", "name: refused\n", 1)
			bad := strings.Replace(good, c.old, c.bad, 1)
			if bad == good {
				t.Fatalf("the manifest has no %q", c.old)
			}
			for _, how := range [][]string{{"apply", "-f", "-"}, {"apply", "--server-side", "-f", "-"}} {
				k.with([]byte(bad)).refused(c.field, how...)
			}
		}
		out, err := k.with(nil).run("get", "ji", "-A", "-o", "name")
		if err != nil || strings.Contains(out, "refused") {
			t.Errorf("after refusals: %v\n%s", err, out)
		}
	})

	k.says(`"digits" deleted`, "delete", "-f", digitsFile, "--timeout=30s")
	k.says(`"digits-cloud-only" deleted`, "delete", "-f", baselinesFile, "--timeout=30s")
	k.says("No resources found", "get", "ji", "-A")
	k.says("No resources found", "get", "devices,devicestatuses", "-n", "default")
	if left := r.tasks(t); len(left) != 0 {
		t.Errorf("the LocalController still has %v", left)
	}
}

// kubectl runs kubectl with a kubeconfig and caches of its own.
type kubectl struct {
	t   *testing.T
	env []string
}

// with gives a kubectl that reads a manifest from standard input.
func (k kubectl) with(manifest []byte) kubectlWith { return kubectlWith{k, manifest} }

func (k kubectl) says(want string, args ...string) { k.t.Helper(); k.with(nil).says(want, args...) }

// table runs a command that prints a heading and one line.
func (k kubectl) table(heading, line []string, args ...string) {
	k.t.Helper()
	out, err := k.with(nil).run(args...)
	head, rest, _ := strings.Cut(out, "\n")
	if err != nil {
		k.t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	for text, words := range map[string][]string{head: heading, rest: line} {
		for _, w := range words {
			if !strings.Contains(text, w) {
				k.t.Errorf("kubectl %s: no %q in %q of\n%s", strings.Join(args, " "), w, text, out)
			}
		}
	}
}

type kubectlWith struct {
	kubectl
	stdin []byte
}

func (k kubectlWith) run(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(k.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "kubectl", args...)
	cmd.Env = k.env
	cmd.Stdin = bytes.NewReader(k.stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// says fails the test when the command fails or does not print want.
func (k kubectlWith) says(want string, args ...string) {
	k.t.Helper()
	out, err := k.run(args...)
	if err != nil || !strings.Contains(out, want) {
		k.t.Errorf("kubectl %s: %v, expected %q in\n%s", strings.Join(args, " "), err, want, out)
	}
}

// refused fails the test when the command succeeds or does not print want.
func (k kubectlWith) refused(want string, args ...string) {
	k.t.Helper()
	out, err := k.run(args...)
	if err == nil || !strings.Contains(out, want) {
		k.t.Errorf("kubectl %s: %v, expected a refusal with %q in\n%s\nof\n%s", strings.Join(args, " "), err, want, out, k.stdin)
	}
}
