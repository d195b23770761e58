package devices

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/edgetwin/sedna/models/wire"
)

// Kind is the type of a property's values.
type Kind string

// Kinds of a DeviceModel, and the Go types that values of them have here.
const (
	Int    Kind = "INT"     // int64
	Float  Kind = "FLOAT"   // float64
	Double Kind = "DOUBLE"  // float64
	String Kind = "STRING"  // string
	Bool   Kind = "BOOLEAN" // bool
	Bytes  Kind = "BYTES"   // string: base64url without padding
	Stream Kind = "STREAM"  // never read as a value: frames go to a sink
)

var kinds = map[Kind]bool{Int: true, Float: true, Double: true, String: true, Bool: true, Bytes: true, Stream: true}

// maxText bounds a reading of kind STRING or BYTES, in bytes.
const maxText = 64 << 10

// twinType is the word that twins have for the kind.
func (k Kind) twinType() string {
	switch k {
	case Int:
		return "int"
	case Float, Double:
		return "float"
	case Bool:
		return "boolean"
	}
	return "string"
}

func unfit(k Kind, got string) error {
	return wire.E(wire.InvalidArgument, "", fmt.Sprintf("expected a value of type %s, got %s", k, got), "")
}

// Convert gives v as a value of the kind; it fails rather than lose anything.
func (k Kind) Convert(v any) (any, error) {
	switch v := v.(type) {
	case json.Number:
		return k.Parse(v.String())
	case []byte:
		if k == Bytes {
			return checkText(base64.RawURLEncoding.EncodeToString(v))
		}
		return k.Parse(string(v))
	case string:
		return k.Parse(v)
	case bool:
		switch k {
		case Bool:
			return v, nil
		case String:
			return strconv.FormatBool(v), nil
		}
		return nil, unfit(k, "a boolean")
	case float32:
		return k.number(float64(v))
	case float64:
		return k.number(v)
	case uint64:
		if v > math.MaxInt64 {
			return k.number(float64(v))
		}
		return k.integer(int64(v))
	}
	if n, ok := integer(v); ok {
		return k.integer(n)
	}
	return nil, unfit(k, fmt.Sprintf("%T", v))
}

func integer(v any) (int64, bool) {
	switch v := v.(type) {
	case int:
		return int64(v), true
	case int8:
		return int64(v), true
	case int16:
		return int64(v), true
	case int32:
		return int64(v), true
	case int64:
		return v, true
	case uint8:
		return int64(v), true
	case uint16:
		return int64(v), true
	case uint32:
		return int64(v), true
	}
	return 0, false
}

func (k Kind) integer(n int64) (any, error) {
	switch k {
	case Int:
		return n, nil
	case Float, Double:
		return float64(n), nil
	case Bool:
		if n == 0 || n == 1 {
			return n == 1, nil
		}
	case String:
		return strconv.FormatInt(n, 10), nil
	}
	return nil, unfit(k, strconv.FormatInt(n, 10))
}

func (k Kind) number(f float64) (any, error) {
	switch {
	case math.IsNaN(f) || math.IsInf(f, 0):
		return nil, unfit(k, "a number that is not finite")
	case k == Float || k == Double:
		return f, nil
	case k == String:
		return formatFloat(f), nil
	}
	// What a scale has made is a whole number up to rounding.
	n := math.Round(f)
	if math.Abs(f-n) > 1e-9*max(1, math.Abs(f)) || n < -(1<<63) || n >= 1<<63 {
		return nil, unfit(k, formatFloat(f))
	}
	return k.integer(int64(n))
}

// Parse reads text, as desired values and many devices have it.
func (k Kind) Parse(s string) (any, error) {
	text := strings.TrimSpace(s)
	switch k {
	case Int:
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return n, nil
		}
		if f, err := strconv.ParseFloat(text, 64); err == nil {
			return k.number(f)
		}
	case Float, Double:
		if f, err := strconv.ParseFloat(text, 64); err == nil {
			return k.number(f)
		}
	case Bool:
		switch strings.ToLower(text) {
		case "true", "1", "on":
			return true, nil
		case "false", "0", "off":
			return false, nil
		}
	case String:
		return checkText(s)
	case Bytes:
		if _, err := base64.RawURLEncoding.DecodeString(text); err == nil {
			return checkText(text)
		}
	}
	return nil, unfit(k, fmt.Sprintf("%.60q", text))
}

func checkText(s string) (any, error) {
	if len(s) > maxText {
		return nil, wire.E(wire.TooLarge, "", fmt.Sprintf("text of %d bytes, at most %d are taken", len(s), maxText), "")
	}
	return strings.ToValidUTF8(s, "\uFFFD"), nil
}

// formatFloat never uses an exponent: twins have no plus sign.
func formatFloat(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

// twinText gives a value of Convert as text that twins can carry: characters
// outside their alphabet become _, and what is over their length is cut.
func twinText(v any) string {
	switch v := v.(type) {
	case bool:
		return strconv.FormatBool(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		return formatFloat(v)
	case string:
		if wire.TwinSafe("v", v) {
			return v
		}
		const most = 512
		var b strings.Builder
		for _, r := range v {
			if b.Len() == most {
				break
			}
			if c := string(r); len(c) == 1 && wire.TwinSafe("v", c) {
				b.WriteString(c)
			} else {
				b.WriteByte('_')
			}
		}
		return b.String()
	}
	return ""
}

// bounds are a property's minimum and maximum.
type bounds struct {
	min, max *float64
}

func parseBounds(k Kind, minimum, maximum string) (b bounds, field string, err error) {
	for _, f := range []struct {
		name, text string
		to         **float64
	}{{"minimum", minimum, &b.min}, {"maximum", maximum, &b.max}} {
		if f.text == "" || (k != Int && k != Float && k != Double) {
			continue
		}
		v, err := strconv.ParseFloat(f.text, 64)
		if err != nil || math.IsNaN(v) {
			return b, f.name, fmt.Errorf("expected a number, got %.40q", f.text)
		}
		*f.to = &v
	}
	return b, "", nil
}

func (b bounds) check(v any) error {
	var f float64
	switch v := v.(type) {
	case int64:
		f = float64(v)
	case float64:
		f = v
	default:
		return nil
	}
	if (b.min != nil && f < *b.min) || (b.max != nil && f > *b.max) {
		show := func(p *float64) string {
			if p == nil {
				return "any"
			}
			return formatFloat(*p)
		}
		return wire.E(wire.InvalidArgument, "", fmt.Sprintf("%s is out of range, expected %s to %s", formatFloat(f), show(b.min), show(b.max)), "")
	}
	return nil
}
