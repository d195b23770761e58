package robustness

import (
	"bufio"
	"encoding/json"
	"fmt"
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
	cmd   *exec.Cmd
	ready map[string]any // its ready line
	done  chan struct{}  // closed when it has ended
}

// start runs a part and waits for its line "ready {…}". Its standard error
// goes to <name>.log in dir.
func start(dir, name string, argv, environ []string) (*process, error) {
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
	ready := make(chan error, 1)
	go func() {
		defer close(p.done)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if text, ok := strings.CutPrefix(lines.Text(), "ready "); ok {
				ready <- json.Unmarshal([]byte(text), &p.ready)
			}
		}
		_ = p.cmd.Wait()
	}()
	select {
	case err = <-ready:
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

// kill ends the process and its children as a power cut would.
func (p *process) kill() {
	if p == nil {
		return
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
}
