package main

import (
	"bytes"
	"image"
	"image/png"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/image/draw"

	"github.com/edgetwin/sedna/examples/demo"
	"github.com/edgetwin/sedna/models/wire"
)

// BenchmarkCameraToResult has a camera show 320x240 pictures faster than they
// can be read, and counts the answers on the bus: capture from MJPEG, decoding,
// preprocessing, inference, result. Everything of Sedna, the cloud and the bus
// too, runs on one core; the camera and the listener have the others.
func BenchmarkCameraToResult(b *testing.B) {
	b.Setenv("GOMAXPROCS", "1")
	upDir := filepath.Join(b.TempDir(), "up")
	background(b, "up", "--data-dir", upDir, "--http", "127.0.0.1:0", "--edge-http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--api", "127.0.0.1:0")
	kube, err := demo.OpenKube(filepath.Join(upDir, "kubeconfig"))
	if err != nil {
		b.Fatal(err)
	}
	results := listen(b, readEnds(b, upDir).MQTT, wire.InferResult("edge1", "reader", "+"))
	pushModel(b, upDir, "digits", digitsModel(b), "--labels", "0,1,2,3,4,5,6,7,8,9")
	picture, _, err := demo.SamplePNG(0)
	if err != nil {
		b.Fatal(err)
	}
	small, err := png.Decode(bytes.NewReader(picture))
	if err != nil {
		b.Fatal(err)
	}
	frame := image.NewGray(image.Rect(0, 0, 320, 240))
	draw.BiLinear.Scale(frame, frame.Bounds(), small, small.Bounds(), draw.Src, nil)
	manifest := strings.NewReplacer("CAMERA", mjpegCamera(b, frame, 100*time.Microsecond), "fps: 20", "fps: 1000").Replace(cameraManifest)
	if err := kube.ApplyManifest(b.Context(), []byte(manifest)); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		select {
		case <-results:
		case <-time.After(time.Minute):
			b.Fatal("no result within a minute")
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "frames/s")
}
