// Package frames takes camera frames from a driver to whoever wants them: an
// inference service of the LocalController and, when asked for, the bus. The
// newest frame wins everywhere: nothing queues, and a slow reader gets fewer
// frames, never old ones.
package frames

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/image/draw"

	"github.com/edgetwin/sedna/models/wire"
)

// Frame is one picture.
type Frame struct {
	Device string // that it came from, namespace/name
	JPEG   []byte
	Time   time.Time // when it came
}

// Camera is the device that frames come from.
type Camera struct{ Node, Namespace, Name string }

// FrameSink takes frames for an inference service. Frame blocks until the frame
// is taken and answered; it may be called from several goroutines.
type FrameSink interface {
	Frame(ctx context.Context, service string, f Frame) error
}

// Publisher is what is needed of the bus.
type Publisher interface {
	Publish(ctx context.Context, topic string, qos byte, retained bool, payload []byte) error
}

// Limits of a picture.
const (
	MaxBytes  = 8 << 20 // of a frame as it comes
	maxPixels = 40 << 20
)

// sinkTimeout bounds one frame's way to the sink, busTimeout that to the bus;
// sinkRetry is the pause after a failure.
const (
	sinkTimeout = 10 * time.Second
	busTimeout  = 2 * time.Second
	sinkRetry   = time.Second
)

// Settings are those of a Device's configData that say what becomes of frames.
type Settings struct {
	Service       string        // inference service that gets them; empty: none
	PublishFrames bool          // put them on the bus too
	FPS           float64       // the most frames per second; more are dropped
	Width         int           // larger pictures are made smaller; 0: as they come
	Quality       int           // of a picture that was made smaller
	Motion        float64       // share of the picture that has to change for a frame to pass; 0: all pass
	Still         time.Duration // after which a frame passes without motion
}

// Output is the way of one camera's frames.
type Output struct {
	set    Settings
	device string    // namespace/name
	sink   FrameSink // nil: none
	bus    Publisher // nil: none
	topic  string
	log    *slog.Logger

	in, out chan Frame // capacity 1

	mu      sync.Mutex
	stats   Stats
	window  time.Time // since when count counts
	count   int
	next    time.Time // when a frame is wanted again
	failing bool

	// Of the worker alone.
	reference []uint8 // luma of the last frame that passed
	passed    time.Time
}

// Stats tells how a camera is doing.
type Stats struct {
	Frames  int64     // that came
	Passed  int64     // that went on, to the sink or the bus
	Dropped int64     // over the rate, or replaced by a newer one
	Still   int64     // stopped by the motion gate
	Bad     int64     // that are no JPEG, or too large
	Failed  int64     // that the sink or the bus did not take
	FPS     float64   // of those that came, over the last seconds
	Change  float64   // share of the picture that the motion gate last saw change
	Last    time.Time // when the last one came
}

// Check says what is wrong with s; the error's field is a setting.
func (s *Settings) Check(sink FrameSink) error {
	if s.Service == "" {
		return nil
	}
	if sink == nil {
		return wire.E(wire.FailedPrecondition, "service", "this mapper hands no frames to a LocalController", "set devices.localController in the mapper's configuration")
	}
	if !wire.RequestID.MatchString(s.Service) {
		return wire.E(wire.InvalidArgument, "service", "expected the name of a service", "")
	}
	return nil
}

// New makes an Output; sink and bus may be nil.
func New(s Settings, from Camera, sink FrameSink, bus Publisher, log *slog.Logger) *Output {
	o := &Output{
		set: s, device: from.Namespace + "/" + from.Name, bus: bus, topic: wire.CameraFrame(from.Node, from.Namespace, from.Name),
		log: log, in: make(chan Frame, 1), out: make(chan Frame, 1),
	}
	if s.Service != "" {
		o.sink = sink
	}
	if !s.PublishFrames {
		o.bus = nil
	}
	return o
}

// Stats gives the counts so far.
func (o *Output) Stats() Stats {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.stats
	if time.Since(o.window) > 5*time.Second {
		s.FPS = 0
	}
	return s
}

// Offer takes a frame; it never blocks. jpeg must not be changed afterwards.
func (o *Output) Offer(jpeg []byte) {
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stats.Frames++
	o.stats.Last = now
	o.count++
	if d := now.Sub(o.window); d >= time.Second {
		o.stats.FPS = float64(o.count) / d.Seconds()
		o.window, o.count = now, 0
	}
	if o.set.FPS > 0 {
		interval := time.Duration(float64(time.Second) / o.set.FPS)
		// A source of just this rate jitters: a tenth early still counts.
		if now.Add(interval / 10).Before(o.next) {
			o.stats.Dropped++
			return
		}
		if o.next = o.next.Add(interval); o.next.Before(now) {
			o.next = now.Add(interval)
		}
	}
	o.stats.Dropped += put(o.in, Frame{o.device, jpeg, now})
}

// put hands over f in place of one that was not taken yet; it gives the number
// of frames that were lost. Each channel has one goroutine that puts at a time.
func put(ch chan Frame, f Frame) (lost int64) {
	for {
		select {
		case ch <- f:
			return lost
		default:
		}
		select {
		case <-ch:
			lost++
		default:
		}
	}
}

// Run carries frames until ctx ends. It may be called again then; what was
// under way is dropped, since it would be old.
func (o *Output) Run(ctx context.Context) {
	defer func() {
		for _, ch := range []chan Frame{o.in, o.out} {
			select {
			case <-ch:
			default:
			}
		}
	}()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { o.send(ctx) })
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-o.in:
			o.work(f)
		}
	}
}

// work makes a frame ready, or stops it.
func (o *Output) work(f Frame) {
	ready, change, err := o.prepare(f)
	o.mu.Lock()
	o.stats.Change = change
	switch {
	case err != nil:
		o.stats.Bad++
	case ready == nil:
		o.stats.Still++
	}
	o.mu.Unlock()
	if err != nil {
		o.log.Debug("frame dropped", "err", err)
		return
	}
	if ready == nil {
		return
	}
	f.JPEG = ready
	lost := put(o.out, f)
	o.mu.Lock()
	o.stats.Dropped += lost
	o.mu.Unlock()
}

// prepare gives the picture as it goes on; nil when nothing has moved.
func (o *Output) prepare(f Frame) (out []byte, change float64, err error) {
	c, err := jpeg.DecodeConfig(bytes.NewReader(f.JPEG))
	if err != nil {
		return nil, 0, err
	}
	if c.Width <= 0 || c.Height <= 0 || c.Width*c.Height > maxPixels {
		return nil, 0, fmt.Errorf("picture of %d×%d pixels", c.Width, c.Height)
	}
	smaller := o.set.Width > 0 && c.Width > o.set.Width
	if !smaller && o.set.Motion == 0 {
		return f.JPEG, 0, nil
	}
	img, err := jpeg.Decode(bytes.NewReader(f.JPEG))
	if err != nil {
		return nil, 0, err
	}
	if o.set.Motion > 0 {
		now := luma(img)
		change = changed(o.reference, now)
		still := o.set.Still > 0 && f.Time.Sub(o.passed) >= o.set.Still
		if o.reference != nil && change < o.set.Motion && !still {
			return nil, change, nil
		}
		o.reference, o.passed = now, f.Time
	}
	if !smaller {
		return f.JPEG, change, nil
	}
	height := max(1, (c.Height*o.set.Width+c.Width/2)/c.Width)
	dst := image.NewRGBA(image.Rect(0, 0, o.set.Width, height))
	draw.ApproxBiLinear.Scale(dst, dst.Bounds(), img, img.Bounds(), draw.Src, nil)
	var b bytes.Buffer
	if err := jpeg.Encode(&b, dst, &jpeg.Options{Quality: o.set.Quality}); err != nil {
		return nil, change, err
	}
	return b.Bytes(), change, nil
}

// The motion gate looks at this many cells; a cell has changed when its
// brightness differs by more than cellChange.
const (
	cellsX, cellsY = 64, 48
	cellChange     = 20
)

// luma gives the brightness of the picture's cells, each from four points.
func luma(img image.Image) []uint8 {
	b := img.Bounds()
	at := func(x, y int) int {
		r, g, bl, _ := img.At(x, y).RGBA()
		return int((299*r + 587*g + 114*bl) / 1000 >> 8)
	}
	switch img := img.(type) {
	case *image.YCbCr:
		at = func(x, y int) int { return int(img.Y[img.YOffset(x, y)]) }
	case *image.Gray:
		at = func(x, y int) int { return int(img.GrayAt(x, y).Y) }
	}
	out := make([]uint8, cellsX*cellsY)
	for cy := range cellsY {
		for cx := range cellsX {
			sum := 0
			for k := range 4 {
				x := b.Min.X + (4*cx+1+2*(k&1))*b.Dx()/(4*cellsX)
				y := b.Min.Y + (4*cy+1+2*(k>>1))*b.Dy()/(4*cellsY)
				sum += at(x, y)
			}
			out[cy*cellsX+cx] = uint8(sum / 4)
		}
	}
	return out
}

// changed is the share of cells that differ.
func changed(a, b []uint8) float64 {
	if a == nil {
		return 1
	}
	n := 0
	for i := range b {
		if d := int(a[i]) - int(b[i]); d > cellChange || d < -cellChange {
			n++
		}
	}
	return float64(n) / float64(len(b))
}

// send hands frames over.
func (o *Output) send(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-o.out:
			err := o.deliver(ctx, f)
			o.mu.Lock()
			first := err != nil && !o.failing
			o.failing = err != nil
			if err == nil {
				o.stats.Passed++
			} else {
				o.stats.Failed++
			}
			o.mu.Unlock()
			if ctx.Err() != nil {
				return
			}
			if first {
				o.log.Warn("frame not taken, trying on with newer ones", "err", err)
			}
			if err != nil {
				select {
				case <-ctx.Done():
					return
				case <-time.After(sinkRetry):
				}
			}
		}
	}
}

func (o *Output) deliver(ctx context.Context, f Frame) error {
	var err error
	if o.bus != nil {
		// A bus client that is closed over a message waits long: it is let end.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), busTimeout)
		err = o.bus.Publish(ctx, o.topic, 0, false, f.JPEG)
		cancel()
	}
	ctx, cancel := context.WithTimeout(ctx, sinkTimeout)
	defer cancel()
	if o.sink != nil {
		err = errors.Join(err, o.sink.Frame(ctx, o.set.Service, f))
	}
	return err
}
