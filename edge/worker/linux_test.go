package worker

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/edgetwin/sedna/edge/store"
)

func TestParseStat(t *testing.T) {
	fields := "S 7 " + strings.Repeat("0 ", 17) + "4242 0 0"
	for line, want := range map[string]string{
		"12 (sh) " + fields:                    "{12 7 4242 83} true",
		"12 (a) b (c ) 1 2) " + fields:         "{12 7 4242 83} true",
		"12 (\n)\xff) " + fields:               "{12 7 4242 83} true",
		"12 (sh":                               "{0 0 0 0} false",
		"12 (sh) S 7":                          "{0 0 0 0} false",
		"12 (sh) S x" + fields[3:]:             "{12 0 4242 83} false",
		"":                                     "{0 0 0 0} false",
		"12 (sh) " + strings.Repeat("SS ", 30): "{0 0 0 0} false",
	} {
		p, ok := parseStat(12, []byte(line))
		if got := fmt.Sprint(p, ok); got != want {
			t.Errorf("%q: %s", line, got)
		}
	}
}

func TestHandleKnowsItsProcess(t *testing.T) {
	for name, pidfd := range map[string]bool{"pidfd": true, "start time": false} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command("sleep", "60")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
			ticks, ok := startTicks(cmd.Process.Pid)
			if !ok {
				t.Fatal("no start time")
			}
			if openProcess(cmd.Process.Pid, ticks+1) != nil {
				t.Error("another process with the same pid is taken for ours")
			}
			h := openProcess(cmd.Process.Pid, ticks)
			if h == nil {
				t.Fatal("not found")
			}
			defer h.close()
			switch {
			case pidfd && h.fd == nil:
				t.Skip("this kernel has no pidfd")
			case !pidfd && h.fd != nil: // as on an old kernel
				h.fd.Close()
				h.fd = nil
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if openProcess(cmd.Process.Pid, ticks).wait(ctx) {
				t.Error("dead, it is said")
			}
			h.signal(unix.SIGKILL)
			if !h.wait(t.Context()) {
				t.Error("not seen to end")
			}
		})
	}
}

func TestLocateCgroup(t *testing.T) {
	const (
		unified = "25 1 0:23 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
		hybrid  = "30 1 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n31 1 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
		inside  = "25 1 0:23 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n"
	)
	for _, c := range []struct{ groups, mounts, want string }{
		{"0::/system.slice/sedna.service\n", unified, "/sys/fs/cgroup/system.slice/sedna.service"},
		{"4:memory:/x\n0::/\n", hybrid, "/sys/fs/cgroup/unified"},
		{"0::/docker/abc/sub\n", inside, "/sys/fs/cgroup/sub"},
		{"0::/elsewhere\n", inside, ""},
		{"4:memory:/x\n", hybrid, ""},
		{"0::/\n", "", ""},
	} {
		if got := locateCgroup([]byte(c.groups), []byte(c.mounts)); got != c.want {
			t.Errorf("%q: %q, expected %q", c.groups, got, c.want)
		}
	}
}

// A directory with the kernel's interface files stands for a delegated cgroup:
// what is written into them is what the kernel would be told.
func TestCgroupLimits(t *testing.T) {
	base := t.TempDir()
	lives := filepath.Join(base, livesGroup)
	write := func(dir, name, value string) {
		t.Helper()
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(base, "cgroup.procs", "")
	write(base, "cgroup.controllers", "cpuset cpu io memory pids\n")
	write(base, "cgroup.subtree_control", "cpu memory\n")
	write(lives, "cgroup.kill", "")
	write(lives, "cgroup.subtree_control", "")
	c := openCgroups(base)
	if c.dir != lives || !c.memory || !c.cpu {
		t.Fatalf("%+v", c)
	}
	if got, err := os.ReadFile(filepath.Join(lives, "cgroup.subtree_control")); err != nil || !strings.HasPrefix(string(got), "+") {
		t.Errorf("%q %v", got, err)
	}
	// The kernel makes the files; here none is, so that no limit is kept.
	dir, memory, cpu := c.make("life", 1<<20, 1500)
	if dir != filepath.Join(lives, "life") || memory || cpu {
		t.Errorf("%s %v %v", dir, memory, cpu)
	}
	if _, err := os.Stat(filepath.Join(dir, "memory.max")); err == nil {
		t.Error("an interface file was made")
	}
	if err := removeCgroup(dir); err != nil {
		t.Error(err)
	}
	if c := openCgroups(t.TempDir()); c.dir != "" {
		t.Errorf("%+v", c)
	}
	write(filepath.Join(lives, "x"), "memory.events", "low 0\nhigh 0\noom 2\noom_kill 3\n")
	if n := oomKills(filepath.Join(lives, "x")); n != 3 {
		t.Error(n)
	}
}

// lifeOf is a life that makes a file.
func lifeOf(t *testing.T, id string) (*life, string) {
	t.Helper()
	dir := t.TempDir()
	made := filepath.Join(dir, "made")
	return &life{ID: id, Dir: dir, Path: "/usr/bin/touch", Argv: []string{"touch", made}, WorkDir: dir, Grace: time.Second, LogBytes: 1 << 20, LogFiles: 2}, made
}

func await(t *testing.T, p process) {
	t.Helper()
	select {
	case <-p.done():
	case <-time.After(20 * time.Second):
		t.Fatal("the shim does not end")
	}
	p.leave()
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// When a controller dies before the shim is told everything, nothing runs.
func TestShimThatIsToldTooLittle(t *testing.T) {
	s := &shims{boot: readBootID()}
	for _, share := range []int{0, 50, 99, 100} {
		l, made := lifeOf(t, "life")
		p, err := s.prepare(l)
		if err != nil {
			t.Fatal(err)
		}
		pid, ticks := p.identity()
		row := &store.Worker{Life: l.ID, PID: pid, StartTicks: ticks, BootID: s.boot}
		again := s.find(row)
		if again == nil {
			t.Fatal("not found while it waits")
		}
		again.leave()
		sp := p.(*shimProcess)
		sp.told = sp.told[:len(sp.told)*share/100]
		if err := p.release(); err != nil {
			t.Fatal(err)
		}
		await(t, p)
		out := s.outcome(l.Dir, row)
		if share < 100 && (exists(made) || out == nil || out.Reason != ReasonNotStarted) {
			t.Errorf("told %d%%: %+v", share, out)
		}
		if share == 100 && (!exists(made) || out == nil || out.Reason != "" || out.PID == 0) {
			t.Errorf("told all: %+v", out)
		}
		if s.find(row) != nil {
			t.Error("found after its end")
		}
	}
}

// A worker has one shim at a time, whatever else goes wrong.
func TestSecondShimRunsNothing(t *testing.T) {
	s := &shims{boot: readBootID()}
	first, _ := lifeOf(t, "first")
	first.Path, first.Argv = "/usr/bin/sleep", []string{"sleep", "60"}
	p, err := s.prepare(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.release(); err != nil {
		t.Fatal(err)
	}
	for late := time.Now().Add(20 * time.Second); s.watch(first.Dir, &store.Worker{Life: "first"}) == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(late) {
			t.Fatal("never runs")
		}
	}
	second, made := lifeOf(t, "second")
	second.Dir = first.Dir
	q, err := s.prepare(second)
	if err != nil {
		t.Fatal(err)
	}
	if err := q.release(); err != nil {
		t.Fatal(err)
	}
	await(t, q)
	if out := s.outcome(first.Dir, &store.Worker{Life: "second"}); exists(made) || out == nil || out.Reason != ReasonNotStarted {
		t.Errorf("%+v", out)
	}
	p.terminate()
	await(t, p)
	if out := s.outcome(first.Dir, &store.Worker{Life: "first"}); out == nil || out.Reason != ReasonInterrupted || out.Code != 128+15 {
		t.Errorf("%+v", out)
	}
}

// A shim that does not answer is killed after the grace time, its life with it.
func TestShimThatHangs(t *testing.T) {
	s := &shims{boot: readBootID()}
	l, _ := lifeOf(t, "hangs")
	l.Path, l.Argv, l.Env = "/usr/bin/sleep", []string{"sleep", "60"}, []string{markerEnv + "=hangs"}
	p, err := s.prepare(l)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.release(); err != nil {
		t.Fatal(err)
	}
	row := &store.Worker{Life: l.ID}
	var r *running
	for late := time.Now().Add(20 * time.Second); r == nil; r = s.watch(l.Dir, row) {
		if time.Now().After(late) {
			t.Fatal("never runs")
		}
		time.Sleep(time.Millisecond)
	}
	pid, _ := p.identity()
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	p.terminate()
	if _, living := startTicks(r.PID); !living {
		t.Error("ended by a shim that is stopped")
	}
	p.kill()
	await(t, p)
	if err := s.clear(l.ID, ""); err != nil {
		t.Fatal(err)
	}
	if _, living := startTicks(r.PID); living || s.outcome(l.Dir, row) != nil {
		t.Error("lives on")
	}
}

func TestClosedDirectoriesAreRemoved(t *testing.T) {
	top := filepath.Join(t.TempDir(), "top")
	if err := os.MkdirAll(filepath.Join(top, "a", "b"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"a/b", "a"} {
		if err := os.Chmod(filepath.Join(top, d), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := removeAll(top); err != nil || exists(top) {
		t.Error(err)
	}
}
