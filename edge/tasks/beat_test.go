package tasks_test

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// nextBeat waits for a beat that want likes.
func (c *cloud) nextBeat(what string, want func(task.Beat) bool) task.Beat {
	c.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case r := <-c.got:
			if r.ns != "sedna" || r.device != task.NodeDeviceName(node) {
				continue
			}
			if err := task.VerifyProperties(c.nodeKey.Public().(ed25519.PublicKey), node, r.props); err != nil {
				c.t.Fatal(err)
			}
			b, err := task.ParseBeat(r.props)
			if err != nil {
				c.t.Fatal(err)
			}
			if want(b) {
				return b
			}
		case <-deadline:
			c.t.Fatalf("no beat: %s", what)
		}
	}
}

func (c *cloud) sendNode(d task.Desired) {
	c.t.Helper()
	b, err := json.Marshal(d)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := c.bus.Publish(c.t.Context(), wire.TaskDesired(node, "sedna", task.NodeDeviceName(node)), 1, true, b); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cloud) config(text, nonce string) task.Desired {
	return task.Desired{Config: text, Signature: task.Sign(c.key, []byte(text)), Nonce: nonce}
}

func TestBeat(t *testing.T) {
	c := newCloud(t)
	dir := t.TempDir()
	e := c.edge(t, dir, edgeOptions{period: time.Hour})
	c.sendNode(task.Desired{Nonce: "0:0"})
	b := c.nextBeat("when its Device is seen", func(task.Beat) bool { return true })
	if b.StateHash != task.StateHash(nil) || b.DiskFreeBytes == 0 || b.MemoryBytes == 0 || len(b.Engines) != 1 || b.Version == "" {
		t.Errorf("%+v", b)
	}
	c.send("svc", c.message(c.doc("svc", "u1", 1, c.model("v1", "good")), "0:0"))
	want := task.StateHash([]task.TaskState{{UID: "u1", Generation: 1, Phase: task.Running}})
	b = c.nextBeat("after a change", func(b task.Beat) bool { return b.StateHash == want })
	// An acknowledgement is not answered; a changed n is.
	c.sendNode(task.Desired{Nonce: fmt.Sprintf("0:%d", b.Seq)})
	c.sendNode(task.Desired{Nonce: fmt.Sprintf("1:%d", b.Seq)})
	last := c.nextBeat("asked for", func(n task.Beat) bool { return n.Seq > b.Seq })
	// A mapper that has started anew shows an old acknowledgement.
	c.sendNode(task.Desired{Nonce: fmt.Sprintf("1:%d", b.Seq)})
	last = c.nextBeat("not acknowledged", func(n task.Beat) bool { return n.Seq > last.Seq })
	// seq goes on above what the cloud has seen, and over restarts.
	c.sendNode(task.Desired{Nonce: "1:1000"})
	last = c.nextBeat("above the acknowledged", func(n task.Beat) bool { return n.Seq > 1000 && n.Seq > last.Seq })
	e.stop()
	c.edge(t, dir, edgeOptions{period: 20 * time.Millisecond})
	for range 3 {
		next := c.nextBeat("periodic", func(n task.Beat) bool { return n.Seq > last.Seq })
		last = next
	}
}

func TestNodeConfig(t *testing.T) {
	c := newCloud(t)
	dir := t.TempDir()
	e := c.edge(t, dir, edgeOptions{})
	c.sendNode(c.config(`{"generation":3,"logLevel":"DEBUG"}`, "0:0"))
	c.nextBeat("with the configuration", func(b task.Beat) bool { return b.ConfigGeneration == 3 })
	if e.level.Level() != slog.LevelDebug {
		t.Error(e.level.Level())
	}
	good := `{"generation":4}`
	for name, bad := range map[string]struct {
		d    task.Desired
		code wire.Code
	}{
		"unsigned":     {task.Desired{Config: good, Nonce: "0:0"}, wire.BadSignature},
		"forged":       {task.Desired{Config: good, Signature: task.Sign(keyPair(t), []byte(good)), Nonce: "0:0"}, wire.BadSignature},
		"unknown key":  {c.config(`{"generation":4,"loglevels":"x"}`, "0:0"), wire.InvalidArgument},
		"bad level":    {c.config(`{"generation":4,"logLevel":"LOUD"}`, "0:0"), wire.InvalidArgument},
		"stale":        {c.config(`{"generation":2}`, "0:0"), wire.Stale},
		"same, other":  {c.config(`{"generation":3}`, "0:0"), wire.Conflict},
		"another node": {c.config(`{"generation":4,"node":"edge2"}`, "0:0"), wire.WrongNode},
		"bad nonce":    {task.Desired{Nonce: "-1:x"}, wire.InvalidArgument},
		"leap":         {task.Desired{Nonce: "0:4611686018427387904"}, wire.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			before := e.rejected(bad.code)
			c.sendNode(bad.d)
			e.reason(string(bad.code))
			if got := e.rejected(bad.code); got != before+1 {
				t.Errorf("counted %v, was %v", got, before)
			}
			if e.level.Level() != slog.LevelDebug {
				t.Error("the last good configuration is gone")
			}
		})
	}
	e.stop()
	e = c.edge(t, dir, edgeOptions{noBus: true})
	if e.level.Level() != slog.LevelDebug {
		t.Error("not restored", e.level.Level())
	}
}
