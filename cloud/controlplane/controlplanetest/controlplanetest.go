// Package controlplanetest runs real control planes for tests, each in its own temporary directory, on a free port, with
// a CA of its own. The tests of controllers and of the control plane itself use it.
package controlplanetest

import (
	"context"
	"crypto/tls"
	"log/slog"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/client-go/rest"

	"github.com/edgetwin/sedna/cloud/controlplane"
)

// stopTimeout bounds what takes a fraction of a second.
const stopTimeout = 30 * time.Second

// Start runs a control plane with the CRDs until the test ends, and returns a client configuration that may do everything.
// It takes about a second, so tests of one package do well to share one.
func Start(t testing.TB, crds ...*apiextensionsv1.CustomResourceDefinition) *rest.Config {
	t.Helper()
	ca := NewCA(t)
	s := StartServer(t, ca, t.TempDir(), crds...)
	return ca.ClientConfig(t, s.Addr(), "admin", "system:masters")
}

// StartServer runs a control plane over dir until the test ends or it is stopped. It trusts the client certificates of ca.
func StartServer(t testing.TB, ca *CA, dir string, crds ...*apiextensionsv1.CustomResourceDefinition) *controlplane.Server {
	t.Helper()
	s, err := controlplane.Start(t.Context(), Config(t, ca, dir, crds...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		if err := s.Stop(ctx); err != nil {
			t.Errorf("control plane: %v", err)
		}
	})
	return s
}

// Config returns what StartServer starts: a free port on loopback, a fresh serving certificate of ca, no log.
func Config(t testing.TB, ca *CA, dir string, crds ...*apiextensionsv1.CustomResourceDefinition) controlplane.Config {
	t.Helper()
	certPEM, keyPEM := ca.Server(t)
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return controlplane.Config{
		Dir:         dir,
		Addr:        "127.0.0.1:0",
		ServingCert: cert,
		ClientCA:    ca.PEM,
		CRDs:        crds,
		Log:         slog.New(slog.DiscardHandler),
	}
}
