package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
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
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	err  error         // how it ended; read after done
	log  string        // file with its standard error
}

// start runs a part and waits for its line "ready {…}", which is decoded into
// endpoints. Standard error goes to <name>.log in dir.
func start(ctx context.Context, dir, name string, argv []string, endpoints any) (*process, error) {
	logFile := filepath.Join(dir, name+".log")
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p := &process{name: name, cmd: exec.Command(argv[0], argv[1:]...), done: make(chan struct{}), log: logFile}
	p.cmd.Stderr = log
	// A group of its own, so that Ctrl-C reaches the demo alone, which then
	// stops its parts in order; and no part outlives it.
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
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if text, ok := strings.CutPrefix(lines.Text(), "ready "); ok {
				ready <- json.Unmarshal([]byte(text), endpoints)
			}
		}
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	select {
	case err := <-ready:
		if err != nil {
			p.kill()
			return nil, fmt.Errorf("%s: ready line: %w", name, err)
		}
		return p, nil
	case <-p.done:
		return nil, fmt.Errorf("%s ended before it was ready: %w\n%s", name, p.err, tail(logFile))
	case <-time.After(readyWithin):
		p.kill()
		return nil, fmt.Errorf("%s was not ready within %s\n%s", name, readyWithin, tail(logFile))
	case <-ctx.Done():
		p.kill()
		return nil, ctx.Err()
	}
}

// kill ends the process as a power cut would, and waits until it is gone.
func (p *process) kill() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	<-p.done
}

// stop asks the process to end, and kills it when it does not.
func (p *process) stop() error {
	if p == nil {
		return nil
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	return p.wait()
}

// wait waits for the end of a process that is ending, and kills it when it does
// not end.
func (p *process) wait() error {
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		p.kill()
		return fmt.Errorf("%s did not end in 20 s", p.name)
	}
	var exit *exec.ExitError
	if errors.As(p.err, &exit) && exit.ExitCode() != 0 {
		return fmt.Errorf("%s: %w\n%s", p.name, p.err, tail(p.log))
	}
	return nil
}

// running tells whether the process is still there.
func (p *process) running() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// tail gives the end of a log, for an error message.
func tail(file string) string {
	const shown = 2000
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	if len(b) > shown {
		b = b[len(b)-shown:]
	}
	return string(b)
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
