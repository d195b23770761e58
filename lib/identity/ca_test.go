package identity_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgetwin/sedna/lib/identity"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

func openCA(t *testing.T, now func() time.Time) *identity.CA {
	t.Helper()
	ca, err := identity.OpenCA(filepath.Join(t.TempDir(), "ca"), now)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// checkModes fails when anything below dir is open to others.
func checkModes(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		want := os.FileMode(0o600)
		if info.IsDir() {
			want = 0o700
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", path, info.Mode().Perm(), want)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestCAIsCreatedOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	pins := make([]string, 8)
	var wg sync.WaitGroup
	for i := range pins {
		wg.Go(func() {
			if ca, err := identity.OpenCA(dir, nil); err != nil {
				t.Error(err)
			} else {
				pins[i] = ca.Pin()
			}
		})
	}
	wg.Wait()
	if len(slices.Compact(pins)) != 1 {
		t.Errorf("several CAs: %v", pins)
	}
	checkModes(t, dir)
}

func TestCAThatIsBroken(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ca.pem"), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := identity.OpenCA(dir, nil); err == nil || !strings.Contains(err.Error(), "ca.pem") {
		t.Errorf("got %v, want an error that names the file", err)
	}
}

func TestCertificates(t *testing.T) {
	ca := openCA(t, nil)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.CertPEM())

	server, err := ca.ServerCert("cloud.example", "10.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"cloud.example", "10.0.0.1"} {
		if _, err := server.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: host}); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	if _, err := ca.ServerCert(); err == nil {
		t.Error("a server certificate without a host was made")
	}
	clientUse := x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if _, err := server.Leaf.Verify(clientUse); err == nil {
		t.Error("the server certificate is good for clients")
	}

	certPEM, keyPEM, err := ca.ClientCert("admin", []string{identity.AdminOrganization}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	admin, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Leaf.Verify(clientUse); err != nil {
		t.Error(err)
	}
	if life := time.Until(admin.Leaf.NotAfter); life > time.Hour || life < 55*time.Minute {
		t.Errorf("lives for %s, want 1h", life)
	}
}

func TestServerCertificateIsRenewed(t *testing.T) {
	now := time.Now()
	ca := openCA(t, func() time.Time { return now })
	cfg, err := ca.ServerTLS("localhost")
	if err != nil {
		t.Fatal(err)
	}
	get := func() *x509.Certificate {
		c, err := cfg.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		return c.Leaf
	}
	first := get()
	if now = now.Add(identity.ServerLife / 2); !get().Equal(first) {
		t.Error("renewed at half of its life")
	}
	if now = now.Add(identity.ServerLife / 4); get().Equal(first) {
		t.Error("not renewed at three quarters of its life")
	}
}

func csrOf(t *testing.T, key any, cn string) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: cn, Organization: []string{"system:masters"}}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func TestSignNode(t *testing.T) {
	ca := openCA(t, nil)
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	certPEM, err := ca.SignNode(csrOf(t, key, "sedna:node:edge1"), "edge1")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(certPEM)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if !pub.Equal(leaf.PublicKey) || leaf.Subject.CommonName != "sedna:node:edge1" || !slices.Equal(leaf.Subject.Organization, []string{"sedna:nodes"}) {
		t.Errorf("certificate of %s", leaf.Subject)
	}

	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := csrOf(t, key, "sedna:node:edge1")
	forged, _ := pem.Decode(good)
	forged.Bytes[len(forged.Bytes)-1] ^= 1
	for name, c := range map[string]struct {
		csr         []byte
		node, field string
	}{
		"other kind of key": {csrOf(t, ec, "sedna:node:edge1"), "edge1", "csr"},
		"other node":        {good, "edge2", "csr"},
		"bad node name":     {good, "../x", "node"},
		"not signed":        {pem.EncodeToMemory(forged), "edge1", "csr"},
		"not PEM":           {[]byte("x"), "edge1", "csr"},
		"more than one":     {append(slices.Clone(good), good...), "edge1", "csr"},
		"not a request":     {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: []byte{1}}), "edge1", "csr"},
	} {
		if _, err := ca.SignNode(c.csr, c.node); !wire.IsCode(err, wire.InvalidArgument) || wire.AsError(err).Field != c.field {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestNobodyWithoutTLS(t *testing.T) {
	for _, r := range []*http.Request{{}, {TLS: &tls.ConnectionState{}}} {
		if _, ok := identity.NodeFrom(r); ok || identity.IsAdmin(r) {
			t.Error("a request without a certificate is somebody")
		}
		if _, ok := identity.NodeKey(r); ok {
			t.Error("a request without a certificate has a key")
		}
	}
}

func TestSigningKeysRotate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	s, err := identity.OpenSigningKeys(dir)
	if err != nil {
		t.Fatal(err)
	}
	other, err := identity.OpenSigningKeys(dir)
	if err != nil {
		t.Fatal(err)
	}
	document := []byte("{}")
	first := task.Sign(s.Active(), document)
	if err := s.Rotate(); err != nil {
		t.Fatal(err)
	}
	second := task.Sign(s.Active(), document)
	keys := task.NewKeys(s.Public()...)
	if len(keys) != 2 || keys.Verify(document, first) != nil || keys.Verify(document, second) != nil {
		t.Error("while rotating both keys must be good")
	}
	if !s.Public()[0].Equal(s.Active().Public()) {
		t.Error("the first public key is not the active one")
	}
	if err := s.Rotate(); err != nil {
		t.Fatal(err)
	}
	if err := task.NewKeys(s.Public()...).Verify(document, first); !wire.IsCode(err, wire.BadSignature) {
		t.Errorf("the key of two rotations ago: %v", err)
	}
	if err := other.Reload(); err != nil || !other.Active().Equal(s.Active()) {
		t.Errorf("another process does not see the rotation: %v", err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 2 {
		t.Errorf("files left: %v %v", files, err)
	}
	checkModes(t, dir)

	for _, f := range files {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Reload(); err == nil || len(s.Public()) != 2 {
		t.Error("an emptied directory took the keys away")
	}
}

func TestSigningKeysRotateAtOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			s, err := identity.OpenSigningKeys(dir)
			if err == nil {
				err = s.Rotate()
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s, err := identity.OpenSigningKeys(dir)
	if err != nil || len(s.Public()) != 2 {
		t.Errorf("after rotations at once: %v", err)
	}
}
