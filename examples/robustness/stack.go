package robustness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/edgetwin/sedna/cloud"
	"github.com/edgetwin/sedna/examples/demo"
	"github.com/edgetwin/sedna/lib/bus/broker"
	"github.com/edgetwin/sedna/lib/identity"
	"github.com/edgetwin/sedna/lib/onnx"
)

// Names of the parts, which are processes.
const (
	globalManager   = "globalmanager"
	mapper          = "mapper"
	localController = "localcontroller"
)

const nodeName = "edge1"

// models are what services switch between.
var models = []string{"small", "big"}

// Stack is Sedna as processes, on a bus that outlives them, with observers.
type Stack struct {
	argv    []string // that starts sedna
	environ []string
	dir     string
	losses  []string
	log     func(format string, args ...any)

	broker                           *broker.Broker
	api, cloudHTTP, control, edgeURL string // host:port
	kube                             demo.Kube
	node                             *identity.Node
	watch                            *observer

	mu    sync.Mutex
	parts map[string]*process // nil while one is down
	wg    sync.WaitGroup      // restarts under way
}

// Options of a Stack.
type Options struct {
	Argv    []string // command line that sedna's commands are appended to
	Environ []string
	Dir     string   // for all state; short, it holds unix sockets
	Losses  []string // that the links have, see lib/losses
	Log     func(format string, args ...any)
}

// Start brings everything up, with the models that services use.
func Start(ctx context.Context, o Options) (_ *Stack, err error) {
	s := &Stack{argv: o.Argv, environ: o.Environ, dir: o.Dir, losses: o.Losses, log: o.Log, parts: map[string]*process{}}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if s.broker, err = broker.Start(broker.Options{Addr: "127.0.0.1:0"}); err != nil {
		return nil, err
	}
	if err := s.freePorts(&s.api, &s.cloudHTTP, &s.control, &s.edgeURL); err != nil {
		return nil, err
	}
	if err := s.start(globalManager); err != nil {
		return nil, err
	}
	if s.kube, err = demo.OpenKube(filepath.Join(s.dir, "cloud", "kubeconfig")); err != nil {
		return nil, err
	}
	token, err := cloud.CreateToken(filepath.Join(s.dir, "cloud"), nodeName, 0)
	if err != nil {
		return nil, err
	}
	if s.node, err = identity.Enrol(ctx, "https://"+s.cloudHTTP, token, nodeName, s.identityDir()); err != nil {
		return nil, err
	}
	// The node's own Device is older than its link, which KubeEdge may lose:
	// the links are good until it is known.
	losses := s.losses
	s.losses = nil
	if err := errors.Join(s.start(mapper), s.start(localController)); err != nil {
		return nil, err
	}
	s.losses = losses
	if s.watch, err = observe(s); err != nil {
		return nil, err
	}
	if err := s.watch.await(ctx, "the node's first beat", time.Minute, func() bool { return s.watch.heard }); err != nil {
		return nil, err
	}
	s.kill(mapper)
	if err := s.start(mapper); err != nil {
		return nil, err
	}
	return s, s.pushModels(ctx)
}

// Close ends everything.
func (s *Stack) Close() {
	s.wg.Wait()
	if s.watch != nil {
		s.watch.close()
	}
	for _, part := range []string{localController, mapper, globalManager} {
		s.kill(part)
	}
	if s.broker != nil {
		_ = s.broker.Close()
	}
}

func (s *Stack) freePorts(addrs ...*string) error {
	for _, a := range addrs {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer l.Close()
		*a = l.Addr().String()
	}
	return nil
}

func (s *Stack) identityDir() string { return filepath.Join(s.dir, "identity") }

// settings gives a part's configuration: as users have it, with shorter times.
func (s *Stack) settings(part string) map[string]any {
	bus := map[string]any{"url": "tcp://" + s.broker.Addr()}
	switch part {
	case globalManager:
		return map[string]any{
			"dataDir": filepath.Join(s.dir, "cloud"), "http": s.cloudHTTP, "repairAfter": "400ms", "repairMax": "2s", "unboundFor": "400ms", "lose": s.losses,
			"kubernetes": map[string]any{"embedded": true, "addr": s.api},
		}
	case mapper:
		return map[string]any{
			"node": nodeName, "identity": s.identityDir(), "http": "", "bus": bus,
			"dmiSocket": filepath.Join(s.dir, "dmi.sock"), "socket": filepath.Join(s.dir, "mapper.sock"),
			"edgelink": map[string]any{"enabled": true, "database": filepath.Join(s.dir, "edgelink.db"), "lose": s.losses, "control": s.control},
		}
	}
	return map[string]any{
		"node": nodeName, "dataDir": filepath.Join(s.dir, "local"), "identityDir": s.identityDir(), "http": s.edgeURL, "bus": bus,
		"limits": map[string]any{"tasks": map[string]any{"retryBase": "300ms", "retryMax": "2s", "resendBase": "1s", "resendMax": "4s"}},
	}
}

func (s *Stack) start(part string) error {
	b, err := json.MarshalIndent(s.settings(part), "", "  ")
	if err != nil {
		return err
	}
	file := filepath.Join(s.dir, part+".yaml")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		return err
	}
	p, err := start(s.dir, part, append(append([]string{}, s.argv...), part, "--config", file), s.environ)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parts[part] = p
	return nil
}

// kill ends a part by SIGKILL, and tells whether it was there.
func (s *Stack) kill(part string) bool {
	s.mu.Lock()
	p := s.parts[part]
	s.parts[part] = nil
	s.mu.Unlock()
	p.kill()
	return p != nil
}

// command runs one of sedna's commands to its end.
func (s *Stack) command(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, s.argv[0], append(append([]string{}, s.argv[1:]...), args...)...)
	cmd.Env = s.environ
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("sedna %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

func (s *Stack) pushModels(ctx context.Context) error {
	small, big, _, err := demo.BuildModels(1)
	if err != nil {
		return err
	}
	for i, m := range []*onnx.Model{small, big} {
		b, err := onnx.Encode(m)
		if err != nil {
			return err
		}
		file := filepath.Join(s.dir, models[i]+".onnx")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			return err
		}
		if err := s.command(ctx, "model", "push", file, "--name", models[i], "--data-dir", filepath.Join(s.dir, "cloud"), "--cloud", "https://"+s.cloudHTTP); err != nil {
			return err
		}
	}
	return nil
}

// setLink cuts or heals the node's link to the cloud.
func (s *Stack) setLink(ctx context.Context, up bool) error {
	body := fmt.Sprintf(`{"up":%v}`, up)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.control+"/link", bytes.NewReader([]byte(body)))
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("link control: %s", res.Status)
	}
	return nil
}
