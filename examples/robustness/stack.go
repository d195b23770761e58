package robustness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/edgetwin/sedna/cloud"
	"github.com/edgetwin/sedna/examples/demo"
	"github.com/edgetwin/sedna/lib/faults"
	"github.com/edgetwin/sedna/lib/identity"
	"github.com/edgetwin/sedna/lib/onnx"
	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
	"github.com/edgetwin/sedna/models/task"
)

// siteLabel is on all nodes, for services that select them by it.
const siteLabel = "sedna.io/site"

// models are what services switch between.
var models = []string{"small", "big"}

// Stack is Sedna as processes: a cloud and two nodes, with observers.
type Stack struct {
	Options
	api, cloudHTTP string // host:port
	kube           demo.Kube
	nodes          []*node
	lossy          bool // the links lose what Options.Losses says
	watch          *observer

	mu      sync.Mutex
	running map[part]*process // nil while one is down
	skews   map[part]time.Duration
	wg      sync.WaitGroup // restarts under way
}

// Options of a Stack.
type Options struct {
	Argv      []string // command line that sedna's commands are appended to
	Environ   []string
	Dir       string   // for all state; short, it holds unix sockets
	Losses    []string // that the links have, see lib/losses
	Mosquitto string   // a program that is the bus of a node and keeps it on disk; empty: the embedded broker, which does not
	Clocks    bool     // processes start with wrong clocks; only builds with the tag faults have them
	Log       func(format string, args ...any)
}

// Start brings everything up, with the models that services use.
func Start(ctx context.Context, o Options) (_ *Stack, err error) {
	s := &Stack{Options: o, running: map[part]*process{}, skews: map[part]time.Duration{}}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	for i, name := range []string{"edge1", "edge2"} {
		n := &node{name: name, dir: filepath.Join(s.Dir, name), embedded: i > 0}
		if err := errors.Join(os.MkdirAll(n.dir, 0o700), freePorts(&n.addr, &n.control, &n.edgeURL)); err != nil {
			return nil, err
		}
		s.nodes = append(s.nodes, n)
	}
	if err := errors.Join(freePorts(&s.api, &s.cloudHTTP), s.start(part{kind: globalManager})); err != nil {
		return nil, err
	}
	if s.kube, err = demo.OpenKube(filepath.Join(s.Dir, "cloud", "kubeconfig")); err != nil {
		return nil, err
	}
	for _, n := range s.nodes {
		if err := s.join(ctx, n); err != nil {
			return nil, err
		}
	}
	if s.watch, err = observe(s); err != nil {
		return nil, err
	}
	// The nodes' own Devices are older than their links, which KubeEdge may lose:
	// the links are good until they are known.
	if err := s.watch.await(ctx, "the nodes' first beats", time.Minute, func() bool { return len(s.watch.heard) == len(s.nodes) }); err != nil {
		return nil, err
	}
	s.lossy = true
	for _, n := range s.nodes {
		s.kill(part{mapper, n})
		if err := s.start(part{mapper, n}); err != nil {
			return nil, err
		}
	}
	return s, s.pushModels(ctx)
}

// join enrols a node and starts its parts.
func (s *Stack) join(ctx context.Context, n *node) error {
	token, err := cloud.CreateToken(filepath.Join(s.Dir, "cloud"), n.name, 0)
	if err != nil {
		return err
	}
	if n.identity, err = identity.Enrol(ctx, "https://"+s.cloudHTTP, token, n.name, n.identityDir()); err != nil {
		return err
	}
	own := &devices.Device{}
	own.Namespace, own.Name = "sedna", task.NodeDeviceName(n.name)
	label := fmt.Sprintf(`{"metadata":{"labels":{%q:"all"}}}`, siteLabel)
	if err := s.kube.Patch(ctx, own, client.RawPatch(types.MergePatchType, []byte(label))); err != nil {
		return err
	}
	for _, p := range n.parts() {
		if err := s.start(p); err != nil {
			return err
		}
	}
	return nil
}

// Close ends everything.
func (s *Stack) Close() {
	s.wg.Wait()
	if s.watch != nil {
		s.watch.close()
	}
	for _, p := range s.all() {
		s.kill(p)
	}
}

// all lists the parts in the order in which they start.
func (s *Stack) all() []part {
	list := []part{{kind: globalManager}}
	for _, n := range s.nodes {
		list = append(list, n.parts()...)
	}
	return list
}

func freePorts(addrs ...*string) error {
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

func (s *Stack) settings(p part) map[string]any {
	var losses []string
	if s.lossy {
		losses = s.Losses
	}
	if p.node != nil {
		return p.node.settings(p.kind, losses, 1)
	}
	return map[string]any{
		"dataDir": filepath.Join(s.Dir, "cloud"), "http": s.cloudHTTP, "repairAfter": "400ms", "repairMax": "2s", "unboundFor": "400ms", "lose": losses,
		"kubernetes": map[string]any{"embedded": true, "addr": s.api},
	}
}

func (s *Stack) start(p part) error {
	argv, addr, err := s.command(p)
	if err != nil {
		return err
	}
	environ := s.Environ
	s.mu.Lock()
	if d := s.skews[p]; d != 0 {
		environ = append(append([]string{}, environ...), faults.EnvClock+"="+d.String())
	}
	s.mu.Unlock()
	started, err := start(s.Dir, p.String(), argv, environ, addr)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running[p] = started
	return nil
}

// command gives the command line of a part, and where it listens if it does
// not say itself when it is ready.
func (s *Stack) command(p part) (argv []string, addr string, err error) {
	if p.kind == messageBus && s.Mosquitto != "" {
		argv, _, err = p.node.mosquitto(s.Mosquitto)
		return argv, p.node.addr, err
	}
	b, err := json.MarshalIndent(s.settings(p), "", "  ")
	if err != nil {
		return nil, "", err
	}
	command := p.kind
	if p.kind == messageBus {
		command = mapper
	}
	file := filepath.Join(s.Dir, p.String()+".yaml")
	return append(append([]string{}, s.Argv...), command, "--config", file), "", os.WriteFile(file, b, 0o600)
}

// kill ends a part by SIGKILL, and tells whether it was there.
func (s *Stack) kill(p part) bool {
	s.mu.Lock()
	running := s.running[p]
	s.running[p] = nil
	s.mu.Unlock()
	running.kill()
	return running != nil
}

// there tells whether the part runs.
func (s *Stack) there(p part) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running[p] != nil
}

// run runs one of sedna's commands to its end.
func (s *Stack) run(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, s.Argv[0], append(append([]string{}, s.Argv[1:]...), args...)...)
	cmd.Env = s.Environ
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
		file := filepath.Join(s.Dir, models[i]+".onnx")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			return err
		}
		if err := s.run(ctx, "model", "push", file, "--name", models[i], "--data-dir", filepath.Join(s.Dir, "cloud"), "--cloud", "https://"+s.cloudHTTP); err != nil {
			return err
		}
	}
	return nil
}
