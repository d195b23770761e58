package robustness

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
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

// observer watches the API and the nodes' buses from outside. What it sees of
// the tasks of the seed at work goes into that seed's history.
type observer struct {
	s      *Stack
	buses  map[*node]*bus.Client
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	changed chan struct{}   // closed and replaced with every news
	heard   map[string]bool // nodes of which a beat has arrived
	prefix  string          // of the Device names of the seed at work
	out     *history.Writer
	devices map[string]history.Record // Desired, by Device name
	reports map[string]history.Record // Reported in the cloud, by Device name
	uids    map[string][]string       // all that a Device of the name ever had
	sent    []sent                    // desired messages on the buses, of the seed at work
	events  map[string]bool           // what nodes told, which can come twice
}

// sent is a desired message that was seen.
type sent struct {
	node *node
	bus.Message
}

func observe(s *Stack) (*observer, error) {
	o := &observer{
		s: s, buses: map[*node]*bus.Client{}, changed: make(chan struct{}), heard: map[string]bool{},
		devices: map[string]history.Record{}, reports: map[string]history.Record{}, uids: map[string][]string{}, events: map[string]bool{},
	}
	ctx, cancel := context.WithCancel(context.Background())
	o.cancel = cancel
	for _, n := range s.nodes {
		c, err := bus.New(bus.Options{URL: n.addr, ClientID: "observer", CleanSession: true, QueueSize: 1 << 16, MinBackoff: 5 * time.Millisecond, MaxBackoff: 20 * time.Millisecond})
		if err != nil {
			cancel()
			return nil, err
		}
		o.buses[n] = c
		// One subscription: what one sender publishes is then seen in its order.
		c.Subscribe("sedna/"+n.name+"/#", 1, func(m bus.Message) { o.onBus(n, m) })
		c.OnConnect(func() { o.sight(n, history.Seeing) })
		c.OnDisconnect(func() { o.sight(n, history.Blind) })
		c.Start(ctx)
	}
	o.wg.Go(func() { o.follow(ctx, &devices.DeviceList{}) })
	o.wg.Go(func() { o.follow(ctx, &devices.DeviceStatusList{}) })
	return o, nil
}

func (o *observer) close() {
	o.cancel()
	for _, c := range o.buses {
		c.Close()
	}
	o.wg.Wait()
}

// record puts the observer to work for one seed; nil ends that.
func (o *observer) record(prefix string, out *history.Writer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.prefix, o.out, o.sent = prefix, out, nil
	clear(o.events)
}

// sight notes whether a node's bus is seen.
func (o *observer) sight(n *node, event string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.out != nil {
		o.out.Write(history.Record{Observer: "bus", Kind: history.KindBus, Event: event, Node: n.name})
	}
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
	r := history.Record{Observer: "api", Kind: history.KindAPI, Event: history.Desired, Node: d.Labels[task.LabelNode], Namespace: d.Namespace, Device: d.Name, UID: string(d.UID)}
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
	for _, n := range o.s.nodes {
		if st.Name != task.NodeDeviceName(n.name) {
			continue
		}
		for _, t := range st.Status.Twins {
			if t.PropertyName == task.PropSeq && t.Reported.Value != "" {
				o.mu.Lock()
				o.heard[n.name] = true
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
	// KubeEdge may write a report in steps: until it is whole nobody believes it.
	if r.UID == "" || !o.signed(r.UID, props) || !report(&r, props) {
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

// signed tells whether a node has signed the properties for uid.
func (o *observer) signed(uid string, props map[string]string) bool {
	return slices.ContainsFunc(o.s.nodes, func(n *node) bool { return task.VerifyProperties(n.publicKey(), uid, props) == nil })
}

// onBus sees all that passes on a node's topics.
func (o *observer) onBus(n *node, m bus.Message) {
	if m.Topic == wire.Event(n.name, "task") {
		var e struct {
			Reason, Namespace, Device, UID string
			Generation                     int64
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		if json.Unmarshal(m.Payload, &e) == nil && !o.events[string(m.Payload)] {
			o.events[string(m.Payload)] = true // with its time, so nothing is like it
			o.write(history.Record{Observer: "bus", Kind: history.KindBus, Event: e.Reason, Node: n.name, Namespace: e.Namespace, Device: e.Device, UID: e.UID, Generation: e.Generation})
		}
		return
	}
	ns, device, leaf, ok := wire.ParseTask(n.name, m.Topic)
	if !ok || m.Retained {
		return
	}
	r := history.Record{Observer: "bus", Kind: history.KindBus, Event: history.Reported, Node: n.name, Namespace: ns, Device: device}
	o.mu.Lock()
	defer o.mu.Unlock()
	if leaf == "reported" {
		var props map[string]string
		if json.Unmarshal(m.Payload, &props) != nil || !report(&r, props) {
			return
		}
		for _, uid := range o.uids[device] {
			if task.VerifyProperties(n.publicKey(), uid, props) == nil {
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
			o.sent = append(o.sent, sent{n, m})
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

// messages gives the desired messages that were seen on the buses.
func (o *observer) messages() []sent {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]sent{}, o.sent...)
}

// retained asks a node's broker what it keeps for the seed's Devices.
func (o *observer) retained(ctx context.Context, n *node, prefix string) ([]history.Record, error) {
	c, err := bus.New(bus.Options{URL: n.addr, ClientID: "observer-retained", CleanSession: true})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var mu sync.Mutex
	var out []history.Record
	c.Subscribe(wire.TaskDesiredFilter(n.name), 1, func(m bus.Message) {
		ns, device, _, ok := wire.ParseTask(n.name, m.Topic)
		if !ok || !m.Retained || !strings.HasPrefix(device, prefix) {
			return
		}
		r := history.Record{Observer: "bus", Kind: history.KindEnd, Event: history.Retained, Node: n.name, Namespace: ns, Device: device}
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

// tasks asks a node's LocalController what it has of the seed's Devices.
func (o *observer) tasks(ctx context.Context, n *node, prefix string) ([]history.Record, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.edgeURL+"/v1/tasks", nil)
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
		r := history.Record{Observer: "http", Kind: history.KindEnd, Event: history.Task, Node: n.name, Namespace: t.Namespace, Device: t.Device,
			UID: t.UID, Generation: t.Generation, Phase: t.Phase, Seq: t.Seq, Acked: t.Acked}
		if i := strings.LastIndexByte(t.Model, ':'); i >= 0 {
			r.Model = t.Model[i+1:]
		}
		out = append(out, r)
	}
	return out, nil
}
