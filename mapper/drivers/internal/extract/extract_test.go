package extract_test

import (
	"testing"

	"github.com/edgetwin/sedna/lib/jsonpath"
	"github.com/edgetwin/sedna/mapper/drivers/internal/extract"
)

const doc = `{"a":{"b":[1,2.50,{"x y":"z"}]}}`

func TestJSON(t *testing.T) {
	p, err := jsonpath.Compile("$.a.b[-1]['x y']")
	if err != nil {
		t.Fatal(err)
	}
	if v, err := extract.Value(extract.JSON, p, []byte(doc)); err != nil || v != "z" {
		t.Errorf("%v, %v", v, err)
	}
	for _, text := range []string{"", "{", "1 2", "{}"} {
		if v, err := extract.Value(extract.JSON, p, []byte(text)); err == nil {
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
		p, err := jsonpath.Compile(path)
		if err != nil {
			return
		}
		_, _ = extract.Value(extract.JSON, p, []byte(doc))
		_, _ = extract.Value(extract.Mapper, p, []byte(doc))
	})
}
