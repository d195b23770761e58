package v1alpha1

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/edgetwin/sedna/models/wire"
)

// decode reads part, which keeps JSON as it was written, as a T. Unlike
// encoding/json it takes no unknown field and no other case of a known one,
// and says which field is wrong.
func decode[T any](part any) (*T, error) {
	b, err := json.Marshal(part)
	if err != nil {
		return nil, wire.E(wire.InvalidArgument, "", err.Error(), "")
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, wire.E(wire.InvalidArgument, "", err.Error(), "")
	}
	t := new(T)
	if err := check(v, reflect.TypeFor[T](), ""); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, t); err != nil {
		return nil, wire.E(wire.InvalidArgument, "", err.Error(), "")
	}
	return t, nil
}

var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

// check says where v does not fit t; at is v's own path. Of several places it
// is always the same one, so that a condition that tells it stays. An untyped
// nil was null in the manifest, which stands for a field that is not there.
func check(v any, t reflect.Type, at string) error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if v == nil {
		return nil
	}
	if reflect.PointerTo(t).Implements(unmarshaler) {
		return checkLeaf(v, t, at)
	}
	switch t.Kind() {
	case reflect.Struct:
		return checkStruct(v, t, at)
	case reflect.Map:
		m, ok := v.(map[string]any)
		if !ok {
			return mismatch(v, "a map", at)
		}
		for _, key := range slices.Sorted(maps.Keys(m)) {
			if err := check(m[key], t.Elem(), fmt.Sprintf("%s[%s]", at, key)); err != nil {
				return err
			}
		}
		return nil
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return checkLeaf(v, t, at)
		}
		s, ok := v.([]any)
		if !ok {
			return mismatch(v, "a list", at)
		}
		for i, item := range s {
			if err := check(item, t.Elem(), fmt.Sprintf("%s[%d]", at, i)); err != nil {
				return err
			}
		}
		return nil
	}
	return checkLeaf(v, t, at)
}

func checkStruct(v any, t reflect.Type, at string) error {
	m, ok := v.(map[string]any)
	if !ok {
		return mismatch(v, "an object", at)
	}
	fields := map[string]reflect.Type{}
	jsonFields(t, fields)
	for _, key := range slices.Sorted(maps.Keys(m)) {
		path := strings.TrimPrefix(at+"."+key, ".")
		field, ok := fields[key]
		if !ok {
			return wire.E(wire.InvalidArgument, path, "unknown field", "look for a typing error")
		}
		if err := check(m[key], field, path); err != nil {
			return err
		}
	}
	return nil
}

// jsonFields collects the fields of a struct under their names in JSON.
func jsonFields(t reflect.Type, into map[string]reflect.Type) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-" || !f.IsExported():
		case name != "":
			into[name] = f.Type
		case f.Anonymous:
			jsonFields(f.Type, into)
		}
	}
}

// checkLeaf lets t's own decoder judge.
func checkLeaf(v any, t reflect.Type, at string) error {
	b, err := json.Marshal(v)
	if err != nil {
		return wire.E(wire.InvalidArgument, at, err.Error(), "")
	}
	if t == quantity && (len(b) > maxQuantity || farExponent.Match(b)) {
		return mismatch(v, expected(t), at)
	}
	if err := json.Unmarshal(b, reflect.New(t).Interface()); err == nil {
		return nil
	}
	return mismatch(v, expected(t), at)
}

var quantity = reflect.TypeFor[resource.Quantity]()

// Kubernetes reads "1e-99999999" for minutes, rounding it to the nano. No
// quantity of use is as long, or as far from 1.
const maxQuantity = 64

var farExponent = regexp.MustCompile(`[eE][+-]?[0-9]{3,}`)

func expected(t reflect.Type) string {
	switch t.Name() {
	case "Quantity":
		return `a quantity such as "500m" or "2Gi"`
	case "IntOrString":
		return "a number or text"
	case "Time", "MicroTime":
		return "a time such as 2006-01-02T15:04:05Z"
	}
	switch t.Kind() {
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Int32:
		return "a whole number of 32 bits"
	case reflect.Int64:
		return "a whole number of 64 bits"
	}
	return "a " + t.Name()
}

// maxShown bounds how much of a wrong value a message repeats.
const maxShown = 64

func mismatch(v any, want, at string) error {
	var have string
	switch v.(type) {
	case map[string]any:
		have = "an object"
	case []any:
		have = "a list"
	default:
		have = fmt.Sprintf("%#v", v)
		if n, ok := v.(json.Number); ok {
			have = n.String()
		}
		if len(have) > maxShown {
			have = have[:maxShown] + "…"
		}
	}
	return wire.E(wire.InvalidArgument, at, "expected "+want+", not "+have, "")
}
