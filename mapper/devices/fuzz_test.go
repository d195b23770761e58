package devices

import (
	"encoding/json"
	"testing"
)

func FuzzParseWrite(f *testing.F) {
	for _, s := range []string{`{"value":4}`, `{"value":"two words"}`, `{"value":true,"timestamp":1,"sig":"eA"}`, `{"value":null}`, `{"value":[1]}`, `{`, ``} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		w, text, err := parseWrite(b)
		if err != nil {
			return
		}
		var v any
		if json.Unmarshal(w.Value, &v) != nil {
			t.Fatalf("taken: %s", w.Value)
		}
		if s, ok := v.(string); ok && s != text || !ok && text != string(w.Value) {
			t.Fatalf("%s became %q", w.Value, text)
		}
	})
}
