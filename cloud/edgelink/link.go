package edgelink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/time/rate"
	"google.golang.org/protobuf/encoding/protojson"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/edgetwin/sedna/lib/metrics"
	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
	"github.com/edgetwin/sedna/models/wire"
)

// link is one connection of one node.
type link struct {
	s        *Server
	node     string
	reporter *reporter
	request  *http.Request
	queue    *queue // Devices to send or to remove

	ctx    context.Context
	cancel context.CancelCauseFunc

	models  map[key]string    // resource version of each model sent; of send alone
	removed map[key]time.Time // when Devices were taken off the node that may come back; of send alone
}

// removalTakes is how long, with quick-rebind, a node takes to acknowledge a
// Device's removal: cloudcore then forgets all that it has queued for it.
const removalTakes = 200 * time.Millisecond

// serve reads, writes and pings until one of them fails; it says why.
func (l *link) serve(conn *websocket.Conn) error {
	var wg sync.WaitGroup
	wg.Go(func() { l.cancel(l.send(conn)) })
	wg.Go(func() { l.cancel(l.keep(conn)) })
	err := l.receive(conn)
	if refusal := (*wire.Error)(nil); errors.As(err, &refusal) {
		// Closed before the context ends, which would cut the word off.
		_ = conn.Close(websocket.StatusPolicyViolation, string(refusal.Code))
	}
	l.cancel(err)
	wg.Wait()
	_ = conn.Close(websocket.StatusGoingAway, "")
	return context.Cause(l.ctx)
}

// send gives the node everything that is bound to it, says so, and follows the
// changes.
func (l *link) send(conn *websocket.Conn) error {
	// Changes are queued since the link was entered, before this list.
	for _, k := range l.s.index.of(l.node) {
		if err := l.sendDevice(conn, k); err != nil {
			return err
		}
	}
	synced := wire.Frame{Type: wire.FrameSynced}
	for _, k := range l.s.index.of(l.node) {
		synced.Devices = append(synced.Devices, k.String())
	}
	if err := l.write(conn, &synced); err != nil {
		return err
	}
	for {
		if k, ok := l.queue.next(); ok {
			if l.queue.hasLeft(k) {
				if err := l.write(conn, &wire.Frame{Type: wire.FrameRemove, Namespace: k.Namespace, Name: k.Name}); err != nil {
					return err
				}
				l.removed[k] = time.Now()
				if l.s.index.nodeOf(k) != l.node {
					continue
				}
			}
			if l.s.c.Lose.QuickRebind && time.Since(l.removed[k]) < removalTakes {
				continue
			}
			delete(l.removed, k)
			if err := l.sendDevice(conn, k); err != nil {
				return err
			}
			continue
		}
		select {
		case <-l.ctx.Done():
			return l.ctx.Err()
		case <-l.queue.wake:
		}
	}
}

// sendDevice brings the node's knowledge of the Device up to date. A Device
// without its model is held back until the model is there.
func (l *link) sendDevice(conn *websocket.Conn, k key) error {
	d := &devices.Device{}
	err := l.s.c.Cache.Get(l.ctx, k, d)
	if apierrors.IsNotFound(err) || (err == nil && d.Spec.NodeName != l.node) {
		return l.write(conn, &wire.Frame{Type: wire.FrameRemove, Namespace: k.Namespace, Name: k.Name})
	}
	if err != nil {
		return err
	}
	m := &devices.DeviceModel{}
	err = l.s.c.Cache.Get(l.ctx, modelKey(d), m)
	if apierrors.IsNotFound(err) {
		l.s.c.Log.Warn("device waits for its model", "device", k.String(), "model", modelKey(d).Name)
		return nil
	}
	if err != nil {
		return err
	}
	message, err := toDevice(d)
	if err != nil {
		l.s.c.Log.Error("device cannot be sent", "device", k.String(), "err", l.s.c.Metrics.Reject(metrics.DoorManifest, wire.E(wire.InvalidArgument, "", err.Error(), "")))
		return nil
	}
	if mk := modelKey(d); l.models[mk] != m.ResourceVersion {
		body, err := protojson.Marshal(toModel(m))
		if err != nil {
			return err
		}
		if err := l.write(conn, &wire.Frame{Type: wire.FrameModel, Namespace: mk.Namespace, Name: mk.Name, Model: body}); err != nil {
			return err
		}
		l.models[mk] = m.ResourceVersion
	}
	body, err := protojson.Marshal(message)
	if err != nil {
		return err
	}
	return l.write(conn, &wire.Frame{Type: wire.FrameDevice, Namespace: k.Namespace, Name: k.Name, UID: string(d.UID), Device: body})
}

func (l *link) write(conn *websocket.Conn, f *wire.Frame) error {
	b, err := json.Marshal(f)
	if err != nil {
		return err
	}
	if len(b) > wire.MaxFrame {
		l.s.c.Log.Error("too large for a frame, not sent", "device", f.Namespace+"/"+f.Name, "bytes", len(b))
		return nil
	}
	ctx, cancel := context.WithTimeout(l.ctx, l.s.c.Limits.Write)
	defer cancel()
	return conn.Write(ctx, websocket.MessageText, b)
}

// keep pings the node and looks whether it is still welcome.
func (l *link) keep(conn *websocket.Conn) error {
	tick := time.NewTicker(l.s.c.Limits.Ping)
	defer tick.Stop()
	for {
		select {
		case <-l.ctx.Done():
			return l.ctx.Err()
		case <-tick.C:
		}
		if name, err := l.s.c.Node(l.request); err != nil || name != l.node {
			// Closed before the context ends, which would cut the word off.
			_ = conn.Close(websocket.StatusPolicyViolation, string(wire.Revoked))
			return wire.E(wire.Revoked, "", "the node's certificate is no longer good", "")
		}
		ctx, cancel := context.WithTimeout(l.ctx, l.s.c.Limits.Ping)
		err := conn.Ping(ctx)
		cancel()
		if err != nil {
			return fmt.Errorf("node does not answer: %w", err)
		}
	}
}

// receive takes reports. A frame that cannot be read ends the link; a report
// about what is not the node's is refused and the link goes on.
func (l *link) receive(conn *websocket.Conn) error {
	limiter := rate.NewLimiter(rate.Limit(l.s.c.Limits.Rate), l.s.c.Limits.Burst)
	for {
		typ, b, err := conn.Read(l.ctx)
		if err != nil {
			return err
		}
		if err := limiter.Wait(l.ctx); err != nil {
			return err
		}
		f, err := decode(typ, b)
		if err != nil {
			return l.s.c.Metrics.Reject(metrics.DoorEdgelink, err)
		}
		k := key{Namespace: f.Namespace, Name: f.Name}
		if l.s.index.nodeOf(k) != l.node {
			l.s.c.Log.Warn("report refused", "node", l.node, "err", l.s.c.Metrics.Reject(metrics.DoorEdgelink, errNotBound(k, l.node)))
			continue
		}
		l.reporter.add(k, f)
	}
}

// decode reads a frame that a node may send.
func decode(typ websocket.MessageType, b []byte) (*wire.Frame, error) {
	if typ != websocket.MessageText {
		return nil, wire.E(wire.InvalidArgument, "", "a frame is a text message", "")
	}
	f, err := wire.DecodeFrame(b)
	if err == nil && f.Type != wire.FrameTwin && f.Type != wire.FrameState {
		err = wire.E(wire.InvalidArgument, "type", fmt.Sprintf("frame %.40q is not for the cloud", string(f.Type)), "")
	}
	return f, err
}

func errNotBound(k key, node string) error {
	return wire.E(wire.PermissionDenied, "", fmt.Sprintf("device %.100s is not bound to node %s", k.String(), node), "")
}
