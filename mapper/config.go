package mapper

import (
	"fmt"
	"net"

	"github.com/edgetwin/sedna/lib/config"
	"github.com/edgetwin/sedna/lib/losses"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// Config of the mapper process.
type Config struct {
	// Node is this node's name in topics. Empty: the name in the identity.
	Node string `yaml:"node"`
	// Identity is the directory with the node's key and certificate. edgelink
	// needs it; without edgelink it is used, when it is there, to verify what
	// the LocalController says on the bus: its reports, and the results that it
	// writes to properties of devices, none of which is taken without.
	Identity string `yaml:"identity"`
	// DMISocket is edgecore's socket, or the one that edgelink makes.
	DMISocket string `yaml:"dmiSocket"`
	// Socket is the mapper's own, on which edgecore calls back.
	Socket string `yaml:"socket"`
	// HTTP is the address of /v1/devices, /metrics, /healthz and /readyz; port 0
	// takes a free one; empty: none.
	HTTP string `yaml:"http"`
	// Token is asked for as Authorization: Bearer at /v1/devices and /metrics.
	// Required where HTTP is not on loopback.
	Token config.Secret `yaml:"token"`

	// Drivers are the protocols of sensors, actuators and cameras that this
	// mapper drives: sedna-camera, sedna-file, sedna-http, sedna-modbus,
	// sedna-mqtt, sedna-simulated. Default: none.
	Drivers []string `yaml:"drivers"`
	Devices Devices  `yaml:"devices"`

	Bus      Bus      `yaml:"bus"`
	Broker   Broker   `yaml:"broker"`
	Edgelink Edgelink `yaml:"edgelink"`
}

// Bus is the MQTT broker to use.
type Bus struct {
	// URL such as tcp://127.0.0.1:1883 or mqtts://host:8883. Not used with the
	// embedded broker.
	URL      string        `yaml:"url"`
	Username string        `yaml:"username"` // empty: anonymous
	Password config.Secret `yaml:"password"`
}

// Broker is the embedded MQTT broker, which takes the bus's username and
// password.
type Broker struct {
	Enabled bool `yaml:"enabled"`
	// Listen is host:port; port 0 takes a free one. Off loopback a username
	// and a password are required.
	Listen string `yaml:"listen"`
}

// Edgelink stands in for edgecore.
type Edgelink struct {
	Enabled bool `yaml:"enabled"`
	// Cloud is the GlobalManager's URL. Empty: the one in the identity.
	Cloud string `yaml:"cloud"`
	// Database is the file that keeps the node's devices.
	Database string `yaml:"database"`
	// SharedBroker says that other edges use the same broker: reports of
	// devices that are not this node's are then left to them unanswered.
	SharedBroker bool `yaml:"sharedBroker"`
	// Lose lists what is lost as KubeEdge loses it, for tests: first-report, first-empty,
	// desired-offline, create-offline, twin-offline, delete-offline, drop-up=P, drop-down=P;
	// offline-report and coalesce are always so.
	Lose []string `yaml:"lose"`
	// Seed makes losses by chance repeatable.
	Seed int64 `yaml:"seed"`
	// Control is a loopback address that takes POST /link {"up":false} and
	// {"up":true}, and answers GET /link, for tests; port 0 takes a free one;
	// empty: none.
	Control string `yaml:"control"`
}

// Default is the configuration on a node with KubeEdge.
func Default() Config {
	return Config{
		Identity:  "/var/lib/sedna/identity",
		DMISocket: "/etc/kubeedge/dmi.sock",
		Socket:    "/var/lib/sedna/mapper.sock",
		HTTP:      "127.0.0.1:9102",
		Bus:       Bus{URL: "tcp://127.0.0.1:1883"},
		Broker:    Broker{Listen: "127.0.0.1:1883"},
		Edgelink:  Edgelink{Database: "/var/lib/sedna/edgelink.db"},
	}
}

// Check says what is wrong with c.
func Check(c *Config) error {
	if c.Node != "" && !task.ValidName(c.Node) {
		return wire.E(wire.InvalidArgument, "node", fmt.Sprintf("expected a node name, got %.80q", c.Node), "")
	}
	for _, f := range []struct{ field, value string }{{"identity", c.Identity}, {"dmiSocket", c.DMISocket}, {"socket", c.Socket}} {
		if f.value == "" {
			return wire.E(wire.InvalidArgument, f.field, "missing", "")
		}
	}
	if c.Edgelink.Enabled && c.Edgelink.Database == "" {
		return wire.E(wire.InvalidArgument, "edgelink.database", "missing", "")
	}
	if _, err := losses.Parse("edgelink.lose", c.Edgelink.Lose); err != nil {
		return err
	}
	if err := checkDevices(c); err != nil {
		return err
	}
	if c.HTTP == "" {
		return nil
	}
	host, _, err := net.SplitHostPort(c.HTTP)
	if err != nil {
		return wire.E(wire.InvalidArgument, "http", fmt.Sprintf("expected host:port, got %.80q", c.HTTP), "")
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) && c.Token == "" {
		return wire.E(wire.FailedPrecondition, "token", "missing, and others can reach "+c.HTTP, "listen on 127.0.0.1, or set a token")
	}
	return nil
}
