package camera_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/edgetwin/sedna/mapper/devices"
	"github.com/edgetwin/sedna/mapper/drivers/camera"
	"github.com/edgetwin/sedna/mapper/drivers/frames"
	"github.com/edgetwin/sedna/models/wire"
)

const patience = 20 * time.Second

// sink keeps what it is handed.
type sink struct {
	got   chan frames.Frame
	block chan struct{} // not nil: each frame waits for it
	err   atomic.Bool
}

func newSink() *sink { return &sink{got: make(chan frames.Frame, 10000)} }

func (s *sink) Frame(ctx context.Context, service string, f frames.Frame) error {
	if service != "digits" {
		return errors.New("another service")
	}
	if s.block != nil {
		select {
		case <-s.block:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.got <- f
	if s.err.Load() {
		return errors.New("busy")
	}
	return nil
}

type published struct {
	mu     sync.Mutex
	topics []string
}

func (p *published) Publish(_ context.Context, topic string, qos byte, retained bool, payload []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.topics = append(p.topics, fmt.Sprintf("%s %d %t", topic, qos, retained))
	return nil
}

func wait[T any](t testing.TB, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("%s: waited %v", what, patience)
		panic("unreachable")
	}
}

// picture is a JPEG with a bright square at x.
func picture(t testing.TB, w, h, x int) []byte {
	t.Helper()
	img := image.NewGray(image.Rect(0, 0, w, h))
	for y := h / 4; y < h/2; y++ {
		for i := x; i < min(x+w/4, w); i++ {
			img.SetGray(i, y, color.Gray{Y: 255})
		}
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func setup(protocol map[string]any, values ...string) devices.Setup {
	s := devices.Setup{Node: "n1", Namespace: "default", Name: "cam", Protocol: devices.NewSettings("protocol", protocol), Log: slog.New(slog.DiscardHandler), Wake: func() {}}
	for _, v := range values {
		s.Properties = append(s.Properties, devices.Property{Name: v, Kind: devices.Double, Visitor: devices.NewSettings(v, map[string]any{"value": v})})
	}
	return s
}

func open(t testing.TB, o camera.Options, s devices.Setup) devices.Driver {
	t.Helper()
	d, err := camera.New(o)(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// stream serves frames as MJPEG, as fast as they are read or each interval.
func stream(t testing.TB, interval time.Duration, next func(i int) []byte) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "multipart/x-mixed-replace; boundary=frame")
		for i := 0; r.Context().Err() == nil; i++ {
			b := next(i)
			if b == nil {
				return
			}
			if _, err := fmt.Fprintf(w, "--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n", len(b), b); err != nil {
				return
			}
			w.(http.Flusher).Flush()
			if interval > 0 {
				select {
				case <-r.Context().Done():
				case <-time.After(interval):
				}
			}
		}
	}))
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return s
}

func TestMJPEGResizedAndHandedOver(t *testing.T) {
	pic := picture(t, 640, 480, 0)
	srv := stream(t, 10*time.Millisecond, func(int) []byte { return pic })
	k, p := newSink(), &published{}
	d := open(t, camera.Options{Sink: k, Bus: p}, setup(map[string]any{"source": "mjpeg", "url": srv.URL, "service": "digits", "publishFrames": true, "fps": 20.0, "width": int64(160)},
		"frames", "passed", "fps", "age"))
	if err := d.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	since := time.Now()
	for range 10 {
		f := wait(t, k.got, "frame")
		c, err := jpeg.DecodeConfig(bytes.NewReader(f.JPEG))
		if err != nil || c.Width != 160 || c.Height != 120 || f.Device != "default/cam" {
			t.Fatalf("%+v of %s, %v", c, f.Device, err)
		}
	}
	if d := time.Since(since); d < 400*time.Millisecond {
		t.Errorf("10 frames at 20 a second took %v", d)
	}
	got, err := d.Read(t.Context(), []string{"frames", "passed", "fps", "age"})
	if err != nil || got["frames"].Value.(int64) < 10 || got["age"].Value.(float64) > 5 {
		t.Errorf("%v, %v", got, err)
	}
	p.mu.Lock()
	if len(p.topics) < 9 || p.topics[0] != "sedna/n1/camera/default/cam/frame 0 false" {
		t.Errorf("%v", p.topics)
	}
	p.mu.Unlock()
	// The camera goes: Read says so.
	srv.CloseClientConnections()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if _, err := d.Read(t.Context(), nil); err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a camera without a stream stays online")
		}
	}
	if err := d.Connect(t.Context()); err != nil {
		t.Errorf("it did not come back: %v", err)
	}
}

func TestASlowSinkGetsTheNewestFrame(t *testing.T) {
	var n atomic.Int64
	srv := stream(t, time.Millisecond, func(i int) []byte {
		n.Store(int64(i))
		return append(picture(t, 16, 16, 0), fmt.Sprint(i)...) // behind the end of the picture
	})
	k := newSink()
	k.block = make(chan struct{})
	d := open(t, camera.Options{Sink: k}, setup(map[string]any{"source": "mjpeg", "url": srv.URL, "service": "digits", "fps": 60.0}, "dropped"))
	if err := d.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	for n.Load() < 500 {
		time.Sleep(time.Millisecond)
	}
	k.block <- struct{}{}
	wait(t, k.got, "first frame")
	k.block <- struct{}{}
	f := wait(t, k.got, "second frame")
	if age := time.Since(f.Time); age > time.Second {
		t.Errorf("the second frame is %v old", age)
	}
	close(k.block)
	if got, err := d.Read(t.Context(), []string{"dropped"}); err != nil || got["dropped"].Value.(int64) < 100 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestMotionGate(t *testing.T) {
	still, moved := picture(t, 320, 240, 0), picture(t, 320, 240, 120)
	next := make(chan []byte)
	srv := stream(t, 0, func(int) []byte { return <-next })
	defer close(next)
	k := newSink()
	d := open(t, camera.Options{Sink: k}, setup(map[string]any{"source": "mjpeg", "url": srv.URL, "service": "digits", "fps": 60.0, "motion": 0.05, "stillMilliseconds": int64(0)}, "still", "motion"))
	go func() { next <- still }()
	if err := d.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	wait(t, k.got, "the first frame")
	for range 5 {
		next <- still
		time.Sleep(30 * time.Millisecond)
	}
	if len(k.got) != 0 {
		t.Error("a still picture has passed")
	}
	next <- moved
	wait(t, k.got, "motion")
	if got, err := d.Read(t.Context(), []string{"still", "motion"}); err != nil || got["still"].Value.(int64) < 3 || got["motion"].Value.(float64) < 0.05 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestWatchdog(t *testing.T) {
	pic := picture(t, 16, 16, 0)
	srv := stream(t, 0, func(i int) []byte {
		if i == 0 {
			return pic
		}
		time.Sleep(500 * time.Millisecond)
		return nil
	})
	woken := make(chan struct{}, 10)
	s := setup(map[string]any{"source": "mjpeg", "url": srv.URL, "timeoutMilliseconds": int64(100)})
	s.Wake = func() { woken <- struct{}{} }
	d := open(t, camera.Options{}, s)
	if err := d.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	wait(t, woken, "the watchdog")
	if _, err := d.Read(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "no frame for 100ms") {
		t.Error(err)
	}
}

func TestSnapshots(t *testing.T) {
	pic := picture(t, 64, 48, 0)
	var fail atomic.Bool
	var digests atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fail.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		if !strings.HasPrefix(r.Header.Get("Authorization"), "Digest ") {
			w.Header().Set("WWW-Authenticate", `Digest realm="cam", nonce="abc", qop="auth", algorithm=MD5`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		digests.Add(1)
		_, _ = w.Write(pic)
	}))
	defer srv.Close()
	k := newSink()
	d := open(t, camera.Options{Sink: k}, setup(map[string]any{"source": "snapshot", "url": srv.URL + "/snap?x=1", "service": "digits", "fps": 50.0, "username": "u", "password": "p", "timeoutMilliseconds": int64(200)}))
	if err := d.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if f := wait(t, k.got, "frame"); !bytes.Equal(f.JPEG, pic) {
			t.Fatal("another picture")
		}
	}
	if digests.Load() < 3 {
		t.Error("no digest authentication")
	}
	fail.Store(true)
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if _, err := d.Read(t.Context(), nil); err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a camera that refuses stays online")
		}
	}
	if err := d.Connect(t.Context()); err == nil || !strings.Contains(err.Error(), "503") {
		t.Error(err)
	}
}

func TestRTSPThroughFFmpeg(t *testing.T) {
	ffmpeg, err := exec.LookPath("ffmpeg")
	if err != nil {
		t.Skip("ffmpeg is not installed: RTSP is not tried")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "rtsp://user:secret@" + l.Addr().String() + "/cam"
	_ = l.Close()
	k := newSink()
	d := open(t, camera.Options{Sink: k}, setup(map[string]any{"url": url, "listen": true, "service": "digits", "fps": 10.0, "width": int64(320), "timeoutMilliseconds": int64(3000)}, "frames"))
	// The camera: it pushes H.264 until it is killed.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var camWG sync.WaitGroup
	defer camWG.Wait()
	camWG.Go(func() {
		for ctx.Err() == nil {
			cmd := exec.CommandContext(ctx, ffmpeg, "-nostdin", "-loglevel", "error", "-re", "-f", "lavfi", "-i", "testsrc=size=640x480:rate=25", "-c:v", "libx264",
				"-preset", "ultrafast", "-tune", "zerolatency", "-g", "25", "-f", "rtsp", "-rtsp_transport", "tcp", strings.Replace(url, "user:secret@", "", 1))
			_ = cmd.Run()
			time.Sleep(50 * time.Millisecond)
		}
	})
	connectCtx, cancelConnect := context.WithTimeout(t.Context(), patience)
	defer cancelConnect()
	for err = d.Connect(connectCtx); err != nil && connectCtx.Err() == nil; err = d.Connect(connectCtx) {
		t.Log(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 15 {
		f := wait(t, k.got, "frame")
		if c, err := jpeg.DecodeConfig(bytes.NewReader(f.JPEG)); err != nil || c.Width != 320 || c.Height != 240 {
			t.Fatalf("%+v, %v", c, err)
		}
	}
	pids := children(t)
	cancel()
	camWG.Wait()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if _, err = d.Read(t.Context(), nil); err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a camera that is gone stays online")
		}
	}
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("the password is shown: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, 0); err == nil {
			t.Errorf("process %d lives on", pid)
		}
	}
}

// children lists the processes that this test has started.
func children(t *testing.T) (pids []int) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range stats {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		var pid, ppid int
		var state string
		_, rest, _ := strings.Cut(string(b), ") ")
		if _, err := fmt.Sscan(string(b), &pid); err != nil {
			continue
		}
		if _, err := fmt.Sscan(rest, &state, &ppid); err == nil && ppid == os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

// A program in ffmpeg's place that never ends by itself and has a child.
func TestAStubbornChildIsKilled(t *testing.T) {
	dir := t.TempDir()
	program, pidFile := filepath.Join(dir, "ffmpeg"), filepath.Join(dir, "pid")
	script := "#!/bin/sh\ntrap '' TERM\nsleep 1000 &\necho $! >" + pidFile + "\nwait\nsleep 1000\n"
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	d := open(t, camera.Options{FFmpeg: program}, setup(map[string]any{"url": "rtsp://127.0.0.1:1/x", "timeoutMilliseconds": int64(300)}))
	since := time.Now()
	if err := d.Connect(t.Context()); err == nil || !strings.Contains(err.Error(), "no frame for 300ms") {
		t.Error(err)
	}
	if d := time.Since(since); d > 10*time.Second {
		t.Errorf("it took %v", d)
	}
	b, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(b), &pid); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); syscall.Kill(pid, 0) == nil; time.Sleep(10 * time.Millisecond) {
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && strings.Contains(string(stat), ") Z ") {
			break // dead, and nobody reaps here
		}
		if time.Now().After(deadline) {
			t.Fatal("the child's child lives on")
		}
	}
}

func TestRefusedConfigurations(t *testing.T) {
	for want, c := range map[string]map[string]any{
		"protocol.url":           {"url": "file:///dev/video0"},
		"protocol.source":        {"url": "http://x/"},
		"protocol.service":       {"url": "http://x/", "source": "mjpeg", "service": "a/b"},
		"protocol.listen":        {"url": "http://x/", "source": "mjpeg", "listen": true},
		"protocol.fps":           {"url": "http://x/", "source": "mjpeg", "fps": 5000.0},
		"protocol.publishFrames": {"url": "http://x/", "source": "mjpeg", "publishFrames": true},
		"protocol.rtspTransport": {"url": "rtsp://x/", "rtspTransport": "tcp"},
	} {
		var e *wire.Error
		if _, err := camera.New(camera.Options{Sink: newSink()})(setup(c)); !errors.As(err, &e) || e.Field != want {
			t.Errorf("%s: %v", want, err)
		}
	}
	if _, err := camera.New(camera.Options{})(setup(map[string]any{"source": "mjpeg", "url": "http://x/", "service": "digits"})); err == nil || !strings.Contains(err.Error(), "LocalController") {
		t.Error(err)
	}
	if _, err := camera.New(camera.Options{FFmpeg: "/nonexistent"})(setup(map[string]any{"url": "rtsp://x/"})); err == nil || !strings.Contains(err.Error(), "ffmpeg") {
		t.Error(err)
	}
}

func TestHTTPSink(t *testing.T) {
	var got []string
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got = append(got, fmt.Sprintf("%s %s %s %s %s", r.Method, r.URL.RequestURI(), r.Header.Get("Content-Type"), r.Header.Get("Authorization"), b))
		if string(b) == "bad" {
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write(wire.E(wire.NotFound, "", "no such service", "").JSON())
		}
	})
	tcp := httptest.NewServer(h)
	defer tcp.Close()
	path := filepath.Join(t.TempDir(), "lc.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	unix := &httptest.Server{Listener: l, Config: &http.Server{Handler: h}}
	unix.Start()
	defer unix.Close()
	for _, base := range []string{tcp.URL, "unix://" + path} {
		s, err := frames.NewHTTPSink(base, "tok")
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		got = nil
		if err := s.Frame(t.Context(), "default.digits", frames.Frame{Device: "default/gate & yard", JPEG: []byte("jpeg")}); err != nil {
			t.Error(err)
		}
		if len(got) != 1 || got[0] != "POST /v1/services/default.digits/image?device=default%2Fgate+%26+yard image/jpeg Bearer tok jpeg" {
			t.Errorf("%v", got)
		}
		if err := s.Frame(t.Context(), "x", frames.Frame{JPEG: []byte("bad")}); !wire.IsCode(err, wire.NotFound) {
			t.Error(err)
		}
	}
	for _, base := range []string{"", "ftp://x", "unix://relative", "127.0.0.1:1"} {
		if _, err := frames.NewHTTPSink(base, ""); err == nil {
			t.Errorf("%q", base)
		}
	}
}

// BenchmarkMJPEGToSink is one camera of 640×480, made smaller to 320×240.
func BenchmarkMJPEGToSink(b *testing.B) {
	img := image.NewYCbCr(image.Rect(0, 0, 640, 480), image.YCbCrSubsampleRatio420)
	for i := range img.Y {
		img.Y[i] = byte(i*7 + i/640*13)
	}
	var buf bytes.Buffer
	if err := jpeg.Encode(&buf, img, nil); err != nil {
		b.Fatal(err)
	}
	go0 := make(chan struct{}, 1)
	srv := stream(b, 0, func(int) []byte { <-go0; return buf.Bytes() })
	defer close(go0)
	k := newSink()
	s := setup(map[string]any{"source": "mjpeg", "url": srv.URL, "service": "digits", "fps": 1000.0, "width": int64(320)})
	d, err := camera.New(camera.Options{Sink: k})(s)
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	go0 <- struct{}{}
	if err := d.Connect(b.Context()); err != nil {
		b.Fatal(err)
	}
	<-k.got
	b.ResetTimer()
	for range b.N {
		go0 <- struct{}{}
		<-k.got
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "frames/s")
}
