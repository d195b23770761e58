package extract_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/edgetwin/sedna/mapper/drivers/internal/extract"
)

const doc = `{"a":{"b":[1,2.50,{"x y":"z"}],"n":null,"t":true},"0":"zero","big":12345678901234567890}`

func TestFind(t *testing.T) {
	for path, want := range map[string]string{
		"$.a.b[0]": "1", "a.b[1]": "2.50", "$.a.b[-1]['x y']": "z", `$["a"]["t"]`: "true", "$.0": "zero", "big": "12345678901234567890",
		"a.b": `[1,2.50,{"x y":"z"}]`, "$.a.b[2]": `{"x y":"z"}`,
	} {
		p, err := extract.Compile(path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if v, err := extract.Value(extract.JSON, p, []byte(doc)); err != nil || fmt.Sprint(v) != want {
			t.Errorf("%s: %v, %v", path, v, err)
		}
	}
	for _, path := range []string{"a.c", "a.b[3]", "a.b[-4]", "a.b.c", "a[0]", "a.n", "a.t.x"} {
		p, err := extract.Compile(path)
		if err != nil {
			t.Fatal(path, err)
		}
		if v, err := extract.Value(extract.JSON, p, []byte(doc)); err == nil {
			t.Errorf("%s: %v", path, v)
		}
	}
	for _, path := range []string{"a..b", "a[", "a['b", "a[b]", "$.*", "a.", "[0]]", "[0]x", strings.Repeat(".a", 33), strings.Repeat("a", 600)} {
		if p, err := extract.Compile(path); err == nil {
			t.Errorf("%s: %v", path, p)
		}
	}
	for _, text := range []string{"", "{", "1 2"} {
		if v, err := extract.Value(extract.JSON, nil, []byte(text)); err == nil {
			t.Errorf("%q: %v", text, v)
		}
	}
}

func TestMapperText(t *testing.T) {
	for text, want := range map[string]string{
		"time is 2026-01-02 15:04:05  lab/t: 21.5": "21.5", "time is 2026-01-02 15:04:05  lab/t: a: b\n": "a: b",
	} {
		if v, err := extract.Value(extract.Mapper, nil, []byte(text)); err != nil || v != want {
			t.Errorf("%q: %v, %v", text, v, err)
		}
	}
	for _, text := range []string{"", "21.5", "time is ", "time is 2026-01-02 15:04:05"} {
		if v, err := extract.MapperText(text); err == nil {
			t.Errorf("%q: %v", text, v)
		}
	}
}

func FuzzPath(f *testing.F) {
	for _, s := range []string{"$.a.b[0]", "a['x'][-1]", "", "$", "[\"q\"]"} {
		f.Add(s, doc)
	}
	f.Fuzz(func(t *testing.T, path, doc string) {
		p, err := extract.Compile(path)
		if err != nil {
			return
		}
		_, _ = extract.Value(extract.JSON, p, []byte(doc))
		_, _ = extract.Value(extract.Mapper, p, []byte(doc))
	})
}
