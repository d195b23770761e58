package broker

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"sync"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"

	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/lib/config"
	"github.com/edgetwin/sedna/models/wire"
)

// DefaultAddr is where MQTT clients look first.
const DefaultAddr = "127.0.0.1:1883"

// Options of the embedded broker. Zero values mean the defaults.
type Options struct {
	Addr       string        // host:port; port 0 takes a free one; DefaultAddr
	Username   string        // required unless Addr is on loopback; empty: anyone may connect
	Password   config.Secret // required with Username
	TLS        *tls.Config   // nil: plain TCP
	MaxPacket  uint32        // bytes in one packet; room for bus.DefaultMaxPayload and a topic
	MaxClients int64         // connections at a time; 1024
	Log        *slog.Logger  // nil: none
}

const (
	listenerID = "bus"
	topicRoom  = 64 << 10 // for a packet's topic and header beside the payload

	maxQueued       = 8 << 10   // packets that wait for one client to read; QoS 0 beyond that is dropped
	maxInflight     = 8 << 10   // QoS 1 packets that one client has not acknowledged
	receiveMaximum  = 1 << 10   // QoS 1 packets of one client that the broker has not acknowledged
	sessionSeconds  = 24 * 3600 // how long a persistent session of an absent client is kept
	sysTopicSeconds = 60        // between two rounds of $SYS statistics
	bufferSize      = 8 << 10   // bytes of read and of write buffer per client
)

// Broker is a running broker.
type Broker struct {
	listener *listeners.TCP
	stop     func() error // once
}

// Start listens and serves until Close.
func Start(o Options) (*Broker, error) {
	if err := o.normalize(); err != nil {
		return nil, err
	}
	s := mqtt.New(&mqtt.Options{
		Capabilities: &mqtt.Capabilities{
			MaximumClients:               o.MaxClients,
			MaximumMessageExpiryInterval: 0, // retained task documents stay
			MaximumClientWritesPending:   maxQueued,
			MaximumSessionExpiryInterval: sessionSeconds,
			MaximumPacketSize:            o.MaxPacket,
			ReceiveMaximum:               receiveMaximum,
			MaximumInflight:              maxInflight,
			TopicAliasMaximum:            0,
			SharedSubAvailable:           1,
			MinimumProtocolVersion:       4, // 3.1.1
			MaximumQos:                   2,
			RetainAvailable:              1,
			WildcardSubAvailable:         1,
			SubIDAvailable:               1,
		},
		ClientNetWriteBufferSize: bufferSize,
		ClientNetReadBufferSize:  bufferSize,
		SysTopicResendInterval:   sysTopicSeconds,
		Logger:                   slog.New(quiet{o.Log.Handler()}),
	})
	if err := s.AddHook(&door{username: []byte(o.Username), password: []byte(o.Password)}, nil); err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	l := listeners.NewTCP(listeners.Config{ID: listenerID, Address: o.Addr, TLSConfig: o.TLS})
	if err := s.AddListener(l); err != nil {
		return nil, fmt.Errorf("broker: listen: %w", err)
	}
	if err := s.Serve(); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("broker: %w", err)
	}
	return &Broker{listener: l, stop: sync.OnceValue(s.Close)}, nil
}

// Addr is where the broker listens, as host:port.
func (b *Broker) Addr() string { return b.listener.Address() }

// Close disconnects all clients and stops; calls after the first change
// nothing.
func (b *Broker) Close() error { return b.stop() }

func (o *Options) normalize() error {
	if o.Addr == "" {
		o.Addr = DefaultAddr
	}
	host, _, err := net.SplitHostPort(o.Addr)
	if err != nil {
		return wire.E(wire.InvalidArgument, "addr", fmt.Sprintf("%.80q: expected host:port", o.Addr), "")
	}
	if (o.Username == "") != (o.Password == "") {
		return wire.E(wire.InvalidArgument, "password", "username and password go together", "")
	}
	if o.Username == "" && !loopback(host) {
		return wire.E(wire.FailedPrecondition, "username", "a broker that others can reach needs a username and a password", "listen on 127.0.0.1, or set both")
	}
	if o.MaxPacket == 0 {
		o.MaxPacket = bus.DefaultMaxPayload + topicRoom
	}
	if o.MaxClients <= 0 {
		o.MaxClients = 1024
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}
