package mapper

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/mapper/devices"
	"github.com/edgetwin/sedna/models/wire"
)

// serveHTTP serves devices, metrics and probes until ctx ends.
func (p *parts) serveHTTP(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", p.guard(p.metrics.Handler()))
	mux.Handle("GET /v1/devices", p.guard(http.HandlerFunc(p.getDevices)))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", p.readyz)
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.Serve(p.http); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// readyz is good when tasks can travel on the node. The cloud may be away.
func (p *parts) readyz(w http.ResponseWriter, _ *http.Request) {
	for _, b := range p.buses {
		if !b.Connected() {
			refuse(w, wire.E(wire.Unavailable, "", "the MQTT broker is away", "check bus.url"))
			return
		}
	}
	if !p.dmi.Registered() {
		refuse(w, wire.E(wire.Unavailable, "", "not registered with edgecore", "check dmiSocket"))
		return
	}
	_, _ = w.Write([]byte("ok\n"))
}

// getDevices lists the sensors, actuators and cameras with their last readings.
func (p *parts) getDevices(w http.ResponseWriter, _ *http.Request) {
	list := []devices.Status{}
	if p.driven != nil {
		list = p.driven.engine.Status()
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string][]devices.Status{"devices": list})
}

// guard asks for the token, when there is one.
func (p *parts) guard(next http.Handler) http.Handler {
	if p.c.Token == "" {
		return next
	}
	want := []byte("Bearer " + string(p.c.Token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), want) != 1 {
			err := wire.E(wire.Unauthenticated, "", "expected Authorization: Bearer and the token", "")
			_ = p.metrics.Reject(metrics.DoorHTTP, err)
			refuse(w, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func refuse(w http.ResponseWriter, e *wire.Error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.Code.Status())
	_, _ = w.Write(e.JSON())
}
