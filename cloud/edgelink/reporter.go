package edgelink

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/edgetwin/sedna/models/wire"
)

// report is what a node says of one Device and is not written yet.
type report struct {
	uid   string
	twins map[string]wire.TwinPair
	state string
}

// merge puts newer over r; what was said of a predecessor of the Device goes.
func (r *report) merge(newer *report) {
	if newer.uid != r.uid {
		*r = report{uid: newer.uid}
	}
	if len(newer.twins) > 0 {
		if r.twins == nil {
			r.twins = map[string]wire.TwinPair{}
		}
		maps.Copy(r.twins, newer.twins)
	}
	if newer.state != "" {
		r.state = newer.state
	}
}

// reporter writes the reports of one node, Device by Device in the order of
// their arrival. What comes for a Device while it waits is merged.
type reporter struct {
	s     *Server
	node  string
	queue *queue

	mu      sync.Mutex
	reports map[key]*report
}

func newReporter(s *Server, node string) *reporter {
	return &reporter{s: s, node: node, queue: newQueue(), reports: map[key]*report{}}
}

// add takes a frame; the Devices of a node bound what can wait.
func (p *reporter) add(k key, f *wire.Frame) {
	p.mu.Lock()
	news := &report{uid: f.UID, twins: f.Twins, state: f.State}
	if r := p.reports[k]; r != nil {
		r.merge(news)
	} else {
		p.reports[k] = news
	}
	p.mu.Unlock()
	p.queue.add(k)
}

// putBack keeps a report that could not be written, under what came since.
func (p *reporter) putBack(k key, r *report) {
	p.mu.Lock()
	if newer := p.reports[k]; newer != nil {
		r.merge(newer)
	}
	p.reports[k] = r
	p.mu.Unlock()
	p.queue.add(k)
}

func (p *reporter) take(k key) *report {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.reports[k]
	delete(p.reports, k)
	return r
}

func (p *reporter) run(ctx context.Context) {
	failures := 0
	for {
		k, ok := p.queue.next()
		if !ok {
			select {
			case <-ctx.Done():
				return
			case <-p.queue.wake:
			}
			continue
		}
		r := p.take(k)
		if r == nil {
			continue
		}
		err := p.s.status.write(ctx, p.node, k, r)
		if err == nil {
			failures = 0
			continue
		}
		if ctx.Err() != nil {
			return
		}
		p.s.c.Log.Warn("report not written, trying on", "device", k.String(), "node", p.node, "err", err)
		p.putBack(k, r)
		select {
		case <-ctx.Done():
			return
		case <-time.After(p.s.retryAfter(failures)):
		}
		failures++
	}
}
