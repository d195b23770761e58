package devices

import (
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	pb "github.com/edgetwin/sedna/models/dmi"
	"github.com/edgetwin/sedna/models/wire"
)

type sample struct {
	Host    string            `conf:"host,required,max=10"`
	Port    int64             `conf:"port,min=1,max=65535"`
	Scale   float64           `conf:"scale"`
	On      bool              `conf:"on"`
	Mode    string            `conf:"mode,oneof=a|b"`
	List    []string          `conf:"list,max=3"`
	Headers map[string]string `conf:"headers"`
	Other   string            // not a setting
}

func anyOf(t testing.TB, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestSettingsOfEveryWrapper(t *testing.T) {
	list, err := structpb.NewList([]any{"x", "y"})
	if err != nil {
		t.Fatal(err)
	}
	object, err := structpb.NewStruct(map[string]any{"A": "b"})
	if err != nil {
		t.Fatal(err)
	}
	want := sample{Host: "h", Port: 502, Scale: 0.1, On: true, Mode: "a", List: []string{"x", "y"}, Headers: map[string]string{"A": "b"}}
	for i, c := range []map[string]proto.Message{
		{"host": wrapperspb.String("h"), "port": wrapperspb.Int32(502), "scale": wrapperspb.Float(0.1), "on": wrapperspb.Bool(true), "list": list, "headers": object},
		{"host": wrapperspb.Bytes([]byte("h")), "port": wrapperspb.Double(502), "scale": wrapperspb.Double(0.1), "on": wrapperspb.String("true"), "list": wrapperspb.String("x, y"), "headers": wrapperspb.String(`{"A":"b"}`)},
		{"host": structpb.NewStringValue("h"), "port": wrapperspb.String("502"), "scale": structpb.NewNumberValue(0.1), "on": wrapperspb.Int64(1), "list": wrapperspb.String(`["x","y"]`), "headers": structpb.NewStructValue(object)},
		{"host": wrapperspb.String("h"), "port": wrapperspb.UInt64(502), "scale": wrapperspb.String("0.1"), "on": structpb.NewBoolValue(true), "list": structpb.NewListValue(list), "headers": object},
		{"host": wrapperspb.String("h"), "port": wrapperspb.UInt32(502), "scale": wrapperspb.String("1e-1"), "on": wrapperspb.String("on"), "list": list, "headers": object},
	} {
		v := &pb.CustomizedValue{Data: map[string]*anypb.Any{}}
		for k, m := range c {
			v.Data[k] = anyOf(t, m)
		}
		s, err := parseSettings("x", v)
		if err != nil {
			t.Fatal(i, err)
		}
		got := sample{Mode: "a"}
		if err := s.Decode(&got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%d: %+v, %v", i, got, err)
		}
	}
}

func TestSettingsThatAreRefused(t *testing.T) {
	for field, v := range map[string]map[string]any{
		"x.host":    {},
		"x.port":    {"host": "h", "port": int64(0)},
		"x.scale":   {"host": "h", "scale": "much"},
		"x.on":      {"host": "h", "on": "perhaps"},
		"x.mode":    {"host": "h", "mode": "c"},
		"x.list":    {"host": "h", "list": "a,b,c,d"},
		"x.headers": {"host": "h", "headers": "A=b"},
		"x.hots":    {"host": "h", "hots": "typo"},
		"x.Other":   {"host": "h", "Other": "y"},
	} {
		got := sample{Mode: "a", Port: 1}
		err := NewSettings("x", v).Decode(&got)
		var e *wire.Error
		if !errors.As(err, &e) || e.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	if err := NewSettings("x", map[string]any{"host": "longer than ten"}).Decode(&sample{Mode: "a", Port: 1}); err == nil {
		t.Error("a text over its limit")
	}
	large := &pb.CustomizedValue{Data: map[string]*anypb.Any{"a": anyOf(t, wrapperspb.String(strings.Repeat("a", maxSettingBytes+1)))}}
	if _, err := parseSettings("x", large); !wire.IsCode(err, wire.TooLarge) {
		t.Error(err)
	}
	other := &pb.CustomizedValue{Data: map[string]*anypb.Any{"a": anyOf(t, &pb.Device{})}}
	if _, err := parseSettings("x", other); err == nil {
		t.Error("a value that is no setting")
	}
}

// A password is not in what is said about other settings, nor about itself.
func TestErrorsShowNoSecrets(t *testing.T) {
	type secret struct {
		Password string `conf:"password,max=4"`
	}
	err := NewSettings("x", map[string]any{"password": "hunter2"}).Decode(&secret{})
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Error(err)
	}
}

func TestKinds(t *testing.T) {
	for _, c := range []struct {
		k    Kind
		in   any
		want any // nil: refused
	}{
		{Int, 3, int64(3)}, {Int, "3", int64(3)}, {Int, 3.0000000000001, int64(3)}, {Int, 3.4, nil}, {Int, "3.0", int64(3)}, {Int, 1e300, nil}, {Int, math.MinInt64, int64(math.MinInt64)},
		{Int, uint64(math.MaxUint64), nil}, {Int, true, nil}, {Double, uint64(7), 7.0}, {Double, "NaN", nil}, {Double, "1e400", nil}, {Float, float32(1.5), 1.5}, {Double, int16(-2), -2.0},
		{Bool, "ON", true}, {Bool, 0, false}, {Bool, 2, nil}, {Bool, "yes", nil}, {Bool, true, true},
		{String, 1.5, "1.5"}, {String, 1e21, "1000000000000000000000"}, {String, []byte("a\xffb"), "a\uFFFDb"}, {String, false, "false"}, {String, uint8(7), "7"}, {String, strings.Repeat("a", maxText+1), nil},
		{Bytes, []byte{0xff, 0xfe}, "__4"}, {Bytes, "a+b", nil}, {Stream, "x", nil}, {Int, nil, nil}, {Int, struct{}{}, nil},
	} {
		got, err := c.k.Convert(c.in)
		if got != c.want || (err == nil) != (c.want != nil) {
			t.Errorf("%s of %.40v: %v, %v", c.k, c.in, got, err)
		}
	}
}

func TestTwinTextIsSafe(t *testing.T) {
	for in, want := range map[any]string{
		int64(-5): "-5", 1e-7: "0.0000001", 1.5e300: "", true: "true", "plain": "plain", "": "", "two words": "two_words", `{"a":1}`: "__a_:1_", "°C": "_C", strings.Repeat("é", 600): strings.Repeat("_", 512),
	} {
		got := twinText(in)
		if !wire.TwinSafe("v", got) || (want != "" && got != want) {
			t.Errorf("%v: %q", in, got)
		}
	}
}

func FuzzSettings(f *testing.F) {
	seed, _ := proto.Marshal(&pb.CustomizedValue{Data: map[string]*anypb.Any{"host": anyOf(f, wrapperspb.String("h")), "port": anyOf(f, wrapperspb.Int64(5)), "headers": anyOf(f, wrapperspb.String(`{"a":"b"}`))}})
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		var v pb.CustomizedValue
		if proto.Unmarshal(b, &v) != nil {
			return
		}
		s, err := parseSettings("x", &v)
		if err != nil {
			return
		}
		got := sample{Mode: "a", Port: 1}
		if err := s.Decode(&got); err == nil && (got.Host == "" || got.Port < 1 || got.Port > 65535 || len(got.List) > 3) {
			t.Errorf("%+v", got)
		}
		for _, k := range []Kind{Int, Double, String, Bool, Bytes} {
			for _, x := range s.values {
				if v, err := k.Convert(x); err == nil && !wire.TwinSafe("v", twinText(v)) {
					t.Errorf("%v is not safe", v)
				}
			}
		}
	})
}

// FuzzDevice is whatever a Device and a DeviceModel may hold.
func FuzzDevice(f *testing.F) {
	d, _ := proto.Marshal(&pb.Device{Name: "d", Namespace: "n", Spec: &pb.DeviceSpec{Protocol: &pb.ProtocolConfig{ProtocolName: "p"}, Properties: []*pb.DeviceProperty{
		{Name: "t", CollectCycle: 5, Visitors: &pb.VisitorConfig{ProtocolName: "p"}, PushMethod: &pb.PushMethod{Http: &pb.PushMethodHTTP{Hostname: "h", Port: 1}, Mqtt: &pb.PushMethodMQTT{Topic: "x"}}}}}})
	m, _ := proto.Marshal(&pb.DeviceModel{Spec: &pb.DeviceModelSpec{Properties: []*pb.ModelProperty{{Name: "t", Type: "INT", Minimum: "1"}}}})
	f.Add(d, m)
	f.Fuzz(func(t *testing.T, d, m []byte) {
		var device pb.Device
		var model pb.DeviceModel
		if proto.Unmarshal(d, &device) != nil || proto.Unmarshal(m, &model) != nil {
			return
		}
		c := Config{Node: "n1"}
		_ = c.normalize()
		c.Limits.Properties, c.Limits.MinCollect, c.Limits.MaxCycle, c.Limits.Collect, c.Limits.Report, c.Limits.MinReport = 10, 1, 1<<40, 1, 1, 1
		p := makePlan(&c, &device, &model)
		if p.err != nil {
			return
		}
		for _, q := range p.properties {
			if q.collect <= 0 || q.report <= 0 || !propertyName.MatchString(q.Name) || !kinds[q.Kind] {
				t.Errorf("%+v", q)
			}
		}
	})
}
