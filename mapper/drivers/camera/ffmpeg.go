package camera

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// stopGrace is how long ffmpeg may take to end by itself.
const stopGrace = 2 * time.Second

// boundary separates the frames that ffmpeg writes.
const boundary = "sednaframe"

// rtsp has ffmpeg read the camera: it decodes H.264, H.265 and whatever else
// cameras send, thins out, makes smaller and writes JPEGs. It is a process of
// its own group, started without a shell.
type rtsp struct {
	ffmpeg    string // path of the program
	url       *url.URL
	transport string // tcp or udp
	listen    bool   // the camera dials us
	fps       float64
	width     int
	max       int
}

func (s *rtsp) args() []string {
	args := []string{"-nostdin", "-hide_banner", "-loglevel", "error", "-fflags", "nobuffer", "-flags", "low_delay"}
	if s.listen {
		args = append(args, "-rtsp_flags", "listen")
	} else {
		args = append(args, "-rtsp_transport", s.transport)
	}
	filter := "fps=" + strconv.FormatFloat(s.fps, 'f', -1, 64)
	if s.width > 0 {
		filter += fmt.Sprintf(",scale=w='min(%d,iw)':h=-2", s.width)
	}
	return append(args, "-i", s.url.String(), "-map", "0:v:0", "-an", "-sn", "-dn", "-vf", filter,
		"-c:v", "mjpeg", "-q:v", "4", "-f", "mpjpeg", "-boundary_tag", boundary, "pipe:1")
}

func (s *rtsp) run(ctx context.Context, frame func([]byte)) error {
	// The child dies with the thread that starts it: the thread stays ours.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, s.ffmpeg, s.args()...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = ownGroup()
	cmd.Cancel = func() error { return signalGroup(cmd, syscall.SIGTERM) }
	cmd.WaitDelay = stopGrace
	errText := &tail{}
	cmd.Stderr = errText
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("ffmpeg: %w", err)
	}
	err = pump(newMJPEGReader(out, boundary, s.max), frame)
	// What is wrong with its output will not get better.
	_ = signalGroup(cmd, syscall.SIGTERM)
	kill := time.AfterFunc(stopGrace, func() { _ = signalGroup(cmd, syscall.SIGKILL) })
	waitErr := cmd.Wait()
	kill.Stop()
	// Whatever it has started goes with it.
	_ = signalGroup(cmd, syscall.SIGKILL)
	if text := s.redact(errText.String()); text != "" {
		return fmt.Errorf("ffmpeg: %s", text)
	}
	if waitErr != nil && errors.Is(err, errEnded) {
		return fmt.Errorf("ffmpeg: %w", waitErr)
	}
	return err
}

// redact keeps the password out of messages.
func (s *rtsp) redact(text string) string {
	if s.url.User != nil {
		text = strings.ReplaceAll(text, s.url.String(), s.url.Redacted())
		if p, ok := s.url.User.Password(); ok && p != "" {
			text = strings.ReplaceAll(text, p, "xxxxx")
		}
	}
	return strings.Join(strings.Fields(text), " ")
}

// tail keeps the end of what ffmpeg complains.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	const most = 400
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if len(t.b) > most {
		t.b = append(t.b[:0], t.b[len(t.b)-most:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.ToValidUTF8(string(t.b), "")
}
