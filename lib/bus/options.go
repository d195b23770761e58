package bus

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/edgetwin/sedna/lib/config"
	"github.com/edgetwin/sedna/models/wire"
)

// DefaultMaxPayload bounds one message in bytes: a task document of 256 KiB
// with its escaping, an inference request, a camera frame.
const DefaultMaxPayload = 4 << 20

// Options say where the broker is and how the client behaves. Zero values mean
// the defaults.
type Options struct {
	URL          string        // tcp://, mqtt://, unix://, tls:// or mqtts://; a bare host:port means tcp
	ClientID     string        // unique per broker; required
	CleanSession bool          // true: the broker forgets subscriptions and queued messages when the link ends
	Username     string        // empty: anonymous
	Password     config.Secret // sent only with a Username
	TLS          *tls.Config   // for tls:// and mqtts://; nil: the system's roots

	KeepAlive      time.Duration // between pings on a silent link; 15 s
	ConnectTimeout time.Duration // for dial, TLS and CONNACK together; 5 s
	WriteTimeout   time.Duration // for one packet to leave; 10 s
	MinBackoff     time.Duration // before the first try to reconnect; 100 ms
	MaxBackoff     time.Duration // between later tries, before jitter of a fifth; 5 s
	QueueSize      int           // messages that wait for the handler of one subscription; 1024
	MaxPayload     int           // bytes in one message, in and out; DefaultMaxPayload

	Log *slog.Logger // nil: none
}

// normalize fills in the defaults and checks the rest.
func (o *Options) normalize() (*url.URL, error) {
	if o.ClientID == "" {
		return nil, wire.E(wire.InvalidArgument, "clientID", "missing", "")
	}
	u, err := parseURL(o.URL)
	if err != nil {
		return nil, err
	}
	if u.Scheme == "tls" && o.TLS == nil {
		o.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	setDuration := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	setDuration(&o.KeepAlive, 15*time.Second)
	setDuration(&o.ConnectTimeout, 5*time.Second)
	setDuration(&o.WriteTimeout, 10*time.Second)
	setDuration(&o.MinBackoff, 100*time.Millisecond)
	setDuration(&o.MaxBackoff, 5*time.Second)
	if o.QueueSize <= 0 {
		o.QueueSize = 1024
	}
	if o.MaxPayload <= 0 {
		o.MaxPayload = DefaultMaxPayload
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return u, nil
}

// parseURL gives a URL whose scheme is tcp, tls or unix.
func parseURL(s string) (*url.URL, error) {
	bad := func(why string) error {
		return wire.E(wire.InvalidArgument, "url", fmt.Sprintf("broker %.80q: %s", s, why), "expected e.g. tcp://127.0.0.1:1883")
	}
	if s != "" && !strings.Contains(s, "://") {
		s = "tcp://" + s
	}
	u, err := url.Parse(s)
	if err != nil {
		return nil, bad("not a URL")
	}
	if u.User != nil {
		return nil, bad("credentials belong in username and password")
	}
	port := "1883"
	switch u.Scheme {
	case "tcp", "mqtt":
		u.Scheme = "tcp"
	case "tls", "ssl", "mqtts":
		u.Scheme, port = "tls", "8883"
	case "unix":
		if u.Host != "" || u.Path == "" {
			return nil, bad("expected unix:///absolute/path")
		}
		return u, nil
	default:
		return nil, bad("unknown scheme")
	}
	if u.Hostname() == "" {
		return nil, bad("no host")
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), port)
	}
	return u, nil
}
