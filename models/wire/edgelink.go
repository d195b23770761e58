package wire

import (
	"encoding/json"
	"fmt"
)

// MaxFrame bounds one edgelink frame in bytes: a task Device with its 256 KiB
// document and its escaping, and some room.
const MaxFrame = 4 << 20

// EdgelinkPath is where the GlobalManager takes links.
const EdgelinkPath = "/v1/edgelink"

// FrameType says what an edgelink frame carries.
type FrameType string

// Frames from the cloud half to the edge half.
const (
	FrameModel  FrameType = "model"  // a DeviceModel was created or changed
	FrameDevice FrameType = "device" // a Device of this node was created or changed
	FrameRemove FrameType = "remove" // the Device named by Namespace and Name is gone from this node
	FrameSynced FrameType = "synced" // all that existed when the link came up was sent; Devices lists it
)

// Frames from the edge half to the cloud half.
const (
	FrameTwin  FrameType = "twin"  // reported values of one Device
	FrameState FrameType = "state" // state of one Device
)

// Frame is one message of edgelink, as JSON in a WebSocket text message.
// Device and Model hold the protobuf JSON form of the DMI messages, which
// edgelink hands on as it got them.
type Frame struct {
	Type      FrameType           `json:"type"`
	Namespace string              `json:"namespace,omitempty"`
	Name      string              `json:"name,omitempty"`
	UID       string              `json:"uid,omitempty"` // of the Device, tells a recreated one from its predecessor
	Device    json.RawMessage     `json:"device,omitempty"`
	Model     json.RawMessage     `json:"model,omitempty"`
	Devices   []string            `json:"devices,omitempty"` // namespace/name
	Twins     map[string]TwinPair `json:"twins,omitempty"`
	State     string              `json:"state,omitempty"`
	Timestamp int64               `json:"timestamp,omitempty"` // milliseconds since 1970
}

// TwinPair is what the edge says of one property.
type TwinPair struct {
	Reported        string `json:"reported"`
	ObservedDesired string `json:"observedDesired,omitempty"`
}

// MaxTwins bounds the properties in one twin frame.
const MaxTwins = 256

// DecodeFrame reads and checks one frame. Twin frames are held to KubeEdge's
// alphabet and lengths.
func DecodeFrame(b []byte) (*Frame, error) {
	if len(b) > MaxFrame {
		return nil, E(TooLarge, "", fmt.Sprintf("frame of %d bytes, at most %d are taken", len(b), MaxFrame), "")
	}
	var f Frame
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, E(InvalidArgument, "", "frame is not JSON of the expected form: "+err.Error(), "")
	}
	named := func() error {
		if f.Namespace == "" || f.Name == "" {
			return E(InvalidArgument, "name", "a "+string(f.Type)+" frame names a namespace and a device", "")
		}
		return nil
	}
	switch f.Type {
	case FrameModel:
		if len(f.Model) == 0 {
			return nil, E(InvalidArgument, "model", "missing", "")
		}
	case FrameDevice:
		if len(f.Device) == 0 {
			return nil, E(InvalidArgument, "device", "missing", "")
		}
		return &f, named()
	case FrameSynced:
	case FrameRemove:
		return &f, named()
	case FrameState:
		if !DeviceStates[f.State] {
			return nil, E(InvalidArgument, "state", "expected one of online, offline, ok, unknown, unhealthy", "")
		}
		return &f, named()
	case FrameTwin:
		if len(f.Twins) == 0 || len(f.Twins) > MaxTwins {
			return nil, E(InvalidArgument, "twins", fmt.Sprintf("expected 1 to %d properties, got %d", MaxTwins, len(f.Twins)), "")
		}
		for k, v := range f.Twins {
			if !TwinSafe(k, v.Reported) || !TwinSafe(k, v.ObservedDesired) {
				return nil, E(InvalidArgument, "twins", TwinRejectReason, "")
			}
		}
		return &f, named()
	default:
		return nil, E(InvalidArgument, "type", fmt.Sprintf("unknown frame type %.40q", string(f.Type)), "")
	}
	return &f, nil
}

// DeviceStates are the states that KubeEdge takes; it drops others silently.
var DeviceStates = map[string]bool{"online": true, "offline": true, "ok": true, "unknown": true, "unhealthy": true}
