package model

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/edgetwin/sedna/lib/engine"
	"github.com/edgetwin/sedna/models/wire"
)

// loadTestArg is the first argument that makes a binary of ours the throwaway
// child: __load-test FORMAT PATH MEMORY_BYTES CPU_SECONDS.
const loadTestArg = "__load-test"

// childResult is the one line that the child prints.
type childResult struct {
	OK      bool      `json:"ok"`
	Code    wire.Code `json:"code,omitempty"`
	Message string    `json:"message,omitempty"`
}

// LoadTestMain runs the load test if args, os.Args without the program's name,
// ask for it. The main of each binary that serves models calls it before
// anything else and exits with exitCode when handled is true.
func LoadTestMain(args []string) (handled bool, exitCode int) {
	if len(args) == 0 || args[0] != loadTestArg {
		return false, 0
	}
	result := childResult{OK: true}
	if err := loadTestChild(args[1:]); err != nil {
		result = childResult{Code: childCode(err), Message: err.Error()}
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		return true, 1
	}
	return true, 0
}

func loadTestChild(args []string) error {
	if len(args) != 4 {
		return wire.E(wire.InvalidArgument, "", "usage: "+loadTestArg+" FORMAT PATH MEMORY_BYTES CPU_SECONDS", "")
	}
	memory, err1 := strconv.ParseInt(args[2], 10, 64)
	cpu, err2 := strconv.ParseUint(args[3], 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return wire.E(wire.InvalidArgument, "", err.Error(), "")
	}
	if err := limitChild(memory, cpu); err != nil {
		return wire.E(wire.Internal, "", "set limits: "+err.Error(), "")
	}
	ctx := context.Background()
	s, _, err := engine.Open(ctx, args[0], args[1], engine.Options{Threads: 1})
	if err != nil {
		return err
	}
	defer s.Close()
	return engine.WarmUp(ctx, s)
}

// limitChild bounds what the model can take. The address space that the Go
// runtime has reserved by now does not count.
func limitChild(memory int64, cpu uint64) error {
	debug.SetMemoryLimit(memory)
	for _, l := range []struct {
		which int
		value uint64
	}{
		{unix.RLIMIT_AS, addressSpace() + uint64(memory)},
		{unix.RLIMIT_CPU, cpu},
		{unix.RLIMIT_CORE, 0},
	} {
		if err := unix.Setrlimit(l.which, &unix.Rlimit{Cur: l.value, Max: l.value}); err != nil {
			return err
		}
	}
	return nil
}

// addressSpace is what this process has mapped, in bytes.
func addressSpace() uint64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(b), " ")
	pages, err := strconv.ParseUint(first, 10, 64)
	if err != nil {
		return 0
	}
	return pages * uint64(os.Getpagesize())
}

// childCode tells a model that nobody can run from one that this node cannot.
func childCode(err error) wire.Code {
	var e *wire.Error
	switch {
	case errors.As(err, &e):
		return e.Code
	case errors.Is(err, engine.ErrUnknown):
		return wire.UnsupportedMedia
	case errors.Is(err, engine.ErrUnavailable):
		return wire.Unavailable
	}
	return wire.BadModel
}

// Tester loads models in throwaway children.
type Tester struct {
	Command     []string      // the binary that calls LoadTestMain; default this one
	Timeout     time.Duration // default 60 s
	MemoryBytes int64         // beyond what the bare process needs; default 2 GiB
}

// childOutput bounds what is read of a child's stdout and stderr, each.
const childOutput = 16 << 10

// Test has a child load the file at path and run it once. It returns nil or a
// *wire.Error: bad_model with the child's words when it says no, crashes or
// takes too long; unavailable when no child could be started; ctx's error when
// that ended first.
func (t Tester) Test(ctx context.Context, format, path string) error {
	if t.Timeout == 0 {
		t.Timeout = 60 * time.Second
	}
	if t.MemoryBytes == 0 {
		t.MemoryBytes = 2 << 30
	}
	if len(t.Command) == 0 {
		exe, err := os.Executable()
		if err != nil {
			return wire.E(wire.Unavailable, "", "load test: "+err.Error(), "")
		}
		t.Command = []string{exe}
	}
	limited, cancel := context.WithTimeout(ctx, t.Timeout)
	defer cancel()
	args := append(t.Command[1:len(t.Command):len(t.Command)], loadTestArg, format, path,
		strconv.FormatInt(t.MemoryBytes, 10), strconv.Itoa(int(t.Timeout/time.Second)+1))
	cmd := exec.CommandContext(limited, t.Command[0], args...)
	cmd.Env = childEnv()
	cmd.SysProcAttr = childAttributes()
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	var stdout, stderr head
	cmd.Stdout, cmd.Stderr = &stdout, &stderr

	// The kernel kills the child when the thread that started it ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return wire.E(wire.Unavailable, "", "load test: "+err.Error(), "")
	}
	err := cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case limited.Err() != nil:
		return wire.E(wire.BadModel, "", fmt.Sprintf("did not load and run once within %v", t.Timeout), "")
	}
	var result childResult
	if err == nil && json.Unmarshal(stdout.Bytes(), &result) == nil {
		if result.OK {
			return nil
		}
		return wire.E(result.Code, "", result.Message, "")
	}
	return wire.E(wire.BadModel, "", fmt.Sprintf("loading it ended the test process: %v: %s", err, firstLine(stderr.Bytes())), "")
}

// childEnv gives the child what native libraries need and no secrets.
func childEnv() []string {
	var env []string
	for _, k := range []string{"PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "ONNXRUNTIME_LIB", "SEDNA_ONNXRUNTIME_LIB", "GORACE", "GOCOVERDIR"} {
		if v, ok := os.LookupEnv(k); ok {
			env = append(env, k+"="+v)
		}
	}
	return env
}

// head keeps the first childOutput bytes written to it.
type head struct{ bytes.Buffer }

var _ io.Writer = (*head)(nil)

func (h *head) Write(p []byte) (int, error) {
	room := max(0, childOutput-h.Len())
	h.Buffer.Write(p[:min(room, len(p))])
	return len(p), nil
}

func firstLine(b []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	const shown = 300
	if len(line) > shown {
		line = line[:shown]
	}
	return line
}
