package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/edgetwin/sedna/cloud"
	"github.com/edgetwin/sedna/examples/internal/standalone"
	"github.com/edgetwin/sedna/lib/identity"
)

// nodeName is the demo's edge node.
const nodeName = "edge1"

// stack is the parts of the demo and where they are. Addresses stay the same
// across restarts, as they would on real machines.
type stack struct {
	self string // path of the sedna binary
	dir  string

	api, globalManager, mqtt, http string // host:port

	foreignBus bool // another program is the broker at mqtt; else the mapper is

	cloud, mapper, local *standalone.Process
	cloudEnds            cloud.Endpoints
}

// newStack picks free ports on loopback.
func newStack(dir string) (*stack, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &stack{self: self, dir: dir}
	if err := standalone.FreePorts(&s.api, &s.globalManager, &s.mqtt, &s.http); err != nil {
		return nil, err
	}
	return s, nil
}

// stop ends all parts, the edge first, and says what went wrong.
func (s *stack) stop() error {
	return errors.Join(s.local.Stop(), s.mapper.Stop(), s.cloud.Stop())
}

func (s *stack) cloudDir() string { return filepath.Join(s.dir, "cloud") }
func (s *stack) edgeDir() string  { return filepath.Join(s.dir, "edges", nodeName) }

// configFile writes a part's configuration. JSON is YAML too.
func (s *stack) configFile(name string, settings map[string]any) (string, error) {
	b, err := json.MarshalIndent(settings, "", "  ")
	if err != nil {
		return "", err
	}
	path := filepath.Join(s.dir, name+".yaml")
	return path, os.WriteFile(path, b, 0o600)
}

// startCloud starts Kubernetes API, GlobalManager and cloud inference.
func (s *stack) startCloud(ctx context.Context) error {
	file, err := s.configFile("globalmanager", map[string]any{
		"dataDir": s.cloudDir(), "http": s.globalManager, "repairAfter": "3s",
		"kubernetes": map[string]any{"embedded": true, "addr": s.api},
	})
	if err != nil {
		return err
	}
	s.cloud, err = standalone.Start(ctx, s.dir, "globalmanager", part(s.self, "globalmanager", "--config", file), &s.cloudEnds)
	return err
}

// join gives the node its identity, as `sedna join` does.
func (s *stack) join(ctx context.Context) error {
	token, err := cloud.CreateToken(s.cloudDir(), nodeName, 0)
	if err != nil {
		return err
	}
	_, err = identity.Enrol(ctx, s.cloudEnds.GlobalManager, token, nodeName, filepath.Join(s.edgeDir(), "identity"))
	return err
}

// startMapper starts the MQTT bus, unless it is another program's, edgelink's
// edge half and the mapper.
func (s *stack) startMapper(ctx context.Context) error {
	file, err := s.configFile("mapper", map[string]any{
		"node": nodeName, "identity": filepath.Join(s.edgeDir(), "identity"), "http": "",
		"dmiSocket": filepath.Join(s.dir, "dmi.sock"), "socket": filepath.Join(s.dir, "mapper.sock"),
		"bus":      map[string]any{"url": "tcp://" + s.mqtt},
		"broker":   map[string]any{"enabled": !s.foreignBus, "listen": s.mqtt},
		"edgelink": map[string]any{"enabled": true, "database": filepath.Join(s.edgeDir(), "edgelink.db")},
	})
	if err != nil {
		return err
	}
	var ends struct{}
	s.mapper, err = standalone.Start(ctx, s.dir, "mapper", part(s.self, "mapper", "--config", file), &ends)
	return err
}

// startLocal starts the LocalController.
func (s *stack) startLocal(ctx context.Context) error {
	file, err := s.configFile("localcontroller", map[string]any{
		"node": nodeName, "dataDir": s.localDir(), "identityDir": filepath.Join(s.edgeDir(), "identity"),
		"http": s.http, "bus": map[string]any{"url": "tcp://" + s.mqtt},
	})
	if err != nil {
		return err
	}
	var ends struct{}
	s.local, err = standalone.Start(ctx, s.dir, "localcontroller", part(s.self, "localcontroller", "--config", file), &ends)
	return err
}

func (s *stack) localDir() string { return filepath.Join(s.edgeDir(), "localcontroller") }

// endpointsFile writes where everything is, for --keep.
func (s *stack) endpointsFile() error {
	pids := []int{}
	for _, p := range []*standalone.Process{s.cloud, s.mapper, s.local} {
		pids = append(pids, p.PID)
	}
	b, err := json.MarshalIndent(map[string]any{
		"api": s.cloudEnds.API, "globalmanager": s.cloudEnds.GlobalManager, "mqtt": s.mqtt,
		"nodes": []any{map[string]any{"name": nodeName, "http": "http://" + s.http, "grpc": "", "token": "", "pid": s.local.PID}},
		"pids":  pids,
	}, "", "  ")
	if err != nil {
		return err
	}
	for _, name := range []string{"kubeconfig", "admin.yaml"} {
		text, err := os.ReadFile(filepath.Join(s.cloudDir(), name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(s.dir, name), text, 0o600); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(s.dir, "endpoints.json"), append(b, '\n'), 0o600)
}

// sensor runs the sensor as a process of its own and gives its answers.
func (s *stack) sensor(ctx context.Context, service, phase string, window int, samples []Sample) ([]Answer, time.Duration, error) {
	in, out := filepath.Join(s.dir, phase+"-samples.jsonl"), filepath.Join(s.dir, phase+"-answers.jsonl")
	if err := writeLines(in, samples); err != nil {
		return nil, 0, err
	}
	var took struct {
		Seconds float64 `json:"seconds"`
	}
	p, err := standalone.Start(ctx, s.dir, "sensor", []string{s.self, "sensor", "--mqtt", "tcp://" + s.mqtt, "--node", nodeName,
		"--service", service, "--phase", phase, "--window", fmt.Sprint(window), "--input", in, "--output", out}, &took)
	if err != nil {
		return nil, 0, err
	}
	if err := p.Wait(); err != nil { // it is ready when it is done
		return nil, 0, err
	}
	f, err := os.Open(out)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	answers, err := readLines[Answer](f)
	return answers, time.Duration(took.Seconds * float64(time.Second)), err
}

// part gives the command line of a part: the binary of its own beside this
// one, as `make build` leaves it, else the same part inside this binary.
func part(self, name string, args ...string) []string {
	own := filepath.Join(filepath.Dir(self), name)
	if st, err := os.Stat(own); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
		return append([]string{own}, args...)
	}
	return append([]string{self, name}, args...)
}
