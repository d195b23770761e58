package devices

import (
	"cmp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Status is what the engine knows of one device.
type Status struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Protocol  string `json:"protocol"`
	State     string `json:"state"`             // online, offline, unhealthy; unknown before the first try
	Problem   string `json:"problem,omitempty"` // why it is not online

	Properties map[string]Last `json:"properties,omitempty"` // those that were read
}

// Last is the last reading of a property. A text is cut to 256 bytes.
type Last struct {
	Value     any    `json:"value"`
	Type      Kind   `json:"type"`
	Unit      string `json:"unit,omitempty"`
	Timestamp int64  `json:"timestamp"` // milliseconds since 1970
}

func last(p *property, v any, at time.Time) Last {
	if text, ok := v.(string); ok {
		v = clip(text, 256)
	}
	return Last{v, p.Kind, p.unit, at.UnixMilli()}
}

// clip gives the beginning of a text, at most n bytes, as valid UTF-8.
func clip(text string, n int) string {
	if len(text) > n {
		for n > 0 && !utf8.RuneStart(text[n]) {
			n--
		}
		text = text[:n]
	}
	return strings.ToValidUTF8(text, "?")
}

// Status lists the devices with their last readings, ordered by namespace and
// name.
func (e *Engine) Status() []Status { return e.status(true) }

func (e *Engine) status(readings bool) []Status {
	e.mu.Lock()
	all := make([]Status, 0, len(e.devices))
	for k, s := range e.devices {
		d := Status{Namespace: k.ns, Name: k.name, Protocol: s.protocol}
		d.State, d.Problem = s.status()
		if readings {
			d.Properties = s.readings()
		}
		all = append(all, d)
	}
	e.mu.Unlock()
	slices.SortFunc(all, func(a, b Status) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	return all
}
