// Package camera stands in for cameras: one that is read as MJPEG over HTTP,
// and one that pushes H.264 over RTSP by ffmpeg. Both are handed JPEGs; the
// newest frame wins, as in a camera.
package camera

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Camera shows pictures to whoever reads it.
type Camera interface {
	// Show hands over the next frame, which must not be changed afterwards.
	Show(jpeg []byte)
	// Close ends the camera and waits until it has ended.
	Close() error
}

// MJPEG is a camera that is read over HTTP.
type MJPEG struct {
	server *http.Server
	addr   string
	done   chan struct{}

	mu    sync.Mutex
	frame []byte
	news  chan struct{} // closed when frame is replaced
}

var _ Camera = (*MJPEG)(nil)

// NewMJPEG starts the camera on a free port of loopback.
func NewMJPEG() (*MJPEG, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c := &MJPEG{addr: l.Addr().String(), done: make(chan struct{}), news: make(chan struct{})}
	c.server = &http.Server{Handler: http.HandlerFunc(c.serve), ReadHeaderTimeout: 5 * time.Second}
	go func() {
		_ = c.server.Serve(l) // ends with Close
		close(c.done)
	}()
	return c, nil
}

// URL of the stream.
func (c *MJPEG) URL() string { return "http://" + c.addr + "/video.mjpg" }

// Show implements Camera.
func (c *MJPEG) Show(jpeg []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frame = jpeg
	close(c.news)
	c.news = make(chan struct{})
}

func (c *MJPEG) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "multipart/x-mixed-replace; boundary="+boundary)
	w.WriteHeader(http.StatusOK)
	out := http.NewResponseController(w)
	for {
		c.mu.Lock()
		frame, news := c.frame, c.news
		c.mu.Unlock()
		if frame != nil {
			if err := writePart(w, frame); err != nil {
				return
			}
		}
		if err := out.Flush(); err != nil {
			return
		}
		select {
		case <-news:
		case <-r.Context().Done():
			return
		}
	}
}

// boundary separates frames.
const boundary = "frame"

// writePart writes a frame with its length, so that a reader need not wait for
// the next one to know where it ends.
func writePart(w io.Writer, frame []byte) error {
	_, err := fmt.Fprintf(w, "--%s\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n", boundary, len(frame), frame)
	return err
}

// Close implements Camera.
func (c *MJPEG) Close() error {
	err := c.server.Close()
	<-c.done
	return err
}

// RTSP is a camera that pushes to an RTSP URL. It dials again whenever nobody
// listens there.
type RTSP struct {
	cancel context.CancelFunc
	done   chan struct{}
	frames chan []byte // capacity 1
}

var _ Camera = (*RTSP)(nil)

// redial is the pause before ffmpeg is started again.
const redial = 200 * time.Millisecond

// NewRTSP starts the camera. It fails where ffmpeg is not installed.
func NewRTSP(url string, fps int) (*RTSP, error) {
	ffmpeg, err := exec.LookPath("ffmpeg")
	if err != nil {
		return nil, fmt.Errorf("a camera that pushes RTSP needs ffmpeg: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &RTSP{cancel: cancel, done: make(chan struct{}), frames: make(chan []byte, 1)}
	go func() {
		defer close(c.done)
		for ctx.Err() == nil {
			c.push(ctx, ffmpeg, url, fps)
			select {
			case <-time.After(redial):
			case <-ctx.Done():
			}
		}
	}()
	return c, nil
}

// push runs one ffmpeg until it or ctx ends.
func (c *RTSP) push(ctx context.Context, ffmpeg, url string, fps int) {
	rate := strconv.Itoa(fps)
	cmd := exec.CommandContext(ctx, ffmpeg, "-hide_banner", "-loglevel", "error",
		"-fflags", "nobuffer", "-flags", "low_delay", "-probesize", "32", "-analyzeduration", "0",
		"-f", "mpjpeg", "-use_wallclock_as_timestamps", "1", "-i", "pipe:0", "-fps_mode", "passthrough",
		"-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", rate, "-pix_fmt", "yuv420p",
		"-f", "rtsp", "-rtsp_transport", "tcp", url)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second
	in, err := cmd.StdinPipe()
	if err != nil {
		return
	}
	if err := cmd.Start(); err != nil {
		return
	}
	ended := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer in.Close()
		for {
			select {
			case frame := <-c.frames:
				if err := writePart(in, frame); err != nil {
					return
				}
			case <-ended:
				return
			}
		}
	})
	_ = cmd.Wait() // that nobody listens is no news
	close(ended)
	wg.Wait()
}

// Show implements Camera.
func (c *RTSP) Show(jpeg []byte) {
	select {
	case <-c.frames:
	default:
	}
	select {
	case c.frames <- jpeg:
	default: // another Show was faster
	}
}

// Close implements Camera.
func (c *RTSP) Close() error {
	c.cancel()
	<-c.done
	return nil
}
