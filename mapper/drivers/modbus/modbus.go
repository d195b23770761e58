// Package modbus reads and writes coils and registers over Modbus TCP. A device
// is one unit behind one address, with one connection; registers that lie near
// each other and are due together are read in one request.
package modbus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/simonvetter/modbus"

	"github.com/edgetwin/sedna/mapper/devices"
	"github.com/edgetwin/sedna/models/wire"
)

// Protocol is the name that Devices use.
const Protocol = "sedna-modbus"

// Config is protocol.configData.
type Config struct {
	Host         string `conf:"host,required,max=255"`
	Port         int64  `conf:"port,min=1,max=65535"`                // 502
	UnitID       int64  `conf:"unitId,min=0,max=255"`                // the slave; 1
	Timeout      int64  `conf:"timeoutMilliseconds,min=1,max=10000"` // of one request; 1000
	MaxGap       int64  `conf:"maxGap,min=0,max=100"`                // registers or coils that may be read for nothing to save a request; 8
	MaxRegisters int64  `conf:"maxRegisters,min=4,max=125"`          // in one request; 125
}

// Visitor is visitors.configData.
type Visitor struct {
	Register  string  `conf:"register,required,oneof=coil|discrete|input|holding"`
	Address   int64   `conf:"address,required,min=0,max=65535"`                           // of the first register, from 0: holding register 40001 of a manual is 0; required
	Type      string  `conf:"type,oneof=|bool|int16|uint16|int32|uint32|float32|float64"` // uint16; bool for coils and discrete inputs
	ByteOrder string  `conf:"byteOrder,oneof=big|little"`                                 // within a register; big
	WordOrder string  `conf:"wordOrder,oneof=high|low"`                                   // which register comes first; high
	Bit       int64   `conf:"bit,min=0,max=15"`                                           // of a bool in a register, from the least significant; 0
	Scale     float64 `conf:"scale"`                                                      // value = register × scale + offset; 1
	Offset    float64 `conf:"offset"`
}

// New makes the driver of one device.
func New(s devices.Setup) (devices.Driver, error) {
	c := Config{Port: 502, UnitID: 1, Timeout: 1000, MaxGap: 8, MaxRegisters: 125}
	if err := s.Protocol.Decode(&c); err != nil {
		return nil, err
	}
	d := &driver{c: c, points: map[string]*point{}}
	for _, p := range s.Properties {
		q, err := newPoint(p)
		if err != nil {
			return nil, err
		}
		d.points[p.Name] = q
	}
	return d, nil
}

type driver struct {
	c      Config
	points map[string]*point
	client *modbus.ModbusClient // nil: not connected
}

// point is one property: one place in the device's memory.
type point struct {
	Visitor
	name  string
	count int  // registers, or coils
	alone bool // a merged request that held it was refused
	bits  bool // it is a coil or a discrete input
}

func newPoint(p devices.Property) (*point, error) {
	q := &point{Visitor: Visitor{ByteOrder: "big", WordOrder: "high", Scale: 1}, name: p.Name}
	if err := p.Visitor.Decode(&q.Visitor); err != nil {
		return nil, err
	}
	q.bits = q.Register == "coil" || q.Register == "discrete"
	switch {
	case q.Type == "" && q.bits:
		q.Type = "bool"
	case q.Type == "":
		q.Type = "uint16"
	case q.bits && q.Type != "bool":
		return nil, p.Visitor.Error("type", "a %s is a bool", q.Register)
	}
	q.count = words[q.Type]
	switch {
	case q.Address+int64(q.count) > 1<<16:
		return nil, p.Visitor.Error("address", "the value ends behind the last register")
	case q.Scale == 0:
		return nil, p.Visitor.Error("scale", "expected another number than 0")
	case q.Bit != 0 && (q.bits || q.Type != "bool"):
		return nil, p.Visitor.Error("bit", "only a bool in a register has bits")
	case p.Writable && (q.Register == "discrete" || q.Register == "input"):
		return nil, p.Visitor.Error("register", "the property is ReadWrite, and a %s cannot be written", q.Register)
	case p.Writable && q.Type == "bool" && !q.bits && q.Bit != 0:
		return nil, p.Visitor.Error("bit", "one bit of a register cannot be written without the others")
	}
	return q, nil
}

// Connect dials anew. It can outlast its context by the handshake's timeout of
// five seconds, which is the library's.
func (d *driver) Connect(context.Context) error {
	d.disconnect()
	c, err := modbus.NewClient(&modbus.ClientConfiguration{
		URL:     "tcp://" + net.JoinHostPort(d.c.Host, strconv.FormatInt(d.c.Port, 10)),
		Timeout: time.Duration(d.c.Timeout) * time.Millisecond,
		Logger:  log.New(io.Discard, "", 0),
	})
	if err != nil {
		return err
	}
	if err := c.SetUnitId(uint8(d.c.UnitID)); err != nil {
		return err
	}
	if err := c.Open(); err != nil {
		return err
	}
	d.client = c
	return nil
}

// block is one request.
type block struct {
	register string
	from, to int // of what it reads; to is not included
	points   []*point
}

// plan makes as few requests as possible of points.
func (d *driver) plan(points []*point) []*block {
	slices.SortFunc(points, func(a, b *point) int {
		if a.Register != b.Register {
			return slices.Index(registers, a.Register) - slices.Index(registers, b.Register)
		}
		return int(a.Address - b.Address)
	})
	var blocks []*block
	for _, p := range points {
		from, to := int(p.Address), int(p.Address)+p.count
		if n := len(blocks); n > 0 && !p.alone {
			most := int(d.c.MaxRegisters)
			if p.bits {
				most *= 16
			}
			b := blocks[n-1]
			if last := b.points[len(b.points)-1]; b.register == p.Register && !last.alone && from-b.to <= int(d.c.MaxGap) && max(to, b.to)-b.from <= most {
				b.to = max(to, b.to)
				b.points = append(b.points, p)
				continue
			}
		}
		blocks = append(blocks, &block{p.Register, from, to, []*point{p}})
	}
	return blocks
}

var registers = []string{"coil", "discrete", "input", "holding"}

// Read reads blocks of neighbours.
func (d *driver) Read(ctx context.Context, names []string) (map[string]devices.Reading, error) {
	points := make([]*point, len(names))
	for i, name := range names {
		points[i] = d.points[name]
	}
	out := make(map[string]devices.Reading, len(names))
	blocks := d.plan(points)
	for i := 0; i < len(blocks); i++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		b := blocks[i]
		err := d.read(b, out)
		switch {
		case err == nil:
		case !refusal(err):
			return nil, err
		case len(b.points) > 1:
			// One of them is not there, or a gap is not: each by itself from
			// now on.
			for _, p := range b.points {
				p.alone = true
			}
			blocks = append(blocks, d.plan(b.points)...)
		default:
			out[b.points[0].name] = devices.Reading{Err: fmt.Errorf("%s %d: %w", b.register, b.from, err)}
		}
	}
	return out, nil
}

// read makes one request.
func (d *driver) read(b *block, out map[string]devices.Reading) error {
	from, n := uint16(b.from), uint16(b.to-b.from)
	var bits []bool
	var regs []uint16
	var err error
	switch b.register {
	case "coil":
		bits, err = d.client.ReadCoils(from, n)
	case "discrete":
		bits, err = d.client.ReadDiscreteInputs(from, n)
	case "input":
		regs, err = d.client.ReadRegisters(from, n, modbus.INPUT_REGISTER)
	default:
		regs, err = d.client.ReadRegisters(from, n, modbus.HOLDING_REGISTER)
	}
	if err != nil {
		return err
	}
	now := time.Now()
	for _, p := range b.points {
		at := int(p.Address) - b.from
		r := devices.Reading{Time: now}
		if p.bits {
			r.Value = bits[at]
		} else {
			r.Value = p.decode(regs[at : at+p.count])
		}
		out[p.name] = r
	}
	return nil
}

// refusal tells whether the device is there and says no.
func refusal(err error) bool {
	for _, e := range []error{modbus.ErrIllegalFunction, modbus.ErrIllegalDataAddress, modbus.ErrIllegalDataValue,
		modbus.ErrServerDeviceFailure, modbus.ErrServerDeviceBusy, modbus.ErrAcknowledge, modbus.ErrMemoryParityError} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Write writes a coil or holding registers.
func (d *driver) Write(_ context.Context, name string, value any) error {
	p := d.points[name]
	var err error
	switch p.Register {
	case "coil":
		on, ok := value.(bool)
		if n, isInt := value.(int64); isInt && (n == 0 || n == 1) {
			on, ok = n == 1, true
		}
		if !ok {
			return wire.E(wire.InvalidArgument, "", "a coil is true or false", "")
		}
		err = d.client.WriteCoil(uint16(p.Address), on)
	case "holding":
		regs, bad := p.encode(value)
		if bad != nil {
			return bad
		}
		if len(regs) == 1 {
			err = d.client.WriteRegister(uint16(p.Address), regs[0])
		} else {
			err = d.client.WriteRegisters(uint16(p.Address), regs)
		}
	default:
		return wire.E(wire.PermissionDenied, "", "a "+p.Register+" cannot be written", "")
	}
	if err != nil && refusal(err) && !errors.Is(err, modbus.ErrServerDeviceBusy) {
		return wire.E(wire.InvalidArgument, "", fmt.Sprintf("%s %d: %v", p.Register, p.Address, err), "")
	}
	return err
}

func (d *driver) disconnect() {
	if d.client != nil {
		_ = d.client.Close()
		d.client = nil
	}
}

func (d *driver) Close() error {
	d.disconnect()
	return nil
}
