// Package simulated makes readings without a device, for tests and demos:
// waves, walks, counters and constants, repeatable by seed. A property that may
// be written holds what was written.
package simulated

import (
	"context"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"time"

	"github.com/edgetwin/sedna/mapper/devices"
)

// Protocol is the name that Devices use.
const Protocol = "sedna-simulated"

// Config is protocol.configData.
type Config struct {
	Seed int64 `conf:"seed"` // of all chance, with the device's and the property's name; 0
}

// Visitor is visitors.configData.
type Visitor struct {
	Function  string  `conf:"function,oneof=sine|randomWalk|counter|constant"` // default constant
	Offset    float64 `conf:"offset"`                                          // the middle of a sine, the start of a walk or counter; 0
	Amplitude float64 `conf:"amplitude"`                                       // of a sine; 1
	Period    int64   `conf:"periodMilliseconds,min=1"`                        // of a sine; 60000
	Phase     float64 `conf:"phase"`                                           // of a sine, in turns; 0
	Step      float64 `conf:"step"`                                            // the most of one step of a walk, or each step of a counter; 1
	Noise     float64 `conf:"noise,min=0"`                                     // standard deviation of what is added to a sine or constant; 0
	Min       float64 `conf:"min"`                                             // least value of a walk or counter; no bound unless below max
	Max       float64 `conf:"max"`                                             // most value of a walk; a counter starts again at min after it
	Value     string  `conf:"value"`                                           // of a constant; what a property starts with; 0, "" or false by its type
	Failing   bool    `conf:"failing"`                                         // each reading is an error
}

// New makes the driver of one device.
func New(s devices.Setup) (devices.Driver, error) {
	var c Config
	if err := s.Protocol.Decode(&c); err != nil {
		return nil, err
	}
	d := &driver{signals: map[string]*signal{}}
	for _, p := range s.Properties {
		v := Visitor{Function: "constant", Amplitude: 1, Period: 60000, Step: 1}
		if err := p.Visitor.Decode(&v); err != nil {
			return nil, err
		}
		if v.Max < v.Min {
			return nil, p.Visitor.Error("max", "expected at least min")
		}
		h := fnv.New64a()
		_, _ = h.Write([]byte(s.Namespace + "/" + s.Name + "/" + p.Name))
		g := &signal{Visitor: v, kind: p.Kind, at: v.Offset, chance: rand.New(rand.NewPCG(uint64(c.Seed), h.Sum64()))}
		if v.Value != "" || v.Function == "constant" {
			text := v.Value
			if text == "" && p.Kind != devices.String && p.Kind != devices.Bytes {
				text = "0"
			}
			value, err := p.Kind.Parse(text)
			if err != nil {
				return nil, p.Visitor.Error("value", "%v", err)
			}
			g.constant = value
		}
		d.signals[p.Name] = g
	}
	return d, nil
}

type driver struct {
	signals map[string]*signal
	since   time.Time
}

// signal is one property.
type signal struct {
	Visitor
	kind     devices.Kind
	chance   *rand.Rand
	at       float64
	constant any
	written  any // nil: nothing was written
}

func (d *driver) Connect(context.Context) error {
	if d.since.IsZero() {
		d.since = time.Now()
	}
	return nil
}

func (d *driver) Read(_ context.Context, names []string) (map[string]devices.Reading, error) {
	now := time.Now()
	out := make(map[string]devices.Reading, len(names))
	for _, name := range names {
		g := d.signals[name]
		if g.Failing {
			out[name] = devices.Reading{Err: errFailing}
			continue
		}
		out[name] = devices.Reading{Value: g.next(now.Sub(d.since)), Time: now}
	}
	return out, nil
}

func (d *driver) Write(_ context.Context, name string, value any) error {
	d.signals[name].written = value
	return nil
}

func (d *driver) Close() error { return nil }

// next gives the value after t.
func (g *signal) next(t time.Duration) any {
	if g.written != nil {
		return g.written
	}
	var f float64
	switch g.Function {
	case "sine":
		turns := float64(t.Milliseconds())/float64(g.Period) + g.Phase
		f = g.Offset + g.Amplitude*math.Sin(2*math.Pi*turns) + g.noise()
	case "randomWalk":
		f = g.at
		g.at += (2*g.chance.Float64() - 1) * g.Step
		if g.Min < g.Max {
			g.at = min(max(g.at, g.Min), g.Max)
		}
	case "counter":
		f = g.at
		if g.at += g.Step; g.Min < g.Max && g.at > g.Max {
			g.at = g.Min
		}
	default:
		n, ok := g.constant.(float64)
		if !ok {
			return g.constant
		}
		f = n + g.noise()
	}
	if g.kind == devices.Int {
		f = math.Round(f)
	}
	return f
}

func (g *signal) noise() float64 {
	if g.Noise == 0 {
		return 0
	}
	return g.chance.NormFloat64() * g.Noise
}

type simulatedError string

func (e simulatedError) Error() string { return string(e) }

const errFailing = simulatedError("simulated failure")
