package cloud

import (
	"net"
	"path/filepath"
	"time"

	"github.com/edgetwin/sedna/lib/losses"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// Config of a GlobalManager.
type Config struct {
	// DataDir holds keys, certificates, tokens, blobs and, without a cluster,
	// the Kubernetes API's state. Default /var/lib/sedna.
	DataDir string `yaml:"dataDir"`
	// Namespace of the node Devices. Default sedna.
	Namespace string `yaml:"namespace"`
	// HTTP is the address of the TLS port that nodes dial. Default :9000.
	HTTP string `yaml:"http"`
	// Hosts are the names and addresses by which nodes reach HTTP; they go
	// into the serving certificate, besides localhost and 127.0.0.1.
	Hosts []string `yaml:"hosts"`
	// Kubernetes says where the control API is.
	Kubernetes Kubernetes `yaml:"kubernetes"`
	// Edgelink serves nodes on which KubeEdge does not run. Default true.
	Edgelink bool `yaml:"edgelink"`
	// Lose lists what edgelink loses as KubeEdge does, for tests. Of what
	// there is the cloud's half loses first-report and quick-rebind; the rest is for mappers.
	Lose []string `yaml:"lose"`
	// RepairAfter is how long a node may take to confirm a task before it is
	// delivered again. Default 10s.
	RepairAfter time.Duration `yaml:"repairAfter"`
	// RepairMax is the longest time between two such deliveries, which doubles.
	// Default 10m.
	RepairMax time.Duration `yaml:"repairMax"`
	// UnboundFor is how long a task's Device that its node does not know is
	// taken off the node before it is bound again. Default 3s.
	UnboundFor time.Duration `yaml:"unboundFor"`
	// Limits on what comes from outside.
	Limits Limits `yaml:"limits"`
}

// Kubernetes says where the control API is.
type Kubernetes struct {
	// Embedded runs the API in this process. Default true.
	Embedded bool `yaml:"embedded"`
	// Addr is where the embedded API listens. Default 127.0.0.1:16443.
	Addr string `yaml:"addr"`
	// Kubeconfig of the cluster, where the API is not embedded; empty: that of
	// the pod that this runs in.
	Kubeconfig string `yaml:"kubeconfig"`
}

// Limits on what comes from outside.
type Limits struct {
	// Blob is the largest blob in bytes. Default 2 GiB.
	Blob int64 `yaml:"blob"`
	// ModelMemory bounds the models that this process serves, in bytes.
	// Default 2 GiB.
	ModelMemory int64 `yaml:"modelMemory"`
	// InferenceBody bounds one inference request in bytes. Default 16 MiB.
	InferenceBody int64 `yaml:"inferenceBody"`
	// BlobGrace is how long a blob that no Model names is kept after it was
	// stored. Default 1h.
	BlobGrace time.Duration `yaml:"blobGrace"`
}

// AdminFile is the name of the administrator's file in a data directory: the
// GlobalManager's URL, CA and a client certificate, in the form of a kubeconfig.
const AdminFile = "admin.yaml"

// DefaultConfig is what a GlobalManager without a configuration file does.
func DefaultConfig() Config {
	return Config{
		DataDir:     "/var/lib/sedna",
		Namespace:   "sedna",
		HTTP:        ":9000",
		Kubernetes:  Kubernetes{Embedded: true, Addr: "127.0.0.1:16443"},
		Edgelink:    true,
		RepairAfter: 10 * time.Second,
		RepairMax:   10 * time.Minute,
		UnboundFor:  3 * time.Second,
		Limits:      Limits{Blob: 2 << 30, ModelMemory: 2 << 30, InferenceBody: 16 << 20, BlobGrace: time.Hour},
	}
}

// Check says what is wrong with a configuration.
func (c *Config) Check() error {
	bad := func(key, want string) error { return wire.E(wire.InvalidArgument, key, "expected "+want, "") }
	if c.DataDir == "" {
		return bad("dataDir", "a directory")
	}
	if !task.ValidName(c.Namespace) {
		return bad("namespace", "a namespace")
	}
	if _, _, err := net.SplitHostPort(c.HTTP); err != nil {
		return bad("http", "host:port")
	}
	if _, _, err := net.SplitHostPort(c.Kubernetes.Addr); c.Kubernetes.Embedded && err != nil {
		return bad("kubernetes.addr", "host:port")
	}
	if _, err := losses.Parse("lose", c.Lose); err != nil {
		return err
	}
	for key, v := range map[string]int64{"limits.blob": c.Limits.Blob, "limits.modelMemory": c.Limits.ModelMemory,
		"limits.inferenceBody": c.Limits.InferenceBody, "limits.blobGrace": int64(c.Limits.BlobGrace), "repairAfter": int64(c.RepairAfter), "repairMax": int64(c.RepairMax), "unboundFor": int64(c.UnboundFor)} {
		if v <= 0 {
			return bad(key, "more than 0")
		}
	}
	return nil
}

// Where things lie in the data directory.
func (c *Config) pkiDir() string     { return filepath.Join(c.DataDir, "pki") }
func (c *Config) keysDir() string    { return filepath.Join(c.DataDir, "keys") }
func (c *Config) tokensDir() string  { return filepath.Join(c.DataDir, "tokens") }
func (c *Config) blobsDir() string   { return filepath.Join(c.DataDir, "blobs") }
func (c *Config) kubeconfig() string { return filepath.Join(c.DataDir, "kubeconfig") }
func (c *Config) adminFile() string  { return filepath.Join(c.DataDir, AdminFile) }

// hosts are all names and addresses in the serving certificate.
func (c *Config) hosts() []string {
	hosts := append([]string{"localhost", "127.0.0.1", "::1"}, c.Hosts...)
	for _, addr := range []string{c.HTTP, c.Kubernetes.Addr} {
		if host, _, err := net.SplitHostPort(addr); err == nil && host != "" && !unspecified(host) {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

func unspecified(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && ip.IsUnspecified()
}

// Endpoints is where a GlobalManager can be reached.
type Endpoints struct {
	API           string `json:"api"`           // the embedded Kubernetes API, https://…; empty with a cluster
	GlobalManager string `json:"globalmanager"` // https://…
	Kubeconfig    string `json:"kubeconfig"`    // file with an administrator's certificate
}
