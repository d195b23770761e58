package cloud

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/edgetwin/sedna/lib/identity"
)

// The administrator's files are replaced, whole, long before their
// certificates end, and are nobody else's to read.
func TestCredentialsAreRenewed(t *testing.T) {
	ca, err := identity.OpenCA(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, AdminFile)
	c := &credentials{ca: ca, life: time.Second, files: map[string]string{path: "https://127.0.0.1:9000", filepath.Join(dir, "kubeconfig"): "https://127.0.0.1:16443"}}
	if err := c.write(); err != nil {
		t.Fatal(err)
	}
	first := readAdmin(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.renew(ctx, func(err error) { t.Error(err) })
	}()
	defer func() { cancel(); <-ended }()
	for deadline := time.Now().Add(20 * time.Second); bytes.Equal(readAdmin(t, path), first); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the certificate was not renewed")
		}
	}
}

func TestCredentialsThatCannotBeWrittenAreToldAndTriedAgain(t *testing.T) {
	ca, err := identity.OpenCA(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &credentials{ca: ca, life: 40 * time.Millisecond, files: map[string]string{filepath.Join(t.TempDir(), "gone", AdminFile): "https://127.0.0.1:9000"}}
	if err := c.write(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	tries := 0
	c.renew(ctx, func(err error) {
		if tries++; tries == 2 {
			cancel()
		}
		if !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	})
}

// readAdmin checks an admin file and gives the certificate in it.
func readAdmin(t *testing.T, path string) []byte {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Host != "https://127.0.0.1:9000" || len(cfg.CAData) == 0 {
		t.Errorf("host %q, CA of %d bytes", cfg.Host, len(cfg.CAData))
	}
	if _, err := tls.X509KeyPair(cfg.CertData, cfg.KeyData); err != nil {
		t.Error(err)
	}
	return cfg.CertData
}
