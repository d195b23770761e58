package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/edgetwin/sedna/examples/demo"
	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/lib/engine/enginetest"
	"github.com/edgetwin/sedna/lib/onnx"
	"github.com/edgetwin/sedna/mapper/drivers"
	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
	"github.com/edgetwin/sedna/models/wire"
)

// TestDevicesFeedServicesAndTakeTheirAnswers has two services that nobody asks
// anything: a camera and two sensors feed them, and what they answer becomes
// the value of a property that no driver serves, and of an actuator.
func TestDevicesFeedServicesAndTakeTheirAnswers(t *testing.T) {
	dir := t.TempDir()
	upDir, records := filepath.Join(dir, "up"), filepath.Join(dir, "records")
	if err := os.Mkdir(records, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(records, "load.csv"), []byte("load\n3\n3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	background(t, "up", "--data-dir", upDir, "--data-root", records, "--http", "127.0.0.1:0", "--edge-http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--api", "127.0.0.1:0")
	kube, err := demo.OpenKube(filepath.Join(upDir, "kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	results := listen(t, readEnds(t, upDir).MQTT, wire.InferResult("edge1", "+", "+"))
	pushModel(t, upDir, "digits", digitsModel(t), "--labels", "0,1,2,3,4,5,6,7,8,9")
	pushModel(t, upDir, "doubler", enginetest.Doubler())
	url, label := digitCamera(t)
	if err := kube.ApplyManifest(t.Context(), []byte(strings.ReplaceAll(cameraManifest, "CAMERA", url)+"---\n"+sensorsManifest)); err != nil {
		t.Fatal(err)
	}

	reported := func(device, property, want string) {
		t.Helper()
		err := kube.Await(t.Context(), &devices.DeviceStatusList{}, device+"."+property+" to be "+want, func() (bool, error) {
			s := &devices.DeviceStatus{}
			if err := kube.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: device}, s); err != nil {
				return false, client.IgnoreNotFound(err)
			}
			for _, twin := range s.Status.Twins {
				if twin.PropertyName == property && twin.Reported.Value == want {
					return true, nil
				}
			}
			return false, nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	reported("gate", "digit", label)
	reported("machine", "speed", "42")
	reported("machine", "state", "online")

	// Each answer is on the bus as well.
	for missing := map[string]bool{"reader": true, "governor": true}; len(missing) > 0; {
		var m bus.Message
		select {
		case m = <-results:
		case <-time.After(time.Minute):
			t.Fatalf("no results of %v", missing)
		}
		var answer struct {
			Parameters struct {
				Label  string `json:"sedna_label"`
				Device string `json:"sedna_device"`
			}
			Outputs []struct{ Data []float64 }
		}
		if err := json.Unmarshal(m.Payload, &answer); err != nil {
			t.Fatalf("%v: %s", err, m.Payload)
		}
		service := strings.Split(m.Topic, "/")[3]
		switch service {
		case "reader":
			if answer.Parameters.Label != label || answer.Parameters.Device != "default/gate" {
				t.Errorf("expected the digit %s of default/gate: %s", label, m.Payload)
			}
		case "governor":
			if len(answer.Outputs) != 1 || fmt.Sprint(answer.Outputs[0].Data) != "[42 6]" {
				t.Errorf("expected twice 21 and 3: %s", m.Payload)
			}
		}
		delete(missing, service)
	}
}

const cameraManifest = `
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: gate-camera, namespace: default}
spec:
  protocol: sedna-camera
  properties:
  - {name: digit, type: STRING, accessMode: ReadOnly}
---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: gate, namespace: default}
spec:
  deviceModelRef: {name: gate-camera}
  nodeName: edge1
  protocol:
    protocolName: sedna-camera
    configData: {source: mjpeg, url: "CAMERA", service: reader, fps: 20}
  properties:
  - {name: digit, reportToCloud: true, reportCycle: 1000}
---
apiVersion: sedna.io/v1alpha1
kind: JointInferenceService
metadata: {name: reader, namespace: default}
spec:
  edgeWorker:
    nodeName: edge1
    model: {name: digits}
    hardExampleMining: {name: EdgeOnly}
    resultProperty: {device: gate, property: digit}
  cloudWorker:
    model: {name: digits}
`

const sensorsManifest = `
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: machine, namespace: default}
spec:
  protocol: sedna-simulated
  properties:
  - {name: temperature, type: DOUBLE, accessMode: ReadOnly}
  - {name: speed, type: INT, accessMode: ReadWrite, minimum: "0", maximum: "100"}
  - {name: state, type: STRING, accessMode: ReadOnly}
---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: machine, namespace: default}
spec:
  deviceModelRef: {name: machine}
  nodeName: edge1
  protocol: {protocolName: sedna-simulated}
  properties:
  - {name: temperature, collectCycle: 50, visitors: {protocolName: sedna-simulated, configData: {value: "21"}}}
  - {name: speed, collectCycle: 1000, reportToCloud: true, reportCycle: 1000, visitors: {protocolName: sedna-simulated, configData: {value: "0"}}}
  - {name: state, collectCycle: 1000, reportToCloud: true, visitors: {protocolName: sedna-simulated, configData: {value: online}}}
---
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: recording, namespace: default}
spec:
  protocol: sedna-file
  properties:
  - {name: load, type: INT, accessMode: ReadOnly}
---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: recording, namespace: default}
spec:
  deviceModelRef: {name: recording}
  nodeName: edge1
  protocol: {protocolName: sedna-file, configData: {path: load.csv, ratePerSecond: 20}}
  properties:
  - {name: load, visitors: {protocolName: sedna-file, configData: {column: load}}}
---
apiVersion: sedna.io/v1alpha1
kind: JointInferenceService
metadata: {name: governor, namespace: default}
spec:
  edgeWorker:
    nodeName: edge1
    model: {name: doubler}
    hardExampleMining: {name: EdgeOnly}
    inputs:
    - tensor: x
      maxAge: 5s
      sources:
      - {device: machine, property: temperature}
      - {device: recording, property: load}
    resultProperty: {device: machine, property: speed, value: output}
  cloudWorker:
    model: {name: doubler}
`

func TestDeviceOptions(t *testing.T) {
	root := t.TempDir()
	file := filepath.Join(root, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Chdir(root)
	if err := os.Mkdir("sub", 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ given, want deviceOptions }{
		{deviceOptions{drivers: drivers.Names()}, deviceOptions{drivers: drivers.Names()}},
		{deviceOptions{drivers: []string{"none"}}, deviceOptions{}},
		{deviceOptions{drivers: []string{"sedna-file"}, dataRoots: []string{"sub", root}},
			deviceOptions{drivers: []string{"sedna-file"}, dataRoots: []string{filepath.Join(root, "sub"), root}}},
	} {
		if err := c.given.check(); err != nil || fmt.Sprint(c.given) != fmt.Sprint(c.want) {
			t.Errorf("got %v, %v, expected %v", c.given, err, c.want)
		}
	}
	for _, bad := range []deviceOptions{
		{drivers: []string{"modbus"}}, {drivers: []string{"none", "sedna-file"}}, {dataRoots: []string{file}}, {dataRoots: []string{"nothing"}},
	} {
		if err := bad.check(); !errors.Is(err, errUsage) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

// TestSocketsFit has node directories of all lengths around the one from which
// sockets go elsewhere.
func TestSocketsFit(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	const most = 107 // bytes of a socket's path, on Linux
	for n := 60; n < 130; n++ {
		dir, err := socketDir("/" + strings.Repeat("d", n-1))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"dmi.sock", "mapper-simulated.sock", "localcontroller.sock"} {
			if path := filepath.Join(dir, name); len(path) > most {
				t.Errorf("%d bytes: %s", len(path), path)
			}
		}
	}
}

// digitCamera is an MJPEG camera before a held-out digit, whose label it gives.
func digitCamera(t testing.TB) (url, label string) {
	t.Helper()
	picture, label, err := demo.SamplePNG(0)
	if err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(picture))
	if err != nil {
		t.Fatal(err)
	}
	return mjpegCamera(t, img, 50*time.Millisecond), label
}

// mjpegCamera shows the same picture with a pause in between.
func mjpegCamera(t testing.TB, img image.Image, pause time.Duration) (url string) {
	t.Helper()
	var frame bytes.Buffer
	if err := jpeg.Encode(&frame, img, &jpeg.Options{Quality: 95}); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "multipart/x-mixed-replace; boundary=frame")
		for tick := time.NewTicker(pause); ; {
			if _, err := fmt.Fprintf(w, "--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n", frame.Len(), frame.Bytes()); err != nil {
				return
			}
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-tick.C:
			}
		}
	}))
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	return srv.URL
}

// digitsModel is the demo's model for edge nodes, encoded.
func digitsModel(t testing.TB) []byte {
	t.Helper()
	m, _, _, err := demo.BuildModels(1)
	if err != nil {
		t.Fatal(err)
	}
	b, err := onnx.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func pushModel(t testing.TB, upDir, name string, model []byte, flags ...string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), name+".onnx")
	if err := os.WriteFile(file, model, 0o600); err != nil {
		t.Fatal(err)
	}
	if out := do(t, append([]string{"model", "push", file, "--name", name, "--data-dir", upDir}, flags...)...); !strings.Contains(out, "blob://sha256/") {
		t.Errorf("model push printed %q", out)
	}
}

// listen gives what comes on a topic of a broker; the newest is dropped while
// nobody takes it.
func listen(t testing.TB, broker, filter string) <-chan bus.Message {
	t.Helper()
	c, err := bus.New(bus.Options{URL: "tcp://" + broker, ClientID: "listener", CleanSession: true})
	if err != nil {
		t.Fatal(err)
	}
	got, up := make(chan bus.Message, 1000), make(chan struct{}, 1)
	c.Subscribe(filter, 0, func(m bus.Message) {
		select {
		case got <- m:
		default:
		}
	})
	c.OnConnect(func() { up <- struct{}{} })
	c.Start(context.Background())
	t.Cleanup(c.Close)
	select {
	case <-up:
	case <-time.After(time.Minute):
		t.Fatalf("no connection to %s", broker)
	}
	return got
}
