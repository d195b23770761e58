package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// Lifetimes of certificates.
const (
	CALife     = 10 * 365 * 24 * time.Hour
	ServerLife = 365 * 24 * time.Hour
	NodeLife   = 90 * 24 * time.Hour
)

// skew is how far before now certificates begin to be valid, for clocks that
// are behind.
const skew = 10 * time.Minute

// Subjects of client certificates.
const (
	AdminOrganization = "system:masters" // what Kubernetes calls its administrators
	NodeOrganization  = "sedna:nodes"
	nodePrefix        = "sedna:node:"
)

// caFile holds certificate and key together: one file, so that no kill can
// part them.
const caFile = "ca.pem"

// CA is the certificate authority of one installation: it signs the server
// certificates of the GlobalManager and the client certificates of nodes,
// administrators and the parts themselves. Safe for concurrent use.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	now  func() time.Time
}

// OpenCA loads the CA from dir, or creates it there. now is the clock that
// certificates are dated by; nil is time.Now.
func OpenCA(dir string, now func() time.Time) (*CA, error) {
	if now == nil {
		now = time.Now
	}
	if err := makeDir(dir); err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	path := filepath.Join(dir, caFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		if b, err = newCA(now()); err != nil {
			return nil, fmt.Errorf("certificate authority: %w", err)
		}
		if err = createFile(path, b); errors.Is(err, os.ErrExist) {
			b, err = os.ReadFile(path)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	ca, err := parseCA(b)
	if err != nil {
		return nil, fmt.Errorf("certificate authority %s: %w", path, err)
	}
	ca.now = now
	return ca, nil
}

func newCA(now time.Time) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "sedna CA"},
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(CALife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	keyPEM, err := encodeKey(key)
	return append(encodeCert(der), keyPEM...), err
}

func parseCA(b []byte) (*CA, error) {
	pair, err := tls.X509KeyPair(b, b)
	if err != nil {
		return nil, err
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || !pair.Leaf.IsCA {
		return nil, errors.New("expected the certificate and ECDSA key of a CA")
	}
	return &CA{cert: pair.Leaf, key: key}, nil
}

// CertPEM is the CA's certificate.
func (ca *CA) CertPEM() []byte { return encodeCert(ca.cert.Raw) }

// Pin names the CA in enrolment tokens: the base64url sha256 of its
// certificate.
func (ca *CA) Pin() string { return pinOf(ca.cert) }

func pinOf(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// ServerCert makes a serving certificate for ServerLife, good for each of
// hosts, DNS names or IP addresses. The CA's certificate goes with it, for
// joiners who know its digest only.
func (ca *CA) ServerCert(hosts ...string) (tls.Certificate, error) {
	if len(hosts) == 0 {
		return tls.Certificate{}, errors.New("server certificate: no host given")
	}
	template := ca.template(pkix.Name{CommonName: hosts[0]}, ServerLife, x509.ExtKeyUsageServerAuth)
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("server certificate: %w", err)
	}
	leaf, err := ca.sign(template, key.Public())
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("server certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{leaf.Raw, ca.cert.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

// ClientCert makes a client certificate with a new key, in PEM: the user is
// cn, its groups are orgs.
func (ca *CA) ClientCert(cn string, orgs []string, ttl time.Duration) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("client certificate of %s: %w", cn, err)
	}
	leaf, err := ca.sign(ca.template(pkix.Name{CommonName: cn, Organization: orgs}, ttl, x509.ExtKeyUsageClientAuth), key.Public())
	if err != nil {
		return nil, nil, fmt.Errorf("client certificate of %s: %w", cn, err)
	}
	keyPEM, err = encodeKey(key)
	return encodeCert(leaf.Raw), keyPEM, err
}

// SignNode gives node the certificate for the key in csr, for NodeLife. Only
// the key is taken from csr.
func (ca *CA) SignNode(csr []byte, node string) (certPEM []byte, err error) {
	pub, err := ParseCSR(csr, node)
	if err != nil {
		return nil, err
	}
	subject := pkix.Name{CommonName: nodePrefix + node, Organization: []string{NodeOrganization}}
	leaf, err := ca.sign(ca.template(subject, NodeLife, x509.ExtKeyUsageClientAuth), pub)
	if err != nil {
		return nil, fmt.Errorf("certificate of node %s: %w", node, err)
	}
	return encodeCert(leaf.Raw), nil
}

// ParseCSR checks the PEM certificate request of node, which is signed by the
// key it asks for, and returns that Ed25519 key.
func ParseCSR(csr []byte, node string) (ed25519.PublicKey, error) {
	bad := func(message string) error { return wire.E(wire.InvalidArgument, "csr", message, "") }
	if !task.ValidName(node) {
		return nil, wire.E(wire.InvalidArgument, "node", fmt.Sprintf("expected a node name, got %.80q", node), "")
	}
	block, rest := pem.Decode(csr)
	if block == nil || block.Type != "CERTIFICATE REQUEST" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, bad("expected one PEM block CERTIFICATE REQUEST")
	}
	req, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, bad("not a certificate request: " + err.Error())
	}
	pub, ok := req.PublicKey.(ed25519.PublicKey)
	if !ok {
		return nil, bad("expected an Ed25519 key")
	}
	if err := req.CheckSignature(); err != nil {
		return nil, bad("not signed by its own key")
	}
	if req.Subject.CommonName != nodePrefix+node {
		return nil, bad(fmt.Sprintf("expected the common name %s, got %.80q", nodePrefix+node, req.Subject.CommonName))
	}
	return pub, nil
}

func (ca *CA) template(subject pkix.Name, life time.Duration, usage x509.ExtKeyUsage) *x509.Certificate {
	now := ca.now()
	return &x509.Certificate{
		Subject:               subject,
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(life),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{usage},
	}
}

func (ca *CA) sign(template *x509.Certificate, pub crypto.PublicKey) (*x509.Certificate, error) {
	if template.NotAfter.After(ca.cert.NotAfter) {
		template.NotAfter = ca.cert.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, pub, ca.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// ServerTLS configures a server with certificates for hosts, renewed when a
// third of their life is left, that asks for client certificates of this CA
// and lets clients without one in as strangers. One that is given but not
// good ends the handshake.
func (ca *CA) ServerTLS(hosts ...string) (*tls.Config, error) {
	current, err := ca.ServerCert(hosts...)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		ClientAuth: tls.VerifyClientCertIfGiven,
		ClientCAs:  ca.pool(),
		Time:       ca.now,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			mu.Lock()
			defer mu.Unlock()
			if renewalDue(current.Leaf, ca.now()) {
				next, err := ca.ServerCert(hosts...)
				if err != nil {
					return nil, err
				}
				current = next
			}
			served := current
			return &served, nil
		},
	}, nil
}

func (ca *CA) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(ca.cert)
	return p
}

// renewalDue tells whether two thirds of cert's life are over.
func renewalDue(cert *x509.Certificate, now time.Time) bool {
	life := cert.NotAfter.Sub(cert.NotBefore)
	return now.After(cert.NotAfter.Add(-life / 3))
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func encodeKey(key crypto.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// parseEd25519 reads a PEM private key.
func parseEd25519(b []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("expected a PEM block PRIVATE KEY")
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := k.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("expected an Ed25519 key")
	}
	return key, nil
}
