package oip

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgetwin/sedna/models/wire"
)

// FuzzDecodeRequest holds the decoder to this: it takes only JSON, refuses
// with a wire error, and what it takes survives writing and reading again.
func FuzzDecodeRequest(f *testing.F) {
	for _, c := range bad {
		f.Add([]byte(c.body))
	}
	f.Add([]byte(`{"id":"a","parameters":{"x":[1]},"inputs":[{"name":"x","shape":[2,2],"datatype":"FP16","data":[[1,2],[3,4e-3]]}],"outputs":[{"name":"y"}]}`))
	f.Add([]byte(input(`"shape":[2],"datatype":"BYTES","data":["\u0000","é"]`)))
	lim := Limits{MaxBody: 1 << 16, MaxElements: 1 << 12}
	f.Fuzz(func(t *testing.T, body []byte) {
		id := PeekID(body)
		r, err := DecodeRequest(body, lim)
		if err != nil {
			if e := new(wire.Error); !errors.As(err, &e) || !json.Valid(e.OIP()) {
				t.Fatalf("refused with %T: %v", err, err)
			}
			return
		}
		if !json.Valid(body) {
			t.Fatalf("took what is not JSON")
		}
		if r.ID != "" && !wire.RequestID.MatchString(r.ID) || id != "" && !wire.RequestID.MatchString(id) {
			t.Fatalf("took the id %q, peeked %q", r.ID, id)
		}
		b, err := r.AppendJSON(nil)
		if err != nil {
			t.Fatal(err)
		}
		again, err := DecodeRequest(b, Limits{})
		if err != nil {
			t.Fatalf("%v: %s", err, b)
		}
		if diff := cmp.Diff(r, again); diff != "" {
			t.Fatalf("-first +second:\n%s", diff)
		}
	})
}

// FuzzValidID keeps the hand-written check equal to the contract's pattern.
func FuzzValidID(f *testing.F) {
	f.Add("a.B_9-")
	f.Add("")
	f.Add("a\n")
	f.Fuzz(func(t *testing.T, id string) {
		if got, want := ValidID(id), wire.RequestID.MatchString(id); got != want {
			t.Fatalf("%q: %v, the pattern says %v", id, got, want)
		}
	})
}
