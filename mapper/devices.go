package mapper

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/edgetwin/sedna/lib/config"
	"github.com/edgetwin/sedna/mapper/devices"
	"github.com/edgetwin/sedna/mapper/dmi"
	"github.com/edgetwin/sedna/mapper/drivers"
	"github.com/edgetwin/sedna/mapper/drivers/frames"
	"github.com/edgetwin/sedna/mapper/drivers/mqtt"
	"github.com/edgetwin/sedna/models/wire"
)

// Devices says what sensors, actuators and cameras may use.
type Devices struct {
	// LocalController takes the frames of cameras: http://127.0.0.1:9100 or
	// unix:///path/of.sock. Empty: frames are handed to no service.
	LocalController string `yaml:"localController"`
	// Token is the LocalController's, where it asks for one.
	Token config.Secret `yaml:"token"`
	// DataRoots are the directories that sedna-file may replay from.
	DataRoots []string `yaml:"dataRoots"`
	// FFmpeg is the program that reads RTSP. Default: ffmpeg in the PATH.
	FFmpeg string `yaml:"ffmpeg"`
	// LocalWrites lets every program on the bus write properties by {"value":…}
	// to sedna/{node}/sensor/{ns}/{device}/{property}/set. Whoever may publish
	// on the bus can then move actuators. The LocalController writes the results
	// of its services with or without it: it signs with the key in Identity. A
	// property without visitors is kept by the mapper, and after its restart has
	// no value until it is written again.
	LocalWrites bool `yaml:"localWrites"`
	// ReportRate is how many updates a second go to the cloud, those of tasks
	// included, which go first. KubeEdge takes 30 of a node for all its parts.
	// Default 15.
	ReportRate float64 `yaml:"reportRate"`
}

// driven is what runs sensors and cameras.
type driven struct {
	engine  *devices.Engine
	mappers []*dmi.Mapper
	sink    *frames.HTTPSink // nil: none
}

// checkDevices says what is wrong with the settings for devices.
func checkDevices(c *Config) error {
	for i, name := range c.Drivers {
		if !slices.Contains(drivers.Names(), name) {
			return wire.E(wire.InvalidArgument, fmt.Sprintf("drivers[%d]", i), fmt.Sprintf("there is no driver %.80q", name), "drivers are "+strings.Join(drivers.Names(), ", "))
		}
		if slices.Contains(c.Drivers[:i], name) {
			return wire.E(wire.InvalidArgument, fmt.Sprintf("drivers[%d]", i), name+" is named twice", "")
		}
	}
	for i, dir := range c.Devices.DataRoots {
		if !filepath.IsAbs(dir) {
			return wire.E(wire.InvalidArgument, fmt.Sprintf("devices.dataRoots[%d]", i), "expected an absolute path", "")
		}
	}
	if r := c.Devices.ReportRate; !(r >= 0 && r <= 30) {
		return wire.E(wire.InvalidArgument, "devices.reportRate", "expected 0 to 30", "")
	}
	if c.Devices.LocalController != "" {
		if _, err := frames.NewHTTPSink(c.Devices.LocalController, ""); err != nil {
			return wire.E(wire.InvalidArgument, "devices.localController", wire.AsError(err).Message, "")
		}
	}
	return nil
}

// buildDevices makes the engine, with one mapper per protocol: edgecore keeps
// one client per protocol.
func (p *parts) buildDevices() error {
	if len(p.c.Drivers) == 0 {
		return nil
	}
	b, err := p.bus("sedna-devices-")
	if err != nil {
		return err
	}
	shared := drivers.Shared{
		MQTT: mqtt.Options{Node: p.c.Node, URL: p.c.Bus.URL, Username: p.c.Bus.Username, Password: p.c.Bus.Password},
		Bus:  b, FFmpeg: p.c.Devices.FFmpeg, DataRoots: p.c.Devices.DataRoots,
	}
	d := &driven{}
	if p.c.Devices.LocalController != "" {
		if d.sink, err = frames.NewHTTPSink(p.c.Devices.LocalController, p.c.Devices.Token); err != nil {
			return err
		}
		shared.Sink = d.sink
	}
	d.engine, err = devices.New(devices.Config{
		Node: p.c.Node, Bus: b, Drivers: drivers.All(shared), Budget: p.budget, NodeKey: p.nodeKey(), LocalWrites: p.c.Devices.LocalWrites,
		Metrics: p.metrics, Log: p.log,
	})
	if err != nil {
		return err
	}
	p.driven = d
	for _, protocol := range p.c.Drivers {
		h, err := d.engine.Handler(protocol)
		if err != nil {
			return err
		}
		m, err := dmi.New(dmi.Config{
			Name: protocol, Version: wire.Version, Protocol: protocol, Socket: driverSocket(p.c.Socket, protocol), EdgeSocket: p.c.DMISocket,
			Handler: h, Metrics: p.metrics, Log: p.log,
		})
		if err != nil {
			return err
		}
		d.mappers = append(d.mappers, m)
	}
	return nil
}

// driverSocket gives the socket of a protocol's mapper, beside the one for
// tasks: /var/lib/sedna/mapper.sock becomes /var/lib/sedna/mapper-modbus.sock.
func driverSocket(socket, protocol string) string {
	ext := filepath.Ext(socket)
	return strings.TrimSuffix(socket, ext) + "-" + strings.TrimPrefix(protocol, "sedna-") + ext
}

// run starts everything on g; g waits for it.
func (d *driven) run(ctx context.Context, g *errgroup.Group) {
	g.Go(func() error { return d.engine.Run(ctx) })
	for _, m := range d.mappers {
		g.Go(func() error { return m.Run(ctx) })
	}
}

func (d *driven) close() {
	d.engine.Close()
	if d.sink != nil {
		d.sink.Close()
	}
}
