package task

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/edgetwin/sedna/models/wire"
)

// Write asks the mapper of a node to write a property of a device, over the
// bus. One that is signed by the node's key is taken from the LocalController
// alone; others are taken where the mapper is told to take them from anyone.
type Write struct {
	Value     json.RawMessage `json:"value"`               // a JSON text, number or boolean
	Timestamp int64           `json:"timestamp,omitempty"` // milliseconds since 1970, grows with every signed write of a property
	Sig       string          `json:"sig,omitempty"`       // base64url
}

// MaxWriteSkew is how far a signed write's time may be from the mapper's.
const MaxWriteSkew = time.Minute

// SignWrite makes a signed write of a property of ns/device.
func SignWrite(key ed25519.PrivateKey, node, ns, device, property string, value json.RawMessage, at time.Time) Write {
	w := Write{Value: value, Timestamp: at.UnixMilli()}
	w.Sig = base64.RawURLEncoding.EncodeToString(ed25519.Sign(key, w.signed(node, ns, device, property)))
	return w
}

// Verify checks the signature of a write of a property of ns/device, and that
// its time is near now. That it is newer than the one before is for the caller
// to check.
func (w Write) Verify(pub ed25519.PublicKey, node, ns, device, property string, now time.Time) error {
	sig, err := base64.RawURLEncoding.DecodeString(w.Sig)
	if err != nil || len(pub) != ed25519.PublicKeySize || !ed25519.Verify(pub, w.signed(node, ns, device, property), sig) {
		return wire.E(wire.BadSignature, "sig", "does not verify with this node's key", "")
	}
	if off := now.Sub(time.UnixMilli(w.Timestamp)).Abs(); off > MaxWriteSkew {
		return wire.E(wire.Stale, "timestamp", "is "+off.Truncate(time.Second).String()+" off", "check the clock")
	}
	return nil
}

// signed is what the signature is over. No part but the value can hold a line
// feed.
func (w Write) signed(node, ns, device, property string) []byte {
	return []byte(strings.Join([]string{"sedna write", node, ns, device, property, strconv.FormatInt(w.Timestamp, 10), string(w.Value)}, "\n"))
}
