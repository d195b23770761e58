package tasks_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/edge/tasks"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

func TestLife(t *testing.T) {
	c := newCloud(t)
	e := c.edge(t, t.TempDir(), edgeOptions{})
	doc := c.doc("svc", "u1", 1, c.model("v1", "good 1"))
	c.send("svc", c.message(doc, "0:0"))
	r := c.expect("svc", "u1", task.Running, 1)
	if want := "m:v1:" + e.row("svc").ServingSHA256[:12]; r.Model != want || e.server.version("svc") != "v1" {
		t.Errorf("model %q, serves %q", r.Model, e.server.version("svc"))
	}
	// A second generation takes over; the first one's file goes.
	c.send("svc", c.message(c.doc("svc", "u1", 2, c.model("v2", "good 2")), "0:"+strconv.FormatInt(r.Seq, 10)))
	r = c.expect("svc", "u1", task.Running, 2)
	if e.server.version("svc") != "v2" || !strings.HasPrefix(r.Model, "m:v2:") {
		t.Error(e.server.version("svc"), r.Model)
	}
	// A bad one fails for good, and the second goes on.
	c.send("svc", c.message(c.doc("svc", "u1", 3, c.model("v3", "rubbish")), "0:"+strconv.FormatInt(r.Seq, 10)))
	r = c.expect("svc", "u1", task.Failed, 3)
	if r.Reason != "BadModel" || !strings.HasPrefix(r.Model, "m:v2:") || !strings.Contains(r.Detail, "goes on serving") || e.server.version("svc") != "v2" {
		t.Errorf("%+v, serves %q", r, e.server.version("svc"))
	}
	if not, err := e.manager.NotServing(t.Context()); err != nil || len(not) > 0 {
		t.Error(not, err)
	}
	c.send("svc", c.message(deleted(doc, 4), "0:"+strconv.FormatInt(r.Seq, 10)))
	r = c.expect("svc", "u1", task.Stopped, 4)
	if e.server.version("svc") != "" || e.row("svc") != nil {
		t.Error("still there")
	}
	e.reason(string(tasks.Stopped))
	for deadline := time.Now().Add(patience); e.modelFiles() > 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if n := e.modelFiles(); n != 0 {
		t.Errorf("%d model files are left", n)
	}
	// The cloud acknowledges: nothing is due any more, and the tombstone stays.
	c.send("svc", c.message(deleted(doc, 4), "0:"+strconv.FormatInt(r.Seq, 10)))
	err := errors.New("not yet")
	for deadline := time.Now().Add(patience); err != nil && time.Now().Before(deadline); {
		err = e.store.View(t.Context(), func(tx *store.Tx) error {
			tomb, err := tx.Tombstone("u1")
			if err == nil && !tomb.Settled {
				err = errors.New("not settled")
			}
			return err
		})
	}
	if err != nil {
		t.Error(err)
	}
}

func TestSeqAckNonce(t *testing.T) {
	c := newCloud(t)
	e := c.edge(t, t.TempDir(), edgeOptions{limits: tasks.Limits{ResendBase: 200 * time.Millisecond, ResendMax: 200 * time.Millisecond, ReportGap: time.Millisecond}})
	doc := c.doc("svc", "u1", 1, c.model("v1", "good 1"))
	// The cloud has seen 40 reports of this uid: the node has lost its memory.
	c.send("svc", c.message(doc, "3:40"))
	r := c.expect("svc", "u1", task.Running, 1)
	if r.Seq <= 40 {
		t.Errorf("seq %d after 40", r.Seq)
	}
	// Unacknowledged, it comes again; the same seq.
	if again := c.expect("svc", "u1", task.Running, 1); again.Seq != r.Seq {
		t.Errorf("seq %d, then %d", r.Seq, again.Seq)
	}
	ack := func(n int64, seq int64) []byte {
		return c.message(doc, strconv.FormatInt(n, 10)+":"+strconv.FormatInt(seq, 10))
	}
	c.send("svc", ack(3, r.Seq))
	waitFor(t, "the acknowledgement", func() bool { row := e.row("svc"); return row.Acked == r.Seq && row.Seq == r.Seq })
	for len(c.got) > 0 {
		<-c.got
	}
	// A raised n asks for a report, with a new seq.
	c.send("svc", ack(4, r.Seq))
	r2 := c.expect("svc", "u1", task.Running, 1)
	if r2.Seq <= r.Seq {
		t.Errorf("seq %d after %d", r2.Seq, r.Seq)
	}
	c.send("svc", ack(4, r2.Seq))
	waitFor(t, "the acknowledgement", func() bool { return e.row("svc").Acked == r2.Seq })
	// A cloud that has seen less than it acknowledged before is told again.
	c.send("svc", ack(4, r.Seq))
	if r3 := c.expect("svc", "u1", task.Running, 1); r3.Seq != r2.Seq {
		t.Errorf("seq %d, want %d again", r3.Seq, r2.Seq)
	}
	// Nobody signs the nonce: a leap beyond reason is refused.
	before := e.row("svc")
	c.send("svc", ack(4, 1<<62))
	e.reason(string(wire.InvalidArgument))
	if after := e.row("svc"); after.Seq != before.Seq {
		t.Errorf("seq %d after a forged acknowledgement, was %d", after.Seq, before.Seq)
	}
}

func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited for %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestUIDChange(t *testing.T) {
	c := newCloud(t)
	e := c.edge(t, t.TempDir(), edgeOptions{})
	m := c.model("v1", "good 1")
	first := c.doc("svc", "u1", 5, m)
	c.send("svc", c.message(first, "0:0"))
	c.expect("svc", "u1", task.Running, 5)
	c.issued = c.issued.Add(time.Second)
	second := c.doc("svc", "u2", 1, c.model("v2", "good 2"))
	c.send("svc", c.message(second, "0:0"))
	c.expect("svc", "u2", task.Running, 1)
	if e.server.version("svc") != "v2" {
		t.Error(e.server.version("svc"))
	}
	// The first is dead, whatever its generation.
	c.send("svc", c.message(first, "0:0"))
	e.reason(string(wire.Buried))
	first.Generation = 9
	c.send("svc", c.message(first, "0:0"))
	e.reason(string(wire.Buried))
	c.send("svc", c.message(deleted(first, 10), "0:0"))
	e.reason(string(wire.Stale))
	// One that was never seen here, and issued before, is an old one.
	old := c.doc("svc", "u0", 7, m)
	old.IssuedAt = c.issued.Add(-time.Hour)
	c.send("svc", c.message(old, "0:0"))
	e.reason(string(wire.Stale))
	if row := e.row("svc"); row.UID != "u2" || row.Generation != 1 {
		t.Errorf("%+v", row)
	}
	// Also when the device has no task any more.
	c.send("svc", c.message(deleted(second, 2), "0:0"))
	c.expect("svc", "u2", task.Stopped, 2)
	c.send("svc", c.message(old, "0:0"))
	e.reason(string(wire.Stale))
	// A restored cloud, whose clock may be behind, says so by its epoch.
	old.Epoch = 1
	c.send("svc", c.message(old, "0:0"))
	c.expect("svc", "u0", task.Running, 7)
}

func TestDeletedBeforeSeen(t *testing.T) {
	c := newCloud(t)
	e := c.edge(t, t.TempDir(), edgeOptions{})
	doc := c.doc("svc", "u1", 1, c.model("v1", "good"))
	c.send("svc", c.message(deleted(doc, 3), "0:7"))
	if r := c.expect("svc", "u1", task.Stopped, 3); r.Seq <= 7 {
		t.Errorf("seq %d after 7", r.Seq)
	}
	c.send("svc", c.message(doc, "0:7"))
	e.reason(string(wire.Buried))
	// Asked again, by a raised n, it says so again.
	c.send("svc", c.message(deleted(doc, 3), "1:7"))
	c.expect("svc", "u1", task.Stopped, 3)
}

func TestStoppedIsForgottenWhenTheDeviceIsGone(t *testing.T) {
	c := newCloud(t)
	e := c.edge(t, t.TempDir(), edgeOptions{limits: tasks.Limits{ResendBase: 50 * time.Millisecond, ResendMax: 50 * time.Millisecond}})
	c.send("svc", c.message(deleted(c.doc("svc", "u1", 1, c.model("v1", "good")), 2), "0:0"))
	c.expect("svc", "u1", task.Stopped, 2)
	c.expect("svc", "u1", task.Stopped, 2)
	c.send("svc", nil)
	// A later document of another task is handled after the cleared one.
	c.send("other", c.message(c.doc("other", "u2", 1, c.model("v1", "good")), "0:0"))
	c.expect("other", "u2", task.Running, 1)
	for len(c.got) > 0 {
		<-c.got
	}
	c.expect("other", "u2", task.Running, 1) // resends go on
	c.expect("other", "u2", task.Running, 1)
	for len(c.got) > 0 {
		if r := <-c.got; r.device == device("svc") {
			t.Error("still reported")
		}
	}
	if e.rejected(wire.FailedPrecondition) != 0 {
		t.Error("a cleared message of a buried task was counted as a refusal")
	}
}

// TestStoppedIsToldAgainWhenTheDeviceIsBoundAnew: binding anew clears the
// message and brings it back as it was; the cloud has still not heard.
func TestStoppedIsToldAgainWhenTheDeviceIsBoundAnew(t *testing.T) {
	c := newCloud(t)
	e := c.edge(t, t.TempDir(), edgeOptions{})
	gone := c.message(deleted(c.doc("svc", "u1", 1, c.model("v1", "good")), 2), "1:0")
	c.send("svc", gone)
	c.expect("svc", "u1", task.Stopped, 2)
	c.send("svc", nil)
	waitFor(t, "the clearing", func() bool {
		settled := false
		err := e.store.View(t.Context(), func(tx *store.Tx) error {
			tomb, err := tx.Tombstone("u1")
			settled = err == nil && tomb.Settled
			return err
		})
		return err == nil && settled
	})
	for len(c.got) > 0 {
		<-c.got
	}
	c.send("svc", gone)
	c.expect("svc", "u1", task.Stopped, 2)
}

func TestTransientFailureIsRetried(t *testing.T) {
	c := newCloud(t)
	var fetches atomic.Int64
	e := c.edge(t, t.TempDir(), edgeOptions{
		limits: tasks.Limits{RetryBase: 10 * time.Millisecond, RetryMax: 20 * time.Millisecond, ReportGap: time.Millisecond},
		fetch: fetcher(func(dst string) error {
			if fetches.Add(1) < 4 {
				return wire.E(wire.Unavailable, "", "the cloud is away", "")
			}
			return os.WriteFile(dst, []byte("good web"), 0o600)
		}),
	})
	m := c.model("v1", "good web")
	m.URL = "https://cloud.invalid/m"
	c.send("svc", c.message(c.doc("svc", "u1", 1, m), "0:0"))
	if v := e.reason(string(tasks.Failing)); !strings.Contains(v.Message, "the cloud is away") {
		t.Error(v)
	}
	c.expect("svc", "u1", task.Running, 1)
	if n := fetches.Load(); n != 4 {
		t.Errorf("%d fetches", n)
	}
}

type fetcher func(dst string) error

func (f fetcher) Fetch(_ context.Context, _, _, dst string, _ int64) error { return f(dst) }

func TestNewestDocumentWins(t *testing.T) {
	c := newCloud(t)
	entered := make(chan struct{}, 10)
	s := &server{activate: func(v tasks.Service) error {
		entered <- struct{}{}
		return nil
	}}
	e := c.edge(t, t.TempDir(), edgeOptions{server: s, fetch: fetcher(func(dst string) error {
		return wire.E(wire.Unavailable, "", "away", "")
	})})
	m := c.model("v1", "good")
	m.URL = "https://cloud.invalid/m" // waits for a retry
	for g := int64(1); g <= 20; g++ {
		c.send("svc", c.message(c.doc("svc", "u1", g, m), "0:0"))
	}
	c.send("svc", c.message(c.doc("svc", "u1", 21, c.model("v21", "good 21")), "0:0"))
	c.expect("svc", "u1", task.Running, 21)
	if len(entered) != 1 || e.row("svc").Generation != 21 {
		t.Errorf("%d activations, generation %d", len(entered), e.row("svc").Generation)
	}
}

func TestRestartOffline(t *testing.T) {
	c := newCloud(t)
	dir := t.TempDir()
	e := c.edge(t, dir, edgeOptions{})
	for i := range 5 {
		name := "svc" + strconv.Itoa(i)
		c.send(name, c.message(c.doc(name, "u"+name, 1, c.model("v1", "good 1")), "0:0"))
		c.expect(name, "u"+name, task.Running, 1)
	}
	// One is about to fail at its second generation and goes on with its first.
	c.send("svc0", c.message(c.doc("svc0", "usvc0", 2, c.model("v2", "rubbish")), "0:0"))
	c.expect("svc0", "usvc0", task.Failed, 2)
	e.stop()
	if err := os.RemoveAll(c.models); err != nil {
		t.Fatal(err)
	}
	e = c.edge(t, dir, edgeOptions{noBus: true})
	waitFor(t, "all services", func() bool {
		not, err := e.manager.NotServing(t.Context())
		return err == nil && len(not) == 0 && e.server.version("svc4") == "v1"
	})
	took := time.Since(e.started)
	t.Logf("5 services ready %v after the start, with no bus", took)
	if took > 3*time.Second {
		t.Errorf("took %v", took)
	}
	views, err := e.manager.Tasks(t.Context())
	if err != nil || len(views) != 5 || views[0].Phase != task.Failed && views[1].Phase != task.Running {
		t.Error(views, err)
	}
}

func TestModelGoneAtRestart(t *testing.T) {
	c := newCloud(t)
	dir := t.TempDir()
	e := c.edge(t, dir, edgeOptions{})
	c.send("svc", c.message(c.doc("svc", "u1", 1, c.model("v1", "good 1")), "0:0"))
	c.expect("svc", "u1", task.Running, 1)
	sha := e.row("svc").ServingSHA256
	e.stop()
	if err := os.Remove(filepath.Join(dir, "models", sha)); err != nil {
		t.Fatal(err)
	}
	e = c.edge(t, dir, edgeOptions{})
	e.reason(string(tasks.Lost))
	c.expect("svc", "u1", task.Running, 1)
}

func TestDamagedDatabaseIsRefilledFromTheBus(t *testing.T) {
	c := newCloud(t)
	dir := t.TempDir()
	e := c.edge(t, dir, edgeOptions{})
	c.send("svc", c.message(c.doc("svc", "u1", 1, c.model("v1", "good 1")), "0:0"))
	r := c.expect("svc", "u1", task.Running, 1)
	c.send("svc", c.message(c.doc("svc", "u1", 1, c.model("v1", "good 1")), "0:"+strconv.FormatInt(r.Seq, 10)))
	waitFor(t, "the acknowledgement", func() bool { return e.row("svc").Acked == r.Seq })
	e.stop()
	if err := os.WriteFile(filepath.Join(dir, store.FileName), []byte(strings.Repeat("rubbish ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(c.models); err != nil { // its file is adopted
		t.Fatal(err)
	}
	e = c.edge(t, dir, edgeOptions{})
	if e.store.Aside() == "" {
		t.Error("nothing was moved aside")
	}
	if again := c.expect("svc", "u1", task.Running, 1); again.Seq <= r.Seq {
		t.Errorf("seq %d after %d", again.Seq, r.Seq)
	}
}

func TestFullDisk(t *testing.T) {
	c := newCloud(t)
	e := c.edge(t, t.TempDir(), edgeOptions{max: 384 << 10})
	small := c.doc("small", "u1", 1, c.model("v1", "good 1"))
	c.send("small", c.message(small, "0:0"))
	c.expect("small", "u1", task.Running, 1)
	big := c.doc("big", "u2", 1, c.model("v1", "good 1"))
	var spec map[string]any
	if err := json.Unmarshal(big.Spec, &spec); err != nil {
		t.Fatal(err)
	}
	spec["padding"] = strings.Repeat("x", 240<<10)
	var err error
	if big.Spec, err = json.Marshal(spec); err != nil {
		t.Fatal(err)
	}
	// The second copy of a document of this size does not fit any more.
	names := []string{"big", "bigger"}
	for _, name := range names {
		big.Name, big.UID = name, "u-"+name
		c.send(name, c.message(big, "0:0"))
	}
	e.await("refusal", func(v store.Event) bool {
		return v.Reason == string(wire.ResourceExhausted) || v.Reason == "StoreFailed"
	})
	// What was there goes on.
	if e.server.version("small") != "v1" {
		t.Error("the small service is gone")
	}
	c.send("small", c.message(deleted(small, 2), "0:0"))
	c.expect("small", "u1", task.Stopped, 2)
}
