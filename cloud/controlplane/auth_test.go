package controlplane_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/edgetwin/sedna/cloud/controlplane/controlplanetest"
)

func testAuth(t *testing.T, ca *controlplanetest.CA, addr string) {
	stranger := controlplanetest.NewCA(t)
	foreign := stranger.ClientConfig(t, addr, "admin", "system:masters")
	foreign.CAData = ca.PEM
	anonymous := &rest.Config{Host: "https://" + addr, TLSClientConfig: rest.TLSClientConfig{CAData: ca.PEM}}
	token := rest.CopyConfig(anonymous)
	token.BearerToken = "guess"
	serving := rest.CopyConfig(anonymous)
	serving.CertData, serving.KeyData = ca.Server(t)

	for _, c := range []struct {
		name string
		cfg  *rest.Config
		want int
	}{
		{"admin", ca.ClientConfig(t, addr, "admin", "system:masters"), http.StatusOK},
		{"admin with other groups too", ca.ClientConfig(t, addr, "admin", "ops", "system:masters"), http.StatusOK},
		{"anonymous", anonymous, http.StatusUnauthorized},
		{"bearer token", token, http.StatusUnauthorized},
		{"certificate of another CA", foreign, http.StatusUnauthorized},
		{"certificate for serving", serving, http.StatusUnauthorized},
		{"node", ca.ClientConfig(t, addr, "sedna:node:edge-1", "sedna:nodes"), http.StatusForbidden},
		{"user named like the group", ca.ClientConfig(t, addr, "system:masters"), http.StatusForbidden},
		{"no groups", ca.ClientConfig(t, addr, "edge-1"), http.StatusForbidden},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, path := range []string{"/apis/test.sedna.io/v1/widgets", "/apis", "/openapi/v2", "/healthz", "/readyz", "/version", "/metrics"} {
				if got := get(t, c.cfg, path); got != c.want {
					t.Errorf("%s: %d, want %d", path, got, c.want)
				}
			}
		})
	}
	t.Run("old TLS", func(t *testing.T) {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(ca.PEM)
		conn, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
		if err == nil {
			conn.Close()
			t.Fatal("TLS 1.1 was accepted")
		}
	})
	t.Run("weak cipher", func(t *testing.T) {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(ca.PEM)
		conn, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: roots, MaxVersion: tls.VersionTLS12,
			CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}})
		if err == nil {
			conn.Close()
			t.Fatal("a CBC cipher was accepted")
		}
	})
}
