package tasks_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/edge/tasks"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// roll sends the node a configuration with a roll.
func (c *cloud) roll(generation int64, hash string, uids ...string) {
	c.t.Helper()
	b, err := json.Marshal(tasks.NodeConfig{Generation: generation, Node: node, Roll: &task.Roll{StateHash: hash, Tasks: uids}})
	if err != nil {
		c.t.Fatal(err)
	}
	c.sendNode(c.config(string(b), "0:0"))
}

func running(uids ...string) string {
	var states []task.TaskState
	for _, u := range uids {
		states = append(states, task.TaskState{UID: u, Generation: 1, Phase: task.Running})
	}
	return task.StateHash(states)
}

// TestRoll strikes a task off whose Device was let go without the node's word;
// one that the cloud had not heard of when it made the roll is left alone.
func TestRoll(t *testing.T) {
	c := newCloud(t)
	e := c.edge(t, t.TempDir(), edgeOptions{period: time.Hour})
	m := c.model("v1", "good 1")
	c.sendNode(task.Desired{Nonce: "0:0"})
	dead := c.message(c.doc("dead", "u1", 1, m), "0:0")
	c.send("dead", dead)
	c.send("live", c.message(c.doc("live", "u2", 1, m), "0:0"))
	c.nextBeat("with two tasks", func(b task.Beat) bool { return b.StateHash == running("u1", "u2") })
	c.send("new", c.message(c.doc("new", "u3", 1, m), "0:0"))
	c.nextBeat("with three tasks", func(b task.Beat) bool { return b.StateHash == running("u1", "u2", "u3") })

	c.roll(1, running("u1"), "u2") // this node never said that
	c.nextBeat("with that configuration", func(b task.Beat) bool { return b.ConfigGeneration == 1 && b.StateHash == running("u1", "u2", "u3") })

	c.roll(2, running("u1", "u2"), "u2")
	c.nextBeat("with the rest", func(b task.Beat) bool { return b.ConfigGeneration == 2 && b.StateHash == running("u2", "u3") })
	for deadline := time.Now().Add(patience); e.server.version("dead") != ""; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("still served")
		}
	}
	if v := e.reason(string(tasks.Stopped)); v.UID != "u1" {
		t.Errorf("%+v", v)
	}
	if e.server.version("live") == "" || e.server.version("new") == "" {
		t.Error("another task has stopped")
	}
	c.send("dead", dead)
	e.reason(string(wire.Buried))
	if e.row("dead") != nil {
		t.Error("it came back")
	}
}

// TestStruckTaskReportsStopped: the mapper clears the bus by that.
func TestStruckTaskReportsStopped(t *testing.T) {
	c := newCloud(t)
	c.edge(t, t.TempDir(), edgeOptions{period: 20 * time.Millisecond})
	c.send("dead", c.message(c.doc("dead", "u1", 1, c.model("v1", "good 1")), "0:0"))
	c.nextBeat("with the task", func(b task.Beat) bool { return b.StateHash == running("u1") })
	c.roll(1, running("u1"))
	c.expect("dead", "u1", task.Stopped, 1)
}

// TestCloudWithAClockThatWentBack makes a Device again, whose document is
// stamped an hour before that of its predecessor.
func TestCloudWithAClockThatWentBack(t *testing.T) {
	c := newCloud(t)
	e := c.edge(t, t.TempDir(), edgeOptions{period: 20 * time.Millisecond})
	m := c.model("v1", "good 1")
	c.send("svc", c.message(c.doc("svc", "u1", 1, m), "0:0"))
	c.nextBeat("with the task", func(b task.Beat) bool { return b.StateHash == running("u1") })
	again := c.doc("svc", "u2", 1, m)
	again.IssuedAt = again.IssuedAt.Add(-time.Hour)
	c.send("svc", c.message(again, "0:0"))
	e.reason(string(wire.Stale))
	c.roll(1, running("u1"), "u2")
	c.nextBeat("without the task", func(b task.Beat) bool { return b.StateHash == task.StateHash(nil) })
	c.send("svc", c.message(again, "1:0"))
	c.expect("svc", "u2", task.Running, 1)

	// And it ends, although what was buried before it looks younger.
	c.send("svc", c.message(deleted(again, 2), "1:0"))
	c.expect("svc", "u2", task.Stopped, 2)
}

// TestDamagedDocument: a stored document that does not verify any more gives
// way to the one of the same generation that does.
func TestDamagedDocument(t *testing.T) {
	c := newCloud(t)
	e := c.edge(t, t.TempDir(), edgeOptions{})
	payload := c.message(c.doc("svc", "u1", 1, c.model("v1", "good 1")), "0:0")
	c.send("svc", payload)
	c.expect("svc", "u1", task.Running, 1)
	whole := string(e.row("svc").Document)
	err := e.store.Update(t.Context(), func(tx *store.Tx) error {
		row, err := tx.Task(ns, device("svc"))
		if err != nil {
			return err
		}
		row.Document[len(row.Document)/2] ^= 1
		return tx.PutTask(row)
	})
	if err != nil {
		t.Fatal(err)
	}
	c.send("svc", payload)
	e.await("a second acceptance", func(v store.Event) bool { return v.Reason == string(tasks.Accepted) })
	c.expect("svc", "u1", task.Running, 1)
	if string(e.row("svc").Document) != whole {
		t.Error("the damaged document is still there")
	}
}

// TestTaskThatIsNotOnTheBusIsTold: the beat differs from what the cloud knows
// until the task's message is there again.
func TestTaskThatIsNotOnTheBusIsTold(t *testing.T) {
	c := newCloud(t)
	e := c.edge(t, t.TempDir(), edgeOptions{period: time.Hour})
	payload := c.message(c.doc("svc", "u1", 1, c.model("v1", "good 1")), "0:0")
	c.send("svc", payload)
	c.nextBeat("with the task", func(b task.Beat) bool { return b.StateHash == running("u1") })
	c.send("svc", nil)
	c.nextBeat("without its message", func(b task.Beat) bool { return b.StateHash != running("u1") && b.StateHash != task.StateHash(nil) })
	if e.server.version("svc") == "" {
		t.Error("a cleared message has ended the task")
	}
	c.send("svc", payload)
	c.nextBeat("with the task again", func(b task.Beat) bool { return b.StateHash == running("u1") })
}

// TestOldRollStrikesNothing: the bus keeps the last roll, which comes first to a
// node that has lost its memory and begins to count its beats anew.
func TestOldRollStrikesNothing(t *testing.T) {
	c := newCloud(t)
	e := c.edge(t, t.TempDir(), edgeOptions{period: 10 * time.Millisecond})
	m := c.model("v1", "good 1")
	c.send("old", c.message(c.doc("old", "u1", 1, m), "0:0"))
	c.nextBeat("with the task", func(b task.Beat) bool { return b.StateHash == running("u1") && b.Seq > 5 })
	c.roll(7, running("u1"))
	c.expect("old", "u1", task.Stopped, 1)
	c.send("old", nil)
	e.stop()

	c.send("new", c.message(c.doc("new", "u2", 1, m), "0:0"))
	e = c.edge(t, t.TempDir(), edgeOptions{period: 10 * time.Millisecond})
	b := c.nextBeat("with the old roll", func(b task.Beat) bool { return b.ConfigGeneration == 7 && b.StateHash == running("u2") })
	c.nextBeat("later", func(l task.Beat) bool { return l.Seq > b.Seq+20 && l.StateHash == running("u2") })
	if e.row("new") == nil {
		t.Error("struck off")
	}
}

func FuzzParseNodeConfig(f *testing.F) {
	for _, text := range []string{`{"generation":1}`, `{"generation":2,"node":"edge1","logLevel":"DEBUG","roll":{"stateHash":"0123","tasks":["u1","u2"]}}`, `{"generation":0}`, `{"generation":1}{}`, `{"roll":null}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := tasks.ParseNodeConfig(b, node)
		if err != nil {
			if wire.AsError(err).Code == wire.Internal {
				t.Errorf("%q: %v", b, err)
			}
			return
		}
		again, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		if d, err := tasks.ParseNodeConfig(again, node); err != nil || d.Generation != c.Generation || (d.Roll == nil) != (c.Roll == nil) {
			t.Errorf("%q became %s: %v", b, again, err)
		}
	})
}

// TestBuriedDocumentIsAnswered: edgecore's memory went back to before the end of
// a task, whose document is on the bus again.
func TestBuriedDocumentIsAnswered(t *testing.T) {
	c := newCloud(t)
	c.edge(t, t.TempDir(), edgeOptions{})
	doc := c.doc("svc", "u1", 1, c.model("v1", "good 1"))
	c.send("svc", c.message(doc, "0:0"))
	c.expect("svc", "u1", task.Running, 1)
	c.send("svc", c.message(deleted(doc, 2), "0:0"))
	c.expect("svc", "u1", task.Stopped, 2)
	c.send("svc", nil) // nobody waits for it any more
	c.send("svc", c.message(doc, "0:0"))
	c.expect("svc", "u1", task.Stopped, 2)
}
