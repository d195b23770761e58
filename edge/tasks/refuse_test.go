package tasks_test

import (
	"crypto/ed25519"
	"encoding/json"
	"strings"
	"testing"

	"github.com/edgetwin/sedna/edge/tasks"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// TestRefusedDocuments sends each kind of bad document over the bus to a node
// that runs one task and has buried another: each is counted, told as an event,
// and changes nothing.
func TestRefusedDocuments(t *testing.T) {
	c := newCloud(t)
	e := c.edge(t, t.TempDir(), edgeOptions{})
	m := c.model("v1", "good 1")
	good := c.doc("svc", "u1", 5, m)
	c.send("svc", c.message(good, "0:0"))
	c.expect("svc", "u1", task.Running, 5)
	gone := c.doc("gone", "u9", 1, m)
	c.send("gone", c.message(gone, "0:0"))
	c.expect("gone", "u9", task.Running, 1)
	c.send("gone", c.message(deleted(gone, 2), "0:0"))
	c.expect("gone", "u9", task.Stopped, 2)

	with := func(d *task.Document, change func(*task.Document)) []byte {
		v := *d
		change(&v)
		return c.message(&v, "0:0")
	}
	stranger := keyPair(t)
	signed := func(text string) []byte { return packed(text, task.Sign(c.key, []byte(text)), "0:0") }
	encoded, err := good.Encode()
	if err != nil {
		t.Fatal(err)
	}
	badSpec := *good
	badSpec.Generation, badSpec.Spec = 6, json.RawMessage(`{"model":{"name":"m","url":"x","format":"onnx"},"hardExampleMining":{}}`)
	for name, bad := range map[string]struct {
		service string
		payload []byte
		code    wire.Code
	}{
		"not JSON":               {"svc", []byte("{"), wire.InvalidArgument},
		"no task":                {"svc", []byte(`{"nonce":"0:0"}`), wire.InvalidArgument},
		"oversized message":      {"svc", make([]byte, tasks.MaxDesired+1), wire.TooLarge},
		"oversized document":     {"svc", signed(strings.Repeat("x", task.MaxDocument+1)), wire.TooLarge},
		"unsigned":               {"svc", packed(string(encoded), "", "0:0"), wire.BadSignature},
		"signed by a stranger":   {"svc", packed(string(encoded), task.Sign(stranger, encoded), "0:0"), wire.BadSignature},
		"stranger with our id":   {"svc", packed(string(encoded), task.KeyID(c.key.Public().(ed25519.PublicKey))+strings.TrimLeft(task.Sign(stranger, encoded), "0123456789abcdef"), "0:0"), wire.BadSignature},
		"changed after signing":  {"svc", packed(strings.Replace(string(encoded), `"generation":5`, `"generation":6`, 1), task.Sign(c.key, encoded), "0:0"), wire.BadSignature},
		"malformed document":     {"svc", signed(`{"schema":"sedna.io/task/v1"`), wire.InvalidArgument},
		"unknown schema":         {"svc", with(good, func(d *task.Document) { d.Schema = "v2"; d.Generation = 6 }), wire.InvalidArgument},
		"unknown state":          {"svc", with(good, func(d *task.Document) { d.State = "Paused"; d.Generation = 6 }), wire.InvalidArgument},
		"bad spec":               {"svc", c.message(&badSpec, "0:0"), wire.InvalidArgument},
		"for another node":       {"svc", with(good, func(d *task.Document) { d.Node = "edge2"; d.Generation = 6 }), wire.WrongNode},
		"of another device":      {"other", c.message(good, "0:0"), wire.InvalidArgument},
		"of another namespace":   {"svc", with(good, func(d *task.Document) { d.Namespace = "else"; d.Generation = 6 }), wire.InvalidArgument},
		"bad nonce":              {"svc", c.message(good, "x"), wire.InvalidArgument},
		"stale":                  {"svc", with(good, func(d *task.Document) { d.Generation = 4 }), wire.Stale},
		"stale deletion":         {"svc", c.message(deleted(good, 4), "0:0"), wire.Stale},
		"same generation":        {"svc", with(good, func(d *task.Document) { d.IssuedAt = d.IssuedAt.AddDate(1, 0, 0) }), wire.Conflict},
		"replayed after its end": {"gone", c.message(gone, "0:0"), wire.Buried},
		"revived":                {"gone", with(gone, func(d *task.Document) { d.Generation = 99 }), wire.Buried},
		"older uid":              {"gone", with(gone, func(d *task.Document) { d.UID = "u8"; d.IssuedAt = d.IssuedAt.AddDate(-1, 0, 0) }), wire.Stale},
		"cleared":                {"svc", nil, wire.FailedPrecondition},
	} {
		t.Run(name, func(t *testing.T) {
			before, counted := e.dump(), e.rejected(bad.code)
			for len(e.events) > 0 {
				<-e.events
			}
			c.send(bad.service, bad.payload)
			e.reason(string(bad.code))
			if got := e.rejected(bad.code); got != counted+1 {
				t.Errorf("sedna_rejected_total{twin,%s} went from %v to %v", bad.code, counted, got)
			}
			if after := e.dump(); after != before {
				t.Errorf("stored before\n%s\nafter\n%s", before, after)
			}
			if e.server.version("svc") != "v1" {
				t.Error("the service has changed")
			}
		})
	}
}

// FuzzDecode looks for messages that crash the decoder or pass it unsigned.
func FuzzDecode(f *testing.F) {
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		f.Fatal(err)
	}
	text := `{"schema":"sedna.io/task/v1","state":"Deleted","uid":"u","generation":1,"kind":"JointInferenceService","namespace":"default","name":"svc","role":"edge","node":"edge1","issuedAt":"2026-01-01T00:00:00Z"}`
	f.Add(packed(text, task.Sign(key, []byte(text)), "0:0"), false)
	f.Add([]byte(text), true)
	f.Add([]byte(`{"task":"{}","signature":"a:b","nonce":"1:1"}`), false)
	keys := task.NewKeys(pub)
	f.Fuzz(func(t *testing.T, b []byte, sign bool) {
		if sign { // what a signature lets through must not crash either
			b = packed(string(b), task.Sign(key, b), "0:0")
		}
		in, err := tasks.Decode(node, keys, ns, device("svc"), b)
		if err != nil {
			if wire.AsError(err).Code == wire.Internal {
				t.Errorf("no code: %v", err)
			}
			return
		}
		if err := keys.Verify(in.Bytes, in.Signature); err != nil {
			t.Errorf("passed without a good signature: %v", err)
		}
		if in.Document.Node != node || in.Document.State == task.Active && in.Spec == nil {
			t.Errorf("passed: %+v", in)
		}
	})
}
