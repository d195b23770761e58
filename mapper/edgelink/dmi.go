package edgelink

import (
	"context"
	"fmt"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/edgetwin/sedna/lib/unixsocket"
	"github.com/edgetwin/sedna/mapper/internal/dmiserver"
	pb "github.com/edgetwin/sedna/models/dmi"
	"github.com/edgetwin/sedna/models/wire"
)

// manager is DeviceManagerService as edgecore serves it.
type manager struct {
	pb.UnimplementedDeviceManagerServiceServer
	e       *Edge
	limiter *rate.Limiter // of both reports
}

var _ pb.DeviceManagerServiceServer = (*manager)(nil)

// serveDMI serves mappers until ctx ends.
func (e *Edge) serveDMI(ctx context.Context) error {
	l, err := unixsocket.Listen(e.c.DMISocket, e.c.SocketMode)
	if err != nil {
		return err
	}
	s := grpc.NewServer(dmiserver.Shield(e.c.Log, e.c.Metrics, unknown))
	pb.RegisterDeviceManagerServiceServer(s, &manager{e: e, limiter: rate.NewLimiter(rate.Limit(e.c.Limits.DMIRate), e.c.Limits.DMIBurst)})
	if err := dmiserver.Serve(ctx, s, l); err != nil {
		return fmt.Errorf("edgelink dmi: %w", err)
	}
	return nil
}

// unknown is the status code of every refusal, as edgecore's errors come.
func unknown(wire.Code) codes.Code { return codes.Unknown }

// MapperRegister answers with everything of the mapper's protocol. Without
// withData no client is made and the mapper gets no calls, as with edgecore.
func (m *manager) MapperRegister(_ context.Context, r *pb.MapperRegisterRequest) (*pb.MapperRegisterResponse, error) {
	if r.GetMapper() == nil {
		return nil, wire.E(wire.InvalidArgument, "mapper", "missing", "")
	}
	if !r.WithData {
		return &pb.MapperRegisterResponse{}, nil
	}
	res, err := m.e.mappers.register(r.Mapper)
	if err != nil {
		return nil, err
	}
	m.e.c.Log.Info("mapper registered", "mapper", r.Mapper.Name, "protocol", r.Mapper.Protocol, "devices", len(res.DeviceList))
	return res, nil
}

// ReportDeviceStatus takes reports within edgecore's one a second. Values that
// break the alphabet are rejected later, and OK is answered all the same.
func (m *manager) ReportDeviceStatus(ctx context.Context, r *pb.ReportDeviceStatusRequest) (*pb.ReportDeviceStatusResponse, error) {
	if err := m.allow(); err != nil {
		return nil, err
	}
	k := key{r.GetDeviceNamespace(), r.GetDeviceName()}
	for _, t := range r.GetReportedDevice().GetTwins() {
		if t.GetObservedDesired() == nil || t.GetReported() == nil {
			// edgecore itself crashes on this.
			return nil, wire.E(wire.InvalidArgument, "reportedDevice.twins", "a twin needs observedDesired and reported", "")
		}
	}
	for _, t := range r.GetReportedDevice().GetTwins() {
		m.e.twins.update(ctx, k, twinUpdate{Twin: map[string]*wire.MsgTwin{t.GetPropertyName(): {
			Expected: &wire.TwinVal{Value: &t.ObservedDesired.Value},
			Actual:   &wire.TwinVal{Value: &t.Reported.Value},
			Metadata: &wire.TwinTyp{Type: t.Reported.Metadata["type"]},
		}}})
	}
	return &pb.ReportDeviceStatusResponse{}, nil
}

// ReportDeviceStates takes the state of a device within the same rate.
func (m *manager) ReportDeviceStates(ctx context.Context, r *pb.ReportDeviceStatesRequest) (*pb.ReportDeviceStatesResponse, error) {
	if err := m.allow(); err != nil {
		return nil, err
	}
	m.e.twins.setState(ctx, key{r.GetDeviceNamespace(), r.GetDeviceName()}, r.GetState())
	return &pb.ReportDeviceStatesResponse{}, nil
}

func (m *manager) allow() error {
	if !m.limiter.Allow() {
		return wire.E(wire.ResourceExhausted, "", "fail to report device status because of too many request", "report over MQTT")
	}
	return nil
}
