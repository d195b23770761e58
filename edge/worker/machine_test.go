package worker

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

func TestEveryMove(t *testing.T) {
	for _, from := range []Phase{Absent, Pending, Starting, Running, Succeeded, Failed, Removing} {
		for _, on := range []Event{Wanted, Unwanted, Launching, Launched, Again, Done, Broken} {
			w := &store.Worker{Phase: string(from)}
			to, ok := table[step{from, on}]
			if err := move(w, on); (err == nil) != ok || ok && Phase(w.Phase) != to || !ok && (Phase(w.Phase) != from || !wire.IsCode(err, wire.FailedPrecondition)) {
				t.Errorf("%q %s: %q %v", from, on, w.Phase, err)
			}
		}
	}
	if _, ok := table[step{Succeeded, Again}]; ok {
		t.Error("what has succeeded is run again")
	}
}

// pretender starts lives that only pretend, each as long as it is told.
type pretender struct {
	lives   func(n int) (time.Duration, outcome)
	started []time.Time
	out     map[string]*outcome
}

type pretended struct {
	p     *pretender
	l     *life
	n     int
	ended chan struct{}
	stop  chan struct{}
}

func (p *pretender) prepare(l *life) (process, error) {
	p.started = append(p.started, time.Now())
	return &pretended{p, l, len(p.started) - 1, make(chan struct{}), make(chan struct{}, 1)}, nil
}

func (p *pretender) find(*store.Worker) process                      { return nil }
func (p *pretender) outcome(_ string, w *store.Worker) *outcome      { return p.out[w.Life] }
func (p *pretender) watch(string, *store.Worker) *running            { return nil }
func (p *pretender) clear(string, string) error                      { return nil }
func (p *pretender) orphan(string) (bool, error)                     { return false, nil }
func (p *pretender) group(string, int64, int64) (string, bool, bool) { return "", false, false }
func (p *pretender) bootID() string                                  { return "boot" }

func (p *pretended) identity() (int, int64) { return p.n + 2, 1 }
func (p *pretended) release() error {
	lasts, out := p.p.lives(p.n)
	out.Life = p.l.ID
	go func() {
		select {
		case <-time.After(lasts):
		case <-p.stop:
			out.Code, out.Reason = 0, ReasonInterrupted
		}
		out.EndedAt = time.Now()
		p.p.out[p.l.ID] = &out
		close(p.ended)
	}()
	return nil
}
func (p *pretended) done() <-chan struct{} { return p.ended }
func (p *pretended) terminate()            { p.stop <- struct{}{} }
func (p *pretended) kill()                 {}
func (p *pretended) leave()                {}

type noReports struct{}

func (noReports) WorkerReport(context.Context, Key, *task.WorkerReport) error { return nil }

// pretend runs one worker for a time that passes at once, and gives when its
// lives began, from the first.
func pretend(t *testing.T, policy string, limits Limits, runFor time.Duration, lives func(int) (time.Duration, outcome)) (began []time.Duration, st Status) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		db, err := store.Open(t.Context(), store.Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		p := &pretender{lives: lives, out: map[string]*outcome{}}
		s, err := newSupervisor(Options{
			Dir: filepath.Join(dir, "workers"), Roots: []string{"/"}, Store: db, Reports: noReports{}, Limits: limits, Server: func() string { return "" },
		}, func(Options) launcher { return p })
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Start(t.Context(), func(Key) bool { return true }); err != nil {
			t.Fatal(err)
		}
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		err = s.Apply(t.Context(), Request{UID: "u", Generation: 1, Worker: task.Worker{Name: "w", Argv: []string{exe}, RestartPolicy: policy}})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(runFor)
		synctest.Wait()
		st, _ = s.Status(Key{"u", "w"})
		for _, at := range p.started {
			began = append(began, at.Sub(p.started[0]).Round(time.Second))
		}
		if err := s.Stop(t.Context(), Key{"u", "w"}); err != nil {
			t.Error(err)
		}
		s.Close()
	})
	return began, st
}

func TestBackoff(t *testing.T) {
	limits := Limits{RestartBase: 10 * time.Second, RestartMax: time.Minute, HealthyAfter: 5 * time.Minute}
	fails := func(int) (time.Duration, outcome) {
		return time.Second, outcome{Code: 1, Reason: ReasonExit}
	}
	began, st := pretend(t, task.RestartOnFailure, limits, 4*time.Minute, fails)
	if want := "[0s 11s 32s 1m13s 2m14s 3m15s]"; fmt.Sprint(began) != want || st.Reason != ReasonCrashLoop || st.Restarts != 6 || st.Phase != Pending {
		t.Errorf("%v %+v", began, st)
	}
	// A life that was long enough begins the series anew.
	began, st = pretend(t, task.RestartAlways, limits, 8*time.Minute, func(n int) (time.Duration, outcome) {
		if n == 3 {
			return 6 * time.Minute, outcome{}
		}
		return time.Second, outcome{}
	})
	if want := "[0s 11s 32s 1m13s 7m23s 7m44s]"; fmt.Sprint(began) != want || st.Reason == ReasonCrashLoop && st.Restarts < 6 {
		t.Errorf("%v %+v", began, st)
	}
	// So is its word for it.
	_, st = pretend(t, task.RestartAlways, limits, 10*time.Minute, func(n int) (time.Duration, outcome) {
		return time.Second + time.Duration(n/4)*time.Hour, outcome{}
	})
	if st.Reason != "" || st.Phase != Running || st.Restarts != 4 {
		t.Errorf("%+v", st)
	}
}

func TestPolicies(t *testing.T) {
	for _, c := range []struct {
		policy string
		out    outcome
		lives  int
		phase  Phase
	}{
		{task.RestartNever, outcome{}, 1, Succeeded},
		{task.RestartNever, outcome{Code: 3, Reason: ReasonExit}, 1, Failed},
		{task.RestartNever, outcome{Reason: ReasonTimeLimit}, 1, Failed},
		{task.RestartNever, outcome{Code: 143, Reason: ReasonInterrupted}, 1, Failed},
		{task.RestartOnFailure, outcome{}, 1, Succeeded},
		{task.RestartOnFailure, outcome{Code: 3, Reason: ReasonExit}, 4, Pending},
		{task.RestartOnFailure, outcome{Reason: ReasonTimeLimit}, 4, Pending},
		{task.RestartAlways, outcome{}, 4, Pending},
	} {
		t.Run(c.policy+c.out.Reason+strconv.Itoa(c.out.Code), func(t *testing.T) {
			began, st := pretend(t, c.policy, Limits{}, 11*time.Second, func(int) (time.Duration, outcome) { return time.Second, c.out })
			if len(began) != c.lives || st.Phase != c.phase || st.ExitCode != c.out.Code {
				t.Errorf("%v %+v", began, st)
			}
		})
	}
}
