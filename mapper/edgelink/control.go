package edgelink

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/edgetwin/sedna/models/wire"
)

// errCut ends a session that SetLink has cut.
var errCut = errors.New("the link was cut on demand")

// gate lets the link be cut and healed on demand.
type gate struct {
	mu      sync.Mutex
	down    bool
	opened  chan struct{}           // closed while the gate is open
	session context.CancelCauseFunc // of the session; nil: none
	idle    chan struct{}           // closed while there is no session
}

func newGate() *gate {
	g := &gate{opened: make(chan struct{}), idle: make(chan struct{})}
	close(g.opened)
	close(g.idle)
	return g
}

// await waits until the gate is open; false when ctx has ended.
func (g *gate) await(ctx context.Context) bool {
	g.mu.Lock()
	opened := g.opened
	g.mu.Unlock()
	select {
	case <-opened:
		return true
	case <-ctx.Done():
		return false
	}
}

// enter begins a session; end ends it.
func (g *gate) enter(ctx context.Context) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.session, g.idle = cancel, make(chan struct{})
	if g.down {
		cancel(errCut)
	}
	return ctx, func() { cancel(nil) }
}

// leave notes that the session has ended and everything knows it, and tells
// whether the gate is closed.
func (g *gate) leave() (down bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.session = nil
	close(g.idle)
	return g.down
}

// SetLink cuts the link to the cloud, or heals it. When it has cut, the link is
// down; when it has healed, the edge dials.
func (e *Edge) SetLink(ctx context.Context, up bool) error {
	g := e.gate
	g.mu.Lock()
	switch {
	case up && g.down:
		g.down = false
		close(g.opened)
	case !up && !g.down:
		g.down, g.opened = true, make(chan struct{})
		if g.session != nil {
			g.session(errCut)
		}
	}
	idle := g.idle
	g.mu.Unlock()
	if up {
		return nil
	}
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ControlAddr is where /link is served, host:port; empty without.
func (e *Edge) ControlAddr() string {
	if e.control == nil {
		return ""
	}
	return e.control.Addr().String()
}

// linkState is the body of /link.
type linkState struct {
	Up        *bool `json:"up"`                  // whether the link may be up
	Connected *bool `json:"connected,omitempty"` // whether it is; answers only
}

// serveControl serves /link until ctx ends.
func (e *Edge) serveControl(ctx context.Context) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /link", func(w http.ResponseWriter, _ *http.Request) { e.tellLink(w) })
	mux.HandleFunc("POST /link", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Origin") != "" {
			refuseControl(w, wire.E(wire.PermissionDenied, "", "not for web pages", ""))
			return
		}
		var want linkState
		dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<10))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&want); err != nil || want.Up == nil || want.Connected != nil {
			refuseControl(w, wire.E(wire.InvalidArgument, "up", `expected {"up":true} or {"up":false}`, ""))
			return
		}
		if err := e.SetLink(r.Context(), *want.Up); err != nil {
			refuseControl(w, wire.E(wire.Unavailable, "", err.Error(), ""))
			return
		}
		e.tellLink(w)
	})
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.Serve(e.control); !errors.Is(err, http.ErrServerClosed) {
		e.c.Log.Error("link control ended", "err", err)
	}
}

func (e *Edge) tellLink(w http.ResponseWriter) {
	e.gate.mu.Lock()
	up := !e.gate.down
	e.gate.mu.Unlock()
	connected := e.Connected()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(linkState{&up, &connected})
}

func refuseControl(w http.ResponseWriter, e *wire.Error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.Code.Status())
	_, _ = w.Write(e.JSON())
}

// loopback tells whether only this machine can reach addr.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}
