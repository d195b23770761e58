package robustness

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/lib/history"
	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// observer watches the API and the bus from outside. What it sees of the tasks
// of the seed at work goes into that seed's history.
type observer struct {
	s      *Stack
	key    ed25519.PublicKey
	bus    *bus.Client
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	changed chan struct{} // closed and replaced with every news
	heard   bool          // a beat of the node has arrived
	prefix  string        // of the Device names of the seed at work
	out     *history.Writer
	devices map[string]history.Record // Desired, by Device name
	reports map[string]history.Record // Reported in the cloud, by Device name
	uids    map[string][]string       // all that a Device of the name ever had
	sent    []bus.Message             // desired messages on the bus, of the seed at work
}

func observe(s *Stack) (*observer, error) {
	c, err := bus.New(bus.Options{URL: s.broker.Addr(), ClientID: "observer", CleanSession: true, QueueSize: 1 << 16})
	if err != nil {
		return nil, err
	}
	o := &observer{
		s: s, key: s.node.Key().Public().(ed25519.PublicKey), bus: c, changed: make(chan struct{}),
		devices: map[string]history.Record{}, reports: map[string]history.Record{}, uids: map[string][]string{},
	}
	ctx, cancel := context.WithCancel(context.Background())
	o.cancel = cancel
	// One subscription: what one sender publishes is then seen in its order.
	c.Subscribe("sedna/"+nodeName+"/#", 1, o.onBus)
	c.Start(ctx)
	o.wg.Go(func() { o.follow(ctx, &devices.DeviceList{}) })
	o.wg.Go(func() { o.follow(ctx, &devices.DeviceStatusList{}) })
	return o, nil
}

func (o *observer) close() {
	o.cancel()
	o.bus.Close()
	o.wg.Wait()
}

// record puts the observer to work for one seed; nil ends that.
func (o *observer) record(prefix string, out *history.Writer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.prefix, o.out, o.sent = prefix, out, nil
}

// write records r if it is about the seed at work. The lock is held.
func (o *observer) write(r history.Record) {
	if o.out != nil && strings.HasPrefix(r.Device, o.prefix) {
		o.out.Write(r)
	}
}

func (o *observer) news() {
	close(o.changed)
	o.changed = make(chan struct{})
}

// await waits until ok, which is called with the lock held, is true.
func (o *observer) await(ctx context.Context, what string, bound time.Duration, ok func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	for {
		o.mu.Lock()
		done, changed := ok(), o.changed
		o.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %s", what, bound)
		}
	}
}

// follow watches objects of list's kind, again and again: the API is killed too.
func (o *observer) follow(ctx context.Context, list client.ObjectList) {
	for ctx.Err() == nil {
		if err := o.followOnce(ctx, list); err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
}

func (o *observer) followOnce(ctx context.Context, list client.ObjectList) error {
	// A killed server may leave a connection that nobody closes.
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := o.s.kube.List(ctx, list); err != nil {
		return err
	}
	w, err := o.s.kube.Watch(ctx, list, &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: list.GetResourceVersion()}})
	if err != nil {
		return err
	}
	defer w.Stop()
	switch l := list.(type) {
	case *devices.DeviceList:
		o.listed(l)
	case *devices.DeviceStatusList:
		for i := range l.Items {
			o.onStatus(&l.Items[i])
		}
	}
	for e := range w.ResultChan() {
		switch obj := e.Object.(type) {
		case *devices.Device:
			if e.Type == watch.Deleted {
				o.onGone(obj.Name, string(obj.UID))
			} else {
				o.onDevice(obj)
			}
		case *devices.DeviceStatus:
			if e.Type != watch.Deleted {
				o.onStatus(obj)
			}
		default:
			return fmt.Errorf("watch: %v", e.Object)
		}
	}
	return nil
}

// listed takes a whole list: what is missing went while nobody watched.
func (o *observer) listed(l *devices.DeviceList) {
	there := map[string]bool{}
	for i := range l.Items {
		there[string(l.Items[i].UID)] = true
	}
	o.mu.Lock()
	var gone []history.Record
	for _, d := range o.devices {
		if !there[d.UID] {
			gone = append(gone, d)
		}
	}
	o.mu.Unlock()
	for _, d := range gone {
		o.onGone(d.Device, d.UID)
	}
	for i := range l.Items {
		o.onDevice(&l.Items[i])
	}
}

func (o *observer) onGone(name, uid string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.devices[name].UID != uid {
		return // it has a successor
	}
	delete(o.devices, name)
	delete(o.reports, name)
	o.write(history.Record{Observer: "api", Kind: history.KindAPI, Event: history.Gone, Device: name, UID: uid})
	o.news()
}

func (o *observer) onDevice(d *devices.Device) {
	r, ok := desiredOf(d)
	if !ok {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	before := o.devices[d.Name]
	if before == r {
		return
	}
	if before.UID != "" && before.UID != r.UID {
		delete(o.reports, d.Name)
		o.write(history.Record{Observer: "api", Kind: history.KindAPI, Event: history.Gone, Device: d.Name, UID: before.UID})
	}
	o.devices[d.Name] = r
	o.know(d.Name, r.UID)
	o.write(r)
	o.news()
}

// know remembers a uid of a Device; reports do not name theirs.
func (o *observer) know(device, uid string) {
	for _, u := range o.uids[device] {
		if u == uid {
			return
		}
	}
	o.uids[device] = append(o.uids[device], uid)
}

// desiredOf reads what a task Device asks for.
func desiredOf(d *devices.Device) (history.Record, bool) {
	r := history.Record{Observer: "api", Kind: history.KindAPI, Event: history.Desired, Namespace: d.Namespace, Device: d.Name, UID: string(d.UID)}
	if d.Labels[task.LabelKind] == "" {
		return r, false
	}
	for _, p := range d.Spec.Properties {
		if p.Desired == nil {
			continue
		}
		switch p.Name {
		case task.PropTask:
			if !document(&r, p.Desired.Value) {
				return r, false
			}
		case task.PropNonce:
			n, err := task.ParseNonce(p.Desired.Value)
			if err != nil {
				return r, false
			}
			r.Acked = n.Acked
		}
	}
	return r, r.DesiredGeneration > 0
}

// document reads what the history says of a task document.
func document(r *history.Record, text string) bool {
	doc, err := task.Parse([]byte(text))
	if err != nil {
		return false
	}
	r.UID, r.DesiredGeneration, r.State = doc.UID, doc.Generation, doc.State
	if spec, err := doc.JointInference(); doc.State == task.Active && err == nil {
		r.Model = short(spec.Model.SHA256)
	}
	return true
}

// short is a digest as reports give it.
func short(digest string) string { return digest[:min(len(digest), 12)] }

// report reads what a node says; false when it is incomplete.
func report(r *history.Record, props map[string]string) bool {
	p, err := task.ParseReport(props)
	if err != nil {
		return false
	}
	r.Generation, r.Phase, r.Seq = p.Generation, p.Phase, p.Seq
	if i := strings.LastIndexByte(p.Model, ':'); i >= 0 {
		r.Model = p.Model[i+1:]
	}
	return true
}

func (o *observer) onStatus(st *devices.DeviceStatus) {
	if st.Name == task.NodeDeviceName(nodeName) {
		for _, t := range st.Status.Twins {
			if t.PropertyName == task.PropSeq && t.Reported.Value != "" {
				o.mu.Lock()
				o.heard = true
				o.news()
				o.mu.Unlock()
			}
		}
		return
	}
	r := history.Record{Observer: "api", Kind: history.KindAPI, Event: history.Reported, Namespace: st.Namespace, Device: st.Name}
	if c := metav1.GetControllerOf(st); c != nil {
		r.UID = string(c.UID)
	}
	props := map[string]string{}
	for _, t := range st.Status.Twins {
		props[t.PropertyName] = t.Reported.Value
	}
	if r.UID == "" || !report(&r, props) {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.reports[st.Name] == r {
		return
	}
	o.reports[st.Name] = r
	o.write(r)
	o.news()
}

// onBus sees all that passes on the node's topics.
func (o *observer) onBus(m bus.Message) {
	if m.Topic == wire.Event(nodeName, "task") {
		var e struct {
			Reason, Namespace, Device, UID string
			Generation                     int64
		}
		if json.Unmarshal(m.Payload, &e) == nil {
			o.mu.Lock()
			o.write(history.Record{Observer: "bus", Kind: history.KindBus, Event: e.Reason, Node: nodeName, Namespace: e.Namespace, Device: e.Device, UID: e.UID, Generation: e.Generation})
			o.mu.Unlock()
		}
		return
	}
	ns, device, leaf, ok := wire.ParseTask(nodeName, m.Topic)
	if !ok || m.Retained {
		return
	}
	r := history.Record{Observer: "bus", Kind: history.KindBus, Event: history.Reported, Node: nodeName, Namespace: ns, Device: device}
	o.mu.Lock()
	defer o.mu.Unlock()
	if leaf == "reported" {
		var props map[string]string
		if json.Unmarshal(m.Payload, &props) != nil || !report(&r, props) {
			return
		}
		for _, uid := range o.uids[device] {
			if task.VerifyProperties(o.key, uid, props) == nil {
				r.UID = uid
			}
		}
		o.write(r)
		return
	}
	if r.Event = history.Cleared; len(m.Payload) > 0 {
		if r.Event = history.Desired; !desiredMessage(&r, m.Payload) {
			return
		}
		o.know(device, r.UID)
		if strings.HasPrefix(device, o.prefix) {
			o.sent = append(o.sent, m)
		}
	}
	o.write(r)
}

func desiredMessage(r *history.Record, payload []byte) bool {
	var d task.Desired
	if json.Unmarshal(payload, &d) != nil {
		return false
	}
	if n, err := task.ParseNonce(d.Nonce); err == nil {
		r.Acked = n.Acked
	}
	return document(r, d.Task)
}

// messages gives the desired messages that were seen on the bus.
func (o *observer) messages() []bus.Message {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]bus.Message{}, o.sent...)
}

// retained asks the broker what it keeps for the seed's Devices.
func (o *observer) retained(ctx context.Context, prefix string) ([]history.Record, error) {
	c, err := bus.New(bus.Options{URL: o.s.broker.Addr(), ClientID: "observer-retained", CleanSession: true})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var mu sync.Mutex
	var out []history.Record
	c.Subscribe(wire.TaskDesiredFilter(nodeName), 1, func(m bus.Message) {
		ns, device, _, ok := wire.ParseTask(nodeName, m.Topic)
		if !ok || !m.Retained || !strings.HasPrefix(device, prefix) {
			return
		}
		r := history.Record{Observer: "bus", Kind: history.KindEnd, Event: history.Retained, Node: nodeName, Namespace: ns, Device: device}
		if desiredMessage(&r, m.Payload) {
			mu.Lock()
			out = append(out, r)
			mu.Unlock()
		}
	})
	up := make(chan struct{}, 1)
	c.OnConnect(func() {
		select {
		case up <- struct{}{}:
		default:
		}
	})
	c.Start(ctx)
	select {
	case <-up:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	// The broker sends what it keeps behind its answer to the subscription.
	const within = 200 * time.Millisecond
	time.Sleep(within)
	mu.Lock()
	defer mu.Unlock()
	return out, nil
}

// tasks asks the LocalController what it has of the seed's Devices.
func (o *observer) tasks(ctx context.Context, prefix string) ([]history.Record, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+o.s.edgeURL+"/v1/tasks", nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var list struct {
		Tasks []struct {
			Namespace, Device, UID, Phase, Model string
			Generation, Seq, Acked               int64
		}
	}
	if err := json.NewDecoder(res.Body).Decode(&list); err != nil {
		return nil, err
	}
	var out []history.Record
	for _, t := range list.Tasks {
		if !strings.HasPrefix(t.Device, prefix) {
			continue
		}
		r := history.Record{Observer: "http", Kind: history.KindEnd, Event: history.Task, Node: nodeName, Namespace: t.Namespace, Device: t.Device,
			UID: t.UID, Generation: t.Generation, Phase: t.Phase, Seq: t.Seq, Acked: t.Acked}
		if i := strings.LastIndexByte(t.Model, ':'); i >= 0 {
			r.Model = t.Model[i+1:]
		}
		out = append(out, r)
	}
	return out, nil
}
