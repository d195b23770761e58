package devices

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// maxSet bounds a write off the bus, in bytes.
const maxSet = 64 << 10

// busWrite takes a write off the bus.
func (e *Engine) busWrite(m bus.Message) {
	if err := e.acceptWrite(m); err != nil {
		e.c.Log.Warn("write refused", "topic", m.Topic, "err", e.c.Metrics.Reject(metrics.DoorMQTT, err))
	}
}

func (e *Engine) acceptWrite(m bus.Message) error {
	topic, _ := strings.CutSuffix(m.Topic, "/set")
	ns, name, prop, ok := wire.ParseSensor(e.c.Node, topic)
	if !ok || m.Retained {
		return wire.E(wire.InvalidArgument, "", "a retained message writes nothing", "")
	}
	w, text, err := parseWrite(m.Payload)
	if err != nil {
		return err
	}
	switch {
	case w.Sig == "" && !e.c.LocalWrites:
		return wire.E(wire.PermissionDenied, "sig", "missing, and only this node's LocalController writes here", "set devices.localWrites to take writes from every program on the bus")
	case w.Sig != "" && e.c.NodeKey == nil:
		return wire.E(wire.FailedPrecondition, "sig", "cannot be verified without the node's key", "give the mapper the node's identity directory")
	}
	s := e.find(key{ns, name})
	if s == nil {
		return wire.E(wire.NotFound, "", fmt.Sprintf("no device %.80s/%.80s here", ns, name), "")
	}
	if w.Sig == "" {
		return s.write(prop, text, 0)
	}
	if err := w.Verify(e.c.NodeKey, e.c.Node, ns, name, prop, time.Now()); err != nil {
		return err
	}
	return s.write(prop, text, w.Timestamp)
}

// parseWrite reads a write, and gives its value as text.
func parseWrite(payload []byte) (w task.Write, text string, err error) {
	if len(payload) > maxSet {
		return w, "", wire.E(wire.TooLarge, "", fmt.Sprintf("%d bytes, at most %d are taken", len(payload), maxSet), "")
	}
	if err := json.Unmarshal(payload, &w); err != nil {
		return w, "", wire.E(wire.InvalidArgument, "", `expected {"value":…}`, "")
	}
	var v any
	if len(w.Value) == 0 || json.Unmarshal(w.Value, &v) != nil {
		return w, "", wire.E(wire.InvalidArgument, "value", "missing", "")
	}
	switch v := v.(type) {
	case string:
		return w, v, nil
	case float64, bool:
		return w, string(w.Value), nil
	}
	return w, "", wire.E(wire.InvalidArgument, "value", "expected a JSON text, number or boolean", "")
}
