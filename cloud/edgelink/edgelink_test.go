package edgelink_test

import (
	"crypto/tls"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/wrapperspb"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	"github.com/edgetwin/sedna/lib/losses"
	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
	pb "github.com/edgetwin/sedna/models/dmi"
	"github.com/edgetwin/sedna/models/wire"
)

// TestEdgelink shares one API server; each part has its own namespace and node.
func TestEdgelink(t *testing.T) {
	w := newWorld(t, losses.Set{})
	t.Run("down", w.testDown)
	t.Run("binding anew", w.testBindingAnew)
	t.Run("conversion", w.testConversion)
	t.Run("up", w.testUp)
	t.Run("up refused", w.testUpRefused)
	t.Run("status follows device", w.testStatusFollowsDevice)
	t.Run("bad frames", w.testBadFrames)
	t.Run("doors", w.testDoors)
	t.Run("links", w.testLinks)
	eventually(t, "status without a device is deleted", func() bool { return w.status(t, "left", "behind") == nil })
}

// TestLosses has a server of its own.
func TestLosses(t *testing.T) {
	w := newWorld(t, losses.Set{FirstReport: true, QuickRebind: true})
	t.Run("first report", w.testFirstReport)
	t.Run("quick rebind", w.testQuickRebind)
}

func (w *world) testDown(t *testing.T) {
	e := w.link(t, w.identify(t, "n1"))
	if f := e.next(t, wire.FrameSynced, ""); len(f.Devices) != 0 {
		t.Fatalf("%v", f.Devices)
	}
	d := w.device(t, "down", "a", "n1")
	time.Sleep(quiet)
	w.model(t, "down", "m") // the device was held back for it
	if f := e.next(t, wire.FrameModel, "m"); f.Namespace != "down" {
		t.Fatalf("%+v", f)
	}
	if f := e.next(t, wire.FrameDevice, "a"); f.UID != string(d.UID) {
		t.Fatalf("%+v", f)
	}
	w.device(t, "down", "elsewhere", "n-other")
	w.patch(t, d, func() { d.Spec.Properties[0].Desired.Value = "y" })
	if f := e.next(t, wire.FrameDevice, "a"); !strings.Contains(string(f.Device), `"y"`) {
		t.Fatalf("%s", f.Device)
	}
	w.patch(t, d, func() { d.Spec.NodeName = "" })
	e.next(t, wire.FrameRemove, "a")
	w.patch(t, d, func() { d.Spec.NodeName = "n1" })
	e.next(t, wire.FrameDevice, "a")
	w.patch(t, d, func() { d.Spec.NodeName = "n-other" })
	e.next(t, wire.FrameRemove, "a")
	w.patch(t, d, func() { d.Spec.NodeName = "n1" })
	e.next(t, wire.FrameDevice, "a")
	_ = e.conn.CloseNow()
	eventually(t, "end of the link", func() bool { return !w.server.Linked("n1") })

	e = w.link(t, w.identify(t, "n1"))
	e.next(t, wire.FrameModel, "m")
	e.next(t, wire.FrameDevice, "a")
	if f := e.next(t, wire.FrameSynced, ""); len(f.Devices) != 1 || f.Devices[0] != "down/a" {
		t.Fatalf("%v", f.Devices)
	}
	if err := w.api.Delete(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	e.next(t, wire.FrameRemove, "a")
}

func (w *world) testConversion(t *testing.T) {
	w.model(t, "conv", "m")
	e := w.link(t, w.identify(t, "n2"))
	e.next(t, wire.FrameSynced, "")
	d := w.device(t, "conv", "a", "")
	document := strings.Repeat(`{"q":"<é>\n"}`, 20000) // some 256 KiB
	w.patch(t, d, func() {
		d.Spec.NodeName = "n2"
		d.Spec.Properties[0].Desired.Value = document
		d.Spec.Properties[1].PushMethod = &devices.PushMethod{MQTT: &devices.PushMethodMQTT{Topic: "t", QoS: 1}}
		d.Spec.Properties[1].CollectCycle = 500
		d.Spec.Protocol.ConfigData = &devices.CustomizedValue{JSON: apiextensionsv1.JSON{Raw: []byte(`{"s":"x","b":true,"i":7,"f":0.5,"o":{"k":[1]}}`)}}
	})
	e.next(t, wire.FrameModel, "m")
	got := &pb.Device{}
	if err := protojson.Unmarshal(e.next(t, wire.FrameDevice, "a").Device, got); err != nil {
		t.Fatal(err)
	}
	task, phase := got.Spec.Properties[0], got.Spec.Properties[1]
	if got.Spec.DeviceModelReference != "m" || task.Desired.Value != document {
		t.Error("the document did not arrive unharmed")
	}
	if phase.Desired == nil || phase.Visitors == nil || phase.PushMethod.Mqtt.Topic != "t" || phase.CollectCycle != 500 {
		t.Errorf("%v", phase)
	}
	for name, want := range map[string]fmt.Stringer{
		"s": wrapperspb.String("x"), "b": wrapperspb.Bool(true), "i": wrapperspb.Int64(7), "f": wrapperspb.Double(0.5), "o": wrapperspb.String(`{"k":[1]}`),
	} {
		m, err := got.Spec.Protocol.ConfigData.Data[name].UnmarshalNew()
		if err != nil || fmt.Sprint(m) != want.String() {
			t.Errorf("%s: %v, %v", name, m, err)
		}
	}
}

func twin(ns, name, uid string, props ...string) wire.Frame {
	f := wire.Frame{Type: wire.FrameTwin, Namespace: ns, Name: name, UID: uid, Twins: map[string]wire.TwinPair{}}
	for i := 0; i < len(props); i += 2 {
		f.Twins[props[i]] = wire.TwinPair{Reported: props[i+1]}
	}
	return f
}

// reported gives the value in the DeviceStatus.
func (w *world) reported(t *testing.T, ns, name, property string) string {
	if st := w.status(t, ns, name); st != nil {
		for _, tw := range st.Status.Twins {
			if tw.PropertyName == property {
				return tw.Reported.Value
			}
		}
	}
	return ""
}

func (w *world) testUp(t *testing.T) {
	w.model(t, "up", "m")
	d := w.device(t, "up", "a", "n3")
	e := w.link(t, w.identify(t, "n3"))
	e.next(t, wire.FrameModel, "m")
	e.next(t, wire.FrameDevice, "a")
	e.send(t, twin("up", "a", string(d.UID), "phase", "Running", "undeclared", "x"))
	eventually(t, "first report", func() bool { return w.reported(t, "up", "a", "phase") == "Running" })
	st := w.status(t, "up", "a")
	if o := st.OwnerReferences; len(o) != 1 || o[0].UID != d.UID || o[0].Kind != "Device" || !*o[0].Controller {
		t.Errorf("%+v", o)
	}
	if len(st.Status.Twins) != 1 || st.Status.Twins[0].Reported.Metadata["type"] != "string" || len(st.Status.Twins[0].Reported.Metadata["timestamp"]) != 13 {
		t.Errorf("%+v", st.Status.Twins)
	}
	e.send(t, twin("up", "a", string(d.UID), "task", "seen"))
	e.send(t, wire.Frame{Type: wire.FrameState, Namespace: "up", Name: "a", UID: string(d.UID), State: "online"})
	eventually(t, "state", func() bool { return w.status(t, "up", "a").Status.State == "online" })
	st = w.status(t, "up", "a")
	if len(st.Status.Twins) != 2 || st.Status.LastOnlineTime == "" || w.reported(t, "up", "a", "phase") != "Running" {
		t.Errorf("%+v", st.Status)
	}
	for i := range 150 {
		e.send(t, twin("up", "a", string(d.UID), "phase", fmt.Sprint(i)))
	}
	eventually(t, "last of many", func() bool { return w.reported(t, "up", "a", "phase") == "149" })
	// Somebody deletes the status: it is made again.
	if err := w.api.Delete(t.Context(), w.status(t, "up", "a")); err != nil {
		t.Fatal(err)
	}
	e.send(t, twin("up", "a", string(d.UID), "phase", "again"))
	eventually(t, "status made again", func() bool {
		return w.reported(t, "up", "a", "phase") == "again" && w.reported(t, "up", "a", "task") == "seen"
	})
}

func (w *world) testUpRefused(t *testing.T) {
	w.model(t, "ref", "m")
	w.device(t, "ref", "theirs", "n-other")
	mine := w.device(t, "ref", "mine", "n4")
	e := w.link(t, w.identify(t, "n4"))
	e.next(t, wire.FrameModel, "m")
	e.next(t, wire.FrameDevice, "mine")
	denied, stale := w.rejected(t, wire.PermissionDenied), w.rejected(t, wire.Stale)
	e.send(t, twin("ref", "theirs", "", "phase", "x"))
	e.send(t, twin("ref", "nobody", "", "phase", "x"))
	e.send(t, twin("ref", "mine", "another-uid", "phase", "x"))
	eventually(t, "refusals", func() bool {
		return w.rejected(t, wire.PermissionDenied) == denied+2 && w.rejected(t, wire.Stale) == stale+1
	})
	e.send(t, twin("ref", "mine", string(mine.UID), "phase", "x"))
	eventually(t, "good report on the same link", func() bool { return w.reported(t, "ref", "mine", "phase") == "x" })
	if w.status(t, "ref", "theirs") != nil || w.status(t, "ref", "nobody") != nil {
		t.Error("a refused report was written")
	}
}

func (w *world) testStatusFollowsDevice(t *testing.T) {
	w.model(t, "life", "m")
	d := w.device(t, "life", "a", "n5")
	e := w.link(t, w.identify(t, "n5"))
	e.next(t, wire.FrameModel, "m")
	e.next(t, wire.FrameDevice, "a")
	e.send(t, twin("life", "a", string(d.UID), "phase", "old"))
	eventually(t, "report", func() bool { return w.reported(t, "life", "a", "phase") == "old" })
	if err := w.api.Delete(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	again := w.device(t, "life", "a", "n5")
	eventually(t, "status of the predecessor is gone", func() bool { return w.reported(t, "life", "a", "phase") == "" })
	e.send(t, twin("life", "a", string(d.UID), "phase", "old"))
	eventually(t, "report of the new device", func() bool {
		e.send(t, twin("life", "a", string(again.UID), "task", "new")) // refused until the cache knows the device
		return w.reported(t, "life", "a", "task") == "new"
	})
	if v := w.reported(t, "life", "a", "phase"); v != "" {
		t.Errorf("the predecessor's report was written: %s", v)
	}
	if err := w.api.Delete(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	eventually(t, "status is gone with its device", func() bool { return w.status(t, "life", "a") == nil })
}

func (w *world) testBadFrames(t *testing.T) {
	n := w.identify(t, "n6")
	for _, text := range []string{
		`{`, `{"type":"device","namespace":"a","name":"b","device":{}}`, `{"type":"synced"}`,
		`{"type":"twin","namespace":"a","name":"b","twins":{"a":{"reported":"not safe"}}}`,
		`{"type":"state","namespace":"a","name":"b","state":"great"}`,
	} {
		e := w.link(t, n)
		before := w.rejected(t, wire.InvalidArgument)
		if err := e.conn.Write(t.Context(), websocket.MessageText, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if code := wait(t, e.ended, "end of the link"); code != websocket.StatusPolicyViolation {
			t.Errorf("%s: ended with %v", text, code)
		}
		if w.rejected(t, wire.InvalidArgument) != before+1 {
			t.Errorf("%s: not counted", text)
		}
	}
	e := w.link(t, n)
	_ = e.conn.Write(t.Context(), websocket.MessageText, make([]byte, wire.MaxFrame+1))
	wait(t, e.ended, "end of the link after an oversized frame")
}

func (w *world) testDoors(t *testing.T) {
	trusting := w.identify(t, "n7").TLSConfig()
	trusting.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil }
	_, res, err := w.dial(t.Context(), trusting)
	if err == nil || res == nil || res.StatusCode != wire.Unauthenticated.Status() {
		t.Fatalf("without a certificate: %v, %v", res, err)
	}
	e := w.link(t, w.identify(t, "n7"))
	e.next(t, wire.FrameSynced, "")
	w.revoked("n7")
	if code := wait(t, e.ended, "end of the revoked node's link"); code != websocket.StatusPolicyViolation {
		t.Errorf("ended with %v", code)
	}
	_, res, err = w.dial(t.Context(), w.identify(t, "n7").TLSConfig())
	if err == nil || res == nil || res.StatusCode != wire.Revoked.Status() {
		t.Fatalf("revoked: %v, %v", res, err)
	}
}

func (w *world) testLinks(t *testing.T) {
	first := w.link(t, w.identify(t, "n8"))
	first.next(t, wire.FrameSynced, "")
	second := w.link(t, w.identify(t, "n8")) // takes the place of the first
	wait(t, first.ended, "end of the first link")
	second.next(t, wire.FrameSynced, "")
	if !w.server.Linked("n8") {
		t.Error("not linked")
	}
	var refused bool
	for i := range 6 { // 4 are allowed
		conn, res, err := w.dial(t.Context(), w.identify(t, fmt.Sprint("many", i)).TLSConfig())
		if err != nil {
			refused = res != nil && res.StatusCode == wire.ResourceExhausted.Status()
			break
		}
		defer conn.CloseNow()
	}
	if !refused {
		t.Error("links are not limited")
	}
}
