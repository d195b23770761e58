package task

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strings"

	"github.com/edgetwin/sedna/models/wire"
)

// KeyID names a public key in signatures: the first 8 hex digits of its sha256.
func KeyID(pub ed25519.PublicKey) string {
	sum := sha256.Sum256(pub)
	return hex.EncodeToString(sum[:4])
}

// Sign gives the signature property for the exact bytes of a document.
func Sign(key ed25519.PrivateKey, document []byte) string {
	pub := key.Public().(ed25519.PublicKey)
	return KeyID(pub) + ":" + base64.RawURLEncoding.EncodeToString(ed25519.Sign(key, document))
}

// Keys are the pinned public keys of the GlobalManager by KeyID; two are valid
// at a time while a key rotates.
type Keys map[string]ed25519.PublicKey

// NewKeys indexes keys by their ids.
func NewKeys(pubs ...ed25519.PublicKey) Keys {
	k := Keys{}
	for _, p := range pubs {
		k[KeyID(p)] = p
	}
	return k
}

// Verify checks a signature property against the pinned keys.
func (k Keys) Verify(document []byte, signature string) error {
	id, text, ok := strings.Cut(signature, ":")
	if !ok {
		return wire.E(wire.BadSignature, PropSignature, "expected keyId:base64url, the document is not signed", "")
	}
	pub, ok := k[id]
	if !ok {
		return wire.E(wire.BadSignature, PropSignature, "signed by a key that is not pinned here", "join the node again if the cloud was set up anew")
	}
	sig, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || !ed25519.Verify(pub, document, sig) {
		return wire.E(wire.BadSignature, PropSignature, "does not verify", "")
	}
	return nil
}
