package worker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/edgetwin/sedna/models/task"
)

// First arguments that make a binary of ours a shim, and the process that
// becomes the worker.
const (
	shimArg = "__worker-shim"
	execArg = "__worker-exec"
)

// maxLife bounds what a shim is told, in bytes.
const maxLife = 2 << 20

// Exit codes of a shim, for its log only: what counts is exit.json.
const (
	shimDone   = 0
	shimUntold = 3 // it was told nothing, and has run nothing
	shimTwice  = 4 // another shim runs a life of this worker
	shimFailed = 5
)

// Main is a shim or a worker's beginning if args, os.Args without the program's
// name, ask for it. The main of each binary that supervises workers calls it
// before anything else and exits with exitCode when handled is true.
func Main(args []string) (handled bool, exitCode int) {
	if len(args) == 0 {
		return false, 0
	}
	switch args[0] {
	case shimArg:
		return true, shimMain()
	case execArg:
		return true, execMain()
	}
	return false, 0
}

// shimMain runs one life, whose description comes on stdin. When the
// LocalController dies before the description is whole, nothing runs.
func shimMain() int {
	debug.SetGCPercent(20) // it is small and there may be many
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	// Taken and dropped: what is ignored would be ignored by the worker too.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	b, err := io.ReadAll(io.LimitReader(os.Stdin, maxLife))
	var l life
	if err != nil || json.Unmarshal(b, &l) != nil {
		return shimUntold
	}
	lock, err := holdLock(l.Dir, l.ID)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return shimTwice
	}
	defer lock.Close()
	// What loses its parent becomes our child, so none escapes.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "subreaper:", err)
		return shimFailed
	}
	s := &shim{life: l, log: newLogWriter(l.Dir, l.LogBytes, l.LogFiles)}
	defer s.log.close()
	out := s.run(stop)
	if err := writeAtomic(l.Dir, exitFile, out, true); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return shimFailed
	}
	return shimDone
}

// holdLock takes the lock of a worker's directory, which the kernel frees when
// the shim ends, and writes into it who holds it.
func holdLock(dir, life string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock of %s: %w", dir, err)
	}
	h := holder{PID: os.Getpid(), Life: life}
	h.StartTicks, _ = startTicks(h.PID)
	b, err := json.Marshal(h)
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt(b, 0)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// holder is the content of a lock file.
type holder struct {
	PID        int    `json:"pid"`
	StartTicks int64  `json:"startTicks"`
	Life       string `json:"life"`
}

// shim is the parent of one life.
type shim struct {
	life life
	log  *logWriter

	mu    sync.Mutex
	now   running
	dirty bool
}

// child tells of the worker and its kin, from the thread that is their parent.
type child struct {
	started chan error    // one value
	exited  chan int      // one value: the worker's code
	empty   chan struct{} // closed when nothing of the life is left
	pid     int           // after started
	cpu     time.Duration // after empty
	maxRSS  int64         // after empty

	mu     sync.Mutex
	reaped bool // the worker: from then on its number may be another's
}

// signal reaches the worker's process group as long as the worker is there.
func (c *child) signal(sig unix.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.reaped {
		_ = unix.Kill(-c.pid, sig)
	}
}

// killAgain is how often what is left is killed anew, for it may have forked
// meanwhile; lastOutput how long output is waited for when all are dead.
const (
	killAgain  = 20 * time.Millisecond
	lastOutput = time.Second
	saveEvery  = 500 * time.Millisecond
)

func (s *shim) run(stop <-chan os.Signal) *outcome {
	out := &outcome{running: running{Life: s.life.ID}}
	var readers sync.WaitGroup
	c, pipes, err := s.start(&readers)
	if err != nil {
		out.Code, out.Reason, out.Message, out.EndedAt = 126, ReasonNotStarted, err.Error(), time.Now().UTC()
		return out
	}
	s.mu.Lock()
	s.now = running{Life: s.life.ID, PID: c.pid}
	s.dirty = true
	s.mu.Unlock()
	s.save()

	var limit, grace, again <-chan time.Time
	if s.life.TimeLimit > 0 {
		limit = time.After(s.life.TimeLimit)
	}
	saving := time.NewTicker(saveEvery)
	defer saving.Stop()
	over := false // the worker itself has ended
	end := func(reason string) {
		if out.Reason == "" && !over {
			out.Reason = reason
			c.signal(unix.SIGTERM)
			grace = time.After(s.life.Grace)
		}
	}
	for living := true; living; {
		select {
		case <-stop:
			end(ReasonInterrupted)
		case <-limit:
			end(ReasonTimeLimit)
		case out.Code = <-c.exited:
			over, limit, grace = true, nil, nil
			again = time.After(0) // its kin does not outlive it
		case <-grace:
			again = time.After(0)
		case <-again:
			s.killAll()
			again = time.After(killAgain)
		case <-c.empty:
			living = false
		case <-saving.C:
			s.save()
		}
	}
	if !over {
		out.Code = <-c.exited
	}
	finished := make(chan struct{})
	go func() { readers.Wait(); close(finished) }()
	select {
	case <-finished:
	case <-time.After(lastOutput): // a stranger has been handed a pipe
	}
	for _, p := range pipes {
		p.Close()
	}
	s.mu.Lock()
	out.running = s.now
	s.mu.Unlock()
	if out.Code != 0 && out.Reason == "" {
		out.Reason = ReasonExit
		if oomKills(s.life.Cgroup) > 0 {
			out.Reason, out.Message = ReasonMemoryLimit, "killed by the kernel at its cgroup's memory limit"
		}
	}
	out.CPUMillis, out.MaxRSS, out.EndedAt = c.cpu.Milliseconds(), c.maxRSS, time.Now().UTC()
	return out
}

// start makes the process that becomes the worker.
func (s *shim) start(readers *sync.WaitGroup) (*child, []*os.File, error) {
	var pipes, theirs []*os.File
	fail := func(err error) (*child, []*os.File, error) {
		for _, f := range append(pipes, theirs...) {
			f.Close()
		}
		return nil, nil, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return fail(err)
	}
	theirs = append(theirs, null)
	for range 2 {
		r, w, err := os.Pipe()
		if err != nil {
			return fail(err)
		}
		pipes, theirs = append(pipes, r), append(theirs, w)
	}
	specR, specW, err := os.Pipe()
	if err != nil {
		return fail(err)
	}
	pipes, theirs = append(pipes, specW), append(theirs, specR)
	told, err := json.Marshal(begin{
		Parent: os.Getpid(), Path: s.life.Path, Argv: s.life.Argv, Env: s.life.Env, DataBytes: s.life.DataBytes, CPUs: s.life.CPUs,
	})
	if err != nil {
		return fail(err)
	}

	sys := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if uid, gid := s.life.ids(); uid != os.Getuid() || gid != os.Getgid() {
		sys.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	if s.life.Cgroup != "" {
		group, err := os.Open(s.life.Cgroup)
		if err != nil {
			return fail(err)
		}
		theirs = append(theirs, group)
		sys.UseCgroupFD, sys.CgroupFD = true, int(group.Fd())
	}
	attr := &syscall.ProcAttr{
		Dir: s.life.WorkDir, Env: []string{markerEnv + "=" + s.life.ID, "GOMAXPROCS=1"}, Sys: sys,
		Files: []uintptr{theirs[0].Fd(), theirs[1].Fd(), theirs[2].Fd(), specR.Fd()},
	}
	c := &child{started: make(chan error, 1), exited: make(chan int, 1), empty: make(chan struct{})}
	go c.beParent(attr)
	if err := <-c.started; err != nil {
		return fail(err)
	}
	for _, f := range theirs {
		f.Close()
	}
	readers.Go(func() { copyLines(pipes[0], s.stdout) })
	readers.Go(func() { copyLines(pipes[1], func(line []byte, _ bool) { s.log.write(line) }) })
	// A worker that dies before it is told shows as its exit.
	_, _ = specW.Write(told)
	specW.Close()
	return c, pipes[:2], nil
}

// beParent starts the worker and waits for it and all that becomes our child,
// on one thread: the kernel kills the worker when this thread ends.
func (c *child) beParent(attr *syscall.ProcAttr) {
	runtime.LockOSThread()
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"sedna-worker", execArg}, attr)
	c.pid = pid
	c.started <- err
	if err != nil {
		return
	}
	for {
		// Waits without reaping, which comes under the lock.
		err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil { // ECHILD: none is left
			close(c.empty)
			return
		}
		c.reap()
	}
}

func (c *child) reap() {
	c.mu.Lock()
	defer c.mu.Unlock()
	var status syscall.WaitStatus
	var used syscall.Rusage
	who, err := syscall.Wait4(-1, &status, syscall.WNOHANG, &used)
	if err != nil || who <= 0 {
		return
	}
	c.cpu += time.Duration(used.Utime.Nano() + used.Stime.Nano())
	c.maxRSS = max(c.maxRSS, used.Maxrss<<10)
	if who != c.pid {
		return
	}
	c.reaped = true
	code := status.ExitStatus()
	if status.Signaled() {
		code = 128 + int(status.Signal())
	}
	c.exited <- code
}

// stdout takes a line of the worker's.
func (s *shim) stdout(line []byte, whole bool) {
	s.log.write(line)
	if !whole {
		return
	}
	p, ok := task.DecodeProgress(line)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dirty = true
	if p.Progress != nil {
		s.now.Progress = *p.Progress
	}
	if p.Metrics != nil {
		s.now.Metrics = p.Metrics
	}
}

// save writes run.json if there is news. A failure is met again at the next.
func (s *shim) save() {
	s.mu.Lock()
	now, dirty := s.now, s.dirty
	s.dirty = false
	s.mu.Unlock()
	if dirty && writeAtomic(s.life.Dir, runFile, now, false) != nil {
		s.mu.Lock()
		s.dirty = true
		s.mu.Unlock()
	}
}

// killAll kills what descends from this process.
func (s *shim) killAll() {
	killCgroup(s.life.Cgroup)
	for _, p := range descendants(os.Getpid()) {
		if h := openProcess(p.pid, p.startTicks); h != nil {
			h.signal(unix.SIGKILL)
			h.close()
		}
	}
}

// begin is what the process that becomes the worker is told, on descriptor 3.
type begin struct {
	Parent    int      `json:"parent"`
	Path      string   `json:"path"`
	Argv      []string `json:"argv"`
	Env       []string `json:"env"`
	DataBytes int64    `json:"dataBytes"`
	CPUs      int      `json:"cpus"`
}

// Exit codes of a program that cannot be run, as shells have them.
const (
	cannotRun = 126
	noProgram = 127
)

// execMain limits itself and becomes the worker.
func execMain() int {
	// Affinity and the death signal belong to the thread that becomes the worker.
	runtime.LockOSThread()
	fail := func(code int, what string, err error) int {
		fmt.Fprintf(os.Stderr, "sedna: %s: %v\n", what, err)
		return code
	}
	in := os.NewFile(3, "begin")
	b, err := io.ReadAll(io.LimitReader(in, maxLife))
	in.Close()
	var w begin
	if err == nil {
		err = json.NewDecoder(bytes.NewReader(b)).Decode(&w)
	}
	if err != nil {
		return fail(cannotRun, "not told what to run", err)
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fail(cannotRun, "death signal", err)
	}
	if os.Getppid() != w.Parent {
		return fail(cannotRun, "start", errors.New("the shim is gone"))
	}
	if w.CPUs > 0 {
		if err := pinCPUs(w.CPUs); err != nil {
			return fail(cannotRun, "cpu limit", err)
		}
	}
	// When memory runs out, workers go before what keeps the node. One that runs
	// as another user may not say so.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("500"), 0)
	limits := map[int]uint64{unix.RLIMIT_CORE: 0}
	if w.DataBytes > 0 {
		limits[unix.RLIMIT_DATA] = uint64(w.DataBytes)
	}
	for which, value := range limits {
		if err := unix.Setrlimit(which, &unix.Rlimit{Cur: value, Max: value}); err != nil {
			return fail(cannotRun, "limit", err)
		}
	}
	err = syscall.Exec(w.Path, w.Argv, w.Env)
	if errors.Is(err, syscall.ENOENT) {
		return fail(noProgram, w.Path, err)
	}
	return fail(cannotRun, w.Path, err)
}

// pinCPUs lets this thread, and what it becomes, run on n of its CPUs.
func pinCPUs(n int) error {
	var all, some unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return err
	}
	have := all.Count()
	if n >= have {
		return nil
	}
	skip := os.Getpid() % have // workers spread over the CPUs
	for round := 0; some.Count() < n; round++ {
		cpu := round % (len(all) * 64)
		if !all.IsSet(cpu) || some.IsSet(cpu) {
			continue
		}
		if skip > 0 {
			skip--
			continue
		}
		some.Set(cpu)
	}
	return unix.SchedSetaffinity(0, &some)
}
