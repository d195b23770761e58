package worker

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// unit is one worker. Its own goroutine brings it to where its row says.
type unit struct {
	key  Key
	dirs dirs
	wake chan struct{} // capacity 1: the row may have changed
	idle chan struct{} // closed when the supervisor halts and no life goes on
	gone chan struct{} // closed when the worker is forgotten

	changing sync.Mutex // held while the row is being changed

	// Guarded by Supervisor.mu.
	row  *store.Worker // as stored; not changed in place
	live *running      // of the current or last life

	// The goroutine's own.
	proc    process // nil: no life goes on
	ended   bool    // proc is done, the row does not say so yet
	endedAt time.Time
	asked   time.Time // when the life was asked to end
	relays  []*relay
}

func (u *unit) kick() {
	select {
	case u.wake <- struct{}{}:
	default:
	}
}

// killMargin is how much longer than its grace time a shim is waited for.
const killMargin = 5 * time.Second

// never: not before something happens.
const never = time.Duration(1<<63 - 1)

func (s *Supervisor) run(u *unit) {
	s.adopt(u)
	timer := time.NewTimer(0)
	defer timer.Stop()
	defer func() { closeRelays(u.relays) }()
	for {
		var done <-chan struct{}
		if u.proc != nil && !u.ended {
			done = u.proc.done()
		}
		select {
		case <-s.ctx.Done():
			if u.proc != nil {
				u.proc.leave()
			}
			return
		case <-u.wake:
		case <-timer.C:
		case <-done:
			u.ended, u.endedAt = true, time.Now()
		}
		wait, err := s.step(u)
		switch {
		case errors.Is(err, errGone):
			return
		case err != nil:
			if s.ctx.Err() == nil {
				s.o.Log.Error("worker cannot go on", "worker", u.key.String(), "error", err)
			}
			wait = s.o.Limits.RestartBase
		}
		timer.Reset(wait)
	}
}

func (s *Supervisor) snapshot(u *unit) (row *store.Worker, halting bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return u.row, s.halting
}

// adopt finds the life that goes on from before this process.
func (s *Supervisor) adopt(u *unit) {
	row, _ := s.snapshot(u)
	switch {
	case row.Life == "":
		return
	case !row.EndedAt.IsZero():
		if out := s.launch.outcome(u.dirs.top, row); out != nil {
			s.setLive(u, &out.running)
		}
		return
	}
	if u.proc = s.launch.find(row); u.proc == nil {
		return
	}
	s.metrics.adopted.Inc()
	s.o.Log.Info("worker adopted", "worker", u.key.String(), "shim", row.PID)
	s.event(row, "Adopted", "found running, started at "+row.StartedAt.Format(time.RFC3339))
	r, err := requestOf(row)
	if err != nil || Phase(row.Phase) == Removing {
		return
	}
	if u.relays, err = s.openRelays(r.Worker.Relays, row.Relays); err != nil {
		s.o.Log.Error("an adopted worker's relay cannot be opened again", "worker", u.key.String(), "error", err)
		s.event(row, "RelayFailed", err.Error())
	}
}

// step does what is to be done now and returns when to look again.
func (s *Supervisor) step(u *unit) (time.Duration, error) {
	row, halting := s.snapshot(u)
	phase := Phase(row.Phase)
	if u.proc != nil && !u.ended {
		return s.attend(u, row, halting)
	}
	if row.Life != "" && row.EndedAt.IsZero() {
		if err := s.finish(u, row, halting); err != nil {
			return 0, err
		}
		row, halting = s.snapshot(u)
		phase = Phase(row.Phase)
	}
	switch {
	case phase == Removing:
		return 0, s.forget(u)
	case halting:
		select {
		case <-u.idle:
		default:
			close(u.idle)
		}
		return never, nil
	case phase == Pending:
		if wait := time.Until(row.NextAt); wait > 0 {
			return min(wait, s.o.Limits.RestartMax), nil // the clock may have been set
		}
		return s.begin(u, row)
	}
	return never, nil
}

// attend looks after a life that goes on.
func (s *Supervisor) attend(u *unit, row *store.Worker, halting bool) (time.Duration, error) {
	r, err := requestOf(row)
	if err != nil {
		return 0, err
	}
	if halting || Phase(row.Phase) == Removing || row.LifeHash != hashOf(row.Request) {
		now := time.Now()
		patience := r.Worker.Grace() + killMargin
		switch {
		case u.asked.IsZero():
			u.asked = now
			u.proc.terminate()
		case now.Sub(u.asked) >= patience:
			// The worker dies with its shim, and what else is left when the end of
			// the shim has been seen.
			u.proc.kill()
			return killMargin, nil
		}
		return patience - now.Sub(u.asked), nil
	}
	if live := s.launch.watch(u.dirs.top, row); live != nil {
		s.setLive(u, live)
	}
	if (row.Failures > 0 || row.Reason != "") && time.Since(row.StartedAt) >= s.o.Limits.HealthyAfter {
		_, err := s.change(s.ctx, u, func(w *store.Worker) error {
			w.Failures, w.Reason, w.Detail = 0, "", ""
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	return s.o.Limits.Poll, nil
}

// setLive notes how a life goes, and tells if that is news.
func (s *Supervisor) setLive(u *unit, live *running) {
	s.mu.Lock()
	was := u.live
	u.live = live
	s.mu.Unlock()
	if was == nil || was.Life != live.Life || was.PID != live.PID || was.Progress != live.Progress || !maps.Equal(was.Metrics, live.Metrics) {
		s.o.Changed(u.key)
	}
}

// forget removes what is left of a worker of which nothing lives.
func (s *Supervisor) forget(u *unit) error {
	if err := u.dirs.remove(); err != nil {
		return err
	}
	u.changing.Lock()
	err := s.o.Store.Update(s.ctx, func(tx *store.Tx) error { return tx.DeleteWorker(u.key.UID, u.key.Name) })
	u.changing.Unlock()
	if err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.units, u.key)
	s.mu.Unlock()
	close(u.gone)
	s.o.Changed(u.key)
	return errGone
}

// begin starts a life: it is journalled, then its shim is started and
// journalled, and then the shim is told what to run.
func (s *Supervisor) begin(u *unit, row *store.Worker) (time.Duration, error) {
	r, err := requestOf(row)
	if err != nil {
		return 0, err
	}
	l, capability, err := s.plan(u, r)
	if err != nil {
		return s.notBegun(u, row, err)
	}
	var ports []int
	if u.relays, err = s.openRelays(r.Worker.Relays, nil); err != nil {
		return s.notBegun(u, row, err)
	}
	for i, relay := range u.relays {
		spec := r.Worker.Relays[i]
		ports = append(ports, relay.port)
		l.Env = setEnv(l.Env, spec.HostEnv, relayHost)
		l.Env = setEnv(l.Env, spec.PortEnv, strconv.Itoa(relay.port))
	}
	var memoryKept, cpuKept bool
	l.Cgroup, memoryKept, cpuKept = s.launch.group(l.ID, r.Worker.MemoryBytes, r.Worker.CPUMilli)
	limitedBy := limitWith(l, &r.Worker, memoryKept, cpuKept)
	row, err = s.change(s.ctx, u, func(w *store.Worker) error {
		w.Life, w.LifeHash, w.Capability = l.ID, hashOf(row.Request), capabilityHash(capability)
		w.BootID, w.PID, w.StartTicks, w.Cgroup, w.LimitedBy, w.Relays = s.launch.bootID(), 0, 0, l.Cgroup, limitedBy, ports
		w.StartedAt, w.EndedAt, w.Result = time.Now().UTC(), time.Time{}, nil
		return move(w, Launching)
	})
	if err != nil {
		closeRelays(u.relays)
		u.relays = nil
		return 0, errors.Join(err, s.launch.clear(l.ID, l.Cgroup))
	}
	if row.LifeHash != hashOf(row.Request) {
		return 0, nil // another request came: step finishes this life, which has no shim
	}
	p, err := s.launch.prepare(l)
	if err != nil {
		s.o.Log.Error("worker cannot be started", "worker", u.key.String(), "error", err)
		s.event(row, ReasonNotStarted, err.Error())
		return 0, nil // step finishes the life, which has no shim
	}
	u.proc, u.ended, u.asked = p, false, time.Time{}
	pid, ticks := p.identity()
	row, err = s.change(s.ctx, u, func(w *store.Worker) error {
		w.PID, w.StartTicks = pid, ticks
		if w.Reason != ReasonCrashLoop { // that is over when a life has been long enough
			w.Reason, w.Detail = "", ""
		}
		if Phase(w.Phase) == Removing {
			return nil
		}
		return move(w, Launched)
	})
	if err != nil || Phase(row.Phase) == Removing || row.LifeHash != hashOf(row.Request) {
		p.kill() // it was told nothing
		return s.o.Limits.Poll, err
	}
	s.metrics.starts.Inc()
	if err := p.release(); err != nil {
		return 0, fmt.Errorf("tell the shim: %w", err) // its end is seen
	}
	s.o.Log.Info("worker started", "worker", u.key.String(), "generation", r.Generation, "shim", pid, "program", l.Path, "limits", limitedBy)
	return 0, nil
}

// notBegun records that no life could be begun. Causes that are the request's
// are for good.
func (s *Supervisor) notBegun(u *unit, was *store.Worker, cause error) (time.Duration, error) {
	e := wire.AsError(cause)
	s.o.Log.Warn("worker not started", "worker", u.key.String(), "error", cause)
	row, err := s.change(s.ctx, u, func(w *store.Worker) error {
		if Phase(w.Phase) != Pending || hashOf(w.Request) != hashOf(was.Request) {
			return nil // it has moved on
		}
		w.Reason, w.Detail = ReasonNotStarted, e.Error()
		if e.Code != wire.Internal && e.Code != wire.Unavailable && e.Code != wire.ResourceExhausted {
			return move(w, Broken)
		}
		w.Failures++
		w.NextAt = time.Now().Add(s.backoff(w.Failures)).UTC()
		return move(w, Again)
	})
	if err != nil {
		return 0, err
	}
	s.event(row, ReasonNotStarted, e.Error())
	return 0, nil
}

// backoff is the time before a restart after n failures in a row.
func (s *Supervisor) backoff(n int) time.Duration {
	d := s.o.Limits.RestartBase
	for ; n > 1 && d < s.o.Limits.RestartMax; n-- {
		d *= 2
	}
	return min(d, s.o.Limits.RestartMax)
}

// plan makes a life of a request: all that can be refused is refused here.
func (s *Supervisor) plan(u *unit, r *Request) (*life, string, error) {
	w := &r.Worker
	l := &life{
		ID: rand.Text(), Dir: u.dirs.top, Argv: w.Argv, User: w.User, Group: w.Group,
		TimeLimit: w.TimeLimit(), Grace: w.Grace(), LogBytes: s.o.Limits.LogBytes, LogFiles: s.o.Limits.LogFiles,
	}
	if l.User == nil {
		l.User = s.o.User
	}
	if l.Group == nil {
		l.Group = s.o.Group
	}
	uid, gid := l.ids()
	if (uid != os.Getuid() || gid != os.Getgid()) && os.Getuid() != 0 {
		return nil, "", wire.E(wire.PermissionDenied, "user", fmt.Sprintf("the LocalController is user %d and cannot start a process as %d:%d", os.Getuid(), uid, gid), "leave user and group out")
	}
	if err := u.dirs.make(s.o.Dir, uid, gid); err != nil {
		return nil, "", err
	}
	if uid != os.Getuid() {
		if err := enterable(u.dirs.work, uid, gid); err != nil {
			return nil, "", err
		}
	}
	var err error
	if l.WorkDir, err = workingDir(s.o.Roots, u.dirs.work, w.WorkingDir); err != nil {
		return nil, "", err
	}
	if !filepath.IsAbs(w.WorkingDir) && w.WorkingDir != "" {
		root, err := os.OpenRoot(u.dirs.work)
		if err != nil {
			return nil, "", err
		}
		defer root.Close()
		if err := errors.Join(root.MkdirAll(w.WorkingDir, 0o700), root.Lchown(w.WorkingDir, uid, gid)); err != nil {
			return nil, "", err
		}
	}
	path := os.Getenv("PATH")
	if l.Path, err = findProgram(s.o.Roots, path, l.WorkDir, w.Argv[0]); err != nil {
		return nil, "", err
	}
	out := outputDir(u, r)
	if err := os.Remove(filepath.Join(out, resultFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, "", err // a result from before would be taken for this life's
	}
	capability := newCapability()
	for _, e := range []task.WorkerEnv{{Name: "PATH", Value: path}, {Name: "HOME", Value: u.dirs.home}, {Name: "TMPDIR", Value: u.dirs.tmp}} {
		l.Env = setEnv(l.Env, e.Name, e.Value)
	}
	for _, e := range w.Env {
		l.Env = setEnv(l.Env, e.Name, e.Value)
	}
	l.Env = setEnv(l.Env, outputEnv, out)
	l.Env = setEnv(l.Env, "LC_SERVER", strings.TrimSuffix(s.o.Server(), "/")+"/w/"+capability)
	l.Env = setEnv(l.Env, markerEnv, l.ID)
	return l, capability, nil
}

// outputDir is where a worker leaves its result.
func outputDir(u *unit, r *Request) string {
	if r.OutputDir != "" {
		return r.OutputDir
	}
	return u.dirs.out
}

// setEnv sets a variable, in place of one of its name. An empty name is none.
func setEnv(env []string, name, value string) []string {
	if name == "" {
		return env
	}
	for i, e := range env {
		if strings.HasPrefix(e, name+"=") {
			env[i] = name + "=" + value
			return env
		}
	}
	return append(env, name+"="+value)
}

// limitWith has the process limits keep what no cgroup keeps, and says what
// keeps what.
func limitWith(l *life, w *task.Worker, memoryKept, cpuKept bool) string {
	var by []string
	switch {
	case memoryKept:
		by = append(by, "memory: cgroup")
	case w.MemoryBytes > 0:
		l.DataBytes = w.MemoryBytes
		by = append(by, "memory: rlimit")
	}
	switch {
	case cpuKept:
		by = append(by, "cpu: cgroup")
	case w.CPUMilli > 0:
		l.CPUs = int((w.CPUMilli + 999) / 1000)
		by = append(by, "cpu: affinity")
	}
	if l.TimeLimit > 0 {
		by = append(by, "time: timer")
	}
	return strings.Join(by, ", ")
}

// finish records the end of a life and decides what follows. Nothing of the
// life runs when the row says that it has ended.
func (s *Supervisor) finish(u *unit, row *store.Worker, halting bool) error {
	closeRelays(u.relays)
	u.relays = nil
	if err := s.launch.clear(row.Life, row.Cgroup); err != nil {
		return err
	}
	out := s.launch.outcome(u.dirs.top, row)
	if out == nil {
		out = &outcome{running: running{Life: row.Life}, Code: 128 + 9, Reason: ReasonLost, EndedAt: u.endedAt}
		if row.BootID != s.launch.bootID() {
			out.Reason, out.Message = ReasonInterrupted, "the machine was started anew"
		}
	}
	if row.PID == 0 {
		out = &outcome{running: running{Life: row.Life}, Reason: ReasonNotStarted} // it was told nothing
	}
	if out.EndedAt.IsZero() {
		out.EndedAt = time.Now()
	}
	r, err := requestOf(row)
	if err != nil {
		return err
	}
	if out.PID != 0 {
		s.setLive(u, &out.running) // first, for who sees that the life is over
	}
	result, trouble := readResult(outputDir(u, r))
	row, err = s.change(s.ctx, u, func(w *store.Worker) error {
		w.EndedAt, w.ExitCode, w.Capability, w.Result = out.EndedAt.UTC(), out.Code, "", result
		if Phase(w.Phase) == Removing {
			return nil
		}
		if out.Reason == ReasonLost && (halting || !u.asked.IsZero()) {
			out.Reason = ReasonInterrupted // it had to be killed
		}
		return s.follow(w, r, out, trouble)
	})
	if err != nil {
		return err
	}
	if u.proc != nil {
		u.proc.leave()
		u.proc = nil
	}
	u.ended, u.endedAt, u.asked = false, time.Time{}, time.Time{}
	s.metrics.ends.WithLabelValues(endLabel(out)).Inc()
	s.o.Log.Info("worker ended", "worker", u.key.String(), "code", out.Code, "reason", out.Reason, "phase", row.Phase, "cpuMillis", out.CPUMillis, "maxRSS", out.MaxRSS)
	s.event(row, row.Phase, fmt.Sprintf("exit code %d, %s %s", out.Code, out.Reason, row.Detail))
	return nil
}

// crashLoop is how many early failures in a row are called one.
const crashLoop = 3

// follow decides what comes after a life.
func (s *Supervisor) follow(w *store.Worker, r *Request, out *outcome, trouble string) error {
	w.Reason, w.Detail = out.Reason, out.Message
	if trouble != "" {
		w.Detail = strings.TrimPrefix(w.Detail+"; "+trouble, "; ")
	}
	w.NextAt = time.Time{}
	switch {
	case w.LifeHash != hashOf(w.Request):
		w.Reason, w.Detail = "", ""
		return move(w, Again)
	case out.Reason == ReasonNotStarted:
		w.Failures++
	case out.Reason == ReasonInterrupted && r.Worker.RestartPolicy != task.RestartNever:
		w.Restarts++ // not the worker's fault
		return move(w, Again)
	case out.Code == 0 && out.Reason == "" && r.Worker.RestartPolicy != task.RestartAlways:
		w.Failures = 0
		return move(w, Done)
	case r.Worker.RestartPolicy == task.RestartNever:
		return move(w, Broken)
	default:
		w.Restarts++
		if out.EndedAt.Sub(w.StartedAt) >= s.o.Limits.HealthyAfter {
			w.Failures = 0
		}
		w.Failures++
	}
	if w.Failures >= crashLoop {
		w.Detail = strings.TrimSpace(fmt.Sprintf("%d lives in a row ended early, the last by %s with exit code %d. %s", w.Failures, out.Reason, out.Code, w.Detail))
		w.Reason = ReasonCrashLoop
	}
	w.NextAt = out.EndedAt.Add(s.backoff(w.Failures)).UTC()
	return move(w, Again)
}

// endLabel is the metric's word for how a life ended.
func endLabel(o *outcome) string {
	if o.Reason == "" {
		return "Done"
	}
	return o.Reason
}

// readResult reads result.json; trouble says why it cannot be used.
func readResult(dir string) (result []byte, trouble string) {
	b, err := readBounded(filepath.Join(dir, resultFile), task.MaxWorkerResult)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, ""
	case err != nil:
		return nil, err.Error()
	}
	if _, err := task.DecodeWorkerResult(b); err != nil {
		return nil, err.Error()
	}
	return b, ""
}

func requestOf(w *store.Worker) (*Request, error) {
	var r Request
	if err := json.Unmarshal(w.Request, &r); err != nil {
		return nil, fmt.Errorf("stored request of worker %s/%s: %w", w.UID, w.Name, err)
	}
	return &r, nil
}

// newCapability gives 256 bits that nobody can guess.
func newCapability() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func capabilityHash(capability string) string {
	sum := sha256.Sum256([]byte(capability))
	return hex.EncodeToString(sum[:])
}
