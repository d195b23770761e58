package jsonpath_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/edgetwin/sedna/lib/jsonpath"
)

const doc = ` {"a":{"b":[1, 2.50 ,{"x y":"z"},[]],"n":null,"t":true},"0":"zero","big":12345678901234567890,"q\"\u00e9":"a]\"}","twice":1,"twice":[2]}`

func TestFind(t *testing.T) {
	for path, want := range map[string]string{
		"$.a.b[0]": "1", "a.b[1]": "2.50", "$.a.b[-2]['x y']": `"z"`, `$["a"]["t"]`: "true", "$.0": `"zero"`, "big": "12345678901234567890",
		"a.b": `[1, 2.50 ,{"x y":"z"},[]]`, "$.a.b[2]": `{"x y":"z"}`, "a.b[-1]": "[]", `['q"é']`: `"a]\"}"`, "twice": "[2]", "": strings.TrimSpace(doc),
	} {
		p, err := jsonpath.Compile(path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if raw, err := p.Raw([]byte(doc)); err != nil || string(raw) != want {
			t.Errorf("%s in bytes: %s, %v", path, raw, err)
		}
		if v, err := find(p, doc); err != nil || !reflect.DeepEqual(v, decoded(t, want)) {
			t.Errorf("%s: %v, %v", path, v, err)
		}
	}
	for _, path := range []string{"a.c", "a.b[4]", "a.b[-5]", "a.b.c", "a[0]", "a.n", "a.t.x", "a.b[3][0]"} {
		p, err := jsonpath.Compile(path)
		if err != nil {
			t.Fatal(path, err)
		}
		_, inTree := find(p, doc)
		_, inBytes := p.Raw([]byte(doc))
		if inTree == nil || inBytes == nil || inTree.Error() != inBytes.Error() {
			t.Errorf("%s: %v, %v", path, inTree, inBytes)
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	for _, path := range []string{"a..b", "a[", "a['b", "a[b]", "$.*", "a.", "[0]]", "[0]x", strings.Repeat(".a", 33), strings.Repeat("a", 600)} {
		if p, err := jsonpath.Compile(path); err == nil {
			t.Errorf("%s: %v", path, p)
		}
	}
}

func TestNoDocument(t *testing.T) {
	for _, text := range []string{"", "{", "1 2", "\x00"} {
		if v, err := find(nil, text); err == nil {
			t.Errorf("%q: %v", text, v)
		}
		if v, err := (jsonpath.Path)(nil).Raw([]byte(text)); err == nil {
			t.Errorf("%q: %s", text, v)
		}
	}
}

func TestElements(t *testing.T) {
	var got []string
	if !jsonpath.Elements([]byte(`[1, [2,3] ,"a,]",{"b":[]}, null]`), func(e []byte) { got = append(got, string(e)) }) {
		t.Fatal("no list")
	}
	if want := []string{"1", "[2,3]", `"a,]"`, `{"b":[]}`, "null"}; !reflect.DeepEqual(got, want) {
		t.Errorf("%q", got)
	}
	for _, text := range []string{"", "1", `{"a":1}`, `"[1]"`} {
		if jsonpath.Elements([]byte(text), func([]byte) {}) {
			t.Errorf("%s is no list", text)
		}
	}
}

func find(p jsonpath.Path, text string) (any, error) {
	tree, err := jsonpath.Decode([]byte(text))
	if err != nil {
		return nil, err
	}
	return p.Find(tree)
}

// decoded is a value as Find gives it.
func decoded(t *testing.T, raw string) any {
	t.Helper()
	v, err := find(nil, raw)
	if err != nil {
		t.Fatal(raw, err)
	}
	return v
}

// FuzzPath: both ways of finding agree.
func FuzzPath(f *testing.F) {
	for _, s := range []string{"$.a.b[0]", "a['x'][-1]", "", "$", "[\"q\"]", "a.b", "twice"} {
		f.Add(s, doc)
	}
	f.Fuzz(func(t *testing.T, path, text string) {
		p, err := jsonpath.Compile(path)
		if err != nil {
			return
		}
		v, err := find(p, text)
		raw, rawErr := p.Raw([]byte(text))
		if (err == nil) != (rawErr == nil) {
			t.Fatalf("%s in %q: %v, in bytes %v", path, text, err, rawErr)
		}
		if err != nil {
			return
		}
		if w, err := find(nil, string(raw)); err != nil || fmt.Sprint(w) != fmt.Sprint(v) {
			t.Fatalf("%s in %q: %v, in bytes %s (%v)", path, text, v, raw, err)
		}
	})
}

func BenchmarkRaw(b *testing.B) {
	p, err := jsonpath.Compile("$.value")
	if err != nil {
		b.Fatal(err)
	}
	sample, err := json.Marshal(map[string]any{"device": "plc", "property": "temperature", "value": 21.5, "type": "DOUBLE", "unit": "C", "timestamp": 1764000000000})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Raw(sample); err != nil {
			b.Fatal(err)
		}
	}
}
