package admin

import (
	"bytes"
	"crypto/tls"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgetwin/sedna/cloud"
	"github.com/edgetwin/sedna/cloud/controlplane"
	"github.com/edgetwin/sedna/lib/identity"
)

// manager stands for a GlobalManager's port: it says whether an administrator
// calls.
func manager(t *testing.T, ca *identity.CA) (url string) {
	t.Helper()
	config, err := ca.ServerTLS("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !identity.IsAdmin(r) {
			w.WriteHeader(http.StatusUnauthorized)
		}
	})}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	return "https://" + l.Addr().String()
}

// adminFile writes an administrator's file.
func adminFile(t *testing.T, ca *identity.CA, path, url string) {
	t.Helper()
	cert, key, err := ca.ClientCert("sedna:admin", []string{identity.AdminOrganization}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	text, err := controlplane.Kubeconfig(url, ca.CertPEM(), cert, key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func authority(t *testing.T, now func() time.Time) *identity.CA {
	t.Helper()
	ca, err := identity.OpenCA(t.TempDir(), now)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	root := &cobra.Command{Use: "sedna", SilenceUsage: true, SilenceErrors: true}
	root.AddCommand(Commands()...)
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetArgs(args)
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

// What `sedna admin` prints lets its holder in elsewhere, by another URL too.
func TestAdminFileLetsIn(t *testing.T) {
	ca := authority(t, nil)
	url := manager(t, ca)
	dir := t.TempDir()
	adminFile(t, ca, filepath.Join(dir, cloud.AdminFile), "https://127.0.0.1:1")
	t.Setenv("SEDNA_DATA_DIR", dir)
	text, err := run(t, "admin", "--cloud", url)
	if err != nil {
		t.Fatal(err)
	}
	carried := filepath.Join(t.TempDir(), "carried.yaml")
	if err := os.WriteFile(carried, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]place{
		"carried":            {dataDir: t.TempDir(), admin: carried},
		"of the directory":   {dataDir: dir, url: url},
		"kubeconfig instead": {dataDir: t.TempDir(), kubeconfig: carried, url: url},
	} {
		at, c, err := p.globalManager()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		resp, err := c.Get(at)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK || at != url {
			t.Errorf("%s: %s answered %d", name, at, resp.StatusCode)
		}
		c.CloseIdleConnections()
	}
}

func TestAdminFileThatIsNoUse(t *testing.T) {
	old := authority(t, func() time.Time { return time.Now().Add(-48 * time.Hour) })
	dir := t.TempDir()
	expired, broken := filepath.Join(dir, "expired.yaml"), filepath.Join(dir, "broken.yaml")
	adminFile(t, old, expired, "https://127.0.0.1:9000")
	if err := os.WriteFile(broken, []byte("kind: Config\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	model := filepath.Join(dir, "m.onnx")
	for name, c := range map[string]struct{ args, want string }{
		"expired":         {"--admin " + expired, "print a new file with `sedna admin`"},
		"broken":          {"--admin " + broken, broken},
		"not there":       {"--admin " + dir + "/none.yaml", "none.yaml"},
		"no directory":    {"--data-dir " + dir, "is --data-dir right"},
		"only kubeconfig": {"--data-dir " + dir + " --kubeconfig " + expired, cloud.AdminFile},
	} {
		if _, err := run(t, append([]string{"model", "push", model, "--name", "m"}, strings.Fields(c.args)...)...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
	}
	if _, err := run(t, "admin", "--data-dir", dir); err == nil || !strings.Contains(err.Error(), cloud.AdminFile) {
		t.Errorf("%v", err)
	}
}

// The data directory's own API comes before the cluster's, and without a
// GlobalManager no cluster is touched.
func TestWhichCluster(t *testing.T) {
	ca := authority(t, nil)
	file := func(dir, name, url string) string {
		path := filepath.Join(dir, name)
		adminFile(t, ca, path, url)
		return path
	}
	cluster := file(t.TempDir(), "config", "https://cluster.test")
	t.Setenv("KUBECONFIG", cluster)
	empty, embedded, onCluster := t.TempDir(), t.TempDir(), t.TempDir()
	file(embedded, "kubeconfig", "https://embedded.test")
	admin := file(embedded, cloud.AdminFile, "https://gm.test")
	file(onCluster, cloud.AdminFile, "https://gm.test")
	for name, c := range map[string]struct {
		place place
		host  string
	}{
		"nothing known":       {place{dataDir: empty}, ""},
		"embedded":            {place{dataDir: embedded}, "https://embedded.test"},
		"on a cluster":        {place{dataDir: onCluster}, "https://cluster.test"},
		"admin file carried":  {place{dataDir: embedded, admin: admin}, "https://cluster.test"},
		"kubeconfig is named": {place{dataDir: embedded, kubeconfig: cluster}, "https://cluster.test"},
		"kubeconfig is gone":  {place{dataDir: embedded, kubeconfig: cluster + ".no"}, ""},
	} {
		host := ""
		if cfg, err := c.place.cluster(); err == nil {
			rest, err := cfg.ClientConfig()
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			host = rest.Host
		}
		if host != c.host {
			t.Errorf("%s: %q, want %q", name, host, c.host)
		}
	}
}
