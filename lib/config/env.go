package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode"

	"github.com/edgetwin/sedna/models/wire"
)

// field is one field of a struct under its yaml key.
type field struct {
	key   string
	value reflect.Value
}

// fieldsOf lists the fields of struct v that yaml knows, inlined ones in place.
func fieldsOf(v reflect.Value) []field {
	var out []field
	for i := range v.NumField() {
		f := v.Type().Field(i)
		key, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case !f.IsExported() || key == "-":
		case strings.Contains(options, "inline"):
			out = append(out, fieldsOf(v.Field(i))...)
		case key == "":
			out = append(out, field{strings.ToLower(f.Name), v.Field(i)})
		default:
			out = append(out, field{key, v.Field(i)})
		}
	}
	return out
}

// loadEnv sets the fields of struct v whose variables are in environ.
func loadEnv(v reflect.Value, environ []string) error {
	vars := map[string]string{}
	for _, kv := range environ {
		if name, value, ok := strings.Cut(kv, "="); ok && strings.HasPrefix(name, EnvPrefix) {
			vars[name] = value
		}
	}
	owner := map[string]string{}
	_, err := setFromEnv(v, strings.TrimSuffix(EnvPrefix, "_"), "", vars, owner)
	return err
}

// setFromEnv sets struct v from vars and tells whether any was found. name and
// key are the variable and the path of keys that lead to v; owner remembers
// whose each variable is.
func setFromEnv(v reflect.Value, name, key string, vars, owner map[string]string) (found bool, err error) {
	for _, f := range fieldsOf(v) {
		name, key := name+"_"+upperSnake(f.key), strings.TrimPrefix(key+"."+f.key, ".")
		if other, taken := owner[name]; taken {
			return false, fmt.Errorf("config: %s and %s have the same variable %s", other, key, name)
		}
		owner[name] = key
		to, target := f.value, f.value
		if target.Kind() == reflect.Pointer {
			to = reflect.New(target.Type().Elem()).Elem()
			if !target.IsNil() {
				to.Set(target.Elem())
			}
		}
		set := false
		if to.Kind() == reflect.Struct && !isScalar(to.Type()) {
			if set, err = setFromEnv(to, name, key, vars, owner); err != nil {
				return false, err
			}
		} else if text, ok := vars[name]; ok {
			if err := setVariable(to, name, text); err != nil {
				return false, err
			}
			set = true
		}
		if set && target.Kind() == reflect.Pointer {
			target.Set(to.Addr())
		}
		found = found || set
	}
	return found, nil
}

// setVariable sets one field that is not a struct from the text of a variable.
func setVariable(v reflect.Value, name, text string) error {
	switch {
	case isScalar(v.Type()):
		if !setText(v, text) {
			return wire.E(wire.InvalidArgument, name, fmt.Sprintf("expected %s, got %.80s", expected(v.Type()), strconv.Quote(text)), "")
		}
	case v.Kind() == reflect.Slice && isScalar(v.Type().Elem()):
		var parts []string
		if text != "" {
			parts = strings.Split(text, ",")
		}
		list := reflect.MakeSlice(v.Type(), len(parts), len(parts))
		for i, p := range parts {
			if p = strings.TrimSpace(p); !setText(list.Index(i), p) {
				return wire.E(wire.InvalidArgument, name, fmt.Sprintf("expected %s between commas, got %.80s", expected(v.Type().Elem()), strconv.Quote(p)), "")
			}
		}
		v.Set(list)
	case len(text) > MaxFile:
		return wire.E(wire.TooLarge, name, fmt.Sprintf("at most %d bytes are taken", MaxFile), "")
	default:
		return decodeYAML([]byte(text), v, name)
	}
	return nil
}

// upperSnake turns a camelCase key into the form of a variable: maxBody into
// MAX_BODY, mqttURL into MQTT_URL, URLPath into URL_PATH.
func upperSnake(key string) string {
	var b strings.Builder
	r := []rune(key)
	for i, c := range r {
		if i > 0 && unicode.IsUpper(c) &&
			(unicode.IsLower(r[i-1]) || unicode.IsDigit(r[i-1]) || i+1 < len(r) && unicode.IsUpper(r[i-1]) && unicode.IsLower(r[i+1])) {
			b.WriteByte('_')
		}
		if c == '-' || c == '.' {
			c = '_'
		}
		b.WriteRune(unicode.ToUpper(c))
	}
	return b.String()
}
