package identity

import (
	"crypto/ed25519"
	"crypto/x509"
	"net/http"
	"slices"
	"strings"
	"time"
)

// NodeFrom tells which node a request comes from, by its client certificate,
// which the TLS handshake has verified against our CA. Whether the node was
// revoked is for the caller to ask.
func NodeFrom(r *http.Request) (node string, ok bool) {
	leaf := verifiedLeaf(r)
	if leaf == nil || !slices.Contains(leaf.Subject.Organization, NodeOrganization) {
		return "", false
	}
	node, ok = strings.CutPrefix(leaf.Subject.CommonName, nodePrefix)
	return node, ok && node != ""
}

// NodeKey is the key of the node that a request comes from: the one in its
// certificate, which it has proven to hold.
func NodeKey(r *http.Request) (ed25519.PublicKey, bool) {
	if _, ok := NodeFrom(r); !ok {
		return nil, false
	}
	pub, ok := verifiedLeaf(r).PublicKey.(ed25519.PublicKey)
	return pub, ok
}

// IsAdmin tells whether a request comes with an administrator's certificate.
func IsAdmin(r *http.Request) bool {
	leaf := verifiedLeaf(r)
	return leaf != nil && slices.Contains(leaf.Subject.Organization, AdminOrganization)
}

// verifiedLeaf is the client's certificate; nil when there is none, or it has
// expired since the connection was made.
func verifiedLeaf(r *http.Request) *x509.Certificate {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return nil
	}
	leaf := r.TLS.VerifiedChains[0][0]
	if time.Now().After(leaf.NotAfter) {
		return nil
	}
	return leaf
}
