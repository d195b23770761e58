package edgelink

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "github.com/edgetwin/sedna/models/dmi"
	"github.com/edgetwin/sedna/models/wire"
)

// mappers are the registered mappers, one per protocol.
type mappers struct {
	store *store
	call  time.Duration
	log   *slog.Logger

	ctx context.Context // of all workers
	wg  sync.WaitGroup

	mu      sync.Mutex
	clients map[string]*mapperClient // by protocol
}

// register makes a client for the mapper, in place of an earlier one of the
// protocol, and gives all that it has to know.
func (ms *mappers) register(info *pb.MapperInfo) (*pb.MapperRegisterResponse, error) {
	address := string(info.GetAddress())
	switch {
	case info.GetProtocol() == "":
		return nil, wire.E(wire.InvalidArgument, "mapper.protocol", "missing", "")
	case !filepath.IsAbs(address):
		return nil, wire.E(wire.InvalidArgument, "mapper.address", fmt.Sprintf("expected the absolute path of a unix socket, got %.100q", address), "")
	}
	conn, err := grpc.NewClient("unix:"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, wire.E(wire.InvalidArgument, "mapper.address", err.Error(), "")
	}
	c := &mapperClient{
		protocol: info.GetProtocol(), store: ms.store, timeout: ms.call, conn: conn,
		service: pb.NewDeviceMapperServiceClient(conn), log: ms.log.With("protocol", info.GetProtocol(), "mapper", info.GetName()),
		known: map[key]told{}, models: map[key]bool{}, queued: map[key]bool{}, wake: make(chan struct{}, 1),
	}
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if ms.ctx.Err() != nil {
		_ = conn.Close()
		return nil, wire.E(wire.Unavailable, "", "shutting down", "")
	}
	if old := ms.clients[c.protocol]; old != nil {
		old.stop()
	}
	ms.clients[c.protocol] = c
	// Changes from here on are queued for c: notify takes the same lock.
	res := &pb.MapperRegisterResponse{}
	for k, r := range ms.store.ofProtocol(c.protocol) {
		c.known[k] = told{r.birth, r.model()}
		res.DeviceList = append(res.DeviceList, r.device)
		if m := ms.store.model(r.model()); m != nil && !c.models[r.model()] {
			c.models[r.model()] = true
			res.ModelList = append(res.ModelList, m)
		}
	}
	ctx, stop := context.WithCancel(ms.ctx)
	c.stop = stop
	ms.wg.Go(func() { c.run(ctx) })
	return res, nil
}

// notify tells the mapper of the protocol, if there is one, that the device
// has changed in the store.
func (ms *mappers) notify(protocol string, k key) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if c := ms.clients[protocol]; c != nil {
		c.enqueue(k)
	}
}

// told is what a mapper was told of a device.
type told struct {
	birth uint64
	model key
}

// mapperClient tells one mapper of changes, one call at a time. Of a device
// that changes faster than the mapper takes calls, it tells the newest state.
// A failed call is not repeated: the mapper registers again when it was away.
type mapperClient struct {
	protocol string
	store    *store
	timeout  time.Duration
	conn     *grpc.ClientConn
	service  pb.DeviceMapperServiceClient
	log      *slog.Logger
	stop     context.CancelFunc

	// Of the worker alone, once it runs.
	known  map[key]told
	models map[key]bool

	mu     sync.Mutex
	queue  []key
	queued map[key]bool
	wake   chan struct{} // capacity 1
}

func (c *mapperClient) enqueue(k key) {
	c.mu.Lock()
	if !c.queued[k] {
		c.queued[k] = true
		c.queue = append(c.queue, k)
	}
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *mapperClient) next() (k key, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue) == 0 {
		return k, false
	}
	k, c.queue = c.queue[0], c.queue[1:]
	delete(c.queued, k)
	return k, true
}

func (c *mapperClient) run(ctx context.Context) {
	defer c.conn.Close()
	for {
		k, ok := c.next()
		if ok {
			c.tell(ctx, k)
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		}
	}
}

// tell brings the mapper's knowledge of the device up to date, in the order of
// calls that edgecore keeps.
func (c *mapperClient) tell(ctx context.Context, k key) {
	r := c.store.device(k)
	if r != nil && r.protocol() != c.protocol {
		r = nil
	}
	was, known := c.known[k]
	if known && (r == nil || r.birth != was.birth) {
		c.remove(ctx, k, was)
		known = false
	}
	if r == nil {
		return
	}
	if m := c.store.model(r.model()); m != nil {
		if !c.models[r.model()] {
			c.models[r.model()] = true
			do(ctx, c, "CreateDeviceModel", k, c.service.CreateDeviceModel, &pb.CreateDeviceModelRequest{Model: m})
		} else if known {
			do(ctx, c, "UpdateDeviceModel", k, c.service.UpdateDeviceModel, &pb.UpdateDeviceModelRequest{Model: m})
		}
	}
	c.known[k] = told{r.birth, r.model()}
	if known || r.stranger {
		do(ctx, c, "UpdateDevice", k, c.service.UpdateDevice, &pb.UpdateDeviceRequest{Device: r.device})
	} else {
		do(ctx, c, "RegisterDevice", k, c.service.RegisterDevice, &pb.RegisterDeviceRequest{Device: r.device})
	}
}

func (c *mapperClient) remove(ctx context.Context, k key, was told) {
	delete(c.known, k)
	if c.models[was.model] && !c.store.modelInUse(c.protocol, was.model) {
		delete(c.models, was.model)
		do(ctx, c, "RemoveDeviceModel", k, c.service.RemoveDeviceModel, &pb.RemoveDeviceModelRequest{ModelName: was.model.name, ModelNamespace: was.model.ns})
	}
	do(ctx, c, "RemoveDevice", k, c.service.RemoveDevice, &pb.RemoveDeviceRequest{DeviceName: k.name, DeviceNamespace: k.ns})
}

// do makes one call; a failure is logged.
func do[Req, Res any](ctx context.Context, c *mapperClient, method string, k key, call func(context.Context, Req, ...grpc.CallOption) (Res, error), req Req) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	if _, err := call(ctx, req); err != nil {
		c.log.Warn("call to the mapper failed", "method", method, "device", k.String(), "err", err)
	}
}
