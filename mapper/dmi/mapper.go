package dmi

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/mapper/internal/unixsocket"
	pb "github.com/edgetwin/sedna/models/dmi"
	"github.com/edgetwin/sedna/models/wire"
)

// stopGrace is how long calls may go on after Run was told to end.
const stopGrace = time.Second

// Mapper is one mapper: its server and its registration.
type Mapper struct {
	pb.UnimplementedDeviceMapperServiceServer
	c          Config
	registered atomic.Bool

	mu sync.Mutex // serializes the Handler
	// touched holds, while a registration is under way, what edgecore told
	// of by calls; it is newer than the registration's answer. A nil device
	// was removed.
	touched map[string]*pb.Device
}

var _ pb.DeviceMapperServiceServer = (*Mapper)(nil)

// New checks the configuration.
func New(c Config) (*Mapper, error) {
	if err := c.normalize(); err != nil {
		return nil, err
	}
	return &Mapper{c: c}, nil
}

// Registered tells whether edgecore is there and knows this mapper.
func (m *Mapper) Registered() bool { return m.registered.Load() }

// Run serves and keeps registered until ctx ends. It fails only when the
// socket cannot be made.
func (m *Mapper) Run(ctx context.Context) error {
	l, err := unixsocket.Listen(m.c.Socket, m.c.SocketMode)
	if err != nil {
		return err
	}
	s := grpc.NewServer(grpc.MaxRecvMsgSize(m.c.MaxMessage), grpc.UnaryInterceptor(m.shield))
	pb.RegisterDeviceMapperServiceServer(s, m)
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { m.keepRegistered(ctx) })
	stop := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(stopGrace, s.Stop)
		s.GracefulStop()
		timer.Stop()
	})
	defer stop()
	if err := s.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("dmi: %w", err)
	}
	return nil
}

// shield turns panics and refusals into gRPC errors.
func (m *Mapper) shield(ctx context.Context, req any, info *grpc.UnaryServerInfo, call grpc.UnaryHandler) (res any, err error) {
	defer func() {
		if p := recover(); p != nil {
			m.c.Log.Error("DMI call panicked", "method", info.FullMethod, "panic", p, "stack", string(debug.Stack()))
			res, err = nil, status.Error(codes.Internal, "the mapper failed on this call")
		}
	}()
	res, err = call(ctx, req)
	var refusal *wire.Error
	if errors.As(err, &refusal) {
		m.c.Log.Warn("DMI call refused", "method", info.FullMethod, "err", err)
		_ = m.c.Metrics.Reject(metrics.DoorTwin, refusal)
		err = status.Error(grpcCode(refusal.Code), refusal.Error())
	}
	return res, err
}

func grpcCode(c wire.Code) codes.Code {
	switch c {
	case wire.InvalidArgument:
		return codes.InvalidArgument
	case wire.TooLarge, wire.ResourceExhausted:
		return codes.ResourceExhausted
	case wire.Unimplemented:
		return codes.Unimplemented
	}
	return codes.Internal
}
