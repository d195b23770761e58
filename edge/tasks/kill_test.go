package tasks_test

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/edgetwin/sedna/edge/model"
	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/edge/tasks"
	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/models/task"
)

// Environment of the helper process, a node that runs until it is killed.
const (
	killHelper = "SEDNA_TASKS_KILL_HELPER" // its data directory
	killBroker = "SEDNA_TASKS_KILL_BROKER"
	killKey    = "SEDNA_TASKS_KILL_KEY"
	killPinned = "SEDNA_TASKS_KILL_PINNED"
	killModels = "SEDNA_TASKS_KILL_MODELS"
	killOnLoad = "SEDNA_TASKS_KILL_ON_LOAD" // set: it dies when a model is loaded
)

func killable(dir string) int {
	err := func() error {
		ctx := context.Background()
		s, err := store.Open(ctx, store.Options{Dir: dir})
		if err != nil {
			return err
		}
		lib, err := model.New(ctx, model.Options{Dir: dir, Store: s, DataRoots: []string{os.Getenv(killModels)}})
		if err != nil {
			return err
		}
		seed, err := hex.DecodeString(os.Getenv(killKey))
		if err != nil {
			return err
		}
		pinned, err := hex.DecodeString(os.Getenv(killPinned))
		if err != nil {
			return err
		}
		b, err := bus.New(bus.Options{URL: os.Getenv(killBroker), ClientID: "lc-" + strconv.Itoa(os.Getpid()), CleanSession: true, MinBackoff: 10 * time.Millisecond})
		if err != nil {
			return err
		}
		srv := &server{serving: map[string]tasks.Service{}}
		if os.Getenv(killOnLoad) != "" {
			srv.activate = func(tasks.Service) error { return syscall.Kill(os.Getpid(), syscall.SIGKILL) }
		}
		m := tasks.New(tasks.Options{
			Node: node, Key: ed25519.NewKeyFromSeed(seed), Pinned: func() task.Keys { return task.NewKeys(pinned) },
			Store: s, Models: lib, Server: srv, Bus: b,
			Limits: tasks.Limits{ReportGap: time.Millisecond},
		})
		if err := m.Start(ctx); err != nil {
			return err
		}
		b.OnConnect(func() { fmt.Println("up") })
		b.Start(ctx)
		select {}
	}()
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// helper starts a node as a process of its own and waits until it is on the bus.
func (c *cloud) helper(dir string, env ...string) *exec.Cmd {
	c.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), killHelper+"="+dir, killBroker+"=tcp://"+c.broker.Addr(), killModels+"="+c.models,
		killKey+"="+hex.EncodeToString(c.nodeKey.Seed()), killPinned+"="+hex.EncodeToString(c.key.Public().(ed25519.PublicKey)))
	cmd.Env = append(cmd.Env, env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	bufio.NewScanner(out).Scan()
	return cmd
}

// The broker runs in the test's process and keeps nothing here: mochi-mqtt has
// a data race between a retained message that comes and a wildcard subscription
// that reads others, which the race detector sees when they are of different
// processes. So the cloud sends again, as it does when it repairs.

// TestQuarantineIsReported has a node die twice while it loads a model; the
// third time it stays up, does not load it and says why.
func TestQuarantineIsReported(t *testing.T) {
	c := newCloud(t)
	c.fleeting = true
	dir := t.TempDir()
	for i := range 2 {
		cmd := c.helper(dir, killOnLoad+"=1")
		if i == 0 {
			c.send("svc", c.message(c.doc("svc", "u1", 1, c.model("v1", "good 1")), "0:0"))
		}
		if err := cmd.Wait(); err == nil || cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("the node did not die of the model: %v", err)
		}
	}
	cmd := c.helper(dir, killOnLoad+"=1")
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	r := c.expect("svc", "u1", task.Failed, 1)
	if r.Reason != "Quarantined" || r.Model != "" {
		t.Errorf("%+v", r)
	}
	// A repaired model of a new generation is taken up: by the death of the
	// node, here.
	c.send("svc", c.message(c.doc("svc", "u1", 2, c.model("v2", "good 2")), "0:0"))
	if err := cmd.Wait(); err == nil {
		t.Error("the new model was not loaded")
	}
}

// TestKill kills a node at random moments while generations, deletions and
// re-creations come in. Whatever it has reported stays true: seq and
// generations of a uid only grow, nothing that stopped runs again, and at the
// end it is where the last document says.
func TestKill(t *testing.T) {
	c := newCloud(t)
	c.fleeting = true
	dir := t.TempDir()
	rnd := rand.New(rand.NewPCG(3, 4))
	ms := []task.Model{c.model("v0", "good 0"), c.model("v1", "good 1"), c.model("v2", "good 2")}
	uid, generation := 1, int64(0)
	var doc *task.Document
	next := func() {
		generation++
		if doc != nil && doc.State == task.Deleted {
			uid, generation = uid+1, 1
			c.issued = c.issued.Add(time.Millisecond)
		}
		doc = c.doc("svc", "u"+strconv.Itoa(uid), generation, ms[rnd.IntN(len(ms))])
		if generation > 2 && rnd.IntN(3) == 0 {
			doc = deleted(doc, generation)
		}
		c.send("svc", c.message(doc, "0:0"))
	}
	for range 8 {
		cmd := c.helper(dir)
		if doc != nil {
			c.send("svc", c.message(doc, "0:0"))
		}
		for range 1 + rnd.IntN(4) {
			next()
			time.Sleep(time.Duration(rnd.IntN(40)) * time.Millisecond)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
	}
	cmd := c.helper(dir)
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if doc.State == task.Deleted {
		next()
	}
	c.send("svc", c.message(doc, "0:0"))
	type seen struct {
		seq, generation int64
		stopped         bool
	}
	history := map[string]seen{}
	for deadline := time.After(patience); ; {
		select {
		case r := <-c.got:
			who := ""
			for i := 1; i <= uid; i++ {
				if u := "u" + strconv.Itoa(i); task.VerifyProperties(c.nodeKey.Public().(ed25519.PublicKey), u, r.props) == nil {
					who = u
				}
			}
			rep, err := task.ParseReport(r.props)
			if who == "" || err != nil {
				t.Fatalf("unsigned or unreadable report %v", r.props)
			}
			before := history[who]
			if rep.Seq < before.seq || rep.Generation < before.generation || before.stopped && rep.Phase != task.Stopped {
				t.Fatalf("%s went back from %+v to %+v", who, before, rep)
			}
			history[who] = seen{rep.Seq, rep.Generation, rep.Phase == task.Stopped}
			if who == doc.UID && rep.Phase == task.Running && rep.Generation == doc.Generation {
				return
			}
		case <-deadline:
			t.Fatalf("did not get to %s generation %d; history %+v", doc.UID, doc.Generation, history)
		}
	}
}
