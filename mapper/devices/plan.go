package devices

import (
	"crypto/sha256"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/edgetwin/sedna/lib/bus"
	pb "github.com/edgetwin/sedna/models/dmi"
	"github.com/edgetwin/sedna/models/wire"
)

// propertyName is what fits into a topic level and a twin key.
var propertyName = regexp.MustCompile(`^[a-zA-Z0-9_.,:@-]{1,128}$`)

// key names a device.
type key struct{ ns, name string }

func (k key) String() string { return k.ns + "/" + k.name }

// plan is what a Device and its DeviceModel ask for. It is not changed after
// it was made.
type plan struct {
	key        key
	protocol   string
	properties map[string]*property
	names      []string // of the properties with visitors, sorted
	setup      Setup    // without callbacks
	identity   string   // plans with equal identities are served by one driver
	err        error    // why the device cannot be run; names the field
}

// property is one property of a plan.
type property struct {
	Property
	unit     string
	bounds   bounds
	visited  bool // the driver serves it
	collect  time.Duration
	throttle bool // the Device says collect itself: readings that come faster are thinned out
	report   time.Duration
	toCloud  bool
	desired  string // empty: nothing is desired
	mqtt     *mqttPush
	http     *httpPush
}

// mqttPush and httpPush are pushMethods.
type mqttPush struct {
	address, topic string // no address: the node's broker
	qos            byte
	retained       bool
}

type httpPush struct {
	url     string
	timeout time.Duration
}

// makePlan checks d against its model. It always gives a plan, which may only
// say what is wrong.
func makePlan(c *Config, d *pb.Device, model *pb.DeviceModel) *plan {
	p := &plan{key: key{d.Namespace, d.Name}, protocol: d.GetSpec().GetProtocol().GetProtocolName(), properties: map[string]*property{}}
	p.err = p.fill(c, d, model)
	return p
}

func (p *plan) fill(c *Config, d *pb.Device, model *pb.DeviceModel) error {
	if model == nil {
		return wire.E(wire.NotFound, "deviceModelRef", fmt.Sprintf("model %.80q is not known here", d.GetSpec().GetDeviceModelReference()), "create the DeviceModel in the Device's namespace")
	}
	if n := len(d.GetSpec().GetProperties()); n > c.Limits.Properties {
		return wire.E(wire.TooLarge, "properties", fmt.Sprintf("%d properties, at most %d are taken", n, c.Limits.Properties), "")
	}
	described := map[string]*pb.ModelProperty{}
	for _, m := range model.GetSpec().GetProperties() {
		described[m.GetName()] = m
	}
	p.setup = Setup{Node: c.Node, Namespace: d.Namespace, Name: d.Name}
	var err error
	if p.setup.Protocol, err = parseSettings("protocol.configData", d.GetSpec().GetProtocol().GetConfigData()); err != nil {
		return err
	}
	for _, dp := range d.GetSpec().GetProperties() {
		prop, err := makeProperty(c, p.protocol, dp, described[dp.GetName()])
		if err != nil {
			return err
		}
		if p.properties[prop.Name] != nil {
			return wire.E(wire.InvalidArgument, "properties["+prop.Name+"]", "named twice", "")
		}
		p.properties[prop.Name] = prop
		if prop.visited {
			p.setup.Properties = append(p.setup.Properties, prop.Property)
			p.names = append(p.names, prop.Name)
		}
	}
	slices.Sort(p.names)
	p.identity, err = identity(d, p)
	return err
}

// identity is a digest of all that a driver is told.
func identity(d *pb.Device, p *plan) (string, error) {
	h := sha256.New()
	add := func(m proto.Message) error {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		fmt.Fprintf(h, "%d:", len(b))
		h.Write(b)
		return err
	}
	if err := add(d.GetSpec().GetProtocol()); err != nil {
		return "", err
	}
	byName := map[string]*pb.DeviceProperty{}
	for _, dp := range d.GetSpec().GetProperties() {
		byName[dp.GetName()] = dp
	}
	for _, name := range p.names {
		fmt.Fprintf(h, "%q %s %t ", name, p.properties[name].Kind, p.properties[name].Writable)
		if err := add(byName[name].GetVisitors()); err != nil {
			return "", err
		}
	}
	return string(h.Sum(nil)), nil
}

func makeProperty(c *Config, protocol string, d *pb.DeviceProperty, m *pb.ModelProperty) (*property, error) {
	field := fmt.Sprintf("properties[%.80s]", d.GetName())
	bad := func(sub, format string, args ...any) error {
		if sub != "" {
			sub = "." + sub
		}
		return wire.E(wire.InvalidArgument, field+sub, fmt.Sprintf(format, args...), "")
	}
	p := &property{unit: m.GetUnit(), toCloud: d.GetReportToCloud(), desired: d.GetDesired().GetValue()}
	p.Name, p.Kind, p.Writable = d.GetName(), Kind(strings.ToUpper(m.GetType())), m.GetAccessMode() == "ReadWrite"
	switch {
	case !propertyName.MatchString(p.Name):
		return nil, bad("name", "expected letters, digits and - _ . , : @")
	case m == nil:
		return nil, bad("", "the DeviceModel has no such property")
	case !kinds[p.Kind]:
		return nil, bad("type", "the DeviceModel says %.40q, expected INT, FLOAT, DOUBLE, STRING, BOOLEAN, BYTES or STREAM", m.GetType())
	}
	b, which, err := parseBounds(p.Kind, m.GetMinimum(), m.GetMaximum())
	if err != nil {
		return nil, bad(which, "%v", err)
	}
	p.bounds = b
	v := d.GetVisitors()
	p.visited = v.GetProtocolName() != "" || len(v.GetConfigData().GetData()) > 0
	if n := v.GetProtocolName(); n != "" && n != protocol {
		return nil, bad("visitors.protocolName", "the device's protocol is %s, not %.80q", protocol, n)
	}
	if p.Visitor, err = parseSettings(field+".visitors.configData", v.GetConfigData()); err != nil {
		return nil, err
	}
	l := &c.Limits
	if p.collect, err = cycle(d.GetCollectCycle(), l.Collect, l.MinCollect, l.MaxCycle); err != nil {
		return nil, bad("collectCycle", "%v", err)
	}
	p.throttle = d.GetCollectCycle() > 0
	if p.report, err = cycle(d.GetReportCycle(), max(l.Report, p.collect), l.MinReport, l.MaxCycle); err != nil {
		return nil, bad("reportCycle", "%v", err)
	}
	return p, p.push(d.GetPushMethod(), l, bad)
}

// cycle gives a cycle of ms milliseconds within its limits.
func cycle(ms int64, standard, least, most time.Duration) (time.Duration, error) {
	switch {
	case ms < 0:
		return 0, fmt.Errorf("expected milliseconds, got %d", ms)
	case ms == 0:
		return standard, nil
	case ms > most.Milliseconds():
		return 0, fmt.Errorf("expected at most %d milliseconds, got %d", most.Milliseconds(), ms)
	}
	return max(time.Duration(ms)*time.Millisecond, least), nil
}

func (p *property) push(m *pb.PushMethod, l *Limits, bad func(string, string, ...any) error) error {
	if q := m.GetMqtt(); q.GetTopic() != "" || q.GetAddress() != "" {
		if !bus.ValidTopic(q.Topic) || q.Qos < 0 || q.Qos > 2 {
			return bad("pushMethod.mqtt", "expected a topic without wildcards and a qos of 0, 1 or 2")
		}
		if strings.HasPrefix(q.Topic, "$") || strings.HasPrefix(q.Topic, "sedna/") {
			return bad("pushMethod.mqtt.topic", "topics below $ and sedna/ are not for readings")
		}
		p.mqtt = &mqttPush{q.Address, q.Topic, byte(q.Qos), q.Retained}
	}
	h := m.GetHttp()
	if h.GetHostname() == "" {
		return nil
	}
	host := h.Hostname // KubeEdge's own samples have the scheme in it
	if !strings.Contains(host, "://") {
		host = "http://" + host
	}
	u, err := url.Parse(host)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || h.Port < 0 || h.Port > 65535 {
		return bad("pushMethod.http", "expected a host name and a port")
	}
	if h.Port > 0 && u.Port() == "" {
		u.Host += ":" + strconv.FormatInt(h.Port, 10)
	}
	path, err := url.Parse(h.Requestpath)
	if err != nil || path.Host != "" || path.Scheme != "" {
		return bad("pushMethod.http.requestPath", "expected a path")
	}
	u.Path, u.RawQuery = "/"+strings.TrimPrefix(path.Path, "/"), path.RawQuery
	p.http = &httpPush{url: u.String(), timeout: l.Push}
	if h.Timeout > 0 {
		p.http.timeout = min(time.Duration(h.Timeout)*time.Millisecond, 10*l.Push)
	}
	return nil
}

// value checks a reading and gives it as a value of the property.
func (p *property) value(r Reading) (any, error) {
	if r.Err != nil {
		return nil, r.Err
	}
	v, err := p.Kind.Convert(r.Value)
	if err != nil {
		return nil, err
	}
	return v, p.bounds.check(v)
}
