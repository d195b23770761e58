// Package drivers is the table of all device drivers, by the protocol name that
// Devices use. The names are our own: the last mapper to register a protocol on
// a node wins, so we never take a name that somebody else may use.
package drivers

import (
	"maps"
	"slices"

	"github.com/edgetwin/sedna/mapper/devices"
	"github.com/edgetwin/sedna/mapper/drivers/camera"
	"github.com/edgetwin/sedna/mapper/drivers/file"
	"github.com/edgetwin/sedna/mapper/drivers/frames"
	"github.com/edgetwin/sedna/mapper/drivers/http"
	"github.com/edgetwin/sedna/mapper/drivers/modbus"
	"github.com/edgetwin/sedna/mapper/drivers/mqtt"
	"github.com/edgetwin/sedna/mapper/drivers/simulated"
)

// Shared is what the drivers of one process share.
type Shared struct {
	MQTT      mqtt.Options     // the node's broker
	Bus       frames.Publisher // for frames that a Device wants on the bus
	Sink      frames.FrameSink // nil: cameras hand frames to no service
	FFmpeg    string           // program for RTSP; empty: ffmpeg in the PATH
	DataRoots []string         // directories that recorded files may lie in
}

// All gives every driver.
func All(s Shared) map[string]devices.Factory {
	return map[string]devices.Factory{
		camera.Protocol:    camera.New(camera.Options{Sink: s.Sink, Bus: s.Bus, FFmpeg: s.FFmpeg}),
		file.Protocol:      file.New(file.Options{Roots: s.DataRoots, Sink: s.Sink, Bus: s.Bus}),
		http.Protocol:      http.New,
		modbus.Protocol:    modbus.New,
		mqtt.Protocol:      mqtt.New(s.MQTT),
		simulated.Protocol: simulated.New,
	}
}

// Names lists the protocols.
func Names() []string { return slices.Sorted(maps.Keys(All(Shared{}))) }
