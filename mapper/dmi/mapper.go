package dmi

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/edgetwin/sedna/lib/unixsocket"
	"github.com/edgetwin/sedna/mapper/internal/dmiserver"
	pb "github.com/edgetwin/sedna/models/dmi"
	"github.com/edgetwin/sedna/models/wire"
)

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
	s := grpc.NewServer(grpc.MaxRecvMsgSize(m.c.MaxMessage), dmiserver.Shield(m.c.Log, m.c.Metrics, grpcCode))
	pb.RegisterDeviceMapperServiceServer(s, m)
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { m.keepRegistered(ctx) })
	if err := dmiserver.Serve(ctx, s, l); err != nil {
		return fmt.Errorf("dmi: %w", err)
	}
	return nil
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
