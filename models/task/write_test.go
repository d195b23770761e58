package task_test

import (
	"crypto/ed25519"
	"encoding/json"
	"testing"
	"time"

	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

var writeKey = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))

func TestWrite(t *testing.T) {
	pub := writeKey.Public().(ed25519.PublicKey)
	at := time.UnixMilli(1764000000000)
	good := task.SignWrite(writeKey, "edge-1", "plant", "panel", "state", json.RawMessage(`"ok"`), at)
	b, err := json.Marshal(good)
	if err != nil {
		t.Fatal(err)
	}
	type call struct {
		w                          task.Write
		pub                        ed25519.PublicKey
		node, ns, device, property string
		now                        time.Time
	}
	for _, c := range []struct {
		name string
		edit func(*call)
		code wire.Code // empty: verifies
	}{
		{"good", func(*call) {}, ""},
		{"late", func(c *call) { c.now = at.Add(task.MaxWriteSkew) }, ""},
		{"early", func(c *call) { c.now = at.Add(-task.MaxWriteSkew) }, ""},
		{"too late", func(c *call) { c.now = at.Add(task.MaxWriteSkew + time.Millisecond) }, wire.Stale},
		{"too early", func(c *call) { c.now = at.Add(-task.MaxWriteSkew - time.Millisecond) }, wire.Stale},
		{"other value", func(c *call) { c.w.Value = json.RawMessage(`"no"`) }, wire.BadSignature},
		{"other time", func(c *call) { c.w.Timestamp++ }, wire.BadSignature},
		{"other node", func(c *call) { c.node = "edge-2" }, wire.BadSignature},
		{"other namespace", func(c *call) { c.ns = "default" }, wire.BadSignature},
		{"other device", func(c *call) { c.device = "valve" }, wire.BadSignature},
		{"other property", func(c *call) { c.property = "open" }, wire.BadSignature},
		{"unsigned", func(c *call) { c.w.Sig = "" }, wire.BadSignature},
		{"no base64", func(c *call) { c.w.Sig = "!" }, wire.BadSignature},
		{"other key", func(c *call) { c.pub = make(ed25519.PublicKey, ed25519.PublicKeySize) }, wire.BadSignature},
		{"no key", func(c *call) { c.pub = nil }, wire.BadSignature},
	} {
		var w task.Write
		if err := json.Unmarshal(b, &w); err != nil {
			t.Fatal(err)
		}
		x := call{w, pub, "edge-1", "plant", "panel", "state", at}
		c.edit(&x)
		err := x.w.Verify(x.pub, x.node, x.ns, x.device, x.property, x.now)
		if (err == nil) != (c.code == "") || err != nil && !wire.IsCode(err, c.code) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// FuzzWrite: of all that can be decoded only what was signed verifies.
func FuzzWrite(f *testing.F) {
	pub := writeKey.Public().(ed25519.PublicKey)
	at := time.UnixMilli(1764000000000)
	good := task.SignWrite(writeKey, "edge-1", "plant", "panel", "state", json.RawMessage(`21.5`), at)
	b, err := json.Marshal(good)
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{string(b), `{"value":21.5}`, `{"value":null,"timestamp":-1,"sig":"AA"}`, `{"timestamp":9223372036854775807}`, `[]`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		var w task.Write
		if json.Unmarshal(payload, &w) != nil {
			return
		}
		if w.Verify(pub, "edge-1", "plant", "panel", "state", at) == nil && (string(w.Value) != "21.5" || w.Timestamp != good.Timestamp) {
			t.Fatalf("%s verifies", payload)
		}
	})
}
