// Package extract gets one value out of what a device says: JSON and a path
// into it, plain text, or mapper-framework's push text.
package extract

import (
	"fmt"
	"strings"

	"github.com/edgetwin/sedna/lib/jsonpath"
)

// Forms of a payload.
const (
	JSON   = "json"   // a document, and a path to the value in it
	Text   = "text"   // the value itself
	Mapper = "mapper" // "time is 2026-01-02 15:04:05  <topic>: <value>"
)

// MapperText gives the value in what mapper-framework pushes.
func MapperText(payload string) (string, error) {
	rest, ok := strings.CutPrefix(payload, "time is ")
	const layout = "2006-01-02 15:04:05"
	if !ok || len(rest) < len(layout) {
		return "", fmt.Errorf("expected %q, got %.60q", "time is … <topic>: <value>", payload)
	}
	// Topics hold no ": " in practice; values may.
	_, value, ok := strings.Cut(rest[len(layout):], ": ")
	if !ok {
		return "", fmt.Errorf("expected %q, got %.60q", "<topic>: <value>", payload)
	}
	return strings.TrimRight(value, "\r\n"), nil
}

// Value gets the value out of payload, in one of the forms.
func Value(form string, p jsonpath.Path, payload []byte) (any, error) {
	switch form {
	case Text:
		return string(payload), nil
	case Mapper:
		return MapperText(string(payload))
	}
	doc, err := jsonpath.Decode(payload)
	if err != nil {
		return nil, err
	}
	return p.Find(doc)
}
