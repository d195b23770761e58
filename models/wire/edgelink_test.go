package wire_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/edgetwin/sedna/models/wire"
)

func TestDecodeFrame(t *testing.T) {
	many := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `,"k%d":{"reported":"v"}`, i)
		}
		return `{"type":"twin","namespace":"n","name":"d","twins":{` + b.String()[1:] + `}}`
	}
	for name, c := range map[string]struct {
		text string
		code wire.Code // empty: good
	}{
		"twin":          {`{"type":"twin","namespace":"n","name":"d","twins":{"a":{"reported":"x"}}}`, ""},
		"twin at limit": {many(wire.MaxTwins), ""},
		"twin over it":  {many(wire.MaxTwins + 1), wire.InvalidArgument},
		"no twins":      {`{"type":"twin","namespace":"n","name":"d"}`, wire.InvalidArgument},
		"alphabet":      {`{"type":"twin","namespace":"n","name":"d","twins":{"a":{"reported":"a b"}}}`, wire.InvalidArgument},
		"alphabet, key": {`{"type":"twin","namespace":"n","name":"d","twins":{"a b":{"reported":"x"}}}`, wire.InvalidArgument},
		"512":           {`{"type":"twin","namespace":"n","name":"d","twins":{"a":{"reported":"` + strings.Repeat("a", 512) + `"}}}`, ""},
		"513":           {`{"type":"twin","namespace":"n","name":"d","twins":{"a":{"reported":"` + strings.Repeat("a", 513) + `"}}}`, wire.InvalidArgument},
		"nameless":      {`{"type":"remove","namespace":"n"}`, wire.InvalidArgument},
		"state":         {`{"type":"state","namespace":"n","name":"d","state":"online"}`, ""},
		"unknown state": {`{"type":"state","namespace":"n","name":"d","state":"great"}`, wire.InvalidArgument},
		"unknown type":  {`{"type":"x"}`, wire.InvalidArgument},
		"not JSON":      {`{`, wire.InvalidArgument},
		"empty":         {``, wire.InvalidArgument},
		"modelless":     {`{"type":"model"}`, wire.InvalidArgument},
		"deviceless":    {`{"type":"device","namespace":"n","name":"d"}`, wire.InvalidArgument},
		"too large":     {strings.Repeat(" ", wire.MaxFrame+1), wire.TooLarge},
		"synced, empty": {`{"type":"synced"}`, ""},
	} {
		f, err := wire.DecodeFrame([]byte(c.text))
		if c.code == "" && (err != nil || f == nil) {
			t.Errorf("%s: %v", name, err)
		}
		if c.code != "" && !wire.IsCode(err, c.code) {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
	}
}

func FuzzDecodeFrame(f *testing.F) {
	f.Add([]byte(`{"type":"twin","namespace":"n","name":"d","twins":{"a":{"reported":"x"}}}`))
	f.Add([]byte(`{"type":"device","namespace":"n","name":"d","device":{"name":"d"}}`))
	f.Add([]byte(`{"type":"synced","devices":["n/d"]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, err := wire.DecodeFrame(b)
		if err != nil {
			return
		}
		for k, v := range frame.Twins {
			if frame.Type == wire.FrameTwin && (!wire.TwinSafe(k, v.Reported) || !wire.TwinSafe(k, v.ObservedDesired)) {
				t.Fatalf("%q: %+v", k, v)
			}
		}
	})
}
