package edge

import (
	"fmt"
	"net"
	"path/filepath"

	"github.com/edgetwin/sedna/edge/model"
	"github.com/edgetwin/sedna/edge/tasks"
	"github.com/edgetwin/sedna/lib/config"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// Config of a LocalController.
type Config struct {
	// Node is this node's name. Empty: the one that the identity was made for.
	Node string `yaml:"node"`
	// DataDir holds the database and the model files, mode 0700. Default
	// /var/lib/sedna.
	DataDir string `yaml:"dataDir"`
	// IdentityDir holds the node's key, certificate and pinned keys, as
	// "sedna join" writes them. Empty: identity under DataDir.
	IdentityDir string `yaml:"identityDir"`
	// EnrolToken gives the node its identity at the first start, where IdentityDir
	// holds none: what "sedna token create" prints. Node and CloudURL are needed
	// with it. Not looked at afterwards.
	EnrolToken config.Secret `yaml:"enrolToken"`
	// EnrolTokenFile is a file with the token, in place of EnrolToken. It is
	// looked at only where IdentityDir holds no identity.
	EnrolTokenFile string `yaml:"enrolTokenFile"`
	// HTTP is where the local API listens, host:port; port 0 takes a free one.
	// Default 127.0.0.1:9100. Beyond loopback a Token is needed.
	HTTP string `yaml:"http"`
	// Token is what HTTP clients send as "Authorization: Bearer". Empty: none is
	// asked for, on loopback only.
	Token config.Secret `yaml:"token"`
	// Socket is the path of a unix socket with the same API, for programs of this
	// user such as the mapper with its cameras; no token is asked for there.
	// Empty: none.
	Socket string `yaml:"socket"`
	// Bus is the edge's MQTT broker.
	Bus BusConfig `yaml:"bus"`
	// CloudURL is the GlobalManager's base URL. Empty: the one of the identity.
	CloudURL string `yaml:"cloudURL"`
	// Namespace is where the GlobalManager keeps the node Devices. Default sedna.
	Namespace string `yaml:"namespace"`
	// DataRoots are the directories that file paths in tasks may point into.
	// Default none.
	DataRoots []string `yaml:"dataRoots"`
	// BeatSeconds is the time between two beats of the node. Default 60.
	BeatSeconds int `yaml:"beatSeconds"`
	// Limits bound what the node spends on tasks and models.
	Limits Limits `yaml:"limits"`
}

// BusConfig is how to reach the broker.
type BusConfig struct {
	URL      string        `yaml:"url"`      // tcp://, tls:// or unix://; default tcp://127.0.0.1:1883
	Username string        `yaml:"username"` // empty: anonymous
	Password config.Secret `yaml:"password"`
}

// Limits of the parts.
type Limits struct {
	Tasks  tasks.Limits `yaml:"tasks"`
	Models model.Limits `yaml:"models"`
	// DatabaseBytes is the largest database file. Default 1 GiB.
	DatabaseBytes int64 `yaml:"databaseBytes"`
}

// DefaultConfig is what an empty configuration file means.
func DefaultConfig() Config {
	return Config{
		DataDir: "/var/lib/sedna", HTTP: "127.0.0.1:9100", Bus: BusConfig{URL: "tcp://127.0.0.1:1883"},
		Namespace: "sedna", BeatSeconds: task.BeatSeconds,
		Limits: Limits{Tasks: tasks.Limits{}.WithDefaults(), Models: model.Limits{}.WithDefaults(), DatabaseBytes: 1 << 30},
	}
}

// Check says what is wrong with a configuration, as invalid_argument with the
// key. It fills in what follows from other keys.
func (c *Config) Check() error {
	bad := func(key, format string, args ...any) error {
		return wire.E(wire.InvalidArgument, key, fmt.Sprintf(format, args...), "")
	}
	if c.DataDir == "" {
		return bad("dataDir", "missing")
	}
	if c.IdentityDir == "" {
		c.IdentityDir = filepath.Join(c.DataDir, "identity")
	}
	if c.Node != "" && !task.ValidName(c.Node) {
		return bad("node", "expected a node name, got %.80q", c.Node)
	}
	if !task.ValidName(c.Namespace) {
		return bad("namespace", "expected a namespace, got %.80q", c.Namespace)
	}
	if c.EnrolToken != "" && c.EnrolTokenFile != "" {
		return bad("enrolTokenFile", "expected either enrolToken or enrolTokenFile")
	}
	if c.BeatSeconds < 1 || c.BeatSeconds > 3600 {
		return bad("beatSeconds", "expected 1 to 3600, got %d", c.BeatSeconds)
	}
	host, _, err := net.SplitHostPort(c.HTTP)
	if err != nil {
		return bad("http", "expected host:port, got %.80q", c.HTTP)
	}
	if !loopback(host) && c.Token == "" {
		return wire.E(wire.InvalidArgument, "token", "missing, and "+c.HTTP+" is not loopback", "set token, or listen on 127.0.0.1")
	}
	for i, r := range c.DataRoots {
		if !filepath.IsAbs(r) {
			return bad(fmt.Sprintf("dataRoots[%d]", i), "expected an absolute path, got %.80q", r)
		}
	}
	return nil
}

// loopback tells whether only this machine can reach host.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
