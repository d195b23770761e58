package inference

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/models/oip"
	"github.com/edgetwin/sedna/models/wire"
)

// Bus is what the gateway needs of the MQTT client; *bus.Client is one.
type Bus interface {
	// Subscribe has h called for each message of filter, one at a time. A
	// message of QoS 1 can come twice.
	Subscribe(filter string, qos byte, h func(bus.Message))
	// Follow is Subscribe for filters that change.
	Follow(qos byte, h func(bus.Message)) (change func(add, remove []string))
	// Publish returns when the broker has acknowledged a message of QoS 1. It
	// fails at once while the broker is away.
	Publish(ctx context.Context, topic string, qos byte, retained bool, payload []byte) error
}

var _ Bus = (*bus.Client)(nil)

const (
	qosAtMostOnce  = 0
	qosAtLeastOnce = 1
)

// gateway answers the requests and images that come over the bus, and publishes
// what feeds and cameras give.
//
// The handlers of subscriptions only queue; workers decode, infer and hand the
// result to the outbox. A request that a full queue turns away is answered
// with resource_exhausted. Requests are acknowledged to the broker when they
// are queued: one that was queued when the process dies gets no answer, and
// the caller sends it again. Of images without an id the newest of each service
// waits.
type gateway struct {
	m      *Manager
	ctx    context.Context // ends when answers are not waited for any more
	queue  chan job
	window *window
	outbox *outbox
}

// job is a request or an image of one service.
type job struct {
	service string
	payload []byte
	kind    jobKind
	id      string // of an image that wants a result under it
}

type jobKind int

const (
	jobRequest jobKind = iota
	jobImage           // with an id
	jobFrame           // the newest image without one, in the entry
)

// ServeBus takes requests, images and readings from the bus, and publishes
// answers, until ctx ends; requests that were taken by then are finished within
// DrainTime. It is called once in the life of a Manager, since a subscription
// is for the life of the bus.
func (m *Manager) ServeBus(ctx context.Context, b Bus) error {
	lim := m.cfg.Limits
	// Requests that were taken outlive ctx for a while.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	g := &gateway{
		m:      m,
		ctx:    work,
		queue:  make(chan job, lim.BusQueue),
		window: newWindow(lim.Window, lim.WindowTime),
		outbox: newOutbox(b, lim.BusOutbox, m.cfg.Log),
	}
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(lim.DrainTime, cancel) })
	defer stop()

	var workers, senders sync.WaitGroup
	for range senderCount {
		senders.Go(func() { g.outbox.send(work) })
	}
	for range lim.BusWorkers {
		workers.Go(func() { g.work(ctx) })
	}
	m.link.Store(g)
	b.Subscribe(wire.InferRequestFilter(m.cfg.Node), qosAtLeastOnce, func(msg bus.Message) { g.take(ctx, msg) })
	b.Follow(qosAtMostOnce, func(msg bus.Message) { g.takeImage(ctx, msg) })(wire.InferImageFilters(m.cfg.Node), nil)
	m.router.attach(b.Follow(qosAtMostOnce, m.router.deliver))
	<-ctx.Done()
	m.router.detach()
	m.link.Store(nil)
	workers.Wait()
	g.outbox.finish()
	senders.Wait()
	return nil
}

// take queues one message, and refuses what needs no worker.
func (g *gateway) take(ctx context.Context, msg bus.Message) {
	service, ok := wire.ParseInferRequest(g.m.cfg.Node, msg.Topic)
	switch {
	case !ok || ctx.Err() != nil:
		return
	case msg.Retained:
		_ = g.m.cfg.Metrics.Reject(metrics.DoorMQTT, wire.E(wire.Stale, "", "a retained request is no request", ""))
		return
	}
	j := job{service: service, payload: msg.Payload}
	var err error
	if most := g.m.cfg.Limits.BusPayload; len(msg.Payload) > most {
		err = oip.TooLarge(int64(len(msg.Payload)), oip.Limits{MaxBody: int64(most)})
	} else {
		err = g.enqueue(j)
	}
	if err != nil {
		g.outbox.offer(g.refusal(service, oip.PeekID(msg.Payload), err))
	}
}

// enqueue is resource_exhausted when the queue is full.
func (g *gateway) enqueue(j job) error {
	select {
	case g.queue <- j:
		return nil
	default:
		return wire.E(wire.ResourceExhausted, "", fmt.Sprintf("%d requests are waiting", cap(g.queue)), "try again later")
	}
}

// work answers what is queued; after the end of ctx until the queue is empty.
func (g *gateway) work(ctx context.Context) {
	for {
		select {
		case j := <-g.queue:
			g.answer(j)
			continue
		default:
		}
		select {
		case j := <-g.queue:
			g.answer(j)
		case <-ctx.Done():
			return
		}
	}
}

// answer has a job inferred and the result published.
func (g *gateway) answer(j job) {
	switch j.kind {
	case jobImage:
		g.outbox.put(g.ctx, g.image(j.service, j.id, j.payload))
	case jobFrame:
		g.frames(j.service)
	default:
		if result, ok := g.infer(g.ctx, j); ok {
			g.outbox.put(g.ctx, result)
		}
	}
}

// infer makes the result of a request; ok is false for one that was answered
// before.
func (g *gateway) infer(ctx context.Context, j job) (result message, ok bool) {
	req, err := oip.DecodeRequest(j.payload, g.m.cfg.Limits.Request)
	if err != nil {
		return g.refusal(j.service, oip.PeekID(j.payload), err), true
	}
	if req.ID == "" {
		return g.refusal(j.service, "", oip.BadID("")), true
	}
	key := g.window.key(j.service, req.ID, j.payload)
	if !g.window.begin(key) {
		return message{}, false
	}
	resp, err := g.m.Infer(ctx, j.service, req)
	if err == nil {
		var payload []byte
		if payload, err = resp.AppendJSON(nil); err == nil {
			return message{wire.InferResult(g.m.cfg.Node, j.service, req.ID), payload}, true
		}
	}
	if passing(err) {
		g.window.forget(key)
	}
	return g.refusal(j.service, req.ID, err), true
}

// unasked makes the result of an outcome that nobody asked for: its id is ours,
// and the service's result property takes its value.
func (g *gateway) unasked(s *service, o *outcome) message {
	if s.writer != nil {
		s.writer.take(s, o)
	}
	return g.result(s, o)
}

// result is the result message of an outcome for one sample.
func (g *gateway) result(s *service, o *outcome) message {
	s.dress(o)
	payload, err := o.resp.AppendJSON(nil)
	if err != nil {
		return g.refusal(s.name, o.resp.ID, err)
	}
	return message{wire.InferResult(g.m.cfg.Node, s.name, o.resp.ID), payload}
}

// passing tells whether the same request may fare better later.
func passing(err error) bool {
	switch wire.AsError(err).Code {
	case wire.ResourceExhausted, wire.Unavailable, wire.DeadlineExceeded, wire.NotFound:
		return true
	}
	return false
}

// refusal is the error message for a request: on its result topic where it has
// a valid id, else on the service's error topic.
func (g *gateway) refusal(service, id string, err error) message {
	e := wire.AsError(g.m.cfg.Metrics.Reject(metrics.DoorMQTT, err))
	if id == "" {
		return message{wire.InferError(g.m.cfg.Node, service), e.JSON()}
	}
	return message{wire.InferResult(g.m.cfg.Node, service, id), e.OIP()}
}
