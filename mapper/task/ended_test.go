package task_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/edgetwin/sedna/mapper/task"
	pb "github.com/edgetwin/sedna/models/dmi"
	model "github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// says publishes a report of a phase, signed for uid.
func (f *fixture) says(name, uid, phase string, seq int64) {
	f.t.Helper()
	p := model.Report{Phase: phase, Generation: 1, Seq: seq}.Properties()
	model.SignProperties(f.key, uid, p)
	b, err := json.Marshal(p)
	if err != nil {
		f.t.Fatal(err)
	}
	f.publish(wire.TaskReported("n1", "default", name), false, b)
}

// TestEndedTaskLeavesTheBus: KubeEdge keeps a device that was deleted while its
// link was down. What the node has said it stopped needs no document.
func TestEndedTaskLeavesTheBus(t *testing.T) {
	f := start(t, task.Limits{ClearAfter: 50 * time.Millisecond})
	f.bridge.Sync(nil, []*pb.Device{device("a", "u", "1:0")})
	f.wantDesired("a", true)
	f.says("a", "u", model.Running, 1)
	silent(t, f.desired, "a running task's document was touched")
	f.says("a", "other", model.Stopped, 2)
	silent(t, f.desired, "another uid's end was taken for this one's")
	f.says("a", "u", model.Stopped, 3)
	f.wantDesired("a", false)

	f.upsert(device("a", "u", "1:3")) // the acknowledgement
	f.bridge.Sync(nil, []*pb.Device{device("a", "u", "1:3")})
	silent(t, f.desired, "published again although nothing else is asked for")

	f.upsert(device("a", "u", "2:3")) // the cloud has not heard it after all
	f.wantDesired("a", true)
	f.says("a", "u", model.Stopped, 4)
	f.wantDesired("a", false)

	f.upsert(device("a", "v", "0:0")) // a successor of the same name
	f.wantDesired("a", true)
	silent(t, f.desired, "the successor's document was touched")
}

// TestSuccessorIsNotCleared: the end of a task that is due to be cleared does
// not touch the document that came meanwhile.
func TestSuccessorIsNotCleared(t *testing.T) {
	f := start(t, task.Limits{ClearAfter: 50 * time.Millisecond})
	f.bridge.Sync(nil, []*pb.Device{device("a", "u", "1:0")})
	f.wantDesired("a", true)
	f.says("a", "u", model.Stopped, 1)
	wait(t, f.updates, "the report on its way up")
	f.upsert(device("a", "v", "0:0"))
	f.wantDesired("a", true)
	silent(t, f.desired, "the successor's document was touched")
}
