// Command camera shows handwritten digits on a display, has a camera watch it,
// and has the edge read the camera: Device, inference service, answers on the
// bus and in the Device's twin.
package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/edgetwin/sedna/examples/internal/digitmodels"
	"github.com/edgetwin/sedna/examples/internal/fakes/camera"
	"github.com/edgetwin/sedna/examples/internal/standalone"
	"github.com/edgetwin/sedna/lib/onnx"
)

var (
	//go:embed manifests/panel.yaml
	panelManifest []byte
	//go:embed manifests/rtsp.yaml
	rtspManifest []byte
	//go:embed manifests/mjpeg.yaml
	mjpegManifest []byte
	//go:embed manifests/service.yaml
	serviceManifest []byte
)

const (
	service = "panel-reader"
	fps     = 20 // of the camera

	defaultHold  = time.Second
	defaultFloor = 0.75

	// firstWithin is how long the first answer may take: ffmpeg looks at a
	// stream for some seconds, and a camera is tried again with back-off.
	firstWithin = 45 * time.Second
)

func main() {
	var e example
	e.Flags(flag.CommandLine, 40)
	flag.StringVar(&e.source, "source", "", "rtsp (by ffmpeg) or mjpeg (default: rtsp where ffmpeg is installed)")
	flag.DurationVar(&e.hold, "hold", defaultHold, "how long each digit is on display; answers in the first half of it are not judged")
	flag.Float64Var(&e.floor, "floor", defaultFloor, "the least accuracy that passes")
	flag.Parse()
	os.Exit(e.Main(e.run))
}

type example struct {
	standalone.Example
	source string
	hold   time.Duration
	floor  float64
}

func (e *example) run(ctx context.Context, s *standalone.Stack) (err error) {
	perDigit := int(e.hold * fps / time.Second) // frames
	if perDigit < 4 {
		return fmt.Errorf("--hold: expected at least %v, got %v", 4*time.Second/fps, e.hold)
	}
	shown, err := newDisplay(e.Seed)
	if err != nil {
		return err
	}
	cam, device, err := e.camera()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cam.Close()) }()
	if err := e.serve(ctx, s, device); err != nil {
		return err
	}

	answers, err := s.Collect(ctx, service)
	if err != nil {
		return err
	}
	defer answers.Close()
	if err := e.showWhile(ctx, shown, cam, 0, func() error { return answers.Await(ctx, firstWithin) }); err != nil {
		return err
	}
	// The first digit was shown while waiting: the clock begins with the next.
	count := max(2, int(e.Seconds/e.hold.Seconds()))
	e.Say("the first frame is answered; showing %d digits for %v each", count, e.hold)
	changes, frames, err := shown.show(ctx, cam, fps, perDigit, 1, count)
	end := time.Now()
	if err := errors.Join(err, ctx.Err()); err != nil {
		return err
	}
	f := judge(changes, end, answers.Results(), e.hold/2)
	f.Source, f.FramesShown, f.SettleMS = e.source, frames, float64((e.hold / 2).Milliseconds())
	f.Seconds = end.Sub(changes[0].At).Seconds()
	f.AnswersPerSecond = float64(f.FramesAnswered) / f.Seconds
	if f.DirectAccuracy, err = e.askDirectly(ctx, s, shown, changes); err != nil {
		return err
	}
	// The last digit stays until the twin says what was answered last.
	if err := e.showWhile(ctx, shown, cam, count, func() error {
		return s.AwaitReported(ctx, "panel", "reading", func(value string) bool {
			all := answers.Results()
			f.Twin, f.TwinExpected = value, all[len(all)-1].Label
			return f.Twin == f.TwinExpected
		})
	}); err != nil {
		return err
	}
	e.Say("the twin in the cloud says %s", f.Twin)

	left, err := s.CleanUp(ctx, panelManifest, device, serviceManifest)
	if err != nil {
		return err
	}
	errs := answers.Errors()
	f.LeftBehind, f.Errors = len(left), len(errs)
	e.Say("everything deleted: %d things left behind %s", len(left), strings.Join(left, ", "))
	fmt.Fprintln(e.Out)
	if err := f.print(e.Out); err != nil {
		return err
	}
	return errors.Join(e.Save(&f), e.verdict(&f, errs))
}

// camera starts the fake camera and gives the manifest of its Device.
func (e *example) camera() (camera.Camera, []byte, error) {
	if e.source == "" {
		e.source = "rtsp"
		if _, err := exec.LookPath("ffmpeg"); err != nil {
			e.source = "mjpeg"
			e.Say("ffmpeg is not installed: the camera gives MJPEG")
		}
	}
	switch e.source {
	case "rtsp":
		var addr string
		if err := standalone.FreePorts(&addr); err != nil {
			return nil, nil, err
		}
		manifest, err := standalone.Fill(rtspManifest, "127.0.0.1:8554", addr)
		if err != nil {
			return nil, nil, err
		}
		c, err := camera.NewRTSP("rtsp://"+addr+"/panel", fps)
		return c, manifest, err
	case "mjpeg":
		c, err := camera.NewMJPEG()
		if err != nil {
			return nil, nil, err
		}
		manifest, err := standalone.Fill(mjpegManifest, "http://192.168.1.51/video.mjpg", c.URL())
		return c, manifest, err
	}
	return nil, nil, fmt.Errorf("--source: expected rtsp or mjpeg, got %q", e.source)
}

// serve trains and pushes the models and applies the manifests.
func (e *example) serve(ctx context.Context, s *standalone.Stack, device []byte) error {
	small, big, _, err := digitmodels.Build(e.Seed)
	if err != nil {
		return err
	}
	for name, m := range map[string]*onnx.Model{"digits-small": small, "digits-big": big} {
		if err := s.PushModel(ctx, name, m, digitmodels.Labels); err != nil {
			return err
		}
	}
	if err := s.Kube.ApplyManifest(ctx, serviceManifest); err != nil {
		return err
	}
	if err := s.Kube.AwaitReady(ctx, service); err != nil {
		return err
	}
	e.Say("models pushed, service %s is ready; now the Device of the camera (%s)", service, e.source)
	return errors.Join(s.Kube.ApplyManifest(ctx, panelManifest), s.Kube.ApplyManifest(ctx, device))
}

// showWhile shows the n-th digit while f runs.
func (e *example) showWhile(ctx context.Context, d *display, c camera.Camera, n int, f func() error) error {
	showing, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		_, _, err := d.show(showing, c, fps, 1<<30, n, 1)
		ended <- err
	}()
	err := f()
	stop()
	return errors.Join(err, <-ended)
}

// askDirectly gives the same service the digits that were shown, over HTTP and
// without display and camera, and tells how many it has right.
func (e *example) askDirectly(ctx context.Context, s *standalone.Stack, d *display, changes []change) (float64, error) {
	right := 0
	for i, c := range changes {
		body, err := json.Marshal(map[string]any{"id": fmt.Sprint("direct-", i), "parameters": map[string]any{"sedna_explain": true},
			"inputs": []any{map[string]any{"name": "input", "shape": []int{1, 64}, "datatype": "FP32", "data": d.set.Row(c.Index)}}})
		if err != nil {
			return 0, err
		}
		label, err := ask(ctx, "http://"+s.HTTP+"/v2/models/"+service+"/infer", body)
		if err != nil {
			return 0, err
		}
		if label == c.Label {
			right++
		}
	}
	return standalone.Share(right, len(changes)), nil
}

func ask(ctx context.Context, url string, body []byte) (label string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var answer struct {
		Error      any
		Parameters struct {
			Label string `json:"sedna_label"`
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return "", fmt.Errorf("asked over HTTP: %s: %w", resp.Status, err)
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("asked over HTTP: %s: %v", resp.Status, answer.Error)
	}
	return answer.Parameters.Label, nil
}

// verdict fails the example when it did not show what it is to show.
func (e *example) verdict(f *figures, answerErrors []string) error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(f.Judged > 0, "no answer could be judged")
	check(f.Accuracy >= e.floor, "accuracy %.1f%% is below %.1f%%", 100*f.Accuracy, 100*e.floor)
	check(f.Errors == 0, "%d errors: %s", f.Errors, strings.Join(answerErrors, "; "))
	check(f.LeftBehind == 0, "%d things were left behind", f.LeftBehind)
	return errors.Join(errs...)
}
