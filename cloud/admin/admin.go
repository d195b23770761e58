// Package admin is the administrator's side of the sedna command: enrolment
// tokens, nodes and models. It works on the data directory of a GlobalManager
// on this machine, or with an admin file, and a kubeconfig, of one elsewhere.
package admin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/edgetwin/sedna/cloud"
	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
	sedna "github.com/edgetwin/sedna/models/sedna/v1alpha1"
)

// callTimeout bounds one command's conversation with the cloud, uploads aside.
const callTimeout = 30 * time.Second

// place is where the cloud is.
type place struct {
	dataDir    string
	kubeconfig string
	admin      string // file of the GlobalManager's administrator
	url        string // of the GlobalManager
}

// Commands gives the administrator's commands.
func Commands() []*cobra.Command {
	var p place
	dataDir := os.Getenv("SEDNA_DATA_DIR") // as the GlobalManager reads it
	if dataDir == "" {
		dataDir = "./.sedna"
	}
	cmds := []*cobra.Command{tokenCommand(&p), nodeCommand(&p), modelCommand(&p), adminCommand(&p)}
	for _, c := range cmds {
		f := c.PersistentFlags()
		f.StringVar(&p.dataDir, "data-dir", dataDir, "data `directory` of the cloud on this machine; SEDNA_DATA_DIR in the environment")
		f.StringVar(&p.kubeconfig, "kubeconfig", "", "`file` to reach the Kubernetes API with (default: that of the data directory; with a cluster as kubectl finds it)")
		f.StringVar(&p.admin, "admin", "", "`file` that `sedna admin` printed (default: that of the data directory)")
		f.StringVar(&p.url, "cloud", "", "`URL` of the GlobalManager (default: as the admin file says)")
	}
	return cmds
}

// adminFile is the path of the administrator's file.
func (p *place) adminFile() string {
	if p.admin != "" {
		return p.admin
	}
	return filepath.Join(p.dataDir, cloud.AdminFile)
}

// there explains that a file of the data directory is not there.
func there(path string) error {
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("%w; is --data-dir right, and has the cloud been started there?", err)
	}
	return nil
}

// load reads a kubeconfig.
func load(path string) clientcmd.ClientConfig {
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		&clientcmd.ClientConfigLoadingRules{ExplicitPath: path}, &clientcmd.ConfigOverrides{})
}

// cluster finds the Kubernetes API: the kubeconfig that was named, the data
// directory's if the API is embedded there, else the cluster's as kubectl
// finds it, provided that a GlobalManager is known at all.
func (p *place) cluster() (clientcmd.ClientConfig, error) {
	if p.kubeconfig != "" {
		return load(p.kubeconfig), there(p.kubeconfig)
	}
	embedded := filepath.Join(p.dataDir, "kubeconfig")
	if p.admin == "" {
		if _, err := os.Stat(embedded); err == nil {
			return load(embedded), nil
		}
	}
	if there(p.adminFile()) != nil {
		return nil, there(embedded)
	}
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		clientcmd.NewDefaultClientConfigLoadingRules(), &clientcmd.ConfigOverrides{}), nil
}

// kubernetes gives a client of the Kubernetes API.
func (p *place) kubernetes() (client.Client, error) {
	cfg, err := p.cluster()
	if err != nil {
		return nil, err
	}
	rest, err := cfg.ClientConfig()
	if err != nil {
		return nil, err
	}
	rest.Timeout = callTimeout
	scheme := runtime.NewScheme()
	if err := errors.Join(sedna.AddToScheme(scheme), devices.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	return client.New(rest, client.Options{Scheme: scheme})
}

// globalManager gives the GlobalManager's URL and a client with the
// administrator's certificate.
func (p *place) globalManager() (string, *http.Client, error) {
	path := p.adminFile()
	if err := there(path); err != nil {
		if p.admin != "" || p.kubeconfig == "" || p.url == "" {
			return "", nil, err
		}
		path = p.kubeconfig // that of an embedded API has an administrator's certificate too
	}
	admin, err := load(path).ClientConfig()
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", path, err)
	}
	pair, err := tls.X509KeyPair(admin.CertData, admin.KeyData)
	if err != nil {
		return "", nil, fmt.Errorf("%s: client certificate: %w", path, err)
	}
	if time.Now().After(pair.Leaf.NotAfter) {
		return "", nil, fmt.Errorf("%s: the certificate was good until %s; print a new file with `sedna admin`", path, pair.Leaf.NotAfter.Format(time.DateOnly))
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(admin.CAData) {
		return "", nil, fmt.Errorf("%s holds no certificate authority", path)
	}
	url := p.url
	if url == "" {
		url = admin.Host
	}
	return url, &http.Client{Transport: &http.Transport{
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, Certificates: []tls.Certificate{pair}},
		ForceAttemptHTTP2:     true,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: callTimeout,
	}}, nil
}

// adminCommand prints the admin file: where the GlobalManager runs in a pod,
// that is how it gets out.
func adminCommand(p *place) *cobra.Command {
	return &cobra.Command{
		Use:   "admin",
		Short: "Print the administrator's file of the data directory, to use elsewhere with --admin; keep it secret",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path := p.adminFile()
			if err := there(path); err != nil {
				return err
			}
			file, err := load(path).RawConfig()
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			if p.url != "" {
				for _, c := range file.Clusters {
					c.Server = p.url
				}
			}
			text, err := clientcmd.Write(file)
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		},
	}
}

func tokenCommand(p *place) *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Enrolment tokens for edge nodes"}
	var node string
	var ttl time.Duration
	create := &cobra.Command{
		Use:   "create --node NAME",
		Short: "Make a token with which the node can join once",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := cloud.CreateToken(p.dataDir, node, ttl)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), text)
			return nil
		},
	}
	create.Flags().StringVar(&node, "node", "", "`name` of the node that may join")
	create.Flags().DurationVar(&ttl, "ttl", 0, "how long the token is good (default 10m)")
	_ = create.MarkFlagRequired("node")
	cmd.AddCommand(create)
	return cmd
}

// withTimeout gives ctx with the time that one command may take.
func withTimeout(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	return context.WithTimeout(cmd.Context(), callTimeout)
}
