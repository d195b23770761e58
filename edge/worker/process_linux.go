package worker

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// proc is a process as /proc knows it. Its pid is used again after its end, the
// pair with startTicks is not until the machine starts anew.
type proc struct {
	pid, parent int
	startTicks  int64
	state       byte // Z and X: dead
}

func readProc(pid int) (proc, bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return proc{}, false
	}
	return parseStat(pid, b)
}

// parseStat reads the line of /proc/PID/stat. The name in it can hold anything.
func parseStat(pid int, b []byte) (proc, bool) {
	end := bytes.LastIndexByte(b, ')')
	if end < 0 {
		return proc{}, false
	}
	const state, parent, start = 0, 1, 19 // fields after the name
	f := bytes.Fields(b[end+1:])
	if len(f) <= start || len(f[state]) != 1 {
		return proc{}, false
	}
	ppid, err1 := strconv.Atoi(string(f[parent]))
	ticks, err2 := strconv.ParseInt(string(f[start]), 10, 64)
	return proc{pid, ppid, ticks, f[state][0]}, err1 == nil && err2 == nil
}

// startTicks tells when a living process began, in clock ticks since boot.
func startTicks(pid int) (int64, bool) {
	p, ok := readProc(pid)
	return p.startTicks, ok && p.state != 'Z' && p.state != 'X'
}

// processes lists all that can be seen.
func processes() []proc {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil
	}
	var out []proc
	for _, n := range names {
		pid, err := strconv.Atoi(n)
		if err != nil {
			continue
		}
		if p, ok := readProc(pid); ok && p.state != 'Z' && p.state != 'X' {
			out = append(out, p)
		}
	}
	return out
}

// descendants lists what has root among its ancestors.
func descendants(root int) []proc {
	children := map[int][]proc{}
	for _, p := range processes() {
		children[p.parent] = append(children[p.parent], p)
	}
	var out []proc
	seen := map[int]bool{root: true} // a list that is not of one instant may have a circle
	for next := []int{root}; len(next) > 0; next = next[1:] {
		for _, p := range children[next[0]] {
			if !seen[p.pid] {
				seen[p.pid] = true
				out, next = append(out, p), append(next, p.pid)
			}
		}
	}
	return out
}

// marked lists what has the mark of a life in its environment.
func marked(life string) []proc {
	want := []byte(markerEnv + "=" + life)
	var out []proc
	for _, p := range processes() {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/environ")
		if err != nil {
			continue
		}
		for v := range bytes.SplitSeq(b, []byte{0}) {
			if bytes.Equal(v, want) {
				out = append(out, p)
				break
			}
		}
	}
	return out
}

// handle is one living process, never another one that got its pid.
type handle struct {
	pid        int
	startTicks int64
	fd         *os.File // pidfd; nil where the kernel has none

	once sync.Once
}

// openProcess gives a handle if the process lives and began at startTicks.
func openProcess(pid int, ticks int64) *handle {
	if pid <= 1 {
		return nil
	}
	h := &handle{pid: pid, startTicks: ticks}
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	switch {
	case err == nil:
		h.fd = os.NewFile(uintptr(fd), "pidfd")
	case errors.Is(err, unix.ESRCH):
		return nil
	}
	// The descriptor stands for whoever had the pid when it was opened: one that
	// began at startTicks now had it then.
	if have, alive := startTicks(pid); !alive || have != ticks {
		h.close()
		return nil
	}
	return h
}

func (h *handle) close() {
	h.once.Do(func() {
		if h.fd != nil {
			h.fd.Close()
		}
	})
}

func (h *handle) signal(sig unix.Signal) {
	if h.fd == nil {
		if have, alive := startTicks(h.pid); alive && have == h.startTicks {
			_ = unix.Kill(h.pid, sig)
		}
		return
	}
	c, err := h.fd.SyscallConn()
	if err == nil {
		_ = c.Control(func(fd uintptr) { _ = unix.PidfdSendSignal(int(fd), sig, nil, 0) })
	}
}

// lookAgain is how often a process without a pidfd is looked at.
const lookAgain = 200 * time.Millisecond

// wait returns true when the process is dead, and false when ctx ended first or
// h was closed.
func (h *handle) wait(ctx context.Context) bool {
	if h.fd == nil {
		tick := time.NewTicker(lookAgain)
		defer tick.Stop()
		for {
			if have, alive := startTicks(h.pid); !alive || have != h.startTicks {
				return true
			}
			select {
			case <-ctx.Done():
				return false
			case <-tick.C:
			}
		}
	}
	c, err := h.fd.SyscallConn()
	if err != nil {
		return false
	}
	stop := context.AfterFunc(ctx, h.close)
	defer stop()
	dead := false
	_ = c.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		dead = err == nil && n > 0
		return dead
	})
	return dead
}

// sweepFor bounds how long leftovers are killed for.
const sweepFor = 10 * time.Second

// sweep kills what carries the mark of a life, or is in its cgroup, until
// nothing does.
func sweep(life, cgroup string) error {
	ctx, cancel := context.WithTimeout(context.Background(), sweepFor)
	defer cancel()
	for {
		killCgroup(cgroup)
		left := marked(life)
		if len(left) == 0 && cgroupEmpty(cgroup) {
			return nil
		}
		for _, p := range left {
			h := openProcess(p.pid, p.startTicks)
			if h == nil {
				continue
			}
			h.signal(unix.SIGKILL)
			h.wait(ctx)
			h.close()
		}
		if ctx.Err() != nil {
			return errors.New("processes of life " + life + " do not end")
		}
		if len(left) == 0 {
			waitCgroupEmpty(ctx, cgroup)
		}
	}
}

// readBootID is the kernel's name for the time since the machine started.
func readBootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
