package cloud

import (
	"context"
	"time"

	"github.com/edgetwin/sedna/cloud/controlplane"
	"github.com/edgetwin/sedna/lib/identity"
)

// adminLife is how long the certificates in the administrator's files are
// good. New ones are written at each start, and while it runs before a third
// of it is over.
const adminLife = 365 * 24 * time.Hour

// credentials keeps the administrator's files in the data directory: the admin
// file, which leads to the GlobalManager's own port, and with the embedded API
// the kubeconfig. Both are kubeconfigs in form, mode 0600, each with an
// administrator's certificate.
type credentials struct {
	ca    *identity.CA
	life  time.Duration
	files map[string]string // URL by path
}

// write writes the files with new certificates.
func (c *credentials) write() error {
	cert, key, err := c.ca.ClientCert("sedna:admin", []string{identity.AdminOrganization}, c.life)
	if err != nil {
		return err
	}
	for path, url := range c.files {
		text, err := controlplane.Kubeconfig(url, c.ca.CertPEM(), cert, key)
		if err != nil {
			return err
		}
		if err := writePrivate(path, text); err != nil {
			return err
		}
	}
	return nil
}

// renew writes the files again and again until ctx ends. What cannot be
// written is tried again long before a certificate ends.
func (c *credentials) renew(ctx context.Context, failed func(error)) {
	tick := time.NewTicker(c.life / 4)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := c.write(); err != nil {
				failed(err)
			}
		case <-ctx.Done():
			return
		}
	}
}
