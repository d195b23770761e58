package edgelink

import (
	"encoding/json"
	"fmt"

	"github.com/edgetwin/sedna/models/wire"
)

// Reasons and codes of refusals, in KubeEdge's words.
const (
	codeBad      = 400
	codeUnknown  = 404
	reasonNoTwin = "Update twin error, key:twin does not exist"
	reasonNoSuch = "update rejected due to the device is not existed"
	reasonType   = "Update twin error, the type of the twin is not supported"
)

// twinUpdate is a twin/update message. Twin is nil when the key is missing.
type twinUpdate struct {
	EventID string                   `json:"event_id"`
	Twin    map[string]*wire.MsgTwin `json:"twin"`
}

// twinAnswer is a result of twin/update or twin/get.
type twinAnswer struct {
	EventID   string                   `json:"event_id"`
	Timestamp int64                    `json:"timestamp"`
	Twin      map[string]*wire.MsgTwin `json:"twin"`
}

type twinDocument struct {
	EventID   string                `json:"event_id"`
	Timestamp int64                 `json:"timestamp"`
	Twin      map[string]twinChange `json:"twin"`
}

type twinChange struct {
	Last    *wire.MsgTwin `json:"last"`
	Current *wire.MsgTwin `json:"current"`
}

type twinDelta struct {
	EventID   string                   `json:"event_id"`
	Timestamp int64                    `json:"timestamp"`
	Twin      map[string]*wire.MsgTwin `json:"twin"`
	Delta     map[string]string        `json:"delta"`
}

type refusal struct {
	EventID   string `json:"event_id"`
	Timestamp int64  `json:"timestamp"`
	Code      int    `json:"code"`
	Reason    string `json:"reason"`
}

type stateAnswer struct {
	EventID   string      `json:"event_id"`
	Timestamp int64       `json:"timestamp"`
	Device    stateDevice `json:"device"`
}

type stateDevice struct {
	Name           string `json:"name"`
	State          string `json:"state"`
	LastOnlineTime string `json:"lastOnlineTime,omitempty"`
}

// valueAt is a value as the twin keeps it, with the time it came.
func valueAt(v *wire.TwinVal, ms int64) *wire.TwinVal {
	if v == nil || v.Value == nil {
		return nil
	}
	return &wire.TwinVal{Value: v.Value, Metadata: json.RawMessage(fmt.Sprintf(`{"timestamp":%d}`, ms))}
}

func value(v *wire.TwinVal) string {
	if v == nil || v.Value == nil {
		return ""
	}
	return *v.Value
}

// twinTypes are the types that a twin's metadata may name.
var twinTypes = map[string]bool{"": true, "string": true, "int": true, "integer": true, "float": true, "boolean": true}

// checkTwins holds an update to KubeEdge's limits: one bad key or value
// rejects the whole.
func checkTwins(twins map[string]*wire.MsgTwin) error {
	for k, t := range twins {
		if !wire.TwinSafe(k, "") {
			return errAlphabet
		}
		if t == nil {
			continue
		}
		if !wire.TwinSafe(k, value(t.Expected)) || !wire.TwinSafe(k, value(t.Actual)) {
			return errAlphabet
		}
		if t.Metadata != nil && !twinTypes[t.Metadata.Type] {
			return errType
		}
	}
	return nil
}

var (
	errAlphabet = wire.E(wire.InvalidArgument, "twin", wire.TwinRejectReason, "") // answered on an empty device id
	errType     = wire.E(wire.InvalidArgument, "twin", reasonType, "")
	errNoTwin   = wire.E(wire.InvalidArgument, "twin", reasonNoTwin, "")
	errNoDevice = wire.E(wire.NotFound, "", reasonNoSuch, "")
)
