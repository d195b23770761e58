package standalone

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/edgetwin/sedna/lib/onnx"
	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
	sedna "github.com/edgetwin/sedna/models/sedna/v1alpha1"
)

// NodeName is the stack's edge node.
const NodeName = "edge1"

// Stack is a cloud and an edge node, as two machines would be: `sedna up
// --edges 0` is the cloud, `sedna join` the node with its own MQTT bus, mapper
// and LocalController.
type Stack struct {
	Kube Kube
	MQTT string // host:port of the node's bus
	HTTP string // host:port of the LocalController

	binary, dir        string
	globalManager, api string // host:port
	cloud, node        *Process
}

// NewStack starts both with the sedna binary; state and logs go to dir.
func NewStack(ctx context.Context, binary, dir string) (s *Stack, err error) {
	if binary, err = filepath.Abs(binary); err != nil {
		return nil, err
	}
	if _, err := os.Stat(binary); err != nil {
		return nil, fmt.Errorf("the sedna binary is not there, run `make build` first or name it with --sedna: %w", err)
	}
	s = &Stack{binary: binary, dir: dir}
	if err := FreePorts(&s.globalManager, &s.api, &s.MQTT, &s.HTTP); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop())
		}
	}()
	if err := s.StartCloud(ctx); err != nil {
		return nil, err
	}
	if s.Kube, err = OpenKube(filepath.Join(s.CloudDir(), "kubeconfig")); err != nil {
		return nil, err
	}
	token, err := s.sedna(ctx, "token", "create", "--node", NodeName, "--data-dir", s.CloudDir())
	if err != nil {
		return nil, err
	}
	s.node, err = Start(ctx, dir, "node", []string{binary, "join", "--cloud", "https://" + s.globalManager, "--token", token,
		"--node", NodeName, "--data-dir", s.dir, "--http", s.HTTP, "--mqtt", s.MQTT}, nil)
	return s, err
}

// CloudDir is the GlobalManager's data.
func (s *Stack) CloudDir() string { return filepath.Join(s.dir, "cloud") }

// StartCloud starts the cloud, for the first time or again on what it left.
func (s *Stack) StartCloud(ctx context.Context) (err error) {
	s.cloud, err = Start(ctx, s.dir, "cloud", []string{s.binary, "up", "--edges", "0", "--data-dir", s.CloudDir(),
		"--http", s.globalManager, "--api", s.api, "--mqtt", "127.0.0.1:0"}, nil)
	return err
}

// KillCloud takes the cloud away, as a power cut would.
func (s *Stack) KillCloud() {
	s.cloud.Kill()
	s.cloud = nil
}

// Stop ends the node and then the cloud.
func (s *Stack) Stop() error { return errors.Join(s.node.Stop(), s.cloud.Stop()) }

// PushModel stores a model as `sedna model push` does; labels are its classes,
// in the order of its output.
func (s *Stack) PushModel(ctx context.Context, name string, m *onnx.Model, labels string) error {
	b, err := onnx.Encode(m)
	if err != nil {
		return err
	}
	file := filepath.Join(s.dir, name+".onnx")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		return err
	}
	_, err = s.sedna(ctx, "model", "push", file, "--name", name, "--labels", labels, "--data-dir", s.CloudDir())
	return err
}

// sedna runs a command to its end and gives what it printed.
func (s *Stack) sedna(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, s.binary, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("sedna %s: %w: %s", args[0], err, stderr.Bytes())
	}
	return strings.TrimSpace(string(out)), nil
}

// AwaitReported waits until the cloud has what a device of the node reports as
// its property.
func (s *Stack) AwaitReported(ctx context.Context, device, property string, ok func(value string) bool) error {
	last := "nothing"
	err := s.Kube.Await(ctx, &devices.DeviceStatusList{}, property+" of "+device, func() (bool, error) {
		st := &devices.DeviceStatus{}
		if err := s.Kube.Get(ctx, client.ObjectKey{Namespace: "default", Name: device}, st); err != nil {
			return false, client.IgnoreNotFound(err)
		}
		for _, t := range st.Status.Twins {
			if t.PropertyName == property {
				last = t.Reported.Value
				return ok(last), nil
			}
		}
		return false, nil
	})
	if err != nil {
		return fmt.Errorf("%w; the last was %s", err, last)
	}
	return nil
}

// Desire patches the desired value of a device's property, as `kubectl patch`
// does.
func (s *Stack) Desire(ctx context.Context, device, property, value string) error {
	d := &devices.Device{}
	if err := s.Kube.Get(ctx, client.ObjectKey{Namespace: "default", Name: device}, d); err != nil {
		return err
	}
	for i, p := range d.Spec.Properties {
		if p.Name != property {
			continue
		}
		path := fmt.Sprintf("/spec/properties/%d", i)
		patch, err := json.Marshal([]any{
			map[string]any{"op": "test", "path": path + "/name", "value": property},
			map[string]any{"op": "add", "path": path + "/desired", "value": map[string]any{"value": value}},
		})
		if err != nil {
			return err
		}
		return s.Kube.Patch(ctx, d, client.RawPatch("application/json-patch+json", patch))
	}
	return fmt.Errorf("device %s has no property %s", device, property)
}

// CleanUp deletes what manifests and models put there, the last first, and
// lists what is left behind.
func (s *Stack) CleanUp(ctx context.Context, manifests ...[]byte) ([]string, error) {
	for i := len(manifests) - 1; i >= 0; i-- {
		if err := s.Kube.Remove(ctx, manifests[i]); err != nil {
			return nil, err
		}
	}
	if err := s.Kube.DeleteAllOf(ctx, &sedna.Model{}, client.InNamespace("default")); err != nil {
		return nil, err
	}
	return Traces{Kube: s.Kube, MQTT: s.MQTT, Node: NodeName, CloudDir: s.CloudDir(),
		LocalDir: filepath.Join(s.dir, "edges", NodeName, "localcontroller")}.Left(ctx)
}
