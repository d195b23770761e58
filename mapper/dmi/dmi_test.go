package dmi_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/mapper/dmi"
	pb "github.com/edgetwin/sedna/models/dmi"
)

const patience = 10 * time.Second

// recorder is a Handler that tells what it was told.
type recorder struct{ events chan string }

func (r recorder) Sync(models []*pb.DeviceModel, devices []*pb.Device) {
	names := make([]string, len(devices))
	for i, d := range devices {
		names[i] = d.Name
	}
	r.events <- fmt.Sprintf("sync %d %s", len(models), strings.Join(names, ","))
}

func (r recorder) Upsert(d *pb.Device) error {
	switch d.Name {
	case "panic":
		panic("told to")
	case "fails":
		return errors.New("cannot")
	}
	size := 0
	for _, p := range d.GetSpec().GetProperties() {
		size += len(p.GetDesired().GetValue())
	}
	r.events <- fmt.Sprintf("upsert %s %d", d.Name, size)
	return nil
}
func (r recorder) Remove(ns, name string)        { r.events <- "remove " + ns + "/" + name }
func (r recorder) UpsertModel(m *pb.DeviceModel) { r.events <- "model " + m.Name }
func (r recorder) RemoveModel(ns, name string)   { r.events <- "unmodel " + ns + "/" + name }

// edgecore answers registrations on dmi.sock.
type edgecore struct {
	pb.UnimplementedDeviceManagerServiceServer
	devices    []*pb.Device
	registered chan *pb.MapperRegisterRequest
	before     func(address string) // called while a registration is under way
}

func (e *edgecore) MapperRegister(_ context.Context, r *pb.MapperRegisterRequest) (*pb.MapperRegisterResponse, error) {
	if e.before != nil {
		e.before(string(r.Mapper.Address))
	}
	e.registered <- r
	return &pb.MapperRegisterResponse{DeviceList: e.devices, ModelList: []*pb.DeviceModel{{Namespace: "default", Name: "m"}}}, nil
}

func (e *edgecore) start(t *testing.T, socket string) (stop func()) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	pb.RegisterDeviceManagerServiceServer(s, e)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	stop = func() { s.Stop(); <-done }
	t.Cleanup(stop)
	return stop
}

func dev(name string, desired ...string) *pb.Device {
	d := &pb.Device{Namespace: "default", Name: name, Spec: &pb.DeviceSpec{Protocol: &pb.ProtocolConfig{ProtocolName: "sedna"}}}
	for i, v := range desired {
		d.Spec.Properties = append(d.Spec.Properties, &pb.DeviceProperty{Name: fmt.Sprint("p", i), Desired: &pb.TwinProperty{Value: v}})
	}
	return d
}

func wait[T any](t testing.TB, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("%s: waited %v", what, patience)
		panic("unreachable")
	}
}

func expect(t testing.TB, r recorder, want string) {
	t.Helper()
	if got := wait(t, r.events, want); got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
}

type fixture struct {
	dir, socket, edge string
	r                 recorder
	m                 *dmi.Mapper
}

func start(t *testing.T) *fixture {
	t.Helper()
	dir := t.TempDir()
	f := &fixture{dir: dir, socket: filepath.Join(dir, "mapper.sock"), edge: filepath.Join(dir, "dmi.sock"), r: recorder{make(chan string, 100)}}
	m, err := dmi.New(dmi.Config{
		Protocol: "sedna", Socket: f.socket, EdgeSocket: f.edge, Handler: f.r, Metrics: metrics.New(),
		Check: 20 * time.Millisecond, MinBackoff: 10 * time.Millisecond, MaxBackoff: 50 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	f.m = m
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := wait(t, done, "end of Run"); err != nil {
			t.Error(err)
		}
	})
	return f
}

func client(t *testing.T, socket string) pb.DeviceMapperServiceClient {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return pb.NewDeviceMapperServiceClient(conn)
}

func TestRegistersAndTakesCalls(t *testing.T) {
	f := start(t) // edgecore comes later
	e := &edgecore{devices: []*pb.Device{dev("a"), {Name: "bad name"}}, registered: make(chan *pb.MapperRegisterRequest, 10)}
	e.start(t, f.edge)
	r := wait(t, e.registered, "registration")
	if !r.WithData || r.Mapper.Name != "sedna-mapper" || r.Mapper.Protocol != "sedna" || string(r.Mapper.Address) != f.socket {
		t.Fatalf("%v", r)
	}
	expect(t, f.r, "sync 1 a")
	if info, err := os.Stat(f.socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("socket %v, %v", info, err)
	}
	c, ctx := client(t, f.socket), t.Context()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.CreateDeviceModel(ctx, &pb.CreateDeviceModelRequest{Model: &pb.DeviceModel{Namespace: "default", Name: "m"}}))
	expect(t, f.r, "model m")
	must(c.RegisterDevice(ctx, &pb.RegisterDeviceRequest{Device: dev("b", "x")}))
	expect(t, f.r, "upsert b 1")
	// An update of an unknown device is its registration; 3 MB pass.
	must(c.UpdateDevice(ctx, &pb.UpdateDeviceRequest{Device: dev("c", strings.Repeat("x", 3<<20))}))
	expect(t, f.r, fmt.Sprint("upsert c ", 3<<20))
	must(c.RemoveDeviceModel(ctx, &pb.RemoveDeviceModelRequest{ModelNamespace: "default", ModelName: "m"}))
	expect(t, f.r, "unmodel default/m")
	must(c.RemoveDevice(ctx, &pb.RemoveDeviceRequest{DeviceNamespace: "default", DeviceName: "never-there"}))
	expect(t, f.r, "remove default/never-there")
	if !f.m.Registered() {
		t.Error("not registered")
	}
}

func TestBadInput(t *testing.T) {
	f := start(t)
	c, ctx := client(t, f.socket), t.Context()
	other := dev("a")
	other.Spec.Protocol.ProtocolName = "modbus"
	for name, d := range map[string]*pb.Device{"nil": nil, "empty": {}, "name": dev("A b"), "slash": dev("a/b"), "protocol": other} {
		if _, err := c.RegisterDevice(ctx, &pb.RegisterDeviceRequest{Device: d}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.CreateDeviceModel(ctx, &pb.CreateDeviceModelRequest{}); status.Code(err) != codes.InvalidArgument {
		t.Error(err)
	}
	if _, err := c.RemoveDevice(ctx, &pb.RemoveDeviceRequest{DeviceName: "x"}); status.Code(err) != codes.InvalidArgument {
		t.Error(err)
	}
	if _, err := c.UpdateDevice(ctx, &pb.UpdateDeviceRequest{Device: dev("panic")}); status.Code(err) != codes.Internal {
		t.Error(err)
	}
	if _, err := c.UpdateDevice(ctx, &pb.UpdateDeviceRequest{Device: dev("fails")}); err == nil {
		t.Error("the handler's error was lost")
	}
	if _, err := c.UpdateDevice(ctx, &pb.UpdateDeviceRequest{Device: dev("big", strings.Repeat("x", 9<<20))}); status.Code(err) != codes.ResourceExhausted {
		t.Error(err)
	}
	if _, err := c.RegisterDevice(ctx, &pb.RegisterDeviceRequest{Device: dev("fine")}); err != nil {
		t.Error(err)
	}
	expect(t, f.r, "upsert fine 0")
}

func TestRegistersAgain(t *testing.T) {
	f := start(t)
	e := &edgecore{registered: make(chan *pb.MapperRegisterRequest, 10)}
	stop := e.start(t, f.edge)
	wait(t, e.registered, "registration")
	expect(t, f.r, "sync 1 ")
	stop() // the socket is gone too
	if _, err := os.Stat(f.edge); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	e2 := &edgecore{devices: []*pb.Device{dev("new")}, registered: make(chan *pb.MapperRegisterRequest, 10)}
	e2.start(t, f.edge)
	wait(t, e2.registered, "registration with the new edgecore")
	expect(t, f.r, "sync 1 new")

	// Another edgecore takes the path while the old one still answers.
	if err := os.Rename(f.edge, f.edge+".old"); err != nil {
		t.Fatal(err)
	}
	e3 := &edgecore{registered: make(chan *pb.MapperRegisterRequest, 10)}
	e3.start(t, f.edge)
	wait(t, e3.registered, "registration on the replaced socket")
	expect(t, f.r, "sync 1 ")
}

// TestCallsDuringRegistration has edgecore tell of changes before its answer,
// which is older, arrives.
func TestCallsDuringRegistration(t *testing.T) {
	f := start(t)
	e := &edgecore{devices: []*pb.Device{dev("gone"), dev("kept")}, registered: make(chan *pb.MapperRegisterRequest, 1)}
	e.before = func(address string) {
		c := client(t, address)
		if _, err := c.RemoveDevice(context.Background(), &pb.RemoveDeviceRequest{DeviceNamespace: "default", DeviceName: "gone"}); err != nil {
			t.Error(err)
		}
	}
	e.start(t, f.edge)
	expect(t, f.r, "remove default/gone")
	expect(t, f.r, "sync 1 kept")
}

func TestSockets(t *testing.T) {
	dir := t.TempDir()
	run := func(socket string) error {
		m, err := dmi.New(dmi.Config{Protocol: "sedna", Socket: socket, EdgeSocket: filepath.Join(dir, "dmi.sock"), Handler: recorder{make(chan string, 1)}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		return m.Run(ctx)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(file); err == nil {
		t.Error("a file that is no socket was replaced")
	}
	stale := filepath.Join(dir, "stale.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale})
	if err != nil {
		t.Fatal(err)
	}
	if err := run(stale); err == nil {
		t.Error("a socket in use was taken")
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	if err := run(stale); err != nil {
		t.Error(err)
	}
	if err := run(filepath.Join(dir, strings.Repeat("x", 120))); err == nil {
		t.Error("a path too long was taken")
	}
}
