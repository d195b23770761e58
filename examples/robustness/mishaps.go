package robustness

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/edgetwin/sedna/cloud/twin"
	"github.com/edgetwin/sedna/lib/history"
	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
)

// link cuts or heals a node's link; with the mapper dead nobody hears it.
func (r *seed) link(ctx context.Context, n *node, up bool) {
	if n.setLink(ctx, up) != nil {
		return
	}
	r.down[n] = !up
	event := history.Down
	if up {
		event = history.Up
	}
	r.note(history.Record{Kind: history.KindLink, Event: event, Node: n.name})
}

// removeDevice deletes a job's Device by hand: the job makes it again, with the
// same name and another uid.
func (r *seed) removeDevice(ctx context.Context, job string, n *node) error {
	r.note(history.Record{Kind: history.KindRun, Event: "delete device", Node: n.name, Detail: job})
	return r.call(ctx, func(ctx context.Context) error {
		d := &devices.Device{}
		d.Namespace, d.Name = "default", deviceName(job, n)
		return unlessAbsent(r.s.kube.Delete(ctx, d))
	})
}

// force lets a job's Device go without the word of its node, which is cut off.
// For good, the whole job goes; else the job makes the Device again.
func (r *seed) force(ctx context.Context, job string, n *node, forGood bool) error {
	r.link(ctx, n, false)
	d := &devices.Device{}
	there := false
	err := r.call(ctx, func(ctx context.Context) error {
		err := r.s.kube.Get(ctx, client.ObjectKey{Namespace: "default", Name: deviceName(job, n)}, d)
		there = err == nil
		return unlessAbsent(err)
	})
	if err != nil || !there {
		return err
	}
	r.note(history.Record{Kind: history.KindAPI, Event: history.Forced, Node: n.name, Device: d.Name, UID: string(d.UID)})
	if forGood {
		if err := r.remove(ctx, job); err != nil {
			return err
		}
	}
	return r.call(ctx, func(ctx context.Context) error {
		annotate := fmt.Sprintf(`{"metadata":{"uid":%q,"annotations":{%q:"yes"}}}`, d.UID, twin.AnnotationForceDelete)
		err := r.s.kube.Patch(ctx, d.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(annotate)))
		if err == nil {
			err = r.s.kube.Delete(ctx, d, client.Preconditions{UID: &d.UID})
		}
		if apierrors.IsConflict(err) {
			return nil // it is gone already, and has a successor
		}
		return unlessAbsent(err)
	})
}

// mishap says what else happens to a part that is killed.
func (r *seed) mishap() string {
	return []string{"", "", "", missing, cut, overwritten}[r.random.IntN(6)]
}

// crash kills a part, which comes back a little later, after its database has
// come to harm.
func (r *seed) crash(p part, harm string) error {
	if !r.s.kill(p) {
		return nil
	}
	r.killed(p)
	if p.kind == mapper {
		r.down[p.node] = false // it forgets that its link was cut
	}
	if harm != "" {
		if err := damage(p.node.database(p.kind), harm, r.random); err != nil {
			return err
		}
		r.note(history.Record{Kind: history.KindRun, Event: "harm", Node: p.node.name, Part: p.kind, Detail: harm})
	}
	if harm != "" && p.kind == localController {
		r.note(history.Record{Kind: history.KindProcess, Event: history.Wiped, Node: p.node.name, Part: p.kind})
	}
	r.revive(p)
	return nil
}

func (r *seed) killed(p part) {
	rec := history.Record{Kind: history.KindProcess, Event: history.Killed, Part: p.kind}
	if p.node != nil {
		rec.Node = p.node.name
	}
	r.note(rec)
}

// revive starts a part a little later, with another clock if clocks are wrong.
func (r *seed) revive(p part) {
	after := time.Duration(r.random.IntN(500)) * time.Millisecond
	if skew := skews[r.random.IntN(len(skews))]; r.s.Clocks {
		r.s.setSkew(p, skew)
		r.note(history.Record{Kind: history.KindRun, Event: "clock", Part: p.String(), Detail: skew.String()})
	}
	r.s.wg.Go(func() {
		time.Sleep(after)
		if err := r.s.start(p); err != nil {
			r.s.Log("%v", err)
			return
		}
		r.note(history.Record{Kind: history.KindProcess, Event: history.Started, Part: p.String()})
	})
}

// skews are how far clocks may be off.
var skews = []time.Duration{0, 5 * time.Minute, -5 * time.Minute, 3 * time.Hour, -3 * time.Hour}

func (s *Stack) setSkew(p part, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.skews[p] = d
}

// restartBus kills the bus that is a process of its own. What it had retained
// comes back if it keeps that on disk, as it was some time ago, or is lost.
func (r *seed) restartBus(kept bool) error {
	p := part{messageBus, r.s.nodes[0]}
	if !r.s.kill(p) {
		return nil
	}
	r.killed(p)
	if r.s.Mosquitto != "" && !kept {
		_, database, err := p.node.mosquitto(r.s.Mosquitto)
		if err == nil {
			err = os.Remove(database)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	r.revive(p)
	return nil
}

// replay publishes an earlier desired message again, as anybody on the bus can.
func (r *seed) replay(ctx context.Context) {
	if list := r.s.watch.messages(); len(list) > 0 {
		m := list[r.random.IntN(len(list))]
		r.note(history.Record{Kind: history.KindRun, Event: "replay", Node: m.node.name, Detail: m.Topic})
		_ = r.s.watch.buses[m.node].Publish(ctx, m.Topic, 1, r.random.IntN(2) == 0, m.Payload)
	}
}

// clear removes a job's retained message, as anybody on the bus can.
func (r *seed) clear(ctx context.Context, job string) {
	for _, m := range r.s.watch.messages() {
		if strings.Contains(m.Topic, "/sedna-ji-"+job+"-") {
			r.note(history.Record{Kind: history.KindRun, Event: "clear", Node: m.node.name, Detail: m.Topic})
			_ = r.s.watch.buses[m.node].Publish(ctx, m.Topic, 1, true, nil)
			return
		}
	}
}

// heal brings everything up, with right clocks.
func (r *seed) heal(ctx context.Context) error {
	r.s.wg.Wait()
	for _, p := range r.s.all() {
		if r.s.there(p) && r.s.skews[p] != 0 {
			r.s.kill(p)
			r.killed(p)
			r.s.setSkew(p, 0)
			if err := r.s.start(p); err != nil {
				return err
			}
		}
		if !r.s.there(p) {
			return fmt.Errorf("%s did not come back", p)
		}
	}
	for _, n := range r.s.nodes {
		if err := n.setLink(ctx, true); err != nil {
			return err
		}
	}
	return nil
}
