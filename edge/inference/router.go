package inference

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/models/wire"
)

// router hands the messages of the bus to the feeds that they are for, and has
// the bus deliver the topics that some feed wants. All come one after the
// other, in the order of the broker: what was published first is older.
type router struct {
	node   string
	routes atomic.Pointer[map[string][]route] // by topic; a new map for each change

	mu     sync.Mutex // orders changes
	change func(add, remove []string)
}

// route is one taker of a topic.
type route struct {
	feed   *feed
	places []place
}

func newRouter(node string) *router {
	r := &router{node: node}
	r.routes.Store(&map[string][]route{})
	return r
}

// deliver is the handler of the subscription.
func (r *router) deliver(msg bus.Message) {
	routes := *r.routes.Load()
	to, ok := routes[msg.Topic]
	if !ok {
		if service, found := wire.ParseInferResult(r.node, msg.Topic); found {
			to = routes[wire.InferResults(r.node, service)]
		}
	}
	for _, t := range to {
		t.feed.take(t.places, msg.Payload, msg.Retained)
	}
}

// exchange routes to a feed in place of another; each may be nil. Topics that
// others want, or both, are delivered throughout.
func (r *router) exchange(old, with *feed) {
	r.mu.Lock()
	defer r.mu.Unlock()
	routes := maps.Clone(*r.routes.Load())
	var add, remove []string
	if old != nil {
		for topic := range old.topics {
			left := slices.DeleteFunc(slices.Clone(routes[topic]), func(t route) bool { return t.feed == old })
			if routes[topic] = left; len(left) == 0 {
				delete(routes, topic)
			}
		}
	}
	if with != nil {
		for topic, places := range with.topics {
			routes[topic] = append(slices.Clone(routes[topic]), route{with, places})
			add = append(add, r.filter(topic))
		}
	}
	if old != nil {
		for topic := range old.topics {
			if _, wanted := routes[topic]; !wanted {
				remove = append(remove, r.filter(topic))
			}
		}
	}
	r.routes.Store(&routes)
	if r.change != nil {
		r.change(add, remove)
	}
}

// attach has the bus deliver from now on.
func (r *router) attach(change func(add, remove []string)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.change = change
	change(r.filters(), nil)
}

// detach ends that.
func (r *router) detach() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.change(nil, r.filters())
	r.change = nil
}

func (r *router) filters() []string {
	var list []string
	for topic := range *r.routes.Load() {
		list = append(list, r.filter(topic))
	}
	return list
}

// filter is what to subscribe to for a source's topic: itself, or for the
// results of a service those of all ids.
func (r *router) filter(topic string) string {
	if _, ok := wire.ParseInferResult(r.node, topic+"/+"); ok {
		return topic + "/+"
	}
	return topic
}
