package dmi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/edgetwin/sedna/lib/metrics"
	pb "github.com/edgetwin/sedna/models/dmi"
)

// apiVersion is the DMI version that mappers name.
const apiVersion = "v1.0.0"

// registerFactor times MaxMessage bounds the answer to a registration, which
// holds all devices at once.
const registerFactor = 8

// errReplaced means that another socket lies at EdgeSocket's path.
var errReplaced = errors.New("edgecore's socket was replaced")

// keepRegistered registers, watches edgecore, and registers again when it was
// away, until ctx ends.
func (m *Mapper) keepRegistered(ctx context.Context) {
	wait, failures := m.c.MinBackoff, 0
	for {
		since := time.Now()
		err := m.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if m.registered.Swap(false) {
			m.c.Log.Warn("edgecore lost", "socket", m.c.EdgeSocket, "err", err)
			failures = 0
			if time.Since(since) > m.c.MaxBackoff {
				wait = m.c.MinBackoff
			}
		} else if failures++; failures == 1 {
			m.c.Log.Warn("registration failed, trying on", "socket", m.c.EdgeSocket, "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait + time.Duration(rand.Int64N(int64(wait)/5+1))):
		}
		wait = min(2*wait, m.c.MaxBackoff)
	}
}

// session registers once and returns when edgecore is gone.
func (m *Mapper) session(ctx context.Context) error {
	before, err := os.Stat(m.c.EdgeSocket)
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient("unix:"+m.c.EdgeSocket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithIdleTimeout(0), // an idle connection would look like a lost one
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(registerFactor*m.c.MaxMessage)))
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := m.register(ctx, conn); err != nil {
		return err
	}
	m.registered.Store(true)
	return m.watch(ctx, conn, before)
}

// register calls MapperRegister and hands the answer, overlaid with what was
// told since, to the handler.
func (m *Mapper) register(ctx context.Context, conn *grpc.ClientConn) error {
	m.mu.Lock()
	m.touched = map[string]*pb.Device{}
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, m.c.Timeout)
	defer cancel()
	res, err := pb.NewDeviceManagerServiceClient(conn).MapperRegister(ctx, &pb.MapperRegisterRequest{
		WithData: true, // without, edgecore makes no client and calls nobody
		Mapper: &pb.MapperInfo{
			Name: m.c.Name, Version: m.c.Version, ApiVersion: apiVersion,
			Protocol: m.c.Protocol, Address: []byte(m.c.Socket), State: "ok",
		},
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	touched := m.touched
	m.touched = nil
	if err != nil {
		return fmt.Errorf("register: %w", err)
	}
	devices := map[string]*pb.Device{}
	for _, d := range res.DeviceList {
		if err := m.check(d); err != nil {
			m.c.Log.Warn("device in the registration refused", "err", m.c.Metrics.Reject(metrics.DoorTwin, err))
			continue
		}
		devices[d.Namespace+"/"+d.Name] = d
	}
	for key, d := range touched {
		if devices[key] = d; d == nil {
			delete(devices, key)
		}
	}
	m.sync(res.ModelList, slices.Collect(maps.Values(devices)))
	m.c.Log.Info("registered with edgecore", "protocol", m.c.Protocol, "devices", len(devices))
	return nil
}

// sync shields the registration from a handler that panics.
func (m *Mapper) sync(models []*pb.DeviceModel, devices []*pb.Device) {
	defer func() {
		if p := recover(); p != nil {
			m.c.Log.Error("device handler panicked", "panic", p)
		}
	}()
	m.c.Handler.Sync(models, devices)
}

// watch returns when the connection breaks or another socket takes the place
// of the one that we registered on.
func (m *Mapper) watch(ctx context.Context, conn *grpc.ClientConn, before fs.FileInfo) error {
	lost := make(chan connectivity.State, 1)
	watchCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		// A call can be over before the state has become Ready. A lost
		// connection is Idle or failing, and stays so without calls.
		state := conn.GetState()
		for (state == connectivity.Ready || state == connectivity.Connecting) && conn.WaitForStateChange(watchCtx, state) {
			state = conn.GetState()
		}
		lost <- state
	}()
	tick := time.NewTicker(m.c.Check)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			<-lost
			return ctx.Err()
		case state := <-lost:
			return fmt.Errorf("connection is %s", state)
		case <-tick.C:
			if now, err := os.Stat(m.c.EdgeSocket); err != nil || !os.SameFile(before, now) {
				cancel()
				<-lost
				return errReplaced
			}
		}
	}
}
