package devices

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	pb "github.com/edgetwin/sedna/models/dmi"
	"github.com/edgetwin/sedna/models/wire"
)

// Limits of a configuration, whose sender is the cloud.
const (
	maxSettings     = 128       // keys in one configData
	maxSettingBytes = 256 << 10 // bytes in one value
)

// Settings are one configData of a Device: protocol's or a visitor's.
type Settings struct {
	field  string // where it stands, for errors
	values map[string]any
}

// NewSettings makes settings as a Device would bring them; field is where they
// stand, for errors. Values are strings, bools, int64s and float64s.
func NewSettings(field string, values map[string]any) Settings { return Settings{field, values} }

// parseSettings unwraps what DMI carries: protobuf's wrappers, and for nested
// values Struct, ListValue, Value or JSON text.
func parseSettings(field string, c *pb.CustomizedValue) (Settings, error) {
	s := Settings{field: field, values: map[string]any{}}
	if len(c.GetData()) > maxSettings {
		return s, wire.E(wire.TooLarge, field, fmt.Sprintf("%d keys, at most %d are taken", len(c.GetData()), maxSettings), "")
	}
	for name, a := range c.GetData() {
		if len(a.GetValue()) > maxSettingBytes {
			return s, wire.E(wire.TooLarge, s.at(name), fmt.Sprintf("%d bytes, at most %d are taken", len(a.GetValue()), maxSettingBytes), "")
		}
		m, err := a.UnmarshalNew()
		if err != nil {
			return s, wire.E(wire.InvalidArgument, s.at(name), fmt.Sprintf("a value of type %.100q cannot be read", a.GetTypeUrl()), "")
		}
		v, ok := unwrap(m)
		if !ok {
			return s, wire.E(wire.InvalidArgument, s.at(name), fmt.Sprintf("a value of type %.100q is not understood", a.GetTypeUrl()), "")
		}
		s.values[name] = v
	}
	return s, nil
}

func unwrap(m proto.Message) (any, bool) {
	switch m := m.(type) {
	case *wrapperspb.StringValue:
		return m.Value, true
	case *wrapperspb.BytesValue:
		return string(m.Value), true
	case *wrapperspb.BoolValue:
		return m.Value, true
	case *wrapperspb.Int32Value:
		return int64(m.Value), true
	case *wrapperspb.Int64Value:
		return m.Value, true
	case *wrapperspb.UInt32Value:
		return int64(m.Value), true
	case *wrapperspb.UInt64Value:
		if m.Value > math.MaxInt64 {
			return float64(m.Value), true
		}
		return int64(m.Value), true
	case *wrapperspb.FloatValue:
		// The shortest text that means this float32: 0.1 stays 0.1.
		f, err := strconv.ParseFloat(strconv.FormatFloat(float64(m.Value), 'g', -1, 32), 64)
		return f, err == nil
	case *wrapperspb.DoubleValue:
		return m.Value, true
	case *structpb.Value:
		switch v := m.Kind.(type) {
		case *structpb.Value_StringValue:
			return v.StringValue, true
		case *structpb.Value_NumberValue:
			return v.NumberValue, true
		case *structpb.Value_BoolValue:
			return v.BoolValue, true
		}
		b, err := m.MarshalJSON()
		return string(b), err == nil
	case *structpb.Struct:
		b, err := m.MarshalJSON()
		return string(b), err == nil
	case *structpb.ListValue:
		b, err := m.MarshalJSON()
		return string(b), err == nil
	}
	return nil, false
}

func (s Settings) at(name string) string {
	if len(name) > 64 {
		name = name[:64]
	}
	return s.field + "." + name
}

// Error makes an error about one setting.
func (s Settings) Error(name, format string, args ...any) error {
	return wire.E(wire.InvalidArgument, s.at(name), fmt.Sprintf(format, args...), "")
}

// Decode puts the settings into the struct that into points to. Fields name
// their setting and rules in a tag: `conf:"port,min=1,max=65535"`. Rules are
// required, min=, max= (numbers; for texts and lists their length) and
// oneof=a|b. Fields are strings, bools, integers, floats, []string (commas or
// a JSON list) and map[string]string (a JSON object). Texts that hold a number
// or a boolean serve as such. What is not set keeps its value. Unknown settings
// are errors.
func (s Settings) Decode(into any) error {
	v := reflect.ValueOf(into).Elem()
	known := map[string]bool{}
	for i := range v.NumField() {
		tag, ok := v.Type().Field(i).Tag.Lookup("conf")
		if !ok {
			continue
		}
		name, rules, _ := strings.Cut(tag, ",")
		known[name] = true
		set, given := s.values[name]
		if given {
			if err := s.set(name, v.Field(i), set); err != nil {
				return err
			}
		}
		for rule := range strings.SplitSeq(rules, ",") {
			if err := s.check(name, v.Field(i), given, rule); err != nil {
				return err
			}
		}
	}
	for name := range s.values {
		if !known[name] {
			names := make([]string, 0, len(known))
			for k := range known {
				names = append(names, k)
			}
			slices.Sort(names)
			return wire.E(wire.InvalidArgument, s.at(name), "there is no such setting", "settings are "+strings.Join(names, ", "))
		}
	}
	return nil
}

func (s Settings) set(name string, to reflect.Value, v any) error {
	switch to.Kind() {
	case reflect.String:
		switch v := v.(type) {
		case string:
			to.SetString(v)
		case bool:
			to.SetString(strconv.FormatBool(v))
		case int64:
			to.SetString(strconv.FormatInt(v, 10))
		case float64:
			to.SetString(formatFloat(v))
		}
		return nil
	case reflect.Bool:
		b, err := Bool.Convert(v)
		if err != nil {
			return s.Error(name, "expected true or false")
		}
		to.SetBool(b.(bool))
		return nil
	case reflect.Int, reflect.Int64:
		n, err := Int.Convert(v)
		if err != nil {
			return s.Error(name, "expected a whole number")
		}
		to.SetInt(n.(int64))
		return nil
	case reflect.Float64:
		f, err := Double.Convert(v)
		if err != nil {
			return s.Error(name, "expected a number")
		}
		to.SetFloat(f.(float64))
		return nil
	case reflect.Slice:
		text, ok := v.(string)
		if !ok {
			return s.Error(name, "expected a list of texts")
		}
		return s.setJSONOr(name, to, text, '[', func() {
			for part := range strings.SplitSeq(text, ",") {
				if part = strings.TrimSpace(part); part != "" {
					to.Set(reflect.Append(to, reflect.ValueOf(part)))
				}
			}
		})
	case reflect.Map:
		text, ok := v.(string)
		if !ok || !strings.HasPrefix(strings.TrimSpace(text), "{") {
			return s.Error(name, "expected an object of texts")
		}
		return s.setJSONOr(name, to, text, '{', nil)
	}
	return s.Error(name, "cannot be set")
}

func (s Settings) setJSONOr(name string, to reflect.Value, text string, first byte, other func()) error {
	if t := strings.TrimSpace(text); t == "" || t[0] != first {
		other()
		return nil
	}
	p := reflect.New(to.Type())
	if err := json.Unmarshal([]byte(text), p.Interface()); err != nil {
		return s.Error(name, "expected JSON of texts: %v", err)
	}
	to.Set(p.Elem())
	return nil
}

func (s Settings) check(name string, v reflect.Value, given bool, rule string) error {
	key, arg, _ := strings.Cut(rule, "=")
	switch key {
	case "required":
		if !given || (v.Kind() == reflect.String && v.Len() == 0) {
			return s.Error(name, "missing")
		}
	case "oneof":
		options := strings.Split(arg, "|")
		if !slices.Contains(options, v.String()) {
			return s.Error(name, "expected %s, got %.60q", strings.Join(options, ", "), v.String())
		}
	case "min", "max":
		var have float64
		what := ""
		switch v.Kind() {
		case reflect.Int, reflect.Int64:
			have = float64(v.Int())
		case reflect.Float64:
			have = v.Float()
		default:
			have, what = float64(v.Len()), " characters or entries"
		}
		limit, err := strconv.ParseFloat(arg, 64)
		if err != nil {
			return err
		}
		if key == "min" && have < limit {
			return s.Error(name, "expected at least %s%s, got %s", arg, what, formatFloat(have))
		}
		if key == "max" && have > limit {
			return s.Error(name, "expected at most %s%s, got %s", arg, what, formatFloat(have))
		}
	}
	return nil
}
