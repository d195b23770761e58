package worker_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/edge/worker"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// playArg makes the test binary a worker; what it does is the argument after.
const playArg = "play-worker"

// raceEnv keeps binaries with the race detector from sleeping at their end.
var raceEnv = []task.WorkerEnv{{Name: "GORACE", Value: "atexit_sleep_ms=0"}}

func TestMain(m *testing.M) {
	if handled, code := worker.Main(os.Args[1:]); handled {
		os.Exit(code)
	}
	if len(os.Args) > 2 && os.Args[1] == playArg {
		os.Exit(play(os.Args[2], os.Args[3:]))
	}
	if dir := os.Getenv(controllerEnv); dir != "" {
		os.Exit(controllerMain(dir))
	}
	gin.SetMode(gin.ReleaseMode)
	if err := os.Setenv(raceEnv[0].Name, raceEnv[0].Value); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// note appends a line to a file, for the test to count.
func note(path, format string, args ...any) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	fmt.Fprintf(f, format+"\n", args...)
}

// play is what the workers of the tests do.
func play(what string, args []string) int {
	forever := func() int { select {} }
	switch what {
	case "environment":
		dir, err := os.Getwd()
		if err != nil {
			return 1
		}
		b, err := json.Marshal(map[string]any{"env": os.Environ(), "dir": dir, "args": args, "group": syscall.Getpgrp() == os.Getpid(), "cpus": runtime.NumCPU()})
		if err != nil {
			return 1
		}
		fmt.Println(string(b))
		return 0
	case "run": // says that it runs, and how it ended when it is asked to
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM)
		note(args[0], "start %d", os.Getpid())
		fmt.Printf("{\"progress\":{\"step\":1,\"steps\":2},\"metrics\":{\"loss\":0.5}}\n")
		<-c
		note(args[0], "end %d", os.Getpid())
		return 0
	case "ticks": // writes for ever, as one that must not lose its output
		note(args[0], "start %d", os.Getpid())
		for i := 1; ; i++ {
			fmt.Printf("tick %d\n", i)
			time.Sleep(5 * time.Millisecond)
		}
	case "family": // forks children that ignore SIGTERM, one of them in a session of its own
		signal.Ignore(syscall.SIGTERM)
		note(args[0], "pid %d", os.Getpid())
		depth, err := strconv.Atoi(args[1])
		if err != nil {
			return 1
		}
		if depth > 0 {
			for _, session := range []bool{false, true} {
				exe, err := os.Executable()
				if err != nil {
					return 1
				}
				env, how := os.Environ(), "stay"
				if args[2] == "abandon" || args[2] == "bare" { // nothing marks the children
					env, how = nil, "bare"
				}
				_, err = syscall.ForkExec(exe, []string{exe, playArg, "family", args[0], strconv.Itoa(depth - 1), how}, &syscall.ProcAttr{
					Env: env, Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setsid: session},
				})
				if err != nil {
					return 1
				}
			}
		}
		if args[2] == "leave" || args[2] == "abandon" {
			for len(noted(args[0], "pid")) < 1<<(depth+1)-1 {
				time.Sleep(time.Millisecond)
			}
			return 0
		}
		return forever()
	case "flood":
		line := append(bytes.Repeat([]byte("x"), 1023), '\n')
		for range 40 << 10 {
			if _, err := os.Stdout.Write(line); err != nil {
				return 1
			}
		}
		fmt.Println("the last line")
		return 0
	case "lines":
		fmt.Print(strings.Repeat("ü", 40<<10) + `{"progress":{"step":9}}` + "\n")
		fmt.Println(`{"progress":{"step":3,"steps":10},"metrics":{"Genauigkeit":0.25}}`)
		fmt.Fprintln(os.Stderr, `{"progress":{"step":4,"steps":10}}`)
		fmt.Print("日本語 \xff\xfe no newline at the end")
		return 0
	case "hog":
		var all [][]byte
		for range 64 {
			b := make([]byte, 32<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			all = append(all, b)
		}
		fmt.Println("took", len(all))
		return 0
	case "exit":
		note(args[0], "start %d", os.Getpid())
		code, err := strconv.Atoi(args[1])
		if err != nil {
			return 1
		}
		return code
	case "result":
		if err := os.WriteFile(filepath.Join(os.Getenv("SEDNA_OUTPUT_DIR"), "result.json"), []byte(args[0]), 0o600); err != nil {
			return 1
		}
		return 0
	case "report":
		body := `{"name":"` + args[0] + `","namespace":"ns","ownerName":"job","ownerKind":"k","kind":"train","status":"completed","results":[{"url":"/m"}]}`
		resp, err := http.Post(os.Getenv("LC_SERVER")+"/sedna/workers/"+args[0]+"/info", "application/json", strings.NewReader(body))
		if err != nil {
			fmt.Println(err)
			return 1
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		fmt.Println(resp.StatusCode, string(b), err)
		if resp.StatusCode != http.StatusOK {
			return 1
		}
		return 0
	case "dial":
		c, err := net.Dial("tcp", net.JoinHostPort(os.Getenv("BIG_MODEL_IP"), os.Getenv("BIG_MODEL_PORT")))
		if err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Fprintln(c, "hello")
		line, err := bufio.NewReader(c).ReadString('\n')
		fmt.Print(line, err)
		return 0
	}
	return 99
}

// noted gives the values that were noted under a word.
func noted(path, word string) []int {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	var out []int
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) == 2 && f[0] == word {
			if n, err := strconv.Atoi(f[1]); err == nil {
				out = append(out, n)
			}
		}
	}
	return out
}

// reports collects what workers post.
type reports struct {
	mu  sync.Mutex
	got []*task.WorkerReport
}

func (r *reports) WorkerReport(_ context.Context, k worker.Key, w *task.WorkerReport) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if w.Status == "refuse" {
		return wire.E(wire.NotFound, "", "no such round", "")
	}
	r.got = append(r.got, w)
	return nil
}

// node is a supervisor with its store.
type node struct {
	t       *testing.T
	dir     string
	store   *store.Store
	s       *worker.Supervisor
	reports *reports
	url     string
	changed chan struct{}
	events  chan store.Event
}

// programs is the directory of the test binary, from which workers are started.
func programs(t *testing.T) (dir, name string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(exe), filepath.Base(exe)
}

func quick() worker.Limits {
	return worker.Limits{RestartBase: 20 * time.Millisecond, RestartMax: 100 * time.Millisecond, Poll: 10 * time.Millisecond, LogBytes: 1 << 20}
}

// openStore opens the store of a controller that may have been killed while it
// forked: until the fork has become another program, it holds the directory.
func openStore(t *testing.T, dir string) *store.Store {
	t.Helper()
	for late := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		s, err := store.Open(t.Context(), store.Options{Dir: dir})
		if err == nil {
			return s
		}
		if !errors.Is(err, store.ErrInUse) || time.Now().After(late) {
			t.Fatal(err)
		}
	}
}

func newNode(t *testing.T, dir string, edit func(*worker.Options)) *node {
	t.Helper()
	n := &node{t: t, dir: dir, reports: &reports{}, changed: make(chan struct{}, 1), events: make(chan store.Event, 1000)}
	n.store = openStore(t, dir)
	root, _ := programs(t)
	o := worker.Options{
		Dir: filepath.Join(dir, "workers"), Roots: []string{root}, Store: n.store, Reports: n.reports, Limits: quick(), Metrics: metrics.New(),
		Server: func() string { return n.url },
		Changed: func(worker.Key) {
			select {
			case n.changed <- struct{}{}:
			default:
			}
		},
		Events: func(e store.Event) { n.events <- e },
	}
	if edit != nil {
		edit(&o)
	}
	var err error
	if n.s, err = worker.New(o); err != nil {
		t.Fatal(err)
	}
	r := gin.New()
	n.s.Routes(r)
	web := httptest.NewServer(r)
	n.url = web.URL
	if err := n.s.Start(context.Background(), func(worker.Key) bool { return true }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if n.s != nil {
			for _, st := range n.s.Statuses("") {
				if err := n.s.Stop(context.Background(), worker.Key{UID: st.UID, Name: st.Name}); err != nil {
					t.Error(err)
				}
			}
			n.close()
		}
		web.Close()
	})
	return n
}

// close leaves the workers running.
func (n *node) close() {
	n.s.Close()
	n.s = nil
	if err := n.store.Close(); err != nil {
		n.t.Error(err)
	}
}

func request(t *testing.T, generation int64, args ...string) worker.Request {
	_, name := programs(t)
	return worker.Request{UID: "uid-1", Generation: generation, Namespace: "ns", Worker: task.Worker{
		Name: "w", Argv: append([]string{name, playArg}, args...), RestartPolicy: task.RestartNever, GraceSeconds: 1, Env: raceEnv,
	}}
}

var key = worker.Key{UID: "uid-1", Name: "w"}

func (n *node) apply(r worker.Request) {
	n.t.Helper()
	if err := n.s.Apply(n.t.Context(), r); err != nil {
		n.t.Fatal(err)
	}
}

// until waits for a status.
func (n *node) until(what string, ok func(worker.Status) bool) worker.Status {
	n.t.Helper()
	late := time.After(20 * time.Second)
	for {
		st, _ := n.s.Status(key)
		if ok(st) {
			return st
		}
		select {
		case <-n.changed:
		case <-time.After(20 * time.Millisecond):
		case <-late:
			n.t.Fatalf("never %s: %+v", what, st)
		}
	}
}

func (n *node) untilPhase(p worker.Phase) worker.Status {
	n.t.Helper()
	return n.until(string(p), func(st worker.Status) bool { return st.Phase == p })
}

// alive tells whether a process is there and no zombie.
func alive(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	return string(f[0]) != "Z" && string(f[0]) != "X"
}

func awaitFile(t *testing.T, path, word string, n int) []int {
	t.Helper()
	for late := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if got := noted(path, word); len(got) >= n {
			return got
		}
		if time.Now().After(late) {
			t.Fatalf("%d of %d noted in %s", len(noted(path, word)), n, path)
		}
	}
}

func TestEnvironmentIsWhatTheContractSays(t *testing.T) {
	t.Setenv("SEDNA_SECRET_OF_THE_CONTROLLER", "secret")
	n := newNode(t, t.TempDir(), nil)
	r := request(t, 1, "environment", "a b", "$HOME;`id`")
	r.Worker.Env = []task.WorkerEnv{{Name: "MODEL_URL", Value: "/m"}, {Name: "LC_SERVER", Value: "http://forged"}, {Name: "MODEL_URL", Value: "/n"}}
	n.apply(r)
	st := n.untilPhase(worker.Succeeded)
	var said struct {
		Env, Args []string
		Dir       string
		Group     bool
	}
	if err := json.Unmarshal([]byte(strings.Join(st.LastLines, "")), &said); err != nil {
		// The line is longer than a status shows.
		log, err := n.s.Log(key)
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		if err := json.NewDecoder(log).Decode(&said); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	values := map[string]string{}
	for _, e := range said.Env {
		k, v, _ := strings.Cut(e, "=")
		names, values[k] = append(names, k), v
	}
	slices.Sort(names)
	if want := []string{"HOME", "LC_SERVER", "MODEL_URL", "PATH", "SEDNA_OUTPUT_DIR", "SEDNA_WORKER", "TMPDIR"}; !slices.Equal(names, want) {
		t.Errorf("%v", names)
	}
	top := filepath.Join(n.dir, "workers", "uid-1", "w")
	if values["MODEL_URL"] != "/n" || values["HOME"] != filepath.Join(top, "home") || values["TMPDIR"] != filepath.Join(top, "tmp") || !strings.HasPrefix(values["LC_SERVER"], n.url+"/w/") {
		t.Errorf("%v", values)
	}
	if !slices.Equal(said.Args, []string{"a b", "$HOME;`id`"}) || said.Dir != filepath.Join(top, "work") || !said.Group {
		t.Errorf("%+v", said)
	}
}

func TestProgressResultAndNoSecondRun(t *testing.T) {
	n := newNode(t, t.TempDir(), nil)
	file := filepath.Join(t.TempDir(), "notes")
	r := request(t, 1, "run", file)
	n.apply(r)
	st := n.until("progress", func(st worker.Status) bool { return st.Progress.Step == 1 })
	if st.Metrics["loss"] != 0.5 || st.Phase != worker.Running || !alive(st.PID) {
		t.Errorf("%+v", st)
	}
	n.apply(r)
	r.Generation = 2 // asks for the same process
	n.apply(r)
	r.Generation = 1
	if err := n.s.Apply(t.Context(), r); !wire.IsCode(err, wire.Stale) {
		t.Error(err)
	}
	if got := noted(file, "start"); len(got) != 1 {
		t.Errorf("started %v", got)
	}
	r.Generation, r.Worker.Env = 3, []task.WorkerEnv{{Name: "A", Value: "1"}}
	n.apply(r) // a change: another process, after the first
	got := awaitFile(t, file, "start", 2)
	if ends := noted(file, "end"); len(ends) != 1 || ends[0] != got[0] {
		t.Errorf("%v started, %v ended", got, ends)
	}
	if err := n.s.Stop(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if alive(got[1]) || len(noted(file, "end")) != 2 {
		t.Error("lives on")
	}
	if _, err := os.Stat(filepath.Join(n.dir, "workers", "uid-1")); !os.IsNotExist(err) {
		t.Error(err)
	}
	if err := n.s.Stop(t.Context(), key); err != nil {
		t.Error(err)
	}
	r.Generation = 4
	n.apply(r) // the name can be used again
	awaitFile(t, file, "start", 3)
}

func TestResults(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		ok   bool
	}{
		"good":  {`{"metrics":{"accuracy":[0.1,0.9]},"models":[{"url":"/m","format":"onnx"}]}`, true},
		"bad":   {`{"metrics":`, false},
		"large": {`{"x":"` + strings.Repeat("x", 60<<10) + strings.Repeat("y", 1) + `"}`, true},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, t.TempDir(), nil)
			n.apply(request(t, 1, "result", c.text))
			st := n.untilPhase(worker.Succeeded)
			if (st.Result != nil) != c.ok || c.ok != (st.Detail == "") {
				t.Errorf("%+v", st)
			}
			if name == "good" && (st.Result.Scalar()["accuracy"] != 0.9 || st.Result.Models[0].URL != "/m") {
				t.Errorf("%+v", st.Result)
			}
		})
	}
}

func TestNothingOfTheGroupSurvives(t *testing.T) {
	for _, c := range []struct {
		name, how string
		cgroup    string
	}{{"stop", "stay", ""}, {"own end", "leave", ""}, {"stop without a cgroup", "stay", t.TempDir()}, {"own end without a cgroup", "leave", t.TempDir()}, {"bare children without a cgroup", "abandon", t.TempDir()}} {
		t.Run(c.name, func(t *testing.T) {
			n := newNode(t, t.TempDir(), func(o *worker.Options) { o.Cgroup = c.cgroup })
			file := filepath.Join(t.TempDir(), "notes")
			n.apply(request(t, 1, "family", file, "2", c.how))
			pids := awaitFile(t, file, "pid", 7)
			if c.how != "stay" {
				n.untilPhase(worker.Succeeded)
			} else {
				began := time.Now()
				if err := n.s.Stop(t.Context(), key); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began); took < time.Second || took > 4*time.Second {
					t.Errorf("ended after %v, the grace time is 1s", took)
				}
			}
			for _, pid := range pids {
				if alive(pid) {
					t.Errorf("%d lives", pid)
				}
			}
		})
	}
}

func TestFloodIsBounded(t *testing.T) {
	n := newNode(t, t.TempDir(), func(o *worker.Options) { o.Limits.LogFiles = 3 })
	began := time.Now()
	n.apply(request(t, 1, "flood"))
	st := n.untilPhase(worker.Succeeded)
	t.Logf("40 MiB of output in %v", time.Since(began))
	if last := st.LastLines[len(st.LastLines)-1]; last != "the last line" {
		t.Errorf("%q", last)
	}
	files, err := filepath.Glob(filepath.Join(n.dir, "workers", "uid-1", "w", "log*"))
	if err != nil || len(files) != 3 {
		t.Fatal(files, err)
	}
	var total int64
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	if total > 3<<20 || total < 2<<20 {
		t.Errorf("%d bytes of log", total)
	}
	log, err := n.s.Log(key)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if b, err := io.ReadAll(log); err != nil || int64(len(b)) != total || !bytes.HasSuffix(b, []byte("the last line\n")) {
		t.Error(len(b), err)
	}
}

func TestUnicodeAndHugeLines(t *testing.T) {
	n := newNode(t, t.TempDir(), nil)
	n.apply(request(t, 1, "lines"))
	st := n.untilPhase(worker.Succeeded)
	if st.Progress != (task.Progress{Step: 3, Steps: 10}) || st.Metrics["Genauigkeit"] != 0.25 {
		t.Errorf("%+v", st)
	}
	if !slices.ContainsFunc(st.LastLines, func(l string) bool { return l == "日本語 \uFFFD no newline at the end" }) {
		t.Errorf("%q", st.LastLines)
	}
}

func TestTimeLimit(t *testing.T) {
	n := newNode(t, t.TempDir(), nil)
	file := filepath.Join(t.TempDir(), "notes")
	r := request(t, 1, "run", file)
	r.Worker.TimeLimitSeconds = 1
	n.apply(r)
	st := n.untilPhase(worker.Failed)
	if st.Reason != worker.ReasonTimeLimit || len(noted(file, "end")) != 1 || st.EndedAt.Sub(st.StartedAt) < time.Second {
		t.Errorf("%+v", st)
	}
}

func TestMemoryLimit(t *testing.T) {
	n := newNode(t, t.TempDir(), nil)
	r := request(t, 1, "hog")
	r.Worker.MemoryBytes = 512 << 20
	n.apply(r)
	st := n.untilPhase(worker.Failed)
	t.Log(st.LimitedBy, st.Reason, st.ExitCode)
	if st.Reason != worker.ReasonExit && st.Reason != worker.ReasonMemoryLimit || st.ExitCode == 0 || !strings.Contains(st.LimitedBy, "memory: ") {
		t.Errorf("%+v", st)
	}
}

func TestCPULimit(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("one CPU")
	}
	n := newNode(t, t.TempDir(), nil)
	r := request(t, 1, "environment")
	r.Worker.CPUMilli = 500
	n.apply(r)
	st := n.untilPhase(worker.Succeeded)
	log, err := n.s.Log(key)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	var said struct{ CPUs int }
	if err := json.NewDecoder(log).Decode(&said); err != nil || st.LimitedBy == "cpu: affinity" && said.CPUs != 1 {
		t.Errorf("%s: %d CPUs, %v", st.LimitedBy, said.CPUs, err)
	}
}

func TestUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can start a process as another user")
	}
	user := uint32(65534)
	r := request(t, 1)
	r.Worker.Argv, r.Worker.User, r.Worker.Group = []string{"id", "-u"}, &user, &user
	t.Run("cannot enter", func(t *testing.T) {
		n := newNode(t, t.TempDir(), nil) // the store's directory has mode 0700
		n.apply(r)
		if st := n.untilPhase(worker.Failed); st.Reason != worker.ReasonNotStarted || !strings.Contains(st.Detail, "cannot enter") {
			t.Errorf("%+v", st)
		}
	})
	t.Run("runs", func(t *testing.T) {
		dir, err := os.MkdirTemp("/tmp", "workers")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		if err := os.Chmod(dir, 0o711); err != nil {
			t.Fatal(err)
		}
		n := newNode(t, t.TempDir(), func(o *worker.Options) { o.Dir, o.Roots = filepath.Join(dir, "w"), []string{"/usr/bin"} })
		n.apply(r)
		if st := n.untilPhase(worker.Succeeded); !slices.Equal(st.LastLines, []string{"65534"}) {
			t.Errorf("%+v", st)
		}
	})
}

func TestCrashLoop(t *testing.T) {
	n := newNode(t, t.TempDir(), nil)
	file := filepath.Join(t.TempDir(), "notes")
	r := request(t, 1, "exit", file, "7")
	r.Worker.RestartPolicy = task.RestartOnFailure
	n.apply(r)
	st := n.until("crash loop", func(st worker.Status) bool { return st.Reason == worker.ReasonCrashLoop })
	if st.ExitCode != 7 || st.Restarts < 3 || !strings.Contains(st.Detail, "exit code 7") {
		t.Errorf("%+v", st)
	}
	r.Generation, r.Worker.Argv = 2, slices.Clone(r.Worker.Argv)
	r.Worker.Argv[len(r.Worker.Argv)-1] = "0"
	n.apply(r)
	if st = n.untilPhase(worker.Succeeded); st.Reason != "" || st.Restarts != 0 || st.ExitCode != 0 {
		t.Errorf("%+v", st)
	}
}

func TestRefusals(t *testing.T) {
	link := filepath.Join(t.TempDir(), "linked")
	if err := os.Symlink("/usr/bin/env", link); err != nil {
		t.Fatal(err)
	}
	root, name := programs(t)
	for what, c := range map[string]struct {
		roots  []string
		change func(*task.Worker)
		detail string
	}{
		"no roots":          {nil, func(*task.Worker) {}, "failed_precondition: argv[0]: this node runs no worker processes"},
		"not there":         {[]string{root}, func(w *task.Worker) { w.Argv[0] = "no-such-program" }, "not_found: argv[0]: no program"},
		"outside":           {[]string{root}, func(w *task.Worker) { w.Argv[0] = "env" }, "permission_denied: argv[0]: "},
		"outside, absolute": {[]string{root}, func(w *task.Worker) { w.Argv[0] = "/bin/sh" }, "permission_denied: argv[0]: "},
		"dots":              {[]string{root}, func(w *task.Worker) { w.Argv[0] = root + "/../../../../../../bin/sh" }, "permission_denied: argv[0]: "},
		"link outside":      {[]string{root}, func(w *task.Worker) { w.Argv[0] = link }, "permission_denied: argv[0]: "},
		"directory":         {[]string{root}, func(w *task.Worker) { w.WorkingDir = "/etc" }, "permission_denied: workingDir: "},
		"directory up":      {[]string{root}, func(w *task.Worker) { w.WorkingDir = "../../x" }, "permission_denied: workingDir: "},
	} {
		t.Run(what, func(t *testing.T) {
			n := newNode(t, t.TempDir(), func(o *worker.Options) { o.Roots = c.roots })
			r := request(t, 1, "environment")
			r.Worker.Argv[0] = name
			c.change(&r.Worker)
			n.apply(r)
			st := n.untilPhase(worker.Failed)
			if st.Reason != worker.ReasonNotStarted || !strings.HasPrefix(st.Detail, c.detail) {
				t.Errorf("%+v", st)
			}
			if what == "no roots" { // they are given, and the LocalController is started again
				n.close()
				newNode(t, n.dir, nil).untilPhase(worker.Succeeded)
			}
		})
	}
	n := newNode(t, t.TempDir(), func(o *worker.Options) { o.Limits.Workers = 1 })
	for field, edit := range map[string]func(*worker.Request){
		"spec.worker.name":   func(r *worker.Request) { r.Worker.Name = "" },
		"uid":                func(r *worker.Request) { r.UID = "../x" },
		"spec.worker.relays": func(r *worker.Request) { r.Worker.Relays = []task.WorkerRelay{{Port: 1, Target: "h:1"}} },
	} {
		r := request(t, 1, "environment")
		edit(&r)
		if err := n.s.Apply(t.Context(), r); err == nil || wire.AsError(err).Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	n.apply(request(t, 1, "environment"))
	r := request(t, 1, "environment")
	r.Worker.Name = "another"
	if err := n.s.Apply(t.Context(), r); !wire.IsCode(err, wire.ResourceExhausted) {
		t.Error(err)
	}
}

func TestRootsThatAnyoneCanWrite(t *testing.T) {
	open := filepath.Join(t.TempDir(), "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), store.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, root := range []string{open, "relative", filepath.Join(open, "none"), os.Args[0]} {
		_, err := worker.New(worker.Options{Dir: t.TempDir(), Roots: []string{root}, Store: s, Reports: &reports{}, Server: func() string { return "" }})
		if err == nil || wire.AsError(err).Field != "workerRoots[0]" {
			t.Errorf("%s: %v", root, err)
		}
	}
}

func TestReports(t *testing.T) {
	n := newNode(t, t.TempDir(), nil)
	n.apply(request(t, 1, "report", "w"))
	st := n.untilPhase(worker.Succeeded)
	if len(n.reports.got) != 1 || n.reports.got[0].Status != "completed" || !slices.Contains(st.LastLines, `200 {"Status":200,"Message":"OK"} <nil>`) {
		t.Errorf("%+v %q", n.reports.got, st.LastLines)
	}
	n.apply(request(t, 2, "report", "another"))
	if st = n.untilPhase(worker.Failed); !strings.Contains(strings.Join(st.LastLines, ""), "403 ") {
		t.Errorf("%q", st.LastLines)
	}
}

func TestReportDoor(t *testing.T) {
	n := newNode(t, t.TempDir(), nil)
	file := filepath.Join(t.TempDir(), "notes")
	n.apply(request(t, 1, "run", file))
	pid := awaitFile(t, file, "start", 1)[0]
	env, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		t.Fatal(err)
	}
	base := ""
	for e := range strings.SplitSeq(string(env), "\x00") {
		if v, ok := strings.CutPrefix(e, "LC_SERVER="); ok {
			base = v
		}
	}
	capability := base[strings.LastIndex(base, "/")+1:]
	if len(capability) < 43 {
		t.Fatalf("%q", base)
	}
	if err := n.store.View(t.Context(), func(tx *store.Tx) error {
		w, err := tx.Worker("uid-1", "w")
		if err == nil && (strings.Contains(fmt.Sprintf("%+v", w), capability) || len(w.Capability) != 64) {
			t.Error("the capability is in the store")
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	good := `{"name":"w","kind":"train","status":"running"}`
	for _, c := range []struct {
		what, url, bearer, body string
		status                  int
	}{
		{"good", base + "/sedna/workers/w/info", "", good, 200},
		{"bearer", n.url + "/sedna/workers/w/info", capability, good, 200},
		{"none", n.url + "/sedna/workers/w/info", "", good, 401},
		{"guessed", n.url + "/w/" + strings.Repeat("A", 43) + "/sedna/workers/w/info", "", good, 401},
		{"other path", base + "/sedna/workers/x/info", "", good, 403},
		{"other body", base + "/sedna/workers/w/info", "", `{"name":"x"}`, 400},
		{"no JSON", base + "/sedna/workers/w/info", "", `{"name":`, 400},
		{"refused", base + "/sedna/workers/w/info", "", `{"name":"w","status":"refuse"}`, 404},
		{"largest", base + "/sedna/workers/w/info", "", good + strings.Repeat(" ", task.MaxWorkerReport-len(good)), 200},
		{"too large", base + "/sedna/workers/w/info", "", good + strings.Repeat(" ", task.MaxWorkerReport-len(good)+1), 413},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.url, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		if c.bearer != "" {
			req.Header.Set("Authorization", "Bearer "+c.bearer)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var a struct {
			Status  int
			Message string
		}
		err = json.NewDecoder(resp.Body).Decode(&a)
		resp.Body.Close()
		if err != nil || resp.StatusCode != c.status || a.Status != c.status || a.Message == "" {
			t.Errorf("%s: %d %+v %v", c.what, resp.StatusCode, a, err)
		}
	}
	if err := n.s.Stop(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	resp, err := http.Post(base+"/sedna/workers/w/info", "application/json", strings.NewReader(good))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Error("the capability outlives its worker")
	}
}
