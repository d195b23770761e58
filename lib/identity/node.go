package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// Files of a node's identity. The key never changes; all that can change is in
// one file, so that no kill can part a certificate from its CA.
const (
	nodeKeyFile = "node.key"
	nodeFile    = "node.json"
)

// Node is a node's identity in a directory: its Ed25519 key, used both for TLS
// and for signing reports, its certificate, and whom it trusts. Processes may
// share the directory: a certificate that one of them renews is picked up by
// the others. Safe for concurrent use.
type Node struct {
	dir string
	key ed25519.PrivateKey

	mu     sync.RWMutex
	record nodeRecord
	state  nodeState
	stamp  os.FileInfo // of the node file as loaded

	client *http.Client
}

// nodeRecord is what nodeFile holds.
type nodeRecord struct {
	Node  string `json:"node"`
	Cloud string `json:"cloud"` // URL of the GlobalManager
	Grant
}

// Grant is what the GlobalManager answers to a node that enrols or renews.
type Grant struct {
	Certificate string   `json:"certificate"` // the node's, PEM
	CA          string   `json:"ca"`          // PEM
	SigningKeys [][]byte `json:"signingKeys"` // raw Ed25519 public keys, the active one first; base64 in JSON
	Epoch       int64    `json:"epoch"`       // rises when the cloud was restored from a backup
}

// nodeState is a checked nodeRecord.
type nodeState struct {
	leaf *x509.Certificate
	ca   *x509.Certificate
	keys task.Keys
}

// LoadNode reads the identity in dir; not_found when there is none.
func LoadNode(dir string) (*Node, error) {
	b, err := os.ReadFile(filepath.Join(dir, nodeKeyFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, errNotJoined(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("node identity: %w", err)
	}
	key, err := parseEd25519(b)
	if err != nil {
		return nil, fmt.Errorf("node identity %s: %w", filepath.Join(dir, nodeKeyFile), err)
	}
	n := &Node{dir: dir, key: key}
	if err := n.reload(); err != nil {
		return nil, err
	}
	n.client = newHTTPClient(n.TLSConfig())
	return n, nil
}

// SaveNode makes the identity of a node that was granted one, atomically, and
// loads it. The key in dir is the one that was certified, see NodeCSR.
func SaveNode(dir, node, cloudURL string, g Grant) (*Node, error) {
	key, err := nodeKey(dir)
	if err != nil {
		return nil, err
	}
	rec := nodeRecord{Node: node, Cloud: cloudURL, Grant: g}
	if _, err := rec.check(key); err != nil {
		return nil, err
	}
	if err := rec.write(dir); err != nil {
		return nil, err
	}
	return LoadNode(dir)
}

// NodeCSR is the certificate request, PEM, of node for the key in dir, which
// is created when it is not there.
func NodeCSR(dir, node string) ([]byte, error) {
	key, err := nodeKey(dir)
	if err != nil {
		return nil, err
	}
	return newCSR(key, node)
}

// Name is the node's name.
func (n *Node) Name() string { return n.snapshot().Node }

// CloudURL is where the GlobalManager is, without a slash at the end.
func (n *Node) CloudURL() string { return n.snapshot().Cloud }

// Epoch is the cloud's epoch when the certificate was made.
func (n *Node) Epoch() int64 { return n.snapshot().Epoch }

// Key signs the node's reports.
func (n *Node) Key() ed25519.PrivateKey { return n.key }

// Keys are the pinned signing keys of the GlobalManager.
func (n *Node) Keys() task.Keys {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.state.keys
}

// Certificate is the node's current certificate.
func (n *Node) Certificate() *x509.Certificate {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.state.leaf
}

// SetCloudURL points the node to the same GlobalManager at another address.
func (n *Node) SetCloudURL(cloudURL string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	rec := n.record
	rec.Cloud = cloudURL
	return n.save(rec)
}

// TLSConfig is for dialling the GlobalManager: it trusts the pinned CA only,
// and presents the certificate that is current at each handshake.
func (n *Node) TLSConfig() *tls.Config {
	pool := x509.NewCertPool()
	n.mu.RLock()
	pool.AddCert(n.state.ca)
	n.mu.RUnlock()
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		RootCAs:    pool,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			// A file that cannot be read leaves the certificate that we have.
			_ = n.reload()
			leaf := n.Certificate()
			return &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: n.key, Leaf: leaf}, nil
		},
	}
}

// HTTPClient is the one client for the GlobalManager of this Node. It speaks
// HTTP/2 where the server does, gives up on servers that do not answer, and
// leaves the time of whole transfers to the caller's context. It does not
// follow redirects.
func (n *Node) HTTPClient() *http.Client { return n.client }

func (n *Node) snapshot() nodeRecord {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.record
}

// reload reads the node file again when it has changed.
func (n *Node) reload() error {
	path := filepath.Join(n.dir, nodeFile)
	n.mu.Lock()
	defer n.mu.Unlock()
	stamp, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return errNotJoined(n.dir)
	}
	if err != nil {
		return fmt.Errorf("node identity: %w", err)
	}
	if n.stamp != nil && os.SameFile(n.stamp, stamp) && n.stamp.ModTime().Equal(stamp.ModTime()) {
		return nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("node identity: %w", err)
	}
	var rec nodeRecord
	if err := json.Unmarshal(b, &rec); err != nil {
		return fmt.Errorf("node identity %s: %w", path, err)
	}
	state, err := rec.check(n.key)
	if err != nil {
		return fmt.Errorf("node identity %s: %w", path, err)
	}
	n.record, n.state, n.stamp = rec, state, stamp
	return nil
}

// save checks and writes rec and makes it current. The caller holds mu.
func (n *Node) save(rec nodeRecord) error {
	state, err := rec.check(n.key)
	if err != nil {
		return err
	}
	if err := rec.write(n.dir); err != nil {
		return err
	}
	n.record, n.state, n.stamp = rec, state, nil
	return nil
}

func (rec nodeRecord) write(dir string) error {
	b, err := json.MarshalIndent(rec, "", "  ")
	if err != nil {
		return fmt.Errorf("node identity: %w", err)
	}
	return writeFile(filepath.Join(dir, nodeFile), b)
}

// check refuses a record that does not hold together: the certificate must be
// the CA's, for this node and for key. It may have expired.
func (rec nodeRecord) check(key ed25519.PrivateKey) (nodeState, error) {
	bad := func(field, message string) (nodeState, error) {
		return nodeState{}, wire.E(wire.InvalidArgument, field, message, "")
	}
	if !task.ValidName(rec.Node) {
		return bad("node", fmt.Sprintf("expected a node name, got %.80q", rec.Node))
	}
	if _, err := parseCloudURL(rec.Cloud); err != nil {
		return nodeState{}, err
	}
	ca, err := parseCert(rec.CA)
	if err != nil || !ca.IsCA {
		return bad("ca", "expected the PEM certificate of a CA")
	}
	leaf, err := parseCert(rec.Certificate)
	if err != nil {
		return bad("certificate", "expected one PEM certificate")
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	_, err = leaf.Verify(x509.VerifyOptions{
		Roots:       pool,
		CurrentTime: leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2),
		KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return bad("certificate", "not of the CA beside it: "+err.Error())
	}
	if pub, ok := leaf.PublicKey.(ed25519.PublicKey); !ok || !pub.Equal(key.Public()) {
		return bad("certificate", "for another key than the node's")
	}
	if leaf.Subject.CommonName != nodePrefix+rec.Node {
		return bad("certificate", "for another node than "+rec.Node)
	}
	if len(rec.SigningKeys) == 0 || len(rec.SigningKeys) > maxPinned {
		return bad("signingKeys", fmt.Sprintf("expected 1 to %d keys, got %d", maxPinned, len(rec.SigningKeys)))
	}
	keys := task.Keys{}
	for _, k := range rec.SigningKeys {
		if len(k) != ed25519.PublicKeySize {
			return bad("signingKeys", "expected raw Ed25519 public keys")
		}
		keys[task.KeyID(k)] = k
	}
	return nodeState{leaf: leaf, ca: ca, keys: keys}, nil
}

// maxPinned bounds the signing keys that a node pins.
const maxPinned = 8

// nodeKey loads the node's key from dir or creates it there.
func nodeKey(dir string) (ed25519.PrivateKey, error) {
	if err := makeDir(dir); err != nil {
		return nil, fmt.Errorf("node identity: %w", err)
	}
	path := filepath.Join(dir, nodeKeyFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		var key ed25519.PrivateKey
		if _, key, err = ed25519.GenerateKey(rand.Reader); err == nil {
			b, err = encodeKey(key)
		}
		if err == nil {
			err = createFile(path, b)
		}
		if errors.Is(err, os.ErrExist) {
			b, err = os.ReadFile(path)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("node identity: %w", err)
	}
	key, err := parseEd25519(b)
	if err != nil {
		return nil, fmt.Errorf("node identity %s: %w", path, err)
	}
	return key, nil
}

func parseCert(text string) (*x509.Certificate, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("expected a PEM block CERTIFICATE")
	}
	return x509.ParseCertificate(block.Bytes)
}

// parseCloudURL checks the URL of a GlobalManager.
func parseCloudURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.HasSuffix(u.Path, "/") {
		return nil, wire.E(wire.InvalidArgument, "cloud", fmt.Sprintf("expected a URL like https://host:9000, got %.200q", text), "")
	}
	return u, nil
}

func errNotJoined(dir string) error {
	return wire.E(wire.NotFound, "", "no node identity in "+dir, "join with: sedna join --cloud URL --token TOKEN")
}

// newHTTPClient has a time for each step of a request but none for the whole.
func newHTTPClient(t *tls.Config) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
			TLSClientConfig:       t,
			ForceAttemptHTTP2:     true,
			TLSHandshakeTimeout:   10 * time.Second,
			ResponseHeaderTimeout: 2 * time.Minute, // an upload is answered after its fsync
			ExpectContinueTimeout: 2 * time.Second,
			IdleConnTimeout:       90 * time.Second,
			MaxIdleConnsPerHost:   4,
			HTTP2:                 &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
