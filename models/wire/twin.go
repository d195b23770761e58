package wire

import (
	"encoding/json"
	"regexp"
)

// KubeEdge's limits on what goes from edge to cloud, for MQTT and DMI alike.
var (
	// TwinKey is what a property name must match.
	TwinKey = regexp.MustCompile(`^[a-zA-Z0-9_.,:/@#-]{1,128}$`)
	// TwinValue is what a value must match, unless it is empty.
	TwinValue = regexp.MustCompile(`^[a-zA-Z0-9_.,:/@#-]{1,512}$`)
)

// TwinRejectReason is the reason that KubeEdge gives for a value outside
// TwinValue.
const TwinRejectReason = "The value of twin must only include upper or lowercase letters, number, english, and special letter - _ . , : / @ # and the length of value should be less than 512 bytes"

// TwinSafe tells whether key and value may travel up in a twin.
func TwinSafe(key, value string) bool {
	return TwinKey.MatchString(key) && (value == "" || TwinValue.MatchString(value))
}

// TwinMessage is the payload of a $hw twin/update message and of its answers.
type TwinMessage struct {
	EventID   string              `json:"event_id"`
	Timestamp int64               `json:"timestamp"` // milliseconds since 1970
	Twin      map[string]*MsgTwin `json:"twin,omitempty"`
	Code      int                 `json:"code,omitempty"`
	Reason    string              `json:"reason,omitempty"`
}

// MsgTwin is one property of a TwinMessage.
type MsgTwin struct {
	Expected *TwinVal `json:"expected,omitempty"`
	Actual   *TwinVal `json:"actual,omitempty"`
	Optional *bool    `json:"optional,omitempty"`
	Metadata *TwinTyp `json:"metadata,omitempty"`
}

// TwinVal is one value; a nil Value means that none was given.
type TwinVal struct {
	Value    *string         `json:"value,omitempty"`
	Metadata json.RawMessage `json:"metadata,omitempty"`
}

// TwinTyp names a value's type: string, integer, int, float or boolean.
type TwinTyp struct {
	Type string `json:"type,omitempty"`
}

// StateMessage is the payload of a $hw state/update message.
type StateMessage struct {
	EventID   string `json:"event_id"`
	Timestamp int64  `json:"timestamp"`
	State     string `json:"state"`
}
