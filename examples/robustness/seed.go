package robustness

import (
	"context"
	"errors"
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
	settle = 60 * time.Second

	// callWithin bounds a call to the API, which may be down for a while.
	callWithin = 30 * time.Second

	// atOnce is how long a job that is made again at once waits for its
	// predecessor.
	atOnce = 3 * time.Second
)

// seed is one run: jobs are made, changed and deleted while all kinds of things
// go wrong, by one source of chance.
type seed struct {
	s       *Stack
	number  int64
	random  *rand.Rand
	out     *history.Writer
	prefix  string          // of its Devices' names
	wanted  map[string]want // by the job's name; deleted ones are missing
	down    map[*node]bool  // whose link is cut
	clouded bool            // the GlobalManager was killed once, which takes long
}

// want is what a job is to be.
type want struct {
	model string
	nodes []*node
}

func (w want) String() string {
	names := w.model + " on"
	for _, n := range w.nodes {
		names += " " + n.name
	}
	return names
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
		prefix: fmt.Sprintf("sedna-ji-s%d-", number), wanted: map[string]want{}, down: map[*node]bool{},
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

// deviceName is the name of a job's Device for a node.
func deviceName(job string, n *node) string {
	return task.DeviceName(task.KindJointInference, "default", job, task.RoleEdge, n.name)
}

func (r *seed) note(rec history.Record) {
	rec.Observer = "generator"
	r.out.Write(rec)
}

func (r *seed) run(ctx context.Context) error {
	r.note(history.Record{Kind: history.KindRun, Event: history.Begin, Losses: strings.Join(r.s.Losses, ","), Detail: fmt.Sprintf("seed %d", r.number)})
	for i := range steps {
		if err := r.step(ctx); err != nil {
			return err
		}
		if r.s.Clocks && i%8 == 4 { // it is the cloud's clock that documents carry
			if err := r.crash(part{kind: globalManager}, ""); err != nil {
				return err
			}
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
	n := r.s.nodes[r.random.IntN(len(r.s.nodes))]
	switch dice := r.random.IntN(100); {
	case dice < 36:
		return r.apply(ctx, job, r.anything(), r.random.IntN(100))
	case dice < 42:
		return r.remove(ctx, job)
	case dice < 47:
		return r.again(ctx, job, r.anything(), r.random.IntN(100))
	case dice < 51:
		return r.removeDevice(ctx, job, n)
	case dice < 55:
		return r.force(ctx, job, n, r.random.IntN(2) == 0)
	case dice < 69:
		r.link(ctx, n, r.down[n])
	case dice < 77:
		return r.crash(part{localController, n}, r.mishap())
	case dice < 83:
		return r.crash(part{mapper, n}, r.mishap())
	case dice < 87:
		return r.restartBus(r.random.IntN(2) == 0)
	case dice < 90 && !r.clouded:
		r.clouded = true
		return r.crash(part{kind: globalManager}, "")
	case dice < 97:
		r.replay(ctx)
	default:
		r.clear(ctx, job)
	}
	return nil
}

// anything gives a model and some nodes.
func (r *seed) anything() want {
	w := want{model: models[r.random.IntN(len(models))]}
	if i := r.random.IntN(len(r.s.nodes) + 1); i < len(r.s.nodes) {
		w.nodes = r.s.nodes[i : i+1]
	} else {
		w.nodes = r.s.nodes
	}
	return w
}

// apply makes or changes a job. One that is still being deleted is left alone.
func (r *seed) apply(ctx context.Context, job string, w want, threshold int) error {
	if _, ok := r.wanted[job]; !ok {
		if gone, err := r.gone(ctx, job); err != nil || !gone {
			return err
		}
	}
	where := "nodeName: " + w.nodes[0].name
	if len(w.nodes) > 1 {
		where = fmt.Sprintf("nodeSelector: {%s: all}", siteLabel)
	}
	manifest := fmt.Sprintf(`
apiVersion: sedna.io/v1alpha1
kind: JointInferenceService
metadata: {name: %s, namespace: default}
spec:
  edgeWorker:
    %s
    model: {name: %s}
    hardExampleMining: {name: CrossEntropy, parameters: [{key: threshold_cross_entropy, value: "0.%02d"}]}
  cloudWorker: {model: {name: big}, endpoint: "http://127.0.0.1:1"}
`, job, where, w.model, threshold)
	r.wanted[job] = w
	r.note(history.Record{Kind: history.KindRun, Event: "apply", Namespace: "default", Detail: fmt.Sprintf("%s with %v, %d", job, w, threshold)})
	return r.call(ctx, func(ctx context.Context) error { return r.s.kube.ApplyManifest(ctx, []byte(manifest)) })
}

// gone tells whether there is no job of the name.
func (r *seed) gone(ctx context.Context, job string) (gone bool, err error) {
	err = r.call(ctx, func(ctx context.Context) error {
		err := r.s.kube.Get(ctx, client.ObjectKey{Namespace: "default", Name: job}, &sedna.JointInferenceService{})
		gone = absent(err)
		return unlessAbsent(err)
	})
	return gone, err
}

func (r *seed) remove(ctx context.Context, job string) error {
	delete(r.wanted, job)
	r.note(history.Record{Kind: history.KindRun, Event: "delete", Namespace: "default", Detail: job})
	return r.call(ctx, func(ctx context.Context) error {
		return unlessAbsent(r.s.kube.Delete(ctx, &sedna.JointInferenceService{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: job}}))
	})
}

// again deletes a job and makes it anew as soon as it is gone; one that does not
// go for now stays deleted.
func (r *seed) again(ctx context.Context, job string, w want, threshold int) error {
	if err := r.remove(ctx, job); err != nil {
		return err
	}
	for deadline := time.Now().Add(atOnce); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if gone, err := r.gone(ctx, job); err != nil || gone {
			return errors.Join(err, r.apply(ctx, job, w, threshold))
		}
	}
	return nil
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
		tasks, kept = nil, nil
		for _, n := range r.s.nodes {
			has, err := r.s.watch.tasks(ctx, n, r.prefix)
			if err != nil {
				return err
			}
			keeps, err := r.s.watch.retained(ctx, n, r.prefix)
			if err != nil {
				return err
			}
			tasks, kept = append(tasks, has...), append(kept, keeps...)
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
	there, n := r.devices(), 0
	for job, w := range r.wanted {
		for _, node := range w.nodes {
			n++
			name := deviceName(job, node)
			if !slices.ContainsFunc(there, func(d history.Record) bool {
				return d.Device == name && d.State == task.Active && d.Generation == d.DesiredGeneration && d.Phase == task.Running && d.Acked == d.Seq
			}) {
				return false
			}
		}
	}
	return len(there) == n
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
		if t.Seq != t.Acked || t.Seq != d.Seq || t.Generation != d.Generation || t.Phase != d.Phase {
			return "the node's task " + t.Device + " is not as the cloud knows it"
		}
	}
	for _, m := range kept {
		switch d, ok := live[m.UID]; {
		case ok && m.DesiredGeneration == d.DesiredGeneration:
			n++
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
