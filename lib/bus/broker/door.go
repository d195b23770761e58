package broker

import (
	"crypto/subtle"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// door lets clients in: all when no username is set, else those with exactly
// that username and password. Who is in may use every topic; what travels on
// the bus is signed where it matters.
type door struct {
	mqtt.HookBase
	username, password []byte
}

func (d *door) ID() string { return "door" }

func (d *door) Provides(b byte) bool {
	return b == mqtt.OnConnectAuthenticate || b == mqtt.OnACLCheck
}

func (d *door) OnConnectAuthenticate(_ *mqtt.Client, pk packets.Packet) bool {
	if len(d.username) == 0 {
		return true
	}
	u := subtle.ConstantTimeCompare(pk.Connect.Username, d.username)
	p := subtle.ConstantTimeCompare(pk.Connect.Password, d.password)
	return u&p == 1
}

func (d *door) OnACLCheck(*mqtt.Client, string, bool) bool { return true }
