package controlplane

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
)

// DefaultAddr is where the API server listens when Config.Addr is empty: loopback, next to the usual 6443.
const DefaultAddr = "127.0.0.1:16443"

// Config of the embedded control plane.
type Config struct {
	// Dir is the data directory; etcd's state lies in Dir/etcd, mode 0700. Required. One server at a time per directory.
	Dir string

	// Addr is the host:port to listen on; port 0 takes a free one. Default DefaultAddr.
	Addr string

	// ServingCert is the server's certificate chain and private key. Required. It must cover the host of Addr.
	ServingCert tls.Certificate

	// ClientCA holds the PEM certificates of the CAs that sign client certificates. Required.
	ClientCA []byte

	// CRDs are created, or updated where they differ, before Start returns. Default none.
	CRDs []*apiextensionsv1.CustomResourceDefinition

	// Log gets the errors of the server, of etcd and of klog. Default discards. klog is one per process, so the logger of
	// the server started last gets its lines.
	Log *slog.Logger
}

// complete returns the configuration with its defaults, or says what is missing.
func (c Config) complete() (Config, error) {
	if c.Dir == "" {
		return c, errors.New("control plane: Dir is empty")
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return c, fmt.Errorf("control plane: Dir: %w", err)
	}
	c.Dir = dir
	if c.Addr == "" {
		c.Addr = DefaultAddr
	}
	if len(c.ServingCert.Certificate) == 0 || c.ServingCert.PrivateKey == nil {
		return c, errors.New("control plane: ServingCert has no certificate or no key")
	}
	if !x509.NewCertPool().AppendCertsFromPEM(c.ClientCA) {
		return c, errors.New("control plane: ClientCA holds no PEM certificate")
	}
	for i, crd := range c.CRDs {
		if crd == nil || crd.Name == "" {
			return c, fmt.Errorf("control plane: CRDs[%d] has no name", i)
		}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// servingPEM encodes the serving certificate the way the API server wants it.
func servingPEM(cert tls.Certificate) (certPEM, keyPEM []byte, err error) {
	for _, der := range cert.Certificate {
		certPEM = append(certPEM, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return nil, nil, fmt.Errorf("serving key: %w", err)
	}
	return certPEM, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
