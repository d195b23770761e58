package wire_test

import (
	"strings"
	"testing"

	"github.com/edgetwin/sedna/models/wire"
)

var names = []string{"a", "edge1", "edge-1", "sedna-ji-digits-edge-0123456789", "line.hall-2", "task", "desired", "infer", "request"}

func TestTopicsOfContract(t *testing.T) {
	for got, want := range map[string]string{
		wire.TaskDesired("n", "ns", "d"):  "sedna/n/task/ns/d/desired",
		wire.TaskReported("n", "ns", "d"): "sedna/n/task/ns/d/reported",
		wire.TaskDesiredFilter("n"):       "sedna/n/task/+/+/desired",
		wire.TaskReportedFilter("n"):      "sedna/n/task/+/+/reported",
		wire.InferRequest("n", "s"):       "sedna/n/infer/s/request",
		wire.InferImage("n", "s"):         "sedna/n/infer/s/image",
		wire.InferResult("n", "s", "7"):   "sedna/n/infer/s/result/7",
		wire.InferError("n", "s"):         "sedna/n/infer/s/error",
		wire.InferRequestFilter("n"):      "sedna/n/infer/+/request",
		wire.Event("n", "task"):           "sedna/n/event/task",
		wire.TwinUpdate("ns", "d"):        "$hw/events/device/ns/d/twin/update",
		wire.TwinUpdateResult("ns", "d"):  "$hw/events/device/ns/d/twin/update/result",
		wire.TwinGetResult("ns", "d"):     "$hw/events/device/ns/d/twin/get/result",
		wire.StateUpdate("ns", "d"):       "$hw/events/device/ns/d/state/update",
		wire.Service("default", "digits"): "digits",
		wire.Service("", "digits"):        "digits",
		wire.Service("plant-1", "digits"): "plant-1.digits",
		string(wire.TwinRejected):         "$hw/events/device//twin/update/result",
		wire.TwinUpdateFilter:             "$hw/events/device/+/+/twin/update",
		strings.Join([]string{wire.TwinGetFilter, wire.StateUpdateFilter}, " "): "$hw/events/device/+/+/twin/get $hw/events/device/+/+/state/update",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestTopicsRoundTrip(t *testing.T) {
	for _, node := range names {
		for _, ns := range names {
			for _, device := range names {
				for leaf, topic := range map[string]string{"desired": wire.TaskDesired(node, ns, device), "reported": wire.TaskReported(node, ns, device)} {
					gotNS, gotDevice, gotLeaf, ok := wire.ParseTask(node, topic)
					if !ok || gotNS != ns || gotDevice != device || gotLeaf != leaf {
						t.Errorf("%s: %q %q %q %v", topic, gotNS, gotDevice, gotLeaf, ok)
					}
				}
				for rest, topic := range map[string]string{
					"twin/update": wire.TwinUpdate(ns, device), "twin/update/result": wire.TwinUpdateResult(ns, device),
					"twin/get/result": wire.TwinGetResult(ns, device), "state/update": wire.StateUpdate(ns, device),
				} {
					gotNS, gotDevice, gotRest, ok := wire.ParseDevice(topic)
					if !ok || gotNS != ns || gotDevice != device || gotRest != rest {
						t.Errorf("%s: %q %q %q %v", topic, gotNS, gotDevice, gotRest, ok)
					}
				}
			}
			if service, ok := wire.ParseInferRequest(node, wire.InferRequest(node, ns)); !ok || service != ns {
				t.Errorf("request of %s at %s: %q %v", ns, node, service, ok)
			}
			if service, id, request, ok := wire.ParseInferImage(node, wire.InferImage(node, ns)); !ok || service != ns || id != "" || request {
				t.Errorf("image of %s at %s: %q %q %v %v", ns, node, service, id, request, ok)
			}
			for _, want := range []string{"a-1", ""} {
				if service, id, request, ok := wire.ParseInferImage(node, wire.InferImageRequest(node, ns, want)); !ok || service != ns || id != want || !request {
					t.Errorf("image with id of %s at %s: %q %q %v %v", ns, node, service, id, request, ok)
				}
			}
			if service, ok := wire.ParseInferResult(node, wire.InferResult(node, ns, "x")); !ok || service != ns || wire.InferResults(node, ns)+"/x" != wire.InferResult(node, ns, "x") {
				t.Errorf("result of %s at %s: %q %v", ns, node, service, ok)
			}
		}
	}
	for _, ns := range []string{"default", "plant-1", "a"} { // DNS labels, both
		for _, name := range []string{"digits", "a", "default"} {
			if gotNS, got := wire.SplitService(wire.Service(ns, name)); gotNS != ns || got != name {
				t.Errorf("%s/%s became %s/%s", ns, name, gotNS, got)
			}
		}
	}
}

func TestHostileTopics(t *testing.T) {
	for _, topic := range []string{
		"", "/", "sedna", "sedna/", "sedna/edge1", "sedna/edge1/", "sedna/edge1/task", "sedna/edge1/task/", "sedna/edge1/task///",
		"sedna/edge1/task/ns/d", "sedna/edge1/task/ns/d/", "sedna/edge1/task/ns//desired", "sedna/edge1/task//d/desired",
		"sedna/edge1/task/ns/d/desired/", "sedna/edge1/task/ns/d/desired/x", "sedna/edge1/task/ns/d/x/desired", "sedna/edge1/task/ns/desired",
		"sedna/edge1/task/ns/d/Desired", "sedna/edge1/task/ns/d/desired ", "/sedna/edge1/task/ns/d/desired", "Sedna/edge1/task/ns/d/desired",
		"sedna/edge2/task/ns/d/desired", "sedna/edge10/task/ns/d/desired", "sedna//task/ns/d/desired", "sedna/+/task/ns/d/desired", "sedna/#",
		"sedna/edge1/infer/ns/d/desired", "sedna/edge1/task/ns/d/request", "$hw/events/device/ns/d/twin/update", strings.Repeat("a/", 30_000),
	} {
		if ns, device, leaf, ok := wire.ParseTask("edge1", topic); ok || ns+device+leaf != "" {
			t.Errorf("ParseTask takes %.80q: %q %q %q %v", topic, ns, device, leaf, ok)
		}
	}
	for _, topic := range []string{
		"", "sedna/edge1/infer", "sedna/edge1/infer/", "sedna/edge1/infer/request", "sedna/edge1/infer//request", "sedna/edge1/infer/s/request/",
		"sedna/edge1/infer/a/b/request", "sedna/edge1/infer/s/result/1", "sedna/edge1/infer/s/requests", "sedna/edge2/infer/s/request",
		"sedna/edge1x/infer/s/request", "sedna/edge1/infer/s/Request", "x/sedna/edge1/infer/s/request", strings.Repeat("/", 60_000) + "/request",
	} {
		if service, ok := wire.ParseInferRequest("edge1", topic); ok {
			t.Errorf("ParseInferRequest takes %.80q: %q", topic, service)
		}
	}
	for _, topic := range []string{
		"", "sedna/edge1/infer/s", "sedna/edge1/infer//image", "sedna/edge1/infer/s/image/a/b", "sedna/edge1/infer/s/images", "sedna/edge1/infer/s/t/image",
		"sedna/edge2/infer/s/image", "sedna/edge1/infer/s/request", "sedna/edge1/infer/image", strings.Repeat("/", 60_000) + "/image",
	} {
		if service, id, _, ok := wire.ParseInferImage("edge1", topic); ok {
			t.Errorf("ParseInferImage takes %.80q: %q %q", topic, service, id)
		}
	}
	for _, topic := range []string{
		"", "sedna/edge1/infer/s/result", "sedna/edge1/infer/s/result/", "sedna/edge1/infer//result/x", "sedna/edge1/infer/s/result/a/b",
		"sedna/edge2/infer/s/result/x", "sedna/edge1/infer/s/error", "sedna/edge1/infer/s/image/x",
	} {
		if service, ok := wire.ParseInferResult("edge1", topic); ok {
			t.Errorf("ParseInferResult takes %.80q: %q", topic, service)
		}
	}
	for _, topic := range []string{
		"", "$hw/events/device/", "$hw/events/device//", "$hw/events/device/ns", "$hw/events/device/ns/d", "$hw/events/device//d/twin/update",
		"$hw/events/device/ns//twin/update", wire.TwinRejected, "hw/events/device/ns/d/twin/update", "$hw/events/node/n/membership/get",
	} {
		if ns, device, rest, ok := wire.ParseDevice(topic); ok {
			t.Errorf("ParseDevice takes %.80q: %q %q %q", topic, ns, device, rest)
		}
	}
	for _, id := range []string{"", "a/b", "+", "#", "a b", "a\n", "\n", "ä", "a\x00", "../x", "$x", strings.Repeat("a", 129)} {
		if wire.RequestID.MatchString(id) {
			t.Errorf("id %q is taken", id)
		}
	}
	for _, id := range []string{"a", "A-b_c.9", strings.Repeat("a", 128), "..."} {
		if !wire.RequestID.MatchString(id) {
			t.Errorf("id %q is refused", id)
		}
	}
}

func TestTwinSafe(t *testing.T) {
	for _, c := range []struct {
		key, value string
		safe       bool
	}{
		{"phase", "Running", true}, {"phase", "", true}, {"a-Z_0.,:/@#", "a-Z_0.,:/@#", true},
		{strings.Repeat("k", 128), strings.Repeat("v", 512), true}, {strings.Repeat("k", 129), "v", false}, {"k", strings.Repeat("v", 513), false},
		{"", "v", false}, {"k", " ", false}, {"k", "a b", false}, {"k", "a\n", false}, {"k\n", "a", false}, {"k", "ä", false}, {"k", "a=b", false}, {"k", "1e+9", false},
	} {
		if got := wire.TwinSafe(c.key, c.value); got != c.safe {
			t.Errorf("%q=%q: %v", c.key, c.value, got)
		}
	}
}
