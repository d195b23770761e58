package inference

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/edgetwin/sedna/lib/engine"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/models/oip"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// feed makes requests for a service of the readings on the bus. It outlives the
// values of the service that take the same inputs, so that the exchange of a
// model leaves the windows as they are.
//
// Readings come on the router's goroutine and timers; the feed's own goroutine
// infers. While it is busy the windows go on, and only the newest that is due
// waits.
type feed struct {
	m      *Manager
	entry  *entry
	spec   []task.Input
	infos  []engine.TensorInfo
	topics map[string][]place
	wake   chan struct{} // capacity 1: a window may be due

	mu      sync.Mutex
	inputs  []*input
	closed  bool
	since   int   // rows of the first input since a window was due
	due     int64 // the row of the first input that ends the window that waits; 0: none
	values  []float64
	reading time.Time // when the last came
	err     string    // the last reading or window that was refused
}

// place is a source that a topic feeds.
type place struct{ input, source int }

// feedOf gives the feed of a service that is loaded: the one that there is
// where it fits, a new one, or nil for a service without inputs.
func (m *Manager) feedOf(e *entry, spec *ServiceSpec, infos []engine.TensorInfo, old *service) (*feed, error) {
	if len(spec.Inputs) == 0 {
		return nil, nil
	}
	if err := m.checkOwnResults(e.name, spec); err != nil {
		return nil, err
	}
	if old != nil && old.feed != nil && reflect.DeepEqual(old.feed.spec, spec.Inputs) && reflect.DeepEqual(old.feed.infos, infos) {
		return old.feed, nil
	}
	f := &feed{m: m, entry: e, spec: spec.Inputs, infos: infos, topics: map[string][]place{}, wake: make(chan struct{}, 1)}
	kept := 0
	for i, s := range spec.Inputs {
		field := fmt.Sprintf("inputs[%d]", i)
		if slices.ContainsFunc(f.inputs, func(in *input) bool { return in.spec.Tensor == s.Tensor }) {
			return nil, wire.E(wire.InvalidArgument, field+".tensor", fmt.Sprintf("%.80q is fed twice", s.Tensor), "")
		}
		in, err := newInput(m.cfg.Node, spec.Namespace, i, s, infos)
		if err != nil {
			return nil, err
		}
		if kept += in.cost(in.mostColumns()); kept > m.cfg.Limits.InputValues {
			return nil, wire.E(wire.TooLarge, field+".window", fmt.Sprintf("the windows hold more than %d values", m.cfg.Limits.InputValues), "use a smaller window")
		}
		for j := range in.sources {
			topic := in.sources[j].topic
			f.topics[topic] = append(f.topics[topic], place{i, j})
		}
		f.inputs = append(f.inputs, in)
	}
	for _, t := range infos {
		if !slices.ContainsFunc(f.inputs, func(in *input) bool { return in.spec.Tensor == t.Name }) {
			return nil, wire.E(wire.InvalidArgument, fmt.Sprintf("inputs[%d].tensor", len(f.inputs)), fmt.Sprintf("missing: the model also takes %q", t.Name), "")
		}
	}
	return f, nil
}

// checkOwnResults refuses a service that would answer its own answers for ever.
func (m *Manager) checkOwnResults(service string, spec *ServiceSpec) error {
	own := strings.TrimSuffix(wire.InferResults(m.cfg.Node, service), "result")
	property := ""
	if r := spec.Result; r != nil {
		property = wire.Sensor(m.cfg.Node, spec.Namespace, r.Device, r.Property)
	}
	for i, in := range spec.Inputs {
		for j, s := range in.Sources {
			field := fmt.Sprintf("inputs[%d].sources[%d]", i, j)
			switch {
			case strings.HasPrefix(s.Topic, own):
				return wire.E(wire.InvalidArgument, field+".topic", "is a topic of the service itself", "")
			case s.Topic != "" && s.Topic == property:
				return wire.E(wire.InvalidArgument, field+".topic", "is the service's own resultProperty", "")
			case s.Topic == "" && property == wire.Sensor(m.cfg.Node, spec.Namespace, s.Device, s.Property):
				return wire.E(wire.InvalidArgument, field+".property", "is the service's own resultProperty", "")
			}
		}
	}
	return nil
}

// take reads a message into the sources at the places, all before the first
// row is made of them. What the broker kept is a value of unknown age: it fills
// a source that any age will do for, and makes no row.
func (f *feed) take(places []place, payload []byte, retained bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	now := time.Now()
	var spoke uint64 // a bit for each input whose first source has news
	for _, p := range places {
		in := f.inputs[p.input]
		if retained && in.spec.MaxAge() > 0 {
			continue
		}
		var err error
		if most := f.m.cfg.Limits.ReadingBytes; len(payload) > most {
			err = wire.E(wire.TooLarge, "", fmt.Sprintf("message of %d bytes, at most %d are taken", len(payload), most), "")
		} else {
			f.values, err = in.take(p.source, payload, f.values, now)
		}
		src := &in.sources[p.source]
		if err != nil {
			f.refuse(src.field, src.name, err, !src.bad)
			src.bad = true
			continue
		}
		src.bad = false
		f.reading = now
		f.entry.stats.readings.Add(1)
		if p.source == 0 && !retained {
			spoke |= 1 << p.input
		}
	}
	// The first input is last, since it may find the windows due.
	for i := len(f.inputs) - 1; i >= 0; i-- {
		if spoke&(1<<i) != 0 {
			f.row(i, now, 0)
			f.watch(i)
		}
	}
}

// refuse counts a reading and says why, in the log the first time in a row.
func (f *feed) refuse(field, name string, err error, first bool) {
	e := *wire.AsError(err)
	e.Field, e.Message = field, name+": "+e.Message
	_ = f.m.cfg.Metrics.Reject(metrics.DoorMQTT, &e)
	f.entry.stats.refused.Add(1)
	f.err = e.Error()
	if first {
		f.m.cfg.Log.Warn("reading refused", "service", f.entry.name, "source", name, "error", e.Error())
	}
}

// row makes a row of input i, where its sources allow; silent are those that
// are missing whatever their age.
func (f *feed) row(i int, now time.Time, silent uint64) {
	in := f.inputs[i]
	missing, never := in.lacking(now)
	missing |= silent
	if never || missing != 0 && in.spec.OnMissing != task.MissingLast {
		f.entry.stats.skipped.Add(1)
		return
	}
	if in.columns == 0 {
		free := f.m.cfg.Limits.InputValues
		for _, other := range f.inputs {
			if other != in {
				free -= other.cost(max(other.columns, other.mostColumns()))
			}
		}
		if err := in.begin(free); err != nil {
			f.refuse(fmt.Sprintf("inputs[%d]", i), in.spec.Tensor, err, !in.bad)
			in.bad = true
			return
		}
	}
	in.add(missing)
	if i == 0 {
		f.pace()
	}
}

// pace tells whether the row of the first input that was just made ends a
// window that is due.
func (f *feed) pace() {
	f.since++
	first := f.inputs[0]
	for _, in := range f.inputs {
		if !in.full() {
			return
		}
	}
	if f.since < first.spec.Stride {
		return
	}
	f.since = 0
	if f.due != 0 {
		f.entry.stats.dropped.Add(1)
	}
	f.due = first.rows
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// watch sees to rows of input i while its first source is silent.
func (f *feed) watch(i int) {
	in := f.inputs[i]
	switch age := in.spec.MaxAge(); {
	case age == 0 || in.spec.OnMissing != task.MissingLast:
	case in.timer == nil:
		in.timer = time.AfterFunc(age, func() { f.tick(i) })
	default:
		in.timer.Reset(age)
	}
}

// tick makes a row without the first source of input i.
func (f *feed) tick(i int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	in, now := f.inputs[i], time.Now()
	wait := in.spec.MaxAge() - now.Sub(in.sources[0].at)
	if wait <= 0 {
		f.row(i, now, 1)
		wait = in.spec.MaxAge()
	}
	in.timer.Reset(wait)
}

// work infers what is due until ctx ends.
func (f *feed) work(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.wake:
			f.answer()
		}
	}
}

// answer infers the newest window that is due and publishes the result.
func (f *feed) answer() {
	g := f.m.link.Load()
	if g == nil {
		return // nobody would take the answer
	}
	_, l, err := f.m.lease(f.entry.name)
	if err != nil {
		return // stopped
	}
	defer l.Release()
	s := l.Value
	if s.feed != f {
		return // exchanged
	}
	inputs, missing := f.window()
	if inputs == nil {
		return
	}
	req := &oip.InferRequest{ID: uuid.Must(uuid.NewV7()).String(), Inputs: inputs}
	o, err := s.infer(g.ctx, &f.entry.stats, req)
	if err != nil {
		f.mu.Lock()
		f.err = err.Error()
		f.mu.Unlock()
		g.outbox.put(g.ctx, g.refusal(s.name, "", err))
		return
	}
	if len(missing) > 0 {
		o.resp.Parameters[ParamMissing] = strings.Join(missing, ",")
	}
	f.entry.stats.answers.Add(1)
	g.outbox.put(g.ctx, g.unasked(s, o))
}

// window gives the tensors of what is due, nil when nothing is, and the sources
// that were missing. They are good until the next call.
func (f *feed) window() (inputs []oip.Tensor, missing []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.due == 0 || f.closed {
		return nil, nil
	}
	for i, in := range f.inputs {
		last := in.rows
		if i == 0 {
			last = f.due
		}
		for _, name := range in.names(in.fill(last)) {
			if !slices.Contains(missing, name) {
				missing = append(missing, name)
			}
		}
		inputs = append(inputs, in.tensor.Tensor)
	}
	f.due = 0
	return inputs, missing
}

// close ends the feed; no row is made afterwards.
func (f *feed) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for _, in := range f.inputs {
		if in.timer != nil {
			in.timer.Stop()
		}
	}
}

// InputsStatus is the state of a service's inputs.
type InputsStatus struct {
	Tensors   []InputStatus `json:"tensors"`
	Readings  int64         `json:"readings"` // taken
	Refused   int64         `json:"refused"`  // messages that hold no reading that fits
	Skipped   int64         `json:"skipped"`  // rows that were not made because a reading was missing
	Answers   int64         `json:"answers"`
	Dropped   int64         `json:"dropped"`             // windows that a newer one overtook
	LastAgeMS *int64        `json:"lastReadingAgeMs"`    // null before the first
	LastError string        `json:"lastError,omitempty"` // the newest reading or window that was refused
}

// InputStatus is the state of one tensor.
type InputStatus struct {
	Tensor  string   `json:"tensor"`
	Window  int      `json:"window"`
	Rows    int64    `json:"rows"`              // made so far
	Missing []string `json:"missing,omitempty"` // sources without a reading that counts, now
}

func (f *feed) status() *InputsStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	st, now := &f.entry.stats, time.Now()
	s := &InputsStatus{
		Readings: st.readings.Load(), Refused: st.refused.Load(), Skipped: st.skipped.Load(), Answers: st.answers.Load(), Dropped: st.dropped.Load(),
		LastError: f.err,
	}
	if !f.reading.IsZero() {
		age := now.Sub(f.reading).Milliseconds()
		s.LastAgeMS = &age
	}
	for _, in := range f.inputs {
		missing, _ := in.lacking(now)
		s.Tensors = append(s.Tensors, InputStatus{Tensor: in.spec.Tensor, Window: in.layout.window, Rows: in.rows, Missing: in.names(missing)})
	}
	return s
}
