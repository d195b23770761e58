package devices

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	pb "github.com/edgetwin/sedna/models/dmi"
	"github.com/edgetwin/sedna/models/wire"
)

// Device states, as KubeEdge names them.
const (
	online    = "online"
	offline   = "offline"
	unhealthy = "unhealthy"
	unknown   = "unknown"
)

// errChanged ends a session: another driver has to be made.
var errChanged = errors.New("the device was configured anew")

// supervisor runs one device. Fields below mu are shared; all others belong to
// the goroutine in run.
type supervisor struct {
	e        *Engine
	key      key
	protocol string
	after    *supervisor // a predecessor of the same name, which has to end first
	log      *slog.Logger

	changed chan struct{} // capacity 1: there is another plan, an emitted reading or a write off the bus
	check   chan struct{} // capacity 1: the driver wants Read called
	ctx     context.Context
	stop    context.CancelFunc
	done    chan struct{} // closed at the end of run

	plan     *plan
	due      map[string]time.Time // when each property is read next
	written  map[string]string    // desired values that the device has taken
	seen     map[string]string    // desired values that were looked at, taken or not
	writes   map[string]any       // values to be written
	wanted   map[string]string    // what the cloud desired, where writes came from it
	reported map[string]time.Time // when each property was last reported
	late     map[string]any       // values whose report waits for its cycle
	shown    map[string]time.Time // when each emitted property was last delivered
	problems map[string]error     // by property
	worked   bool                 // since the last connect
	push     *pusher              // nil: nothing was pushed yet
	pushDone chan struct{}

	mu      sync.Mutex
	latest  *pb.Device
	next    *plan // to be taken over; nil: none
	emitted map[string]Reading
	sets    map[string]any   // writes off the bus, checked
	signed  map[string]int64 // time of the last signed write of each property
	last    map[string]Last  // reading of each property
	current map[string]*property
	state   string
	problem string
}

func newSupervisor(e *Engine, k key, protocol string, after *supervisor) *supervisor {
	s := &supervisor{
		e: e, key: k, protocol: protocol, after: after,
		log:     e.c.Log.With("device", k.String(), "protocol", protocol),
		changed: make(chan struct{}, 1), check: make(chan struct{}, 1), done: make(chan struct{}),
		reported: map[string]time.Time{}, shown: map[string]time.Time{},
		emitted: map[string]Reading{}, sets: map[string]any{}, signed: map[string]int64{}, last: map[string]Last{}, state: unknown,
	}
	s.ctx, s.stop = context.WithCancel(e.ctx)
	s.reset()
	return s
}

// reset forgets what belongs to one driver.
func (s *supervisor) reset() {
	s.due, s.problems = map[string]time.Time{}, map[string]error{}
	s.written, s.seen = map[string]string{}, map[string]string{}
	s.writes, s.wanted = map[string]any{}, map[string]string{}
	s.late = map[string]any{}
}

// tell hands over a plan; the newest counts.
func (s *supervisor) tell(d *pb.Device, p *plan) {
	s.mu.Lock()
	s.latest, s.next, s.current = d, p, p.properties
	maps.DeleteFunc(s.signed, func(name string, _ int64) bool { return p.properties[name] == nil })
	s.mu.Unlock()
	wake(s.changed)
}

func (s *supervisor) device() *pb.Device {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.latest
}

func (s *supervisor) status() (state, problem string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state, s.problem
}

// readings gives the last reading of each property.
func (s *supervisor) readings() map[string]Last {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.last)
}

// write takes a write off the bus. at is the time of a signed one, which has to
// grow with each of a property; 0: it is not signed.
func (s *supervisor) write(name, text string, at int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.current[name]
	switch newest := s.signed[name]; {
	case p == nil:
		return wire.E(wire.NotFound, "", fmt.Sprintf("the device has no property %.80q", name), "")
	case at != 0 && at == newest:
		return nil // delivered once more
	case at != 0 && at < newest:
		return wire.E(wire.Stale, "timestamp", "a newer write of this property was taken", "")
	case p.visited && !p.Writable:
		return wire.E(wire.PermissionDenied, "", "the DeviceModel makes the property ReadOnly", "")
	}
	if at != 0 {
		s.signed[name] = at
	}
	v, err := p.value(Reading{Value: text})
	if err != nil {
		return err
	}
	s.sets[name] = v
	wake(s.changed)
	return nil
}

// emit is Setup.Emit.
func (s *supervisor) emit(name string, r Reading) {
	if r.Time.IsZero() {
		r.Time = time.Now()
	}
	s.mu.Lock()
	s.emitted[name] = r
	s.mu.Unlock()
	wake(s.changed)
}

// run is the device's life.
func (s *supervisor) run() {
	defer close(s.done)
	defer s.stop()
	if s.after != nil {
		<-s.after.done
		s.after = nil
	}
	defer func() {
		if s.push != nil {
			s.stop()
			<-s.pushDone
		}
	}()
	wait := s.e.c.Limits.MinBackoff
	for s.ctx.Err() == nil {
		s.takePlan()
		if s.plan.err != nil {
			s.report(unhealthy, s.plan.err)
			sleep(s.ctx, s.changed, 0)
			continue
		}
		before := s.plan
		err := s.operate(&wait)
		switch {
		case s.ctx.Err() != nil:
		case errors.Is(err, errChanged):
			wait = s.e.c.Limits.MinBackoff
		default:
			// A driver that cannot be made, or that panicked: only another
			// configuration, or time, may help.
			s.report(unhealthy, err)
			s.log.Error("device cannot be run", "err", err)
			s.pause(&wait, before)
		}
	}
}

// takePlan takes over the newest plan.
func (s *supervisor) takePlan() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next != nil {
		s.plan, s.next = s.next, nil
		maps.DeleteFunc(s.last, func(name string, _ Last) bool { return s.plan.properties[name] == nil })
	}
}

// superseded tells whether a plan waits that p's driver cannot serve.
func (s *supervisor) superseded(p *plan) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.next != nil && (s.next.err != nil || s.next.identity != p.identity)
}

// operate makes a driver and keeps it connected until another is needed.
func (s *supervisor) operate(wait *time.Duration) (err error) {
	defer shield(&err)
	s.reset()
	setup := s.plan.setup
	setup.Emit, setup.Wake, setup.Log = s.emit, func() { wake(s.check) }, s.log
	d, err := s.e.c.Drivers[s.protocol](setup)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := s.closeDriver(d); cerr != nil {
			s.log.Warn("driver did not close cleanly", "err", cerr)
		}
	}()
	for {
		err := s.call(d.Connect)
		if err == nil {
			s.log.Debug("device connected")
			s.worked = false
			if err = s.session(d); s.worked {
				*wait = s.e.c.Limits.MinBackoff
			}
		}
		if s.ctx.Err() != nil || errors.Is(err, errChanged) {
			return err
		}
		s.e.m.failures.WithLabelValues(s.protocol).Inc()
		if state, _ := s.status(); state != offline {
			s.log.Warn("device is offline, trying on", "err", err)
		}
		s.report(offline, err)
		if s.pause(wait, s.plan); s.superseded(s.plan) {
			return errChanged
		}
	}
}

// closeDriver shields from a panic that Close makes on the way out of another.
func (s *supervisor) closeDriver(d Driver) (err error) {
	defer shield(&err)
	return d.Close()
}

func shield(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("the driver panicked: %v\n%s", p, debug.Stack())
	}
}

// call bounds one call to the driver.
func (s *supervisor) call(f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(s.ctx, s.e.c.Limits.Call)
	defer cancel()
	return f(ctx)
}

// pause waits out the back-off and doubles it; a plan that p's driver cannot
// serve ends it.
func (s *supervisor) pause(wait *time.Duration, p *plan) {
	until := time.Now().Add(*wait + time.Duration(rand.Int64N(int64(*wait)/5+1)))
	*wait = min(2**wait, s.e.c.Limits.MaxBackoff)
	for s.ctx.Err() == nil && !s.superseded(p) {
		left := time.Until(until)
		if left <= 0 {
			return
		}
		sleep(s.ctx, s.changed, left)
	}
}

// session reads and writes a connected device until something fails.
func (s *supervisor) session(d Driver) error {
	s.due = map[string]time.Time{}
	// What the device said before it went would look fresh.
	maps.DeleteFunc(s.late, func(name string, _ any) bool {
		p := s.plan.properties[name]
		return p == nil || p.visited
	})
	if err := s.adopt(); err != nil {
		return err
	}
	// The first look also tells whether a device without readings is there.
	if err := s.read(d, time.Now(), true); err != nil {
		return err
	}
	health := time.Now().Add(s.e.c.Limits.Health)
	for {
		if err := s.adopt(); err != nil {
			return err
		}
		if err := s.flush(d); err != nil {
			return err
		}
		next := s.drain(time.Now())
		if at := s.catchUp(time.Now()); !at.IsZero() {
			next = earliest(next, at)
		}
		for _, at := range s.due {
			next = earliest(next, at)
		}
		next = earliest(next, health)
		t := time.NewTimer(max(time.Until(next), 0))
		looked := false
		select {
		case <-s.ctx.Done():
			t.Stop()
			return s.ctx.Err()
		case <-s.changed:
		case <-s.check:
			looked = true
		case <-t.C:
		}
		t.Stop()
		now := time.Now()
		looked = looked || !now.Before(health)
		if err := s.read(d, now, looked); err != nil {
			return err
		}
		if looked {
			health = now.Add(s.e.c.Limits.Health)
		}
	}
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// adopt takes over a newer plan that this driver can serve, and looks for
// desired values that are new.
func (s *supervisor) adopt() error {
	if s.superseded(s.plan) {
		return errChanged
	}
	s.takePlan()
	now := time.Now()
	for name := range s.due {
		if p := s.plan.properties[name]; p == nil || !p.visited {
			delete(s.due, name)
		} else if limit := now.Add(p.collect); s.due[name].After(limit) {
			s.due[name] = limit // the cycle has become shorter
		}
	}
	for _, name := range s.plan.names {
		p := s.plan.properties[name]
		if _, ok := s.due[name]; !ok && p.Kind != Stream {
			s.due[name] = now
		}
		if p.desired == s.seen[name] {
			continue
		}
		s.seen[name] = p.desired
		delete(s.problems, writeProblem+name)
		if p.desired != "" {
			s.desire(p)
		}
	}
	maps.DeleteFunc(s.problems, func(name string, _ error) bool {
		return s.plan.properties[strings.TrimPrefix(name, writeProblem)] == nil
	})
	return nil
}

// desire checks what the cloud wants a property to be.
func (s *supervisor) desire(p *property) {
	v, err := p.Kind.Parse(p.desired)
	if err == nil {
		err = p.bounds.check(v)
	}
	if !p.Writable {
		err = wire.E(wire.PermissionDenied, "properties["+p.Name+"].desired", "the DeviceModel makes the property ReadOnly", "")
	}
	if err != nil {
		s.refused(p.Name, err)
		return
	}
	s.writes[p.Name], s.wanted[p.Name] = v, p.desired
}

// refused notes a value that will never be written.
func (s *supervisor) refused(name string, err error) {
	s.e.m.writes.WithLabelValues(s.protocol, "refused").Inc()
	s.log.Warn("value not written", "property", name, "err", err)
	s.problems[writeProblem+name] = fmt.Errorf("write %s: %w", name, err)
}

// writeProblem tells problems of writing from those of reading, whose key is
// the name alone.
const writeProblem = "write "

// flush writes what waits.
func (s *supervisor) flush(d Driver) error {
	s.mu.Lock()
	sets := s.sets
	s.sets = map[string]any{}
	s.mu.Unlock()
	for name, v := range sets {
		if p := s.plan.properties[name]; p == nil {
			continue
		} else if p.visited {
			s.writes[name] = v
			delete(s.wanted, name)
		} else {
			// A property that no driver serves is what was written last.
			s.deliver(p, Reading{Value: v, Time: time.Now()})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.writes)) {
		v := s.writes[name]
		err := s.call(func(ctx context.Context) error { return d.Write(ctx, name, v) })
		switch {
		case err == nil:
			s.worked = true
			s.e.m.writes.WithLabelValues(s.protocol, "done").Inc()
			delete(s.problems, writeProblem+name)
			if w, ok := s.wanted[name]; ok {
				s.written[name] = w
				delete(s.reported, name) // the cloud waits for it
			}
			s.due[name] = time.Now() // show what has become of it
		case terminal(err):
			s.refused(name, err)
		default:
			s.e.m.writes.WithLabelValues(s.protocol, "failed").Inc()
			return fmt.Errorf("write %s: %w", name, err)
		}
		delete(s.writes, name)
		delete(s.wanted, name)
	}
	s.settle()
	return nil
}

// terminal tells whether a device will never take a value.
func terminal(err error) bool {
	for _, c := range []wire.Code{wire.InvalidArgument, wire.TooLarge, wire.PermissionDenied, wire.Unimplemented} {
		if wire.IsCode(err, c) {
			return true
		}
	}
	return false
}

// read reads what is due; with look it calls the driver even when nothing is.
func (s *supervisor) read(d Driver, now time.Time, look bool) error {
	// What is due within a moment is read along.
	const together = 2 * time.Millisecond
	var names []string
	for name, at := range s.due {
		if at.Sub(now) <= together {
			names = append(names, name)
		}
	}
	if len(names) == 0 && !look {
		return nil
	}
	slices.Sort(names)
	var readings map[string]Reading
	err := s.call(func(ctx context.Context) (err error) {
		readings, err = d.Read(ctx, names)
		return err
	})
	if err != nil {
		return err
	}
	s.worked = true
	for _, name := range names {
		p := s.plan.properties[name]
		for at := s.due[name]; ; {
			// Cycles that were missed are not made up for.
			if at = at.Add(p.collect); at.After(now) {
				s.due[name] = at
				break
			}
			if behind := now.Sub(at); behind > p.collect {
				at = at.Add(behind.Truncate(p.collect))
			}
		}
		if r, ok := readings[name]; ok {
			if r.Time.IsZero() {
				r.Time = time.Now()
			}
			s.deliver(p, r)
		}
	}
	s.settle()
	return nil
}

// drain delivers what the device has sent of itself, and gives the time when
// the next of it may be delivered (zero: nothing waits).
func (s *supervisor) drain(now time.Time) (next time.Time) {
	s.mu.Lock()
	ready := map[string]Reading{}
	for name, r := range s.emitted {
		p := s.plan.properties[name]
		if p == nil {
			delete(s.emitted, name)
			continue
		}
		if at := s.shown[name].Add(p.collect); p.throttle && at.After(now) {
			next = earliest(next, at)
			continue
		}
		ready[name] = r
		delete(s.emitted, name)
	}
	s.mu.Unlock()
	for name, r := range ready {
		s.shown[name] = now
		s.deliver(s.plan.properties[name], r)
	}
	if len(ready) > 0 {
		s.settle()
	}
	return next
}

// deliver checks a reading and sends it where it has to go.
func (s *supervisor) deliver(p *property, r Reading) {
	v, err := p.value(r)
	if err != nil {
		s.e.m.refused.WithLabelValues(s.protocol).Inc()
		s.problems[p.Name] = fmt.Errorf("%s: %w", p.Name, err)
		return
	}
	delete(s.problems, p.Name)
	s.e.m.readings.WithLabelValues(s.protocol).Inc()
	payload := encode(s.key.name, p, v, r.Time)
	// What has begun is let end: a client that is closed over it waits long.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), s.e.c.Limits.Publish)
	if s.e.c.Bus.Publish(ctx, wire.Sensor(s.e.c.Node, s.key.ns, s.key.name, p.Name), 0, false, payload) != nil {
		s.e.m.unpublished.WithLabelValues(s.protocol).Inc()
	}
	cancel()
	if p.mqtt != nil || p.http != nil {
		s.pusher().offer(p, payload)
	}
	s.mu.Lock()
	s.last[p.Name] = last(p, v, r.Time)
	s.mu.Unlock()
	if !p.toCloud {
		return
	}
	// Half a reading's cycle of tolerance keeps a report from slipping to the
	// reading after.
	if now := time.Now(); now.Add(p.collect / 2).Before(s.reported[p.Name].Add(p.report)) {
		s.late[p.Name] = v
	} else {
		s.tellCloud(p, v, now)
	}
}

func (s *supervisor) tellCloud(p *property, v any, now time.Time) {
	delete(s.late, p.Name)
	s.reported[p.Name] = now
	s.e.reporter.offer(s.key, p.Name, cell{p.Kind, twinText(v), s.written[p.Name]})
}

// catchUp reports what came before its report was due and was followed by
// nothing, and gives the time when the next of it is due (zero: nothing waits).
func (s *supervisor) catchUp(now time.Time) (next time.Time) {
	for name, v := range s.late {
		p := s.plan.properties[name]
		if p == nil || !p.toCloud {
			delete(s.late, name)
		} else if at := s.reported[name].Add(p.report); at.After(now) {
			next = earliest(next, at)
		} else {
			s.tellCloud(p, v, now)
		}
	}
	return next
}

// pusher starts the device's pusher with its first push.
func (s *supervisor) pusher() *pusher {
	if s.push == nil {
		s.push, s.pushDone = newPusher(s.e, s.log.Warn), make(chan struct{})
		go func() {
			defer close(s.pushDone)
			s.push.run(s.ctx)
		}()
	}
	return s.push
}

// settle tells the state of a connected device.
func (s *supervisor) settle() {
	if len(s.problems) == 0 {
		s.report(online, nil)
		return
	}
	name := slices.Min(slices.Collect(maps.Keys(s.problems)))
	s.report(unhealthy, s.problems[name])
}

// report tells a state, when it is another.
func (s *supervisor) report(state string, problem error) {
	text := ""
	if problem != nil {
		text, _, _ = strings.Cut(problem.Error(), "\n")
	}
	s.mu.Lock()
	was := s.state
	s.state, s.problem = state, text
	s.mu.Unlock()
	if was == state || s.ctx.Err() != nil {
		return
	}
	s.log.Info("device state", "from", was, "to", state, "problem", text)
	s.e.reporter.state(s.key, state)
}
