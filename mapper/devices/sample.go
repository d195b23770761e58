package devices

import (
	"encoding/json"
	"time"
)

// Sample is a reading as programs on the node get it, on the sensor topic and
// by pushMethod.
type Sample struct {
	Device    string `json:"device"`
	Property  string `json:"property"`
	Value     any    `json:"value"` // a JSON number, text or boolean, by Type
	Type      Kind   `json:"type"`
	Unit      string `json:"unit,omitempty"`
	Timestamp int64  `json:"timestamp"` // of the reading, milliseconds since 1970
}

// encode cannot fail: values come from Kind.Convert.
func encode(device string, p *property, v any, at time.Time) []byte {
	b, err := json.Marshal(Sample{device, p.Name, v, p.Kind, p.unit, at.UnixMilli()})
	if err != nil {
		return nil
	}
	return b
}
