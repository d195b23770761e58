package worker_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/edge/worker"
	"github.com/edgetwin/sedna/models/task"
)

// Environment of the helper process: a supervisor that runs one worker until it
// is killed.
const (
	controllerEnv     = "SEDNA_WORKER_TEST_CONTROLLER" // its data directory
	controllerArgsEnv = "SEDNA_WORKER_TEST_ARGS"       // the worker's, with newlines
	controllerPolicy  = "SEDNA_WORKER_TEST_POLICY"
)

func controllerMain(dir string) int {
	err := func() error {
		ctx := context.Background()
		s, err := store.Open(ctx, store.Options{Dir: dir})
		if err != nil {
			return err
		}
		exe, err := os.Executable()
		if err != nil {
			return err
		}
		sup, err := worker.New(worker.Options{
			Dir: filepath.Join(dir, "workers"), Roots: []string{filepath.Dir(exe)}, Store: s, Reports: &reports{}, Limits: quick(),
			Server: func() string { return "http://127.0.0.1:1" },
		})
		if err != nil {
			return err
		}
		if err := sup.Start(ctx, func(worker.Key) bool { return true }); err != nil {
			return err
		}
		r := worker.Request{UID: "uid-1", Generation: 1, Namespace: "ns", Worker: task.Worker{
			Name: "w", Argv: append([]string{filepath.Base(exe), playArg}, strings.Split(os.Getenv(controllerArgsEnv), "\n")...),
			RestartPolicy: os.Getenv(controllerPolicy), GraceSeconds: 1, Env: raceEnv,
		}}
		if err := sup.Apply(ctx, r); err != nil {
			return err
		}
		fmt.Println("up")
		select {}
	}()
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// controller starts the helper and waits until the worker is asked for.
func controller(t *testing.T, dir, policy string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), controllerEnv+"="+dir, controllerArgsEnv+"="+strings.Join(args, "\n"), controllerPolicy+"="+policy)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "up\n" {
		t.Fatal(line, err)
	}
	return cmd
}

func kill(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
}

func TestAdoptionAfterKill(t *testing.T) {
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "notes")
	kill(t, func() *exec.Cmd {
		c := controller(t, dir, task.RestartAlways, "ticks", file)
		awaitFile(t, file, "start", 1)
		return c
	}())
	pid := noted(file, "start")[0]
	log := filepath.Join(dir, "workers", "uid-1", "w", "log")
	size := func() int64 {
		info, err := os.Stat(log)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	// Output is kept while no controller lives.
	before := size()
	for late := time.Now().Add(10 * time.Second); size() == before; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(late) {
			t.Fatal("nothing is logged without the controller")
		}
	}
	n := newNode(t, dir, nil)
	e := <-n.events
	if e.Reason != "Adopted" {
		t.Fatalf("%+v", e)
	}
	st, _ := n.s.Status(key)
	if st.Phase != worker.Running || !alive(pid) || len(noted(file, "start")) != 1 {
		t.Errorf("%+v", st)
	}
	n.until("the worker's pid", func(st worker.Status) bool { return st.PID == pid })
	if err := n.s.Stop(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if alive(pid) {
		t.Error("lives on")
	}
	if got := noted(file, "start"); len(got) != 1 {
		t.Errorf("started %v", got)
	}
}

func TestUnwantedOrphanIsEnded(t *testing.T) {
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "notes")
	c := controller(t, dir, task.RestartAlways, "family", file, "1", "stay")
	pids := awaitFile(t, file, "pid", 3)
	kill(t, c)
	db := openStore(t, dir)
	defer db.Close()
	s, err := worker.New(worker.Options{Dir: filepath.Join(dir, "workers"), Store: db, Reports: &reports{}, Server: func() string { return "" }, Limits: quick()})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context(), func(worker.Key) bool { return false }); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Stop(t.Context(), key); err != nil { // waits for the end that has begun
		t.Fatal(err)
	}
	for _, pid := range pids {
		if alive(pid) {
			t.Errorf("%d lives", pid)
		}
	}
}

func TestOrphanOfALostDatabaseIsEnded(t *testing.T) {
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "notes")
	c := controller(t, dir, task.RestartAlways, "family", file, "1", "stay")
	pids := awaitFile(t, file, "pid", 3)
	kill(t, c)
	for _, f := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(filepath.Join(dir, store.FileName+f)); err != nil {
			t.Fatal(err)
		}
	}
	strangers := filepath.Join(dir, "workers", "uid-2", "not-ours", "data")
	if err := os.MkdirAll(strangers, 0o700); err != nil {
		t.Fatal(err)
	}
	n := newNode(t, dir, nil)
	for _, pid := range pids {
		if alive(pid) {
			t.Errorf("%d lives", pid)
		}
	}
	if _, err := os.Stat(strangers); err != nil {
		t.Error("what is not ours was removed", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "workers", "uid-1")); !os.IsNotExist(err) {
		t.Error(err)
	}
	n.apply(request(t, 1, "environment"))
	n.untilPhase(worker.Succeeded)
}

// The outcome of a life that ends while no controller lives is not lost, and
// what has succeeded is not run again.
func TestEndWithoutController(t *testing.T) {
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "notes")
	c := controller(t, dir, task.RestartOnFailure, "run", file)
	pid := awaitFile(t, file, "start", 1)[0]
	kill(t, c)
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil { // to the worker alone, which ends well
		t.Fatal(err)
	}
	exit := filepath.Join(dir, "workers", "uid-1", "w", "exit.json")
	for late := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(exit); err == nil {
			break
		}
		if time.Now().After(late) {
			t.Fatal("no outcome")
		}
	}
	n := newNode(t, dir, nil)
	st := n.untilPhase(worker.Succeeded)
	if st.ExitCode != 0 || st.Progress.Step != 1 || len(noted(file, "start")) != 1 {
		t.Errorf("%+v", st)
	}
}

// A shim that is killed takes all of its life with it.
func TestKilledShim(t *testing.T) {
	for _, c := range []struct{ name, cgroup string }{{"with a cgroup, where there is one", ""}, {"without", t.TempDir()}} {
		t.Run(c.name, func(t *testing.T) {
			n := newNode(t, t.TempDir(), func(o *worker.Options) { o.Cgroup = c.cgroup })
			file := filepath.Join(t.TempDir(), "notes")
			n.apply(request(t, 1, "family", file, "2", "stay"))
			pids := awaitFile(t, file, "pid", 7)
			var shim int
			if err := n.store.View(t.Context(), func(tx *store.Tx) error {
				w, err := tx.Worker("uid-1", "w")
				shim = w.PID
				return err
			}); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Kill(shim, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			st := n.untilPhase(worker.Failed)
			if st.Reason != worker.ReasonLost {
				t.Errorf("%+v", st)
			}
			for _, pid := range pids {
				if alive(pid) {
					t.Errorf("%d lives", pid)
				}
			}
		})
	}
}

// A row that names a stranger's pid is not taken for a life of ours.
func TestPidOfAStranger(t *testing.T) {
	stranger := exec.Command("sleep", "60")
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stranger.Process.Kill(); _ = stranger.Wait() }()
	dir := t.TempDir()
	db, err := store.Open(t.Context(), store.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", stranger.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	var ticks int64
	if _, err := fmt.Sscan(string(bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])[19]), &ticks); err != nil {
		t.Fatal(err)
	}
	rows := []*store.Worker{
		{Name: "later", BootID: strings.TrimSpace(string(boot)), StartTicks: ticks - 1},
		{Name: "boot", BootID: "another", StartTicks: ticks},
	}
	err = db.Update(t.Context(), func(tx *store.Tx) error {
		for _, w := range rows {
			w.UID, w.Phase, w.Life, w.PID, w.StartedAt = "uid-1", "Running", "life-"+w.Name, stranger.Process.Pid, time.Now()
			w.Request = []byte(`{"uid":"uid-1","worker":{"name":"` + w.Name + `","argv":["x"],"restartPolicy":"Never","graceSeconds":1}}`)
			if err := tx.PutWorker(w); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	n := newNode(t, dir, nil)
	for _, w := range rows {
		k := worker.Key{UID: "uid-1", Name: w.Name}
		if err := n.s.Stop(t.Context(), k); err != nil {
			t.Error(err)
		}
	}
	if !alive(stranger.Process.Pid) {
		t.Error("a stranger was killed")
	}
}

// A controller is killed at every moment of a start. Whatever it had done, the
// next one brings the worker to run, and it has been started once.
func TestNoDoubleRun(t *testing.T) {
	for i := range 12 {
		dir, file := t.TempDir(), filepath.Join(t.TempDir(), "notes")
		c := controller(t, dir, task.RestartNever, "run", file)
		time.Sleep(time.Duration(i) * 6 * time.Millisecond)
		kill(t, c)
		n := newNode(t, dir, nil)
		pid := awaitFile(t, file, "start", 1)[0]
		st := n.until("its pid", func(st worker.Status) bool { return st.PID != 0 })
		if starts := noted(file, "start"); len(starts) != 1 || st.PID != pid || st.Phase != worker.Running || !alive(pid) {
			t.Errorf("after %d ms: started %v, %+v", i*6, starts, st)
		}
		if err := n.s.Stop(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
}

func TestShutdownAndStartAgain(t *testing.T) {
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "notes")
	n := newNode(t, dir, nil)
	r := request(t, 1, "run", file)
	r.Worker.RestartPolicy = task.RestartOnFailure
	n.apply(r)
	pid := awaitFile(t, file, "start", 1)[0]
	if err := n.s.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if alive(pid) || len(noted(file, "end")) != 1 {
		t.Error("lives on")
	}
	n.close()
	n = newNode(t, dir, nil)
	awaitFile(t, file, "start", 2)
	n.untilPhase(worker.Running)
}
