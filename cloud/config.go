package cloud

import (
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/edgetwin/sedna/lib/config"
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
	// Blobs says where blobs are kept.
	Blobs Blobs `yaml:"blobs"`
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
	// Nudge has nodes that are waited for report at once.
	Nudge Nudge `yaml:"nudge"`
	// Workers says how workers in pods are made.
	Workers Workers `yaml:"workers"`
	// Limits on what comes from outside.
	Limits Limits `yaml:"limits"`
}

// Nudge has nodes that are waited for report at once, by way of KubeEdge's
// Router. Without it a node that was cut off is heard of with its next beat.
type Nudge struct {
	// URL to POST to, in which {node} stands for a node's name. With the rule in
	// manifests/overlays/router:
	// http://cloudcore:9443/{node}/sedna/nudge/{node}/nudge. Default
	// none.
	URL string `yaml:"url"`
	// Every is the time between two nudges of a node. Default 5s.
	Every time.Duration `yaml:"every"`
}

// Workers says how workers in pods are made.
type Workers struct {
	// StorageImage is the image of the init container that fetches models and
	// datasets: one whose entry point is `sedna`. Default: the GlobalManager's
	// of this version.
	StorageImage string `yaml:"storageImage"`
	// LocalController is the URL by which a worker finds the LocalController of
	// its node. Default http://localhost:9100.
	LocalController string `yaml:"localController"`
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

// Blobs says where blobs are kept: in S3 where a bucket is named, else in the
// data directory.
type Blobs struct {
	S3 S3 `yaml:"s3"`
}

// S3 is a bucket for blobs. The data directory then holds uploads that are
// under way, and what was read lately.
type S3 struct {
	// Endpoint is host or host:port of the server. Default s3.amazonaws.com.
	Endpoint string `yaml:"endpoint"`
	// HTTP speaks plain HTTP. Default false.
	HTTP bool `yaml:"http"`
	// Region of the bucket. Default what the server says.
	Region string `yaml:"region"`
	// Bucket has the blobs; it must exist. Default none: no S3.
	Bucket string `yaml:"bucket"`
	// Prefix of all keys, such as sedna/blobs/. Default none.
	Prefix string `yaml:"prefix"`
	// AccessKey and SecretKey sign requests.
	AccessKey string        `yaml:"accessKey"`
	SecretKey config.Secret `yaml:"secretKey"`
	// CacheBytes is how much of what was read is kept. Default 10 GiB.
	CacheBytes int64 `yaml:"cacheBytes"`
	// PartSize is the size in bytes of the parts that larger blobs are sent in,
	// 5 MiB or more. Default 16 MiB.
	PartSize int64 `yaml:"partSize"`
}

// leastGrace of blobs in S3: one that is asked for again counts as new only
// after ten minutes.
const leastGrace = 20 * time.Minute

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
	// BlobQuota is how many bytes blobs may take before those that no Model
	// names are removed, the oldest first. Default 0: they go after BlobGrace.
	BlobQuota int64 `yaml:"blobQuota"`
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
		Nudge:       Nudge{Every: 5 * time.Second},
		Workers:     Workers{StorageImage: "sedna-globalmanager:" + wire.Version, LocalController: "http://localhost:9100"},
		Blobs:       Blobs{S3: S3{Endpoint: "s3.amazonaws.com", CacheBytes: 10 << 30, PartSize: 16 << 20}},
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
	switch b := &c.Blobs.S3; {
	case c.Limits.BlobQuota < 0:
		return bad("limits.blobQuota", "0 or more")
	case b.Bucket == "":
	case b.CacheBytes <= 0:
		return bad("blobs.s3.cacheBytes", "more than 0")
	case b.PartSize < 5<<20:
		return bad("blobs.s3.partSize", "5 MiB or more")
	case c.Limits.BlobGrace < leastGrace:
		return bad("limits.blobGrace", leastGrace.String()+" or more, with blobs in S3")
	}
	if u, err := url.Parse(c.Nudge.URL); c.Nudge.URL != "" && (err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || !strings.Contains(c.Nudge.URL, nodePlace)) {
		return bad("nudge.url", "an http(s) URL with {node} in it")
	}
	if c.Nudge.Every < time.Second {
		return bad("nudge.every", "1s or more")
	}
	if c.Workers.StorageImage == "" {
		return bad("workers.storageImage", "an image")
	}
	if u, err := url.Parse(c.Workers.LocalController); err != nil || u.Scheme == "" || u.Host == "" {
		return bad("workers.localController", "a URL")
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
