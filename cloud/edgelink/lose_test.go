package edgelink_test

import (
	"testing"
	"time"

	"github.com/edgetwin/sedna/models/wire"
)

// testFirstReport needs a server that loses first reports.
func (w *world) testFirstReport(t *testing.T) {
	w.model(t, "first", "m")
	d := w.device(t, "first", "a", "n1")
	e := w.link(t, w.identify(t, "n1"))
	e.next(t, wire.FrameModel, "m")
	e.next(t, wire.FrameDevice, "a")
	e.send(t, twin("first", "a", string(d.UID), "phase", "Running"))
	eventually(t, "an entry with empty values", func() bool {
		st := w.status(t, "first", "a")
		return st != nil && len(st.Status.Twins) == 1 && st.Status.Twins[0].PropertyName == "phase"
	})
	if v := w.reported(t, "first", "a", "phase"); v != "" {
		t.Errorf("the first report arrived: %s", v)
	}
	e.send(t, twin("first", "a", string(d.UID), "phase", "Running", "task", "seen"))
	eventually(t, "the second report", func() bool { return w.reported(t, "first", "a", "phase") == "Running" })
	if v := w.reported(t, "first", "a", "task"); v != "" {
		t.Errorf("the first report of the other property arrived: %s", v)
	}
}

// testQuickRebind needs a server that loses Devices that are bound anew at once.
func (w *world) testQuickRebind(t *testing.T) {
	w.model(t, "quick", "m")
	d := w.device(t, "quick", "a", "n2")
	e := w.link(t, w.identify(t, "n2"))
	e.next(t, wire.FrameModel, "m")
	e.next(t, wire.FrameDevice, "a")
	e.next(t, wire.FrameSynced, "")
	w.patch(t, d, func() { d.Spec.NodeName = "" })
	e.next(t, wire.FrameRemove, "a")
	w.patch(t, d, func() { d.Spec.NodeName = "n2" })
	select {
	case f := <-e.frames:
		t.Errorf("%s was not lost", f.Type)
	case <-time.After(quiet):
	}
	w.patch(t, d, func() { d.Spec.Properties[0].Desired.Value = "y" })
	e.next(t, wire.FrameDevice, "a")
}

// testBindingAnew holds that a Device which is taken off its node
// and bound again at once is removed and sent, as the cure for a lost
// registration needs.
func (w *world) testBindingAnew(t *testing.T) {
	w.model(t, "anew", "m")
	d := w.device(t, "anew", "a", "n9")
	e := w.link(t, w.identify(t, "n9"))
	e.next(t, wire.FrameModel, "m")
	e.next(t, wire.FrameDevice, "a")
	e.next(t, wire.FrameSynced, "")
	for range 20 {
		w.patch(t, d, func() { d.Spec.NodeName = "" })
		w.patch(t, d, func() { d.Spec.NodeName = "n9" })
		e.next(t, wire.FrameRemove, "a")
		if f := wait(t, e.frames, "device"); f.Type == wire.FrameRemove { // a repetition does no harm
			e.next(t, wire.FrameDevice, "a")
		}
	}
}
