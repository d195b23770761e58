package identity

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// Routes of the GlobalManager that give certificates.
const (
	EnrolPath = "/v1/enrol"
	RenewPath = "/v1/enrol/renew"
)

// EnrolRequest is the body of a POST to EnrolPath, and without Token and Node
// of one to RenewPath.
type EnrolRequest struct {
	Token string `json:"token,omitempty"`
	Node  string `json:"node,omitempty"`
	CSR   string `json:"csr"` // PEM
}

// maxAnswer bounds the answer to an EnrolRequest in bytes.
const maxAnswer = 256 << 10

// Enrol makes this machine node of the GlobalManager at cloudURL: it sends a
// request for the key in dir (created when there is none) and saves the
// identity that it is granted there. It trusts only a server whose chain leads
// to the CA that token names. When the answer is lost the token is spent: try
// again with a new one, which certifies the same key.
func Enrol(ctx context.Context, cloudURL, token, node, dir string) (*Node, error) {
	cloudURL = strings.TrimRight(cloudURL, "/")
	u, err := parseCloudURL(cloudURL)
	if err != nil {
		return nil, err
	}
	t, err := ParseToken(token)
	if err != nil {
		return nil, err
	}
	if !task.ValidName(node) {
		return nil, wire.E(wire.InvalidArgument, "node", fmt.Sprintf("expected a node name, got %.80q", node), "")
	}
	if old, err := LoadNode(dir); err == nil && old.Name() != node {
		return nil, wire.E(wire.FailedPrecondition, "node", fmt.Sprintf("%s holds the identity of node %s", dir, old.Name()), "use another directory, or remove that one first")
	}
	csr, err := NodeCSR(dir, node)
	if err != nil {
		return nil, err
	}
	client := newHTTPClient(pinnedTLS(t.Pin, u.Hostname()))
	defer client.CloseIdleConnections()
	g, err := post(ctx, client, cloudURL+EnrolPath, EnrolRequest{Token: token, Node: node, CSR: string(csr)})
	if err != nil {
		return nil, fmt.Errorf("enrol at %s: %w", cloudURL, err)
	}
	if ca, err := parseCert(g.CA); err != nil || pinOf(ca) != t.Pin {
		return nil, fmt.Errorf("enrol at %s: %w", cloudURL, wire.E(wire.Unauthenticated, "ca", "not the CA that the token names", ""))
	}
	return SaveNode(dir, node, cloudURL, *g)
}

// Renew gets n a new certificate for its key, and the signing keys that are
// valid now, and saves them.
func Renew(ctx context.Context, n *Node) error {
	if leaf := n.Certificate(); time.Now().After(leaf.NotAfter) {
		return wire.E(wire.FailedPrecondition, "certificate", "expired at "+leaf.NotAfter.UTC().Format(time.RFC3339), "join again with a new token")
	}
	csr, err := newCSR(n.key, n.Name())
	if err != nil {
		return err
	}
	g, err := post(ctx, n.client, n.CloudURL()+RenewPath, EnrolRequest{CSR: string(csr)})
	if err != nil {
		return fmt.Errorf("renew the certificate of node %s: %w", n.Name(), err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	rec := n.record
	if ca, err := parseCert(g.CA); err != nil || !ca.Equal(n.state.ca) {
		return fmt.Errorf("renew the certificate of node %s: %w", rec.Node, wire.E(wire.Unauthenticated, "ca", "not the CA that the node enrolled with", ""))
	}
	rec.Grant = *g
	if err := n.save(rec); err != nil {
		return fmt.Errorf("renew the certificate of node %s: %w", rec.Node, err)
	}
	n.client.CloseIdleConnections()
	return nil
}

// MaybeRenew renews when two thirds of the certificate's life are over and no
// other process has done it. Call it every hour or so.
func MaybeRenew(ctx context.Context, n *Node, now time.Time) (renewed bool, err error) {
	before := n.Certificate()
	if err := n.reload(); err != nil {
		return false, err
	}
	if !n.Certificate().Equal(before) {
		n.client.CloseIdleConnections()
	}
	if !renewalDue(n.Certificate(), now) {
		return false, nil
	}
	err = Renew(ctx, n)
	return err == nil, err
}

// pinnedTLS trusts the server chains to the CA that pin names, for host.
func pinnedTLS(pin, host string) *tls.Config {
	refuse := func(message string) error {
		return wire.E(wire.Unauthenticated, "cloud", message, "check the address; if it is right, make a new token there")
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		// The CA's certificate is known by its digest only, so the chain is
		// checked below, not by crypto/tls.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			for _, c := range cs.PeerCertificates {
				if pinOf(c) != pin || !c.IsCA {
					continue
				}
				pool := x509.NewCertPool()
				pool.AddCert(c)
				if _, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: pool, DNSName: host}); err != nil {
					return refuse("the server's certificate is not good: " + err.Error())
				}
				return nil
			}
			return refuse("the server is not of the CA that the token names")
		},
	}
}

// post sends req and reads the answer. A server that cannot be reached is
// unavailable.
func post(ctx context.Context, client *http.Client, url string, req EnrolRequest) (*Grant, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	body, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(r)
	if err != nil {
		return nil, unreachable(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, unreachable(err)
	case resp.StatusCode != http.StatusOK:
		return nil, wire.ParseError(resp.StatusCode, b)
	case len(b) > maxAnswer:
		return nil, wire.E(wire.TooLarge, "", fmt.Sprintf("answer of more than %d bytes", maxAnswer), "")
	}
	var g Grant
	if err := json.Unmarshal(b, &g); err != nil {
		return nil, wire.E(wire.InvalidArgument, "", "the answer is not JSON: "+err.Error(), "")
	}
	return &g, nil
}

// unreachable gives a transport error the code unavailable, unless it carries
// a code already or the caller gave up.
func unreachable(err error) error {
	var e *wire.Error
	if errors.As(err, &e) {
		return e
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	return wire.E(wire.Unavailable, "", err.Error(), "check the address and the network")
}

func newCSR(key ed25519.PrivateKey, node string) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: nodePrefix + node}}, key)
	if err != nil {
		return nil, fmt.Errorf("certificate request of node %s: %w", node, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}
