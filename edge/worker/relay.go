package worker

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// relayHost is where workers find relayed services.
const relayHost = "127.0.0.1"

// relay hands connections to a local port on to a service elsewhere.
type relay struct {
	port    int
	target  string
	dialer  Dialer
	limits  Limits
	metrics *workerMetrics
	log     *slog.Logger

	listener net.Listener
	ctx      context.Context
	cancel   context.CancelFunc
	places   chan struct{}
	wg       sync.WaitGroup
}

// openRelays opens relays at ports, those of a former life, or where the
// specification says when ports is nil. All are open or none is.
func (s *Supervisor) openRelays(specs []task.WorkerRelay, ports []int) (_ []*relay, err error) {
	var out []*relay
	defer func() {
		if err != nil {
			closeRelays(out)
		}
	}()
	if ports != nil && len(ports) != len(specs) {
		return nil, wire.E(wire.FailedPrecondition, "relays", "the running worker knows others", "")
	}
	for i, spec := range specs {
		port := spec.Port
		if ports != nil {
			port = ports[i]
		}
		l, err := net.Listen("tcp", net.JoinHostPort(relayHost, strconv.Itoa(port)))
		if err != nil && ports == nil && spec.PortEnv != "" {
			l, err = net.Listen("tcp", net.JoinHostPort(relayHost, "0"))
		}
		if err != nil {
			return out, wire.E(wire.Unavailable, "relays", err.Error(), "give the relay a portEnv, then any port will do")
		}
		out = append(out, s.newRelay(l, spec.Target))
	}
	return out, nil
}

func (s *Supervisor) newRelay(l net.Listener, target string) *relay {
	r := &relay{
		target: target, dialer: s.o.Dialer, limits: s.o.Limits, metrics: s.metrics, log: s.o.Log, listener: l,
		places: make(chan struct{}, s.o.Limits.RelayConnections),
	}
	if a, ok := l.Addr().(*net.TCPAddr); ok {
		r.port = a.Port
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.wg.Go(r.accept)
	return r
}

func closeRelays(all []*relay) {
	for _, r := range all {
		r.close()
	}
}

// close ends the relay and all that is being relayed.
func (r *relay) close() {
	r.cancel()
	r.listener.Close()
	r.wg.Wait()
}

// acceptAgain is the time before the next try when the process has no more
// descriptors, or the like.
const acceptAgain = 100 * time.Millisecond

func (r *relay) accept() {
	for {
		c, err := r.listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed) || r.ctx.Err() != nil:
			if err == nil {
				c.Close()
			}
			return
		case err != nil:
			select {
			case <-r.ctx.Done():
			case <-time.After(acceptAgain):
			}
			continue
		}
		local, ok := c.(Conn)
		if !ok {
			c.Close()
			continue
		}
		select {
		case r.places <- struct{}{}:
			r.wg.Go(func() {
				defer func() { <-r.places }()
				r.serve(local)
			})
		default:
			r.metrics.refused.Inc()
			c.Close()
		}
	}
}

func (r *relay) serve(local Conn) {
	defer local.Close()
	dialing, done := context.WithTimeout(r.ctx, r.limits.RelayDial)
	remote, err := r.dialer.Dial(dialing, r.target)
	done()
	if err != nil {
		r.metrics.refused.Inc()
		r.log.Debug("relay cannot reach its target", "target", r.target, "error", err)
		return
	}
	defer remote.Close()
	r.metrics.connection.Inc()
	defer r.metrics.connection.Dec()
	// Closing both ends what waits in either direction.
	stop := context.AfterFunc(r.ctx, func() { local.Close(); remote.Close() })
	defer stop()
	p := &pair{idle: r.limits.RelayIdle}
	p.last.Store(time.Now().UnixNano())
	var up sync.WaitGroup
	up.Go(func() { r.copy(p, remote, local) })
	r.copy(p, local, remote)
	up.Wait()
}

// pair is a relayed connection: it is idle when both directions are.
type pair struct {
	idle time.Duration
	last atomic.Int64 // when bytes last went either way, nanoseconds since 1970
}

// relayBuffer is the size of one read, in bytes.
const relayBuffer = 32 << 10

// copy hands on what src sends until it has no more to say; then dst is told
// so, and the other direction goes on. On an error both end.
func (r *relay) copy(p *pair, dst, src Conn) {
	buf := make([]byte, relayBuffer)
	for {
		_ = src.SetReadDeadline(time.Unix(0, p.last.Load()).Add(p.idle))
		n, err := src.Read(buf)
		if n > 0 {
			p.last.Store(time.Now().UnixNano())
			_ = dst.SetWriteDeadline(time.Now().Add(p.idle))
			if _, werr := dst.Write(buf[:n]); werr != nil {
				break
			}
			p.last.Store(time.Now().UnixNano())
			r.metrics.relayed.Add(float64(n))
		}
		var timeout net.Error
		switch {
		case err == nil:
			continue
		case errors.Is(err, io.EOF):
			if dst.CloseWrite() == nil {
				return
			}
		case errors.As(err, &timeout) && timeout.Timeout() && time.Since(time.Unix(0, p.last.Load())) < p.idle:
			continue // the other direction was not idle
		}
		break
	}
	src.Close()
	dst.Close()
}
