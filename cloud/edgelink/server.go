package edgelink

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/models/wire"
)

// Server takes links. It is the http.Handler of wire.EdgelinkPath, and a
// manager.Runnable: links are refused until Start has seen all Devices.
type Server struct {
	c      Config
	index  *index
	status *statusWriter

	mu      sync.Mutex
	ctx     context.Context // of Start; nil before and after
	wg      sync.WaitGroup  // links and reporters
	nodes   map[string]*node
	links   int
	serving chan struct{} // closed by Start
}

// node is what outlives the links of one node.
type node struct {
	link     *link // nil: not linked
	reporter *reporter
}

// New checks the configuration.
func New(c Config) (*Server, error) {
	if err := c.normalize(); err != nil {
		return nil, err
	}
	s := &Server{c: c, index: newIndex(), nodes: map[string]*node{}, serving: make(chan struct{})}
	s.status = newStatusWriter(&s.c)
	c.Metrics.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "sedna_edgelink_links", Help: "Nodes that are linked."},
		func() float64 { s.mu.Lock(); defer s.mu.Unlock(); return float64(s.links) }))
	return s, nil
}

// NeedLeaderElection is false: every replica serves the nodes that dial it.
func (s *Server) NeedLeaderElection() bool { return false }

// Start follows the API and serves links until ctx ends. It is called once.
func (s *Server) Start(ctx context.Context) error {
	unwatch, err := s.watch(ctx)
	defer unwatch()
	if err != nil {
		return err
	}
	var collector sync.WaitGroup
	collector.Go(s.status.collect)
	s.mu.Lock()
	s.ctx = ctx
	s.mu.Unlock()
	close(s.serving)
	<-ctx.Done()
	s.mu.Lock()
	s.ctx = nil
	s.mu.Unlock()
	s.wg.Wait()
	s.status.garbage.ShutDown()
	collector.Wait()
	return nil
}

// Serving is closed when nodes can link.
func (s *Server) Serving() <-chan struct{} { return s.serving }

// Linked tells whether the node's link is up.
func (s *Server) Linked(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[name]
	return n != nil && n.link != nil
}

// notify has the Device sent to the node, or removed from it, as it is then.
func (s *Server) notify(name string, keys ...key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.nodes[name]; n != nil && n.link != nil {
		n.link.queue.add(keys...)
	}
}

// left has the Device removed from the node, even if it is bound again by then.
func (s *Server) left(name string, k key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.nodes[name]; n != nil && n.link != nil {
		n.link.queue.addLeft(k)
	}
}

// ServeHTTP turns a request of a node into its link.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, err := s.c.Node(r)
	if err != nil {
		s.refuse(w, err)
		return
	}
	l, err := s.open(name, r)
	if err != nil {
		s.refuse(w, err)
		return
	}
	defer s.close(l)
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return // Accept has answered
	}
	defer conn.CloseNow()
	conn.SetReadLimit(wire.MaxFrame)
	s.c.Log.Info("node linked", "node", name)
	err = l.serve(conn)
	s.c.Log.Info("node's link ended", "node", name, "err", err)
}

func (s *Server) refuse(w http.ResponseWriter, err error) {
	e := wire.AsError(s.c.Metrics.Reject(metrics.DoorEdgelink, err))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.Code.Status())
	_, _ = w.Write(e.JSON())
}

// errReplaced ends a link whose node has dialled again.
var errReplaced = errors.New("the node has made another link")

// open enters the link of a node, in place of an earlier one.
func (s *Server) open(name string, r *http.Request) (*link, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx == nil || s.ctx.Err() != nil {
		return nil, wire.E(wire.Unavailable, "", "edgelink is starting or stopping", "try again")
	}
	n := s.nodes[name]
	if (n == nil || n.link == nil) && s.links >= s.c.Limits.Links {
		return nil, wire.E(wire.ResourceExhausted, "", "too many links", "")
	}
	if n == nil {
		n = &node{reporter: newReporter(s, name)}
		s.nodes[name] = n
		ctx := s.ctx
		s.wg.Go(func() { n.reporter.run(ctx) })
	}
	if n.link != nil {
		n.link.cancel(errReplaced)
	} else {
		s.links++
	}
	l := &link{s: s, node: name, reporter: n.reporter, request: r, queue: newQueue(), models: map[key]string{}, removed: map[key]time.Time{}}
	l.ctx, l.cancel = context.WithCancelCause(s.ctx)
	n.link = l
	s.wg.Add(1)
	return l, nil
}

func (s *Server) close(l *link) {
	l.cancel(nil)
	s.mu.Lock()
	if n := s.nodes[l.node]; n.link == l {
		n.link = nil
		s.links--
	}
	s.mu.Unlock()
	s.wg.Done()
}

// retryAfter gives the pause before try n of a failed write.
func (s *Server) retryAfter(n int) time.Duration {
	return min(100*time.Millisecond<<min(n, 16), s.c.Limits.MaxRetry)
}
