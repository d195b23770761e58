package task

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/edgetwin/sedna/models/wire"
)

// Input makes one tensor of the model from readings on the node's bus: a
// reading of the first source makes a row of the newest values of all sources,
// and the newest Window rows are the tensor.
type Input struct {
	Tensor             string        `json:"tensor"`
	Sources            []InputSource `json:"sources"`
	Window             int           `json:"window"`                       // rows in the tensor
	Stride             int           `json:"stride"`                       // new rows between two answers
	MaxAgeMilliseconds int64         `json:"maxAgeMilliseconds,omitempty"` // of a reading in a row; 0: any
	OnMissing          string        `json:"onMissing"`                    // skip or last
}

// InputSource is a property of a device on the node, or a topic of its bus.
type InputSource struct {
	Device   string `json:"device,omitempty"` // in the service's namespace
	Property string `json:"property,omitempty"`
	Topic    string `json:"topic,omitempty"`
	JSONPath string `json:"jsonPath,omitempty"`
}

// ResultProperty is the property of a device that takes the answers.
type ResultProperty struct {
	Device   string `json:"device"` // in the service's namespace
	Property string `json:"property"`
	Value    string `json:"value,omitempty"` // label, class, score or output; empty: label of classes, else output
}

// Values of Input.OnMissing and ResultProperty.Value.
const (
	MissingSkip = "skip"
	MissingLast = "last"

	ResultLabel  = "label"
	ResultClass  = "class"
	ResultScore  = "score"
	ResultOutput = "output"
)

// Limits of inputs.
const (
	MaxInputs       = 16
	MaxInputSources = 64
	MaxWindow       = 65536
	maxInputAge     = 24 * time.Hour
)

// MaxAge is how old a reading may be in a row; 0: any age will do.
func (i *Input) MaxAge() time.Duration { return time.Duration(i.MaxAgeMilliseconds) * time.Millisecond }

var propertyRE = regexp.MustCompile(`^[a-zA-Z0-9_.,:@-]{1,128}$`)

// validateInputs checks inputs and fills in what they leave out.
func validateInputs(inputs []Input) error {
	bad := func(field, format string, args ...any) error {
		return wire.E(wire.InvalidArgument, field, fmt.Sprintf(format, args...), "")
	}
	if len(inputs) > MaxInputs {
		return bad("spec.inputs", "expected at most %d, got %d", MaxInputs, len(inputs))
	}
	tensors := map[string]bool{}
	for k := range inputs {
		in, field := &inputs[k], fmt.Sprintf("spec.inputs[%d]", k)
		if in.Window == 0 {
			in.Window = 1
		}
		if in.Stride == 0 {
			in.Stride = 1
		}
		if in.OnMissing == "" {
			in.OnMissing = MissingSkip
		}
		switch {
		case in.Tensor == "":
			return bad(field+".tensor", "missing")
		case tensors[in.Tensor]:
			return bad(field+".tensor", "%.80q is fed twice", in.Tensor)
		case in.Window < 1 || in.Window > MaxWindow:
			return bad(field+".window", "expected 1 to %d, got %d", MaxWindow, in.Window)
		case in.Stride < 1 || in.Stride > in.Window:
			return bad(field+".stride", "expected 1 to window, which is %d, got %d", in.Window, in.Stride)
		case in.MaxAgeMilliseconds < 0 || in.MaxAge() > maxInputAge:
			return bad(field+".maxAgeMilliseconds", "expected 0 to %d, got %d", maxInputAge.Milliseconds(), in.MaxAgeMilliseconds)
		case in.OnMissing != MissingSkip && in.OnMissing != MissingLast:
			return bad(field+".onMissing", "expected skip or last, got %.40q", in.OnMissing)
		case len(in.Sources) < 1 || len(in.Sources) > MaxInputSources:
			return bad(field+".sources", "expected 1 to %d, got %d", MaxInputSources, len(in.Sources))
		}
		tensors[in.Tensor] = true
		for j := range in.Sources {
			if err := in.Sources[j].validate(fmt.Sprintf("%s.sources[%d]", field, j)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *InputSource) validate(field string) error {
	bad := func(name, want string) error {
		return wire.E(wire.InvalidArgument, field+name, "expected "+want, "")
	}
	if s.Topic != "" {
		switch {
		case s.Device != "" || s.Property != "":
			return bad("", "either device and property, or topic")
		case len(s.Topic) > 1024 || strings.ContainsAny(s.Topic, "+#\x00") || strings.HasPrefix(s.Topic, "$"):
			return bad(".topic", "a topic without wildcards that does not begin with $")
		case len(s.JSONPath) > 256:
			return bad(".jsonPath", "at most 256 characters")
		}
		return nil
	}
	return validateProperty(field, s.Device, s.Property)
}

func (r *ResultProperty) validate() error {
	switch r.Value {
	case "", ResultLabel, ResultClass, ResultScore, ResultOutput:
		return validateProperty("spec.resultProperty", r.Device, r.Property)
	}
	return wire.E(wire.InvalidArgument, "spec.resultProperty.value", fmt.Sprintf("expected label, class, score or output, got %.40q", r.Value), "")
}

func validateProperty(field, device, property string) error {
	if !ValidName(device) {
		return wire.E(wire.InvalidArgument, field+".device", fmt.Sprintf("expected the name of a device, got %.80q", device), "")
	}
	if !propertyRE.MatchString(property) {
		return wire.E(wire.InvalidArgument, field+".property", fmt.Sprintf("expected the name of a property, got %.80q", property), "")
	}
	return nil
}
