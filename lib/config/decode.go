package config

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/edgetwin/sedna/models/wire"
)

var durationType = reflect.TypeFor[time.Duration]()

// decode sets v from n; key is the path of keys to n, for errors.
func decode(n *yaml.Node, v reflect.Value, key string) error {
	switch {
	case n.Kind == yaml.AliasNode:
		return bad(n, key, "a value, aliases are not taken", "an alias")
	case n.Tag == "!!null":
		return nil
	case v.Kind() == reflect.Pointer:
		to := reflect.New(v.Type().Elem())
		if !v.IsNil() {
			to.Elem().Set(v.Elem())
		}
		if err := decode(n, to.Elem(), key); err != nil {
			return err
		}
		v.Set(to)
		return nil
	case isScalar(v.Type()):
		if n.Kind != yaml.ScalarNode {
			return bad(n, key, expected(v.Type()), kindName(n.Kind))
		}
		if !setText(v, n.Value) {
			return bad(n, key, expected(v.Type()), strconv.Quote(n.Value))
		}
		return nil
	}
	switch v.Kind() {
	case reflect.Struct:
		return decodeStruct(n, v, key)
	case reflect.Slice:
		return decodeList(n, v, key)
	case reflect.Map:
		return decodeMap(n, v, key)
	}
	return fmt.Errorf("config: %s: fields of type %s cannot be read", key, v.Type())
}

func decodeStruct(n *yaml.Node, v reflect.Value, key string) error {
	if n.Kind != yaml.MappingNode {
		return bad(n, key, "keys and values", kindName(n.Kind))
	}
	fields := fieldsOf(v)
	return eachPair(n, key, func(name string, k, val *yaml.Node, at string) error {
		i := slices.IndexFunc(fields, func(f field) bool { return f.key == name })
		if i < 0 {
			var known []string
			for _, f := range fields {
				known = append(known, f.key)
			}
			return wire.E(wire.InvalidArgument, at, fmt.Sprintf("line %d: unknown key", k.Line), "known here: "+strings.Join(known, ", "))
		}
		return decode(val, fields[i].value, at)
	})
}

func decodeList(n *yaml.Node, v reflect.Value, key string) error {
	if n.Kind != yaml.SequenceNode {
		return bad(n, key, "a list", kindName(n.Kind))
	}
	list := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, c := range n.Content {
		if err := decode(c, list.Index(i), fmt.Sprintf("%s[%d]", key, i)); err != nil {
			return err
		}
	}
	v.Set(list)
	return nil
}

func decodeMap(n *yaml.Node, v reflect.Value, key string) error {
	if n.Kind != yaml.MappingNode {
		return bad(n, key, "keys and values", kindName(n.Kind))
	}
	m := reflect.MakeMap(v.Type())
	err := eachPair(n, key, func(name string, k, val *yaml.Node, at string) error {
		mk, mv := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		if !isScalar(mk.Type()) || !setText(mk, name) {
			return bad(k, at, expected(mk.Type())+" as key", strconv.Quote(name))
		}
		if err := decode(val, mv, at); err != nil {
			return err
		}
		m.SetMapIndex(mk, mv)
		return nil
	})
	if err != nil {
		return err
	}
	v.Set(m)
	return nil
}

// eachPair calls f for each key of a mapping and refuses a key that comes
// twice. at is the path of the key.
func eachPair(n *yaml.Node, key string, f func(name string, k, val *yaml.Node, at string) error) error {
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		if k.Kind != yaml.ScalarNode || k.Tag == "!!merge" {
			return bad(k, key, "plain keys", kindName(k.Kind))
		}
		at := k.Value
		if key != "" {
			at = key + "." + k.Value
		}
		if line, twice := seen[k.Value]; twice {
			return wire.E(wire.InvalidArgument, at, fmt.Sprintf("line %d: set before, on line %d", k.Line, line), "")
		}
		seen[k.Value] = k.Line
		if err := f(k.Value, k, n.Content[i+1], at); err != nil {
			return err
		}
	}
	return nil
}

// isScalar tells whether a value of type t is written as one word of text.
func isScalar(t reflect.Type) bool {
	if reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return true
	}
	switch t.Kind() {
	case reflect.Bool, reflect.String, reflect.Float32, reflect.Float64,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return true
	}
	return false
}

// setText sets a scalar from text; false when the text does not fit its type.
func setText(v reflect.Value, s string) bool {
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(s)) == nil
	}
	bits := func() int { return v.Type().Bits() }
	switch v.Kind() {
	case reflect.String:
		v.SetString(s)
	case reflect.Bool:
		b, err := strconv.ParseBool(s)
		if err != nil {
			return false
		}
		v.SetBool(b)
	case reflect.Float32, reflect.Float64:
		f, err := strconv.ParseFloat(s, bits())
		if err != nil {
			return false
		}
		v.SetFloat(f)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		u, err := strconv.ParseUint(s, 10, bits())
		if err != nil {
			return false
		}
		v.SetUint(u)
	default:
		if v.Type() == durationType {
			d, err := time.ParseDuration(s)
			if err != nil {
				return false
			}
			v.SetInt(int64(d))
			return true
		}
		i, err := strconv.ParseInt(s, 10, bits())
		if err != nil {
			return false
		}
		v.SetInt(i)
	}
	return true
}

// expected says in words what text a scalar of type t takes.
func expected(t reflect.Type) string {
	switch {
	case t == durationType:
		return "a duration like 30s or 1h30m"
	case reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
		return "a " + t.Name()
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "text"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return fmt.Sprintf("a whole number from 0 to %d", ^uint64(0)>>(64-t.Bits()))
	}
	return fmt.Sprintf("a whole number of at most %d bits", t.Bits())
}

func bad(n *yaml.Node, key, want, got string) error {
	return wire.E(wire.InvalidArgument, key, fmt.Sprintf("line %d: expected %s, got %.80s", n.Line, want, got), "")
}

func kindName(k yaml.Kind) string {
	switch k {
	case yaml.MappingNode:
		return "keys and values"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	return "a single value"
}
