// Package mqtt takes readings from topics of the node's broker or another, and
// writes by publishing.
package mqtt

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/lib/config"
	"github.com/edgetwin/sedna/lib/jsonpath"
	"github.com/edgetwin/sedna/mapper/devices"
	"github.com/edgetwin/sedna/mapper/drivers/internal/extract"
	"github.com/edgetwin/sedna/models/wire"
)

// Protocol is the name that Devices use.
const Protocol = "sedna-mqtt"

// maxPayload bounds one message of a device, in bytes.
const maxPayload = 1 << 20

// Options say where the node's own broker is.
type Options struct {
	Node     string
	URL      string
	Username string
	Password config.Secret
}

// Config is protocol.configData.
type Config struct {
	Broker   string `conf:"broker,max=512"`   // URL such as tcp://10.0.0.5:1883; default: the node's broker
	Username string `conf:"username,max=256"` // only with a broker
	Password string `conf:"password,max=1024"`
}

// Visitor is visitors.configData.
type Visitor struct {
	Topic    string `conf:"topic,max=1024"`                // to read from; without wildcards
	QoS      int64  `conf:"qos,min=0,max=2"`               // of reading and writing; 0
	Format   string `conf:"format,oneof=json|text|mapper"` // of what is read; json
	JSONPath string `conf:"jsonPath"`                      // to the value; default: the whole document
	MaxAge   int64  `conf:"maxAgeMilliseconds,min=0"`      // after which a property without news is in error; 0: never
	Retained bool   `conf:"acceptRetained"`                // take what the broker has kept, which may be old; false

	WriteTopic    string `conf:"writeTopic,max=1024"`         // to write to
	WriteFormat   string `conf:"writeFormat,oneof=text|json"` // 21.5, or {"value":21.5}; text
	WriteRetained bool   `conf:"writeRetained"`               // the broker keeps what was written; false
}

// New gives a Factory whose devices share connections.
func New(o Options) devices.Factory {
	h := &hub{node: o.Node, links: map[account]*link{}}
	return func(s devices.Setup) (devices.Driver, error) {
		var c Config
		if err := s.Protocol.Decode(&c); err != nil {
			return nil, err
		}
		d := &driver{h: h, setup: s, account: account{o.URL, o.Username, o.Password}, properties: map[string]*property{}}
		if c.Broker != "" {
			d.account = account{c.Broker, c.Username, config.Secret(c.Password)}
			if _, err := bus.New(bus.Options{URL: c.Broker, ClientID: "check"}); err != nil {
				return nil, s.Protocol.Error("broker", "%v", err)
			}
		} else if c.Username != "" || c.Password != "" {
			return nil, s.Protocol.Error("username", "belongs to a broker, and none is set")
		}
		for _, p := range s.Properties {
			q, err := newProperty(p)
			if err != nil {
				return nil, err
			}
			d.properties[p.Name] = q
		}
		return d, nil
	}
}

type driver struct {
	h          *hub
	setup      devices.Setup
	account    account
	properties map[string]*property

	link      *link // nil: not connected
	listeners []*listener
}

type property struct {
	Visitor
	path jsonpath.Path

	mu    sync.Mutex
	heard time.Time // when it last had news, or began to listen
}

func newProperty(p devices.Property) (*property, error) {
	q := &property{Visitor: Visitor{Format: extract.JSON, WriteFormat: "text"}}
	if err := p.Visitor.Decode(&q.Visitor); err != nil {
		return nil, err
	}
	var err error
	if q.path, err = jsonpath.Compile(q.JSONPath); err != nil {
		return nil, p.Visitor.Error("jsonPath", "%v", err)
	}
	for field, topic := range map[string]string{"topic": q.Topic, "writeTopic": q.WriteTopic} {
		if topic != "" && !bus.ValidTopic(topic) {
			return nil, p.Visitor.Error(field, "expected a topic without wildcards")
		}
	}
	if t := q.WriteTopic; strings.HasPrefix(t, "$") || strings.HasPrefix(t, "sedna/") {
		return nil, p.Visitor.Error("writeTopic", "topics below $ and sedna/ are not devices'")
	}
	if q.Topic == "" && q.WriteTopic == "" {
		return nil, p.Visitor.Error("topic", "missing")
	}
	if p.Writable && q.WriteTopic == "" {
		return nil, p.Visitor.Error("writeTopic", "missing, and the property is ReadWrite")
	}
	return q, nil
}

// Connect waits until the broker is there.
func (d *driver) Connect(ctx context.Context) error {
	if d.link == nil {
		l, err := d.h.acquire(d.account)
		if err != nil {
			return err
		}
		d.link = l
		for name, q := range d.properties {
			if q.Topic != "" {
				d.listeners = append(d.listeners, l.listen(q.Topic, byte(q.QoS), func(m bus.Message) { d.hear(name, q, m) }))
			}
		}
	}
	for wait := time.Millisecond; !d.link.client.Connected(); wait = min(2*wait, 100*time.Millisecond) {
		select {
		case <-ctx.Done():
			return errAway
		case <-time.After(wait):
		}
	}
	for _, q := range d.properties {
		q.news()
	}
	return nil
}

var errAway = errors.New("the MQTT broker is away")

func (q *property) news() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.heard = time.Now()
}

// hear takes a message.
func (d *driver) hear(name string, q *property, m bus.Message) {
	if m.Retained && !q.Retained {
		return
	}
	q.news()
	if len(m.Payload) > maxPayload {
		d.setup.Emit(name, devices.Reading{Err: fmt.Errorf("message of %d bytes, at most %d are taken", len(m.Payload), maxPayload)})
		return
	}
	v, err := extract.Value(q.Format, q.path, m.Payload)
	d.setup.Emit(name, devices.Reading{Value: v, Err: err})
}

// Read says what is silent for too long; news come by Emit.
func (d *driver) Read(_ context.Context, names []string) (map[string]devices.Reading, error) {
	if !d.link.client.Connected() {
		return nil, errAway
	}
	var out map[string]devices.Reading
	for _, name := range names {
		q := d.properties[name]
		if q.MaxAge == 0 || q.Topic == "" {
			continue
		}
		q.mu.Lock()
		silent := time.Since(q.heard)
		q.mu.Unlock()
		if silent > time.Duration(q.MaxAge)*time.Millisecond {
			if out == nil {
				out = map[string]devices.Reading{}
			}
			out[name] = devices.Reading{Err: fmt.Errorf("no message on %s for %v", q.Topic, silent.Round(time.Second))}
		}
	}
	return out, nil
}

// Write publishes, and waits for the broker with a qos of 1 or 2.
func (d *driver) Write(ctx context.Context, name string, value any) error {
	q := d.properties[name]
	if q.WriteTopic == "" {
		return wire.E(wire.Unimplemented, "", "the property has no writeTopic", "")
	}
	var b bytes.Buffer
	switch text, isText := value.(string); {
	case q.WriteFormat == "json":
		if err := json.NewEncoder(&b).Encode(map[string]any{"value": value}); err != nil {
			return wire.E(wire.InvalidArgument, "", err.Error(), "")
		}
		b.Truncate(b.Len() - 1)
	case isText:
		b.WriteString(text)
	default:
		v, err := devices.String.Convert(value)
		if err != nil {
			return err
		}
		b.WriteString(v.(string))
	}
	return d.link.client.Publish(ctx, q.WriteTopic, byte(q.QoS), q.WriteRetained, b.Bytes())
}

func (d *driver) Close() error {
	if d.link == nil {
		return nil
	}
	for _, x := range d.listeners {
		d.link.forget(x)
	}
	d.link.release()
	return nil
}
