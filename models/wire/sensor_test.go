package wire_test

import (
	"testing"

	"github.com/edgetwin/sedna/models/wire"
)

func TestSensorTopics(t *testing.T) {
	topic := wire.Sensor("n1", "default", "plc", "temperature")
	if topic != "sedna/n1/sensor/default/plc/temperature" {
		t.Error(topic)
	}
	if ns, device, property, ok := wire.ParseSensor("n1", topic); !ok || ns != "default" || device != "plc" || property != "temperature" {
		t.Error(ns, device, property, ok)
	}
	for _, other := range []string{"", "sedna/n2/sensor/a/b/c", "sedna/n1/sensor/a/b", "sedna/n1/sensor/a/b/c/set", "sedna/n1/sensor//b/c", "sedna/n1/task/a/b/desired"} {
		if _, _, _, ok := wire.ParseSensor("n1", other); ok {
			t.Error(other)
		}
	}
	if topic := wire.SensorSet("n1", "default", "plc", "valve"); topic != "sedna/n1/sensor/default/plc/valve/set" {
		t.Error(topic)
	}
	if topic := wire.CameraFrame("n1", "default", "cam"); topic != "sedna/n1/camera/default/cam/frame" {
		t.Error(topic)
	}
}
