package robustness

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/edgetwin/sedna/lib/history"
	sedna "github.com/edgetwin/sedna/models/sedna/v1alpha1"
	"github.com/edgetwin/sedna/models/task"
)

// What one seed does.
const (
	steps  = 24 // changes and mishaps
	jobs   = 3  // that it works on
	settle = 45 * time.Second

	// callWithin bounds a call to the API, which may be down for a while.
	callWithin = 30 * time.Second
)

// seed is one run: jobs are made, changed and deleted while links drop and
// processes are killed, all by one source of chance.
type seed struct {
	s       *Stack
	number  int64
	random  *rand.Rand
	out     *history.Writer
	prefix  string            // of its Devices' names
	wanted  map[string]string // the model that a job is to run, by the job's name; deleted ones are missing
	down    bool              // its link
	clouded bool              // the GlobalManager was killed once, which takes long
}

// Run runs one seed, writes its history to file and judges it. An error means
// that the run itself failed.
func (s *Stack) Run(ctx context.Context, number int64, file string) (history.Verdict, error) {
	f, err := os.Create(file)
	if err != nil {
		return history.Verdict{}, err
	}
	defer f.Close()
	r := &seed{
		s: s, number: number, random: rand.New(rand.NewPCG(uint64(number), 0)), out: history.NewWriter(f),
		prefix: fmt.Sprintf("sedna-ji-s%d-", number), wanted: map[string]string{},
	}
	s.watch.record(r.prefix, r.out)
	err = r.run(ctx)
	s.watch.record("", nil)
	if err != nil {
		return history.Verdict{}, err
	}
	if err := r.out.Err(); err != nil {
		return history.Verdict{}, err
	}
	if _, err := f.Seek(0, 0); err != nil {
		return history.Verdict{}, err
	}
	v, err := history.Check(f)
	if err == nil {
		err = r.cleanup(ctx)
	}
	return v, err
}

func (r *seed) note(rec history.Record) {
	rec.Observer = "generator"
	r.out.Write(rec)
}

func (r *seed) run(ctx context.Context) error {
	r.note(history.Record{Kind: history.KindRun, Event: history.Begin, Losses: strings.Join(r.s.losses, ","), Detail: fmt.Sprintf("seed %d", r.number)})
	for range steps {
		if err := r.step(ctx); err != nil {
			return err
		}
		r.pause(350)
	}
	if err := r.heal(ctx); err != nil {
		return err
	}
	r.note(history.Record{Kind: history.KindRun, Event: history.Healed})
	return r.end(ctx)
}

// pause waits up to ms milliseconds.
func (r *seed) pause(ms int) { time.Sleep(time.Duration(r.random.IntN(ms)) * time.Millisecond) }

// step does one thing by chance.
func (r *seed) step(ctx context.Context) error {
	job := fmt.Sprintf("s%d-%c", r.number, 'a'+rune(r.random.IntN(jobs)))
	switch n := r.random.IntN(100); {
	case n < 42:
		return r.apply(ctx, job, models[r.random.IntN(len(models))], r.random.IntN(100))
	case n < 54:
		return r.remove(ctx, job)
	case n < 72:
		r.link(ctx, r.down)
	case n < 80:
		r.crash(ctx, localController)
	case n < 86:
		r.crash(ctx, mapper)
	case n < 88 && !r.clouded:
		r.clouded = true
		r.crash(ctx, globalManager)
	case n < 97:
		r.replay(ctx)
	default:
		r.clear(ctx, job)
	}
	return nil
}

// apply makes or changes a job. One that is still being deleted is left alone.
func (r *seed) apply(ctx context.Context, job, model string, threshold int) error {
	if _, ok := r.wanted[job]; !ok {
		gone := false
		if err := r.call(ctx, func(ctx context.Context) error {
			err := r.s.kube.Get(ctx, client.ObjectKey{Namespace: "default", Name: job}, &sedna.JointInferenceService{})
			gone = absent(err)
			return unlessAbsent(err)
		}); err != nil || !gone {
			return err
		}
	}
	manifest := fmt.Sprintf(`
apiVersion: sedna.io/v1alpha1
kind: JointInferenceService
metadata: {name: %s, namespace: default}
spec:
  edgeWorker:
    nodeName: %s
    model: {name: %s}
    hardExampleMining: {name: CrossEntropy, parameters: [{key: threshold_cross_entropy, value: "0.%02d"}]}
  cloudWorker: {model: {name: big}, endpoint: "http://127.0.0.1:1"}
`, job, nodeName, model, threshold)
	r.wanted[job] = model
	r.note(history.Record{Kind: history.KindRun, Event: "apply", Namespace: "default", Detail: fmt.Sprintf("%s with %s, %d", job, model, threshold)})
	return r.call(ctx, func(ctx context.Context) error { return r.s.kube.ApplyManifest(ctx, []byte(manifest)) })
}

func (r *seed) remove(ctx context.Context, job string) error {
	delete(r.wanted, job)
	r.note(history.Record{Kind: history.KindRun, Event: "delete", Namespace: "default", Detail: job})
	return r.call(ctx, func(ctx context.Context) error {
		return unlessAbsent(r.s.kube.Delete(ctx, &sedna.JointInferenceService{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: job}}))
	})
}

// absent tells whether err says that the job is not there. An API that is just
// starting answers not found too, and means the whole kind.
func absent(err error) bool {
	return apierrors.IsNotFound(err) && !apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
}

func unlessAbsent(err error) error {
	if absent(err) {
		return nil
	}
	return err
}

// call tries f until the API is there.
func (r *seed) call(ctx context.Context, f func(context.Context) error) error {
	for deadline := time.Now().Add(callWithin); ; {
		within, cancel := context.WithTimeout(ctx, callWithin)
		err := f(within)
		cancel()
		if err == nil || ctx.Err() != nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// link cuts or heals the link; with the mapper dead nobody hears it.
func (r *seed) link(ctx context.Context, up bool) {
	if r.s.setLink(ctx, up) != nil {
		return
	}
	r.down = !up
	event := history.Down
	if up {
		event = history.Up
	}
	r.note(history.Record{Kind: history.KindLink, Event: event, Node: nodeName})
}

// crash kills a part, which comes back a little later.
func (r *seed) crash(_ context.Context, part string) {
	if !r.s.kill(part) {
		return
	}
	r.note(history.Record{Kind: history.KindProcess, Event: history.Killed, Part: part})
	if part == mapper {
		r.down = false // it forgets that its link was cut
	}
	after := time.Duration(r.random.IntN(500)) * time.Millisecond
	r.s.wg.Go(func() {
		time.Sleep(after)
		if err := r.s.start(part); err != nil {
			r.s.log("%v", err)
			return
		}
		r.note(history.Record{Kind: history.KindProcess, Event: history.Started, Part: part})
	})
}

// replay publishes an earlier desired message again, as anybody on the bus can.
func (r *seed) replay(ctx context.Context) {
	if list := r.s.watch.messages(); len(list) > 0 {
		m := list[r.random.IntN(len(list))]
		r.note(history.Record{Kind: history.KindRun, Event: "replay", Detail: m.Topic})
		_ = r.s.watch.bus.Publish(ctx, m.Topic, 1, r.random.IntN(2) == 0, m.Payload)
	}
}

// clear removes a job's retained message, as anybody on the bus can.
func (r *seed) clear(ctx context.Context, job string) {
	for _, m := range r.s.watch.messages() {
		if strings.Contains(m.Topic, "/sedna-ji-"+job+"-") {
			r.note(history.Record{Kind: history.KindRun, Event: "clear", Detail: m.Topic})
			_ = r.s.watch.bus.Publish(ctx, m.Topic, 1, true, nil)
			return
		}
	}
}

// heal brings everything up.
func (r *seed) heal(ctx context.Context) error {
	r.s.wg.Wait()
	for _, part := range []string{globalManager, mapper, localController} {
		r.s.mu.Lock()
		there := r.s.parts[part] != nil
		r.s.mu.Unlock()
		if !there {
			return fmt.Errorf("%s did not come back", part)
		}
	}
	return r.s.setLink(ctx, true)
}

// end waits until things have settled and writes down how they are then.
func (r *seed) end(ctx context.Context) error {
	detail := ""
	deadline := time.Now().Add(settle)
	err := r.ready(ctx)
	if err == nil {
		err = r.s.watch.await(ctx, "the cloud knows all", time.Until(deadline), r.cloudSettled)
	}
	if err != nil {
		detail = fmt.Sprintf("%v, wanted are %v", err, r.wanted)
	}
	var there, tasks, kept []history.Record
	for {
		r.s.watch.mu.Lock()
		there = r.devices()
		r.s.watch.mu.Unlock()
		if tasks, err = r.s.watch.tasks(ctx, r.prefix); err == nil {
			kept, err = r.s.watch.retained(ctx, r.prefix)
		}
		if err != nil {
			return err
		}
		missing := r.nodeSettled(there, tasks, kept)
		if missing == "" || detail != "" {
			break
		}
		if time.Now().After(deadline) {
			detail = missing
			break
		}
	}
	for _, rec := range slices.Concat(there, tasks, kept) {
		r.out.Write(rec)
	}
	r.note(history.Record{Kind: history.KindRun, Event: history.End, Detail: detail})
	return nil
}

// ready waits until the GlobalManager has taken up every job's last change.
func (r *seed) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	for job := range r.wanted {
		if err := r.s.kube.AwaitReady(ctx, job); err != nil {
			return err
		}
	}
	return nil
}

// devices gives the seed's Devices with what the cloud knows of them. The
// observer's lock is held.
func (r *seed) devices() []history.Record {
	var out []history.Record
	for name, d := range r.s.watch.devices {
		if !strings.HasPrefix(name, r.prefix) {
			continue
		}
		d.Kind, d.Event = history.KindEnd, history.Device
		if said := r.s.watch.reports[name]; said.UID == d.UID {
			d.Generation, d.Phase, d.Seq = said.Generation, said.Phase, said.Seq
		}
		out = append(out, d)
	}
	return out
}

// cloudSettled tells whether the cloud has what was wanted, and has
// acknowledged it. The observer's lock is held.
func (r *seed) cloudSettled() bool {
	there := r.devices()
	for job := range r.wanted {
		name := task.DeviceName(task.KindJointInference, "default", job, task.RoleEdge, nodeName)
		if !slices.ContainsFunc(there, func(d history.Record) bool {
			return d.Device == name && d.State == task.Active && d.Generation == d.DesiredGeneration && d.Phase == task.Running && d.Acked == d.Seq
		}) {
			return false
		}
	}
	return len(there) == len(r.wanted)
}

// nodeSettled tells what is still missing at the node; nothing when it is empty.
func (r *seed) nodeSettled(there, tasks, kept []history.Record) string {
	live := map[string]history.Record{}
	for _, d := range there {
		live[d.UID] = d
	}
	n := 0
	for _, t := range tasks {
		d := live[t.UID]
		if t.Seq != t.Acked || t.Seq != d.Seq {
			return "the node's task " + t.Device + " is not as the cloud knows it"
		}
	}
	for _, m := range kept {
		switch d, ok := live[m.UID]; {
		case ok && m.DesiredGeneration == d.DesiredGeneration:
			n++
		case !ok && m.State == task.Deleted && slices.Contains(r.s.losses, "delete-offline"):
		default:
			return "the bus keeps a document of " + m.Device + " that is not the latest"
		}
	}
	if n != len(live) || len(tasks) != len(live) {
		return fmt.Sprintf("%d Devices, %d tasks, %d retained messages", len(live), len(tasks), n)
	}
	return ""
}

// cleanup deletes what the seed leaves behind.
func (r *seed) cleanup(ctx context.Context) error {
	for i := range jobs {
		if err := r.remove(ctx, fmt.Sprintf("s%d-%c", r.number, 'a'+rune(i))); err != nil {
			return err
		}
	}
	return nil
}
