package drivers_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/mapper/devices"
	"github.com/edgetwin/sedna/mapper/drivers"
	"github.com/edgetwin/sedna/mapper/drivers/frames"
	"github.com/edgetwin/sedna/mapper/drivers/mqtt"
	api "github.com/edgetwin/sedna/models/devices/v1beta1"
	pb "github.com/edgetwin/sedna/models/dmi"
)

// idle is a device that is there and says nothing.
type idle struct{}

func (idle) Connect(context.Context) error { return nil }
func (idle) Read(context.Context, []string) (map[string]devices.Reading, error) {
	return nil, nil
}
func (idle) Write(context.Context, string, any) error { return nil }
func (idle) Close() error                             { return nil }

// checked has the real drivers check a configuration, and dials nobody.
func checked(all map[string]devices.Factory) map[string]devices.Factory {
	out := map[string]devices.Factory{}
	for name, f := range all {
		out[name] = func(s devices.Setup) (devices.Driver, error) {
			d, err := f(s)
			if err != nil {
				return nil, err
			}
			return idle{}, d.Close()
		}
	}
	return out
}

type nowhere struct{}

func (nowhere) Frame(context.Context, string, frames.Frame) error { return nil }

// customized wraps as edgecore does: numbers of JSON that are whole as Int64.
func customized(t *testing.T, v *api.CustomizedValue) *pb.CustomizedValue {
	t.Helper()
	if v == nil {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(v.Raw))
	dec.UseNumber()
	fields := map[string]any{}
	if err := dec.Decode(&fields); err != nil {
		t.Fatal(err)
	}
	out := &pb.CustomizedValue{Data: map[string]*anypb.Any{}}
	for k, v := range fields {
		var m proto.Message
		switch v := v.(type) {
		case string:
			m = wrapperspb.String(v)
		case bool:
			m = wrapperspb.Bool(v)
		case json.Number:
			if n, err := v.Int64(); err == nil {
				m = wrapperspb.Int64(n)
			} else {
				f, _ := v.Float64()
				m = wrapperspb.Double(f)
			}
		default:
			b, _ := json.Marshal(v)
			m = wrapperspb.String(string(b))
		}
		out.Data[k], _ = anypb.New(m)
	}
	return out
}

// The sample devices of manifests/devices are what the drivers take.
func TestSampleDevices(t *testing.T) {
	b, err := bus.New(bus.Options{URL: "127.0.0.1:1", ClientID: "x"})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	e, err := devices.New(devices.Config{
		Node: "edge1", Bus: b, Metrics: metrics.New(), Log: slog.New(slog.DiscardHandler),
		Drivers: checked(drivers.All(drivers.Shared{MQTT: mqtt.Options{Node: "edge1", URL: "127.0.0.1:1"}, Bus: b, Sink: nowhere{}, FFmpeg: "/bin/true", DataRoots: []string{t.TempDir()}})),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	files, err := filepath.Glob("../../manifests/devices/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	seen := map[string]bool{}
	count := 0
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		dec := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
		model := &pb.DeviceModel{}
		for {
			var raw json.RawMessage
			if err := dec.Decode(&raw); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(name, err)
			}
			if bytes.Contains(raw, []byte(`"kind":"DeviceModel"`)) {
				var m api.DeviceModel
				if err := json.Unmarshal(raw, &m); err != nil {
					t.Fatal(name, err)
				}
				model = &pb.DeviceModel{Name: m.Name, Namespace: m.Namespace, Spec: &pb.DeviceModelSpec{}}
				for _, p := range m.Spec.Properties {
					model.Spec.Properties = append(model.Spec.Properties, &pb.ModelProperty{Name: p.Name, Type: string(p.Type), AccessMode: string(p.AccessMode), Minimum: p.Minimum, Maximum: p.Maximum, Unit: p.Unit})
				}
				continue
			}
			var d api.Device
			if err := json.Unmarshal(raw, &d); err != nil {
				t.Fatal(name, err)
			}
			h, err := e.Handler(d.Spec.Protocol.ProtocolName)
			if err != nil {
				t.Fatal(name, err)
			}
			seen[d.Spec.Protocol.ProtocolName] = true
			h.UpsertModel(model)
			out := &pb.Device{Name: d.Name, Namespace: d.Namespace, Spec: &pb.DeviceSpec{DeviceModelReference: d.Spec.DeviceModelRef.Name,
				Protocol: &pb.ProtocolConfig{ProtocolName: d.Spec.Protocol.ProtocolName, ConfigData: customized(t, d.Spec.Protocol.ConfigData)}}}
			for _, p := range d.Spec.Properties {
				q := &pb.DeviceProperty{Name: p.Name, CollectCycle: p.CollectCycle, ReportCycle: p.ReportCycle, ReportToCloud: p.ReportToCloud}
				if p.Visitors != nil {
					q.Visitors = &pb.VisitorConfig{ProtocolName: p.Visitors.ProtocolName, ConfigData: customized(t, p.Visitors.ConfigData)}
				}
				if p.Desired != nil {
					q.Desired = &pb.TwinProperty{Value: p.Desired.Value}
				}
				out.Spec.Properties = append(out.Spec.Properties, q)
			}
			if err := h.Upsert(out); err != nil {
				t.Error(name, err)
			}
			count++
		}
	}
	for _, p := range drivers.Names() {
		if !seen[p] {
			t.Errorf("there is no sample of %s", p)
		}
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		all := e.Status()
		waiting := slices.ContainsFunc(all, func(s devices.Status) bool { return s.State == "unknown" })
		if len(all) != count || (waiting && time.Now().After(deadline)) {
			t.Fatalf("%d of %d: %+v", len(all), count, all)
		}
		if waiting {
			continue
		}
		for _, s := range all {
			if s.State != "online" {
				t.Errorf("%+v", s)
			}
		}
		return
	}
}
