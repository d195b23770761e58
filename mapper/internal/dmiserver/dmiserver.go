// Package dmiserver is what both ends of DMI share as gRPC servers: they serve
// on a unix socket until a context ends, and no call takes the process down.
package dmiserver

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/models/wire"
)

// stopGrace is how long calls may go on after the context has ended.
const stopGrace = time.Second

// Serve serves s on l until ctx ends.
func Serve(ctx context.Context, s *grpc.Server, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(stopGrace, s.Stop)
		s.GracefulStop()
		timer.Stop()
	})
	defer stop()
	if err := s.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}

// Shield turns panics and refusals into gRPC errors, with the status code that
// code gives for a refusal, and counts refusals.
func Shield(log *slog.Logger, m *metrics.Registry, code func(wire.Code) codes.Code) grpc.ServerOption {
	return grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, call grpc.UnaryHandler) (res any, err error) {
		defer func() {
			if p := recover(); p != nil {
				log.Error("DMI call panicked", "method", info.FullMethod, "panic", p, "stack", string(debug.Stack()))
				res, err = nil, status.Error(codes.Internal, "this call met a defect")
			}
		}()
		res, err = call(ctx, req)
		var refusal *wire.Error
		if errors.As(err, &refusal) {
			log.Warn("DMI call refused", "method", info.FullMethod, "err", err)
			_ = m.Reject(metrics.DoorTwin, refusal)
			err = status.Error(code(refusal.Code), refusal.Error())
		}
		return res, err
	})
}
