package worker

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/edgetwin/sedna/edge/store"
)

// shims starts lives as processes of this binary.
type shims struct {
	groups cgroups
	boot   string
}

func newLauncher(o Options) launcher {
	return &shims{groups: openCgroups(o.Cgroup), boot: readBootID()}
}

func (s *shims) bootID() string { return s.boot }

func (s *shims) group(life string, memory, cpuMilli int64) (string, bool, bool) {
	return s.groups.make(life, memory, cpuMilli)
}

// shimLog has what a shim itself says, which is nothing unless it fails.
const shimLog = "shim.log"

func (s *shims) prepare(l *life) (process, error) {
	told, err := json.Marshal(l)
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	said, err := os.OpenFile(filepath.Join(l.Dir, shimLog), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		w.Close()
		return nil, err
	}
	defer said.Close()
	// The link works when the binary's file has been replaced meanwhile.
	cmd := exec.Command("/proc/self/exe", shimArg)
	cmd.Dir, cmd.Env, cmd.Stdin, cmd.Stderr = "/", []string{"GOMAXPROCS=1", "GORACE=" + os.Getenv("GORACE")}, r, said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		w.Close()
		return nil, err
	}
	ticks, alive := startTicks(cmd.Process.Pid)
	h := openProcess(cmd.Process.Pid, ticks)
	if !alive || h == nil {
		w.Close()
		return nil, errors.Join(errors.New("the shim ended at once"), cmd.Wait())
	}
	p := newShimProcess(h, cmd)
	p.gate, p.told = w, told
	return p, nil
}

func (s *shims) find(w *store.Worker) process {
	if w.PID == 0 || w.BootID != s.boot {
		return nil
	}
	if h := openProcess(w.PID, w.StartTicks); h != nil {
		return newShimProcess(h, nil)
	}
	return nil
}

func (s *shims) outcome(dir string, w *store.Worker) *outcome {
	var o outcome
	if readShimFile(filepath.Join(dir, exitFile), w.Life, &o, &o.Life) {
		return &o
	}
	// A shim takes the lock before it runs anything.
	var held holder
	if !readShimFile(filepath.Join(dir, lockFile), w.Life, &held, &held.Life) {
		return &outcome{running: running{Life: w.Life}, Reason: ReasonNotStarted, Message: "the shim ended before it had begun"}
	}
	return nil
}

func (s *shims) watch(dir string, w *store.Worker) *running {
	var r running
	if !readShimFile(filepath.Join(dir, runFile), w.Life, &r, &r.Life) {
		return nil
	}
	return &r
}

func (s *shims) clear(life, cgroup string) error {
	if err := sweep(life, cgroup); err != nil {
		return err
	}
	return removeCgroup(cgroup)
}

// orphan ends the shim that holds the lock of dir, and what it has started.
func (s *shims) orphan(dir string) (ours bool, err error) {
	path := filepath.Join(dir, lockFile)
	b, err := readBounded(path, maxShimFile)
	var held holder
	if err != nil || json.Unmarshal(b, &held) != nil || held.Life == "" {
		return false, nil
	}
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return true, err
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		if h := openProcess(held.PID, held.StartTicks); h != nil {
			ctx, cancel := context.WithTimeout(context.Background(), sweepFor)
			defer cancel()
			h.signal(unix.SIGKILL)
			h.wait(ctx)
			h.close()
		}
	}
	group := ""
	if s.groups.dir != "" {
		group = filepath.Join(s.groups.dir, held.Life)
	}
	return true, s.clear(held.Life, group)
}

// shimProcess is a shim that this process has started or found.
type shimProcess struct {
	h     *handle
	ended chan struct{}
	watch sync.WaitGroup
	stop  context.CancelFunc

	gate *os.File // of one that was started: what it is told goes here
	told []byte
}

var _ process = (*shimProcess)(nil)

// newShimProcess watches h, which cmd has started if it is ours.
func newShimProcess(h *handle, cmd *exec.Cmd) *shimProcess {
	ctx, cancel := context.WithCancel(context.Background())
	p := &shimProcess{h: h, ended: make(chan struct{}), stop: cancel}
	p.watch.Go(func() {
		if h.wait(ctx) {
			if cmd != nil {
				_ = cmd.Wait() // its outcome is in exit.json
			}
			close(p.ended)
		}
	})
	return p
}

func (p *shimProcess) identity() (int, int64) { return p.h.pid, p.h.startTicks }

func (p *shimProcess) release() error {
	_, err := p.gate.Write(p.told)
	return errors.Join(err, p.gate.Close())
}

func (p *shimProcess) done() <-chan struct{} { return p.ended }
func (p *shimProcess) terminate()            { p.h.signal(unix.SIGTERM) }
func (p *shimProcess) kill()                 { p.h.signal(unix.SIGKILL) }

func (p *shimProcess) leave() {
	p.stop()
	p.watch.Wait()
	p.h.close()
	if p.gate != nil {
		p.gate.Close() // of one that was never told
	}
}
