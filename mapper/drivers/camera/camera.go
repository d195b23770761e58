// Package camera takes frames from cameras (JPEG snapshots or MJPEG over HTTP,
// RTSP through ffmpeg) and hands them to an inference service; on the bus they
// go only when the Device asks for it. The properties of a camera tell how it
// is doing.
package camera

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/edgetwin/sedna/mapper/devices"
	"github.com/edgetwin/sedna/mapper/drivers/frames"
	"github.com/edgetwin/sedna/models/wire"
)

// Protocol is the name that Devices use.
const Protocol = "sedna-camera"

// Options are what the cameras of a process share.
type Options struct {
	Sink   frames.FrameSink // nil: no inference service can be named
	Bus    frames.Publisher // nil: frames cannot be published
	FFmpeg string           // program for RTSP; default: ffmpeg in the PATH
}

// Config is protocol.configData.
type Config struct {
	Source    string `conf:"source,oneof=|snapshot|mjpeg|rtsp"` // rtsp where the URL says so, else required
	URL       string `conf:"url,required,max=2048"`             // http://, https://, rtsp:// or rtsps://
	Username  string `conf:"username,max=256"`                  // basic or digest authentication
	Password  string `conf:"password,max=1024"`
	Transport string `conf:"transport,oneof=tcp|udp"`               // of RTSP; tcp
	Listen    bool   `conf:"listen"`                                // the camera pushes to the RTSP URL, on which ffmpeg listens; false
	Timeout   int64  `conf:"timeoutMilliseconds,min=100,max=14000"` // without a frame, after which the camera is started anew; 10000
	MaxBytes  int64  `conf:"maxBytes,min=1024,max=8388608"`         // of a frame; 8 MiB

	Service       string  `conf:"service,max=128"`         // inference service that gets the frames: name, or namespace.name; default: none
	PublishFrames bool    `conf:"publishFrames"`           // put frames on the bus; false
	FPS           float64 `conf:"fps,min=0.01,max=1000"`   // the most frames per second; 5
	Width         int64   `conf:"width,min=0,max=7680"`    // pictures that are wider are made smaller; 0: as they come
	Quality       int64   `conf:"quality,min=1,max=100"`   // of JPEGs that were made smaller; 85
	Motion        float64 `conf:"motion,min=0,max=1"`      // share of the picture that has to change for a frame to pass; 0: all pass
	Still         int64   `conf:"stillMilliseconds,min=0"` // after which a frame passes without motion; 10000, 0: never
}

// Visitor is visitors.configData.
type Visitor struct {
	Value string `conf:"value,required,oneof=frames|passed|dropped|still|bad|failed|fps|motion|age"` // age: seconds since the last frame; motion: share of the picture that changed
}

// New gives a Factory.
func New(o Options) devices.Factory {
	return func(s devices.Setup) (devices.Driver, error) { return newDriver(o, s) }
}

func newDriver(o Options, s devices.Setup) (*driver, error) {
	c := Config{Transport: "tcp", Timeout: 10000, MaxBytes: frames.MaxBytes, FPS: 5, Quality: 85, Still: 10000}
	if err := s.Protocol.Decode(&c); err != nil {
		return nil, err
	}
	d := &driver{wake: s.Wake, timeout: time.Duration(c.Timeout) * time.Millisecond, visitors: map[string]string{}}
	set := frames.Settings{Service: c.Service, PublishFrames: c.PublishFrames, FPS: c.FPS, Width: int(c.Width), Quality: int(c.Quality),
		Motion: c.Motion, Still: time.Duration(c.Still) * time.Millisecond}
	if err := set.Check(o.Sink); err != nil {
		return nil, s.Protocol.Error("service", "%s", wire.AsError(err).Message)
	}
	if c.PublishFrames && o.Bus == nil {
		return nil, s.Protocol.Error("publishFrames", "there is no bus here")
	}
	var err error
	if d.source, err = newSource(o, s, &c); err != nil {
		return nil, err
	}
	for _, p := range s.Properties {
		if p.Kind == devices.Stream {
			continue // what KubeEdge calls a stream are the frames themselves
		}
		if p.Writable {
			return nil, p.Visitor.Error("value", "a camera has nothing to write, and the property is ReadWrite")
		}
		var v Visitor
		if err := p.Visitor.Decode(&v); err != nil {
			return nil, err
		}
		d.visitors[p.Name] = v.Value
	}
	d.output = frames.New(set, frames.Camera{Node: s.Node, Namespace: s.Namespace, Name: s.Name}, o.Sink, o.Bus, s.Log)
	return d, nil
}

func newSource(o Options, s devices.Setup, c *Config) (source, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" {
		return nil, s.Protocol.Error("url", "expected http://, https://, rtsp:// or rtsps:// and a host")
	}
	overRTSP := u.Scheme == "rtsp" || u.Scheme == "rtsps"
	switch {
	case !overRTSP && u.Scheme != "http" && u.Scheme != "https":
		return nil, s.Protocol.Error("url", "expected http://, https://, rtsp:// or rtsps://, got %.20q", u.Scheme)
	case c.Source == "" && overRTSP:
		c.Source = "rtsp"
	case c.Source == "":
		return nil, s.Protocol.Error("source", "expected snapshot or mjpeg")
	case overRTSP != (c.Source == "rtsp"):
		return nil, s.Protocol.Error("source", "%s does not go with a URL of %s", c.Source, u.Scheme)
	case c.Listen && !overRTSP:
		return nil, s.Protocol.Error("listen", "only RTSP cameras can push")
	}
	timeout := time.Duration(c.Timeout) * time.Millisecond
	switch c.Source {
	case "snapshot":
		return &snapshot{newWeb(u, c.Username, c.Password), time.Duration(float64(time.Second) / c.FPS), timeout, int(c.MaxBytes)}, nil
	case "mjpeg":
		return &mjpeg{newWeb(u, c.Username, c.Password), int(c.MaxBytes)}, nil
	}
	program := o.FFmpeg
	if program == "" {
		program = "ffmpeg"
	}
	if program, err = exec.LookPath(program); err != nil {
		return nil, s.Protocol.Error("source", "RTSP needs ffmpeg, which is not there: %v", err)
	}
	if c.Username != "" {
		u.User = url.UserPassword(c.Username, c.Password)
	}
	return &rtsp{program, u, c.Transport, c.Listen, c.FPS, int(c.Width), int(c.MaxBytes)}, nil
}

type driver struct {
	source   source
	output   *frames.Output
	wake     func()
	timeout  time.Duration
	visitors map[string]string

	stop func() // ends the capture and waits for it; nil: there is none

	mu  sync.Mutex
	err error // why the capture has ended; nil: it runs
}

// Connect starts the capture and waits for the first frame.
func (d *driver) Connect(ctx context.Context) error {
	d.halt()
	running, cancel := context.WithCancel(context.Background())
	first, ended := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var wg sync.WaitGroup
	d.mu.Lock()
	d.err = nil
	d.mu.Unlock()
	wg.Go(func() { d.output.Run(running) })
	wg.Go(func() {
		err := watched(running, d.source, d.timeout, func(b []byte) {
			d.output.Offer(b)
			once.Do(func() { close(first) })
		})
		d.mu.Lock()
		d.err = fmt.Errorf("camera: %w", err)
		d.mu.Unlock()
		close(ended)
		if running.Err() == nil && d.wake != nil {
			d.wake()
		}
	})
	d.stop = func() {
		cancel()
		wg.Wait()
	}
	select {
	case <-first:
		return nil
	case <-ended:
	case <-ctx.Done():
		d.halt()
		return errors.New("camera: no frame in time")
	}
	d.halt()
	return d.failure()
}

func (d *driver) failure() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

func (d *driver) halt() {
	if d.stop != nil {
		d.stop()
		d.stop = nil
	}
}

// Read tells how the camera is doing.
func (d *driver) Read(_ context.Context, names []string) (map[string]devices.Reading, error) {
	if err := d.failure(); err != nil {
		return nil, err
	}
	s := d.output.Stats()
	values := map[string]any{
		"frames": s.Frames, "passed": s.Passed, "dropped": s.Dropped, "still": s.Still, "bad": s.Bad, "failed": s.Failed,
		"fps": s.FPS, "motion": s.Change, "age": time.Since(s.Last).Seconds(),
	}
	out := make(map[string]devices.Reading, len(names))
	for _, name := range names {
		if v, ok := d.visitors[name]; ok {
			out[name] = devices.Reading{Value: values[v]}
		}
	}
	return out, nil
}

// Write refuses: a camera has nothing to write.
func (d *driver) Write(_ context.Context, name string, _ any) error {
	return wire.E(wire.Unimplemented, "", "a camera has nothing to write at "+strings.ToValidUTF8(name, "?"), "")
}

func (d *driver) Close() error {
	d.halt()
	return nil
}
