package standalone

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

const (
	// readyWithin is how long a part may take to say that it is ready.
	readyWithin = 60 * time.Second
	// stopWithin is how long a part may take to end.
	stopWithin = 20 * time.Second
)

// Process is one part that runs on its own. Its methods take nil for one that
// was never started.
type Process struct {
	Name string
	PID  int

	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	err  error         // how it ended; read after done
	log  string        // file with its standard error
}

// Start runs a part and waits for its line "ready", or "ready {…}", which is
// decoded into endpoints. Standard error goes to <name>.log in dir.
func Start(ctx context.Context, dir, name string, argv []string, endpoints any) (*Process, error) {
	logFile := filepath.Join(dir, name+".log")
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p := &Process{Name: name, cmd: exec.Command(argv[0], argv[1:]...), done: make(chan struct{}), log: logFile}
	p.cmd.Stderr = log
	// A group of its own, so that Ctrl-C reaches the example alone, which then
	// stops its parts in order; and no part outlives it.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	started, ready := make(chan error, 1), make(chan error, 1)
	go func() {
		// The part dies with the thread that starts it: the thread stays ours.
		runtime.LockOSThread()
		err := p.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		said := false
		for lines := bufio.NewScanner(out); lines.Scan(); {
			text, ok := strings.CutPrefix(lines.Text(), "ready")
			if !ok || said || text != "" && text[0] != ' ' {
				continue
			}
			said = true
			if text == "" {
				ready <- nil
			} else {
				ready <- json.Unmarshal([]byte(text), endpoints)
			}
		}
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p.PID = p.cmd.Process.Pid
	select {
	case err := <-ready:
		if err != nil {
			p.Kill()
			return nil, fmt.Errorf("%s: ready line: %w", name, err)
		}
		return p, nil
	case <-p.done:
		return nil, fmt.Errorf("%s ended before it was ready: %s\n%s", name, p.cmd.ProcessState, tail(logFile))
	case <-time.After(readyWithin):
		p.Kill()
		return nil, fmt.Errorf("%s was not ready within %s\n%s", name, readyWithin, tail(logFile))
	case <-ctx.Done():
		p.Kill()
		return nil, ctx.Err()
	}
}

// Kill ends the process as a power cut would, and waits until it is gone.
func (p *Process) Kill() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Stop asks the process to end, and kills it when it does not.
func (p *Process) Stop() error {
	if p == nil {
		return nil
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	return p.Wait()
}

// Wait waits for the end of a process that is ending, and kills it when it does
// not end.
func (p *Process) Wait() error {
	select {
	case <-p.done:
	case <-time.After(stopWithin):
		p.Kill()
		return fmt.Errorf("%s did not end in %s", p.Name, stopWithin)
	}
	var exit *exec.ExitError
	if errors.As(p.err, &exit) && exit.ExitCode() != 0 {
		return fmt.Errorf("%s: %w\n%s", p.Name, p.err, tail(p.log))
	}
	return nil
}

// Running tells whether the process is still there.
func (p *Process) Running() bool {
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

// FreePorts fills addrs with addresses on loopback whose ports are free. They
// stay the same across restarts, as they would on real machines.
func FreePorts(addrs ...*string) error {
	var held []net.Listener
	defer func() {
		for _, l := range held {
			l.Close()
		}
	}()
	for _, addr := range addrs {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		held = append(held, l)
		*addr = l.Addr().String()
	}
	return nil
}
