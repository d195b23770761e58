package wire

import (
	"regexp"
	"strings"
)

// RequestID is what an inference id on the bus must match: it becomes a topic
// level, so no wildcard, slash or control character can be in it.
var RequestID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,128}$`)

// TaskDesired is where the mapper publishes, retained, the desired document of
// device ns/device.
func TaskDesired(node, ns, device string) string {
	return "sedna/" + node + "/task/" + ns + "/" + device + "/desired"
}

// TaskReported is where the LocalController publishes the report of ns/device.
func TaskReported(node, ns, device string) string {
	return "sedna/" + node + "/task/" + ns + "/" + device + "/reported"
}

// TaskDesiredFilter and TaskReportedFilter subscribe to all devices of a node.
func TaskDesiredFilter(node string) string  { return "sedna/" + node + "/task/+/+/desired" }
func TaskReportedFilter(node string) string { return "sedna/" + node + "/task/+/+/reported" }

// ParseTask splits a task topic into its namespace, device and last level
// ("desired" or "reported"); ok is false for any other topic.
func ParseTask(node, topic string) (ns, device, leaf string, ok bool) {
	rest, found := strings.CutPrefix(topic, "sedna/"+node+"/task/")
	if !found {
		return "", "", "", false
	}
	p := strings.Split(rest, "/")
	if len(p) != 3 || p[0] == "" || p[1] == "" || (p[2] != "desired" && p[2] != "reported") {
		return "", "", "", false
	}
	return p[0], p[1], p[2], true
}

// Service is the name of a service in topics and HTTP routes: the bare name in
// namespace "default", else namespace.name.
func Service(ns, name string) string {
	if ns == "default" || ns == "" {
		return name
	}
	return ns + "." + name
}

// SplitService undoes Service.
func SplitService(service string) (ns, name string) {
	if i := strings.IndexByte(service, '.'); i >= 0 {
		return service[:i], service[i+1:]
	}
	return "default", service
}

// InferRequest, InferImage, InferResult and InferError are the topics of one
// service's inference traffic.
func InferRequest(node, service string) string {
	return "sedna/" + node + "/infer/" + service + "/request"
}
func InferImage(node, service string) string { return "sedna/" + node + "/infer/" + service + "/image" }

// InferImageRequest is where an image goes that wants its result under an id.
func InferImageRequest(node, service, id string) string {
	return InferImage(node, service) + "/" + id
}
func InferResult(node, service, id string) string {
	return "sedna/" + node + "/infer/" + service + "/result/" + id
}
func InferError(node, service string) string { return "sedna/" + node + "/infer/" + service + "/error" }

// InferRequestFilter subscribes to the requests of all services of a node.
func InferRequestFilter(node string) string { return "sedna/" + node + "/infer/+/request" }

// ParseInferRequest gives the service of an InferRequest topic.
func ParseInferRequest(node, topic string) (service string, ok bool) {
	rest, found := strings.CutPrefix(topic, "sedna/"+node+"/infer/")
	if !found {
		return "", false
	}
	service, ok = strings.CutSuffix(rest, "/request")
	return service, ok && service != "" && !strings.Contains(service, "/")
}

// InferImageFilters subscribe to the images for all services of a node, without
// and with an id.
func InferImageFilters(node string) []string {
	return []string{InferImage(node, "+"), InferImageRequest(node, "+", "+")}
}

// ParseInferImage undoes InferImage and InferImageRequest; id is empty for the
// first. It may be no RequestID.
func ParseInferImage(node, topic string) (service, id string, request, ok bool) {
	rest, found := strings.CutPrefix(topic, "sedna/"+node+"/infer/")
	p := strings.Split(rest, "/")
	if !found || len(p) < 2 || len(p) > 3 || p[0] == "" || p[1] != "image" {
		return "", "", false, false
	}
	if len(p) == 3 {
		return p[0], p[2], true, true
	}
	return p[0], "", false, true
}

// InferResults stands for the results of a service whatever their id; followed
// by a slash and an id it is an InferResult.
func InferResults(node, service string) string {
	return "sedna/" + node + "/infer/" + service + "/result"
}

// ParseInferResult gives the service of an InferResult topic.
func ParseInferResult(node, topic string) (service string, ok bool) {
	rest, found := strings.CutPrefix(topic, "sedna/"+node+"/infer/")
	p := strings.Split(rest, "/")
	if !found || len(p) != 3 || p[0] == "" || p[1] != "result" || p[2] == "" {
		return "", false
	}
	return p[0], true
}

// Sensor is where the mapper publishes the readings of one property of
// ns/device.
func Sensor(node, ns, device, property string) string {
	return "sedna/" + node + "/sensor/" + ns + "/" + device + "/" + property
}

// SensorSet is where the LocalController writes the results of services into a
// property, and any program on the node where the mapper allows that.
func SensorSet(node, ns, device, property string) string {
	return Sensor(node, ns, device, property) + "/set"
}

// SensorSetFilter subscribes to the writes to all devices of a node.
func SensorSetFilter(node string) string { return "sedna/" + node + "/sensor/+/+/+/set" }

// ParseSensor undoes Sensor; ok is false for any other topic.
func ParseSensor(node, topic string) (ns, device, property string, ok bool) {
	rest, found := strings.CutPrefix(topic, "sedna/"+node+"/sensor/")
	p := strings.Split(rest, "/")
	if !found || len(p) != 3 || p[0] == "" || p[1] == "" || p[2] == "" {
		return "", "", "", false
	}
	return p[0], p[1], p[2], true
}

// CameraFrame is where the mapper publishes the frames of ns/device, as JPEG,
// when the device asks for that.
func CameraFrame(node, ns, device string) string {
	return "sedna/" + node + "/camera/" + ns + "/" + device + "/frame"
}

// Nudge is where the cloud's word arrives, over KubeEdge's Router, that it waits
// for the node: what is to be reported is then reported at once. Nothing depends
// on it, and whatever the message says is not looked at.
func Nudge(node string) string { return "sedna/" + node + "/nudge" }

// Event is where the LocalController tells of task, model, schedule and
// connectivity events.
func Event(node, kind string) string { return "sedna/" + node + "/event/" + kind }

// The device topics of KubeEdge's event bus. The device id is ns/name.
const (
	deviceTopicPrefix = "$hw/events/device/"

	TwinUpdateFilter  = deviceTopicPrefix + "+/+/twin/update"
	TwinGetFilter     = deviceTopicPrefix + "+/+/twin/get"
	StateUpdateFilter = deviceTopicPrefix + "+/+/state/update"
)

// TwinUpdate is where a device's reported values are published.
func TwinUpdate(ns, device string) string {
	return deviceTopicPrefix + ns + "/" + device + "/twin/update"
}

// TwinUpdateResult is where the event bus answers an update; it answers a
// value outside the alphabet on an empty device id.
func TwinUpdateResult(ns, device string) string { return TwinUpdate(ns, device) + "/result" }

// TwinGetResult is where the event bus answers a twin/get.
func TwinGetResult(ns, device string) string {
	return deviceTopicPrefix + ns + "/" + device + "/twin/get/result"
}

// TwinUpdateResultFilter subscribes to the answers of all devices.
const TwinUpdateResultFilter = deviceTopicPrefix + "+/+/twin/update/result"

// TwinRejected is the topic of an answer to a message whose values break the
// alphabet or the length: KubeEdge leaves the device id empty.
const TwinRejected = deviceTopicPrefix + "/twin/update/result"

// StateUpdate is where a device's state (online, offline, …) is published.
func StateUpdate(ns, device string) string {
	return deviceTopicPrefix + ns + "/" + device + "/state/update"
}

// ParseDevice splits a $hw device topic into namespace, device and the rest,
// e.g. "twin/update".
func ParseDevice(topic string) (ns, device, rest string, ok bool) {
	t, found := strings.CutPrefix(topic, deviceTopicPrefix)
	if !found {
		return "", "", "", false
	}
	p := strings.SplitN(t, "/", 3)
	if len(p) != 3 || p[0] == "" || p[1] == "" {
		return "", "", "", false
	}
	return p[0], p[1], p[2], true
}
