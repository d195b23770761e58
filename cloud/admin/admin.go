// Package admin is the administrator's side of the sedna command: enrolment
// tokens, nodes and models. It works on the data directory of a GlobalManager
// on this machine, or with a kubeconfig and URL of one elsewhere.
package admin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
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
	url        string // of the GlobalManager
}

// Commands gives the administrator's commands.
func Commands() []*cobra.Command {
	var p place
	cmds := []*cobra.Command{tokenCommand(&p), nodeCommand(&p), modelCommand(&p)}
	for _, c := range cmds {
		c.PersistentFlags().StringVar(&p.dataDir, "data-dir", "./.sedna", "data `directory` of the cloud on this machine")
		c.PersistentFlags().StringVar(&p.kubeconfig, "kubeconfig", "", "`file` to reach the Kubernetes API with (default: that of the data directory)")
		c.PersistentFlags().StringVar(&p.url, "cloud", "", "`URL` of the GlobalManager (default: as the data directory says)")
	}
	return cmds
}

// endpoints is the part of endpoints.json that is of use here.
type endpoints struct {
	GlobalManager string `json:"globalmanager"`
}

func (p *place) config() (clientcmd.ClientConfig, error) {
	path := p.kubeconfig
	if path == "" {
		path = filepath.Join(p.dataDir, "kubeconfig")
	}
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("%w; is --data-dir right, and has the cloud been started there?", err)
	}
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		&clientcmd.ClientConfigLoadingRules{ExplicitPath: path}, &clientcmd.ConfigOverrides{}), nil
}

// kubernetes gives a client of the Kubernetes API.
func (p *place) kubernetes() (client.Client, error) {
	cfg, err := p.config()
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
	cfg, err := p.config()
	if err != nil {
		return "", nil, err
	}
	rest, err := cfg.ClientConfig()
	if err != nil {
		return "", nil, err
	}
	pair, err := tls.X509KeyPair(rest.CertData, rest.KeyData)
	if err != nil {
		return "", nil, fmt.Errorf("client certificate of the kubeconfig: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(rest.CAData) {
		return "", nil, errors.New("the kubeconfig holds no certificate authority")
	}
	url := p.url
	if url == "" {
		b, err := os.ReadFile(filepath.Join(p.dataDir, "endpoints.json"))
		if err != nil {
			return "", nil, fmt.Errorf("%w; give the GlobalManager's URL with --cloud", err)
		}
		var e endpoints
		if err := json.Unmarshal(b, &e); err != nil || e.GlobalManager == "" {
			return "", nil, fmt.Errorf("endpoints.json names no globalmanager: %w", errors.Join(err, errUsage))
		}
		url = e.GlobalManager
	}
	return url, &http.Client{Transport: &http.Transport{
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, Certificates: []tls.Certificate{pair}},
		ForceAttemptHTTP2:     true,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: callTimeout,
	}}, nil
}

var errUsage = errors.New("give --cloud")

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
