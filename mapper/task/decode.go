package task

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"

	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// DecodeReport reads the payload of a report: one flat JSON object of strings
// within KubeEdge's alphabet, each name once, seq a whole number and sig
// there. It gives the properties and seq.
func DecodeReport(payload []byte, l Limits) (map[string]string, int64, error) {
	bad := func(field, message string) (map[string]string, int64, error) {
		return nil, 0, wire.E(wire.InvalidArgument, field, message, "")
	}
	if len(payload) > l.Payload {
		return nil, 0, wire.E(wire.TooLarge, "", fmt.Sprintf("report of %d bytes, at most %d are taken", len(payload), l.Payload), "")
	}
	dec := json.NewDecoder(bytes.NewReader(payload))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return bad("", "a report is a JSON object")
	}
	props := map[string]string{}
	for dec.More() {
		key, err1 := dec.Token()
		value, err2 := dec.Token()
		k, ok1 := key.(string)
		v, ok2 := value.(string)
		if err1 != nil || err2 != nil || !ok1 || !ok2 {
			return bad("", "a report holds texts only")
		}
		if _, again := props[k]; again {
			return bad("", fmt.Sprintf("property %.40q comes twice", k))
		}
		if !wire.TwinSafe(k, v) {
			return bad("", wire.TwinRejectReason)
		}
		if len(props) == l.Properties {
			return nil, 0, wire.E(wire.TooLarge, "", fmt.Sprintf("at most %d properties are taken", l.Properties), "")
		}
		props[k] = v
	}
	if _, err := dec.Token(); err != nil {
		return bad("", "the report's object does not end")
	}
	if _, err := dec.Token(); err != io.EOF {
		return bad("", "data after the report")
	}
	seq, err := strconv.ParseInt(props[task.PropSeq], 10, 64)
	if err != nil || seq < 1 {
		return bad(task.PropSeq, fmt.Sprintf("expected a whole number from 1, got %.40q", props[task.PropSeq]))
	}
	if props[task.PropSig] == "" {
		return nil, 0, wire.E(wire.BadSignature, task.PropSig, "the report is not signed", "")
	}
	return props, seq, nil
}
