package robustness

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// readyWithin is how long a part may take to say that it is ready.
const readyWithin = 60 * time.Second

// process is one part that runs on its own.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// start runs a part and waits until it is ready: by its line "ready {…}" or, if
// addr is given, when it takes connections there. Its standard error goes to
// <name>.log in dir.
func start(dir, name string, argv, environ []string, addr string) (*process, error) {
	logFile := filepath.Join(dir, name+".log")
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p := &process{cmd: exec.Command(argv[0], argv[1:]...), done: make(chan struct{})}
	p.cmd.Stderr, p.cmd.Env = log, environ
	// A group of its own, so that its children are killed with it; and no part
	// outlives the test.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	ready := make(chan struct{}, 1)
	go func() {
		defer close(p.done)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), "ready ") {
				ready <- struct{}{}
			}
		}
		_ = p.cmd.Wait()
	}()
	if addr != "" {
		go dialled(addr, p.done, ready)
	}
	select {
	case <-ready:
	case <-p.done:
		err = fmt.Errorf("it ended: %v", p.cmd.ProcessState)
	case <-time.After(readyWithin):
		err = fmt.Errorf("not within %s", readyWithin)
	}
	if err != nil {
		p.kill()
		return nil, fmt.Errorf("%s is not ready: %w, see %s", name, err, logFile)
	}
	return p, nil
}

// dialled tells when somebody listens at addr, until done.
func dialled(addr string, done <-chan struct{}, ready chan<- struct{}) {
	for {
		if c, err := net.Dial("tcp", addr); err == nil {
			_ = c.Close()
			ready <- struct{}{}
			return
		}
		select {
		case <-done:
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// kill ends the process and its children as a power cut would.
func (p *process) kill() {
	if p == nil {
		return
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
}
