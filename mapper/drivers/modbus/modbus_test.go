package modbus_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"

	peer "github.com/simonvetter/modbus"

	"github.com/edgetwin/sedna/mapper/devices"
	"github.com/edgetwin/sedna/mapper/drivers/modbus"
	"github.com/edgetwin/sedna/models/wire"
)

// plc is the memory of a Modbus server.
type plc struct {
	mu       sync.Mutex
	coils    [64]bool
	holding  [256]uint16
	requests []string
	clients  map[string]bool
	port     int
}

func start(t testing.TB) *plc {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	p := &plc{clients: map[string]bool{}}
	_, port, _ := net.SplitHostPort(addr)
	p.port, _ = strconv.Atoi(port)
	s, err := peer.NewServer(&peer.ServerConfiguration{URL: "tcp://" + addr, MaxClients: 5, Logger: log.New(io.Discard, "", 0)}, p)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Stop() })
	return p
}

func (p *plc) note(what string, client string, addr, n uint16) {
	p.requests = append(p.requests, fmt.Sprintf("%s %d+%d", what, addr, n))
	p.clients[client] = true
}

func (p *plc) take() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.requests
	p.requests = nil
	return r
}

func (p *plc) HandleCoils(r *peer.CoilsRequest) ([]bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.note("coils", r.ClientAddr, r.Addr, r.Quantity)
	if int(r.Addr)+int(r.Quantity) > len(p.coils) {
		return nil, peer.ErrIllegalDataAddress
	}
	if r.IsWrite {
		copy(p.coils[r.Addr:], r.Args)
	}
	return slices.Clone(p.coils[r.Addr : r.Addr+r.Quantity]), nil
}

func (p *plc) HandleDiscreteInputs(r *peer.DiscreteInputsRequest) ([]bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.note("discrete", r.ClientAddr, r.Addr, r.Quantity)
	out := make([]bool, r.Quantity)
	for i := range out {
		out[i] = (int(r.Addr)+i)%2 == 1
	}
	return out, nil
}

func (p *plc) HandleHoldingRegisters(r *peer.HoldingRegistersRequest) ([]uint16, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.note("holding", r.ClientAddr, r.Addr, r.Quantity)
	// Register 50 does not exist.
	if r.UnitId != 7 || (r.Addr <= 50 && r.Addr+r.Quantity > 50) || int(r.Addr)+int(r.Quantity) > len(p.holding) {
		return nil, peer.ErrIllegalDataAddress
	}
	if r.IsWrite {
		copy(p.holding[r.Addr:], r.Args)
	}
	return slices.Clone(p.holding[r.Addr : r.Addr+r.Quantity]), nil
}

func (p *plc) HandleInputRegisters(r *peer.InputRegistersRequest) ([]uint16, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.note("input", r.ClientAddr, r.Addr, r.Quantity)
	out := make([]uint16, r.Quantity)
	for i := range out {
		out[i] = r.Addr + uint16(i)
	}
	return out, nil
}

type prop struct {
	name, register string
	address        int
	more           map[string]any
	writable       bool
	kind           devices.Kind
}

func setup(port int, props ...prop) devices.Setup {
	s := devices.Setup{Namespace: "default", Name: "d", Protocol: devices.NewSettings("protocol.configData", map[string]any{
		"host": "127.0.0.1", "port": int64(port), "unitId": int64(7), "timeoutMilliseconds": int64(2000)})}
	for _, p := range props {
		v := map[string]any{"register": p.register, "address": int64(p.address)}
		for k, x := range p.more {
			v[k] = x
		}
		if p.kind == "" {
			p.kind = devices.Double
		}
		s.Properties = append(s.Properties, devices.Property{Name: p.name, Kind: p.kind, Writable: p.writable, Visitor: devices.NewSettings(p.name, v)})
	}
	return s
}

func open(t testing.TB, s devices.Setup) devices.Driver {
	t.Helper()
	d, err := modbus.New(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	if err := d.Connect(context.Background()); err != nil {
		t.Fatal(err)
	}
	return d
}

func names(s devices.Setup) (out []string) {
	for _, p := range s.Properties {
		out = append(out, p.Name)
	}
	return out
}

func TestTypesOrdersAndScales(t *testing.T) {
	p := start(t)
	f32, f64 := math.Float32bits(21.5), math.Float64bits(-1234.5625)
	neg := int16(-123)
	copy(p.holding[:], []uint16{
		0: uint16(neg), 1: 65000, 2: 0xFFFE, 3: 0x1DC0, // int32 -123456
		4: uint16(f32 >> 16), 5: uint16(f32), 6: uint16(f32), 7: uint16(f32 >> 16),
		8: uint16(f64 >> 48), 9: uint16(f64 >> 32), 10: uint16(f64 >> 16), 11: uint16(f64),
		12: 0x3412, 13: 0xFFFF, 14: 0xFFFF, 15: 0b100,
	})
	m := func(kv ...any) map[string]any {
		out := map[string]any{}
		for i := 0; i < len(kv); i += 2 {
			out[kv[i].(string)] = kv[i+1]
		}
		return out
	}
	s := setup(p.port,
		prop{name: "i16", register: "holding", address: 0, more: m("type", "int16", "scale", 0.1)},
		prop{name: "u16", register: "holding", address: 1},
		prop{name: "i32", register: "holding", address: 2, more: m("type", "int32")},
		prop{name: "f32", register: "holding", address: 4, more: m("type", "float32")},
		prop{name: "f32low", register: "holding", address: 6, more: m("type", "float32", "wordOrder", "low", "scale", 2.0, "offset", 1.0)},
		prop{name: "f64", register: "holding", address: 8, more: m("type", "float64")},
		prop{name: "little", register: "holding", address: 12, more: m("byteOrder", "little")},
		prop{name: "u32", register: "holding", address: 13, more: m("type", "uint32")},
		prop{name: "bit", register: "holding", address: 15, more: m("type", "bool", "bit", int64(2)), kind: devices.Bool},
		prop{name: "discrete", register: "discrete", address: 3, kind: devices.Bool},
		prop{name: "input", register: "input", address: 40, kind: devices.Int},
	)
	d := open(t, s)
	got, err := d.Read(t.Context(), names(s))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{"i16": -12.3, "u16": 65000.0, "i32": -123456.0, "f32": 21.5, "f32low": 44.0, "f64": -1234.5625,
		"little": float64(0x1234), "u32": 4294967295.0, "bit": true, "discrete": true, "input": int64(40)} {
		kind := devices.Double
		switch want.(type) {
		case bool:
			kind = devices.Bool
		case int64:
			kind = devices.Int
		}
		v, err := kind.Convert(got[name].Value)
		if f, ok := want.(float64); ok && err == nil && math.Abs(v.(float64)-f) < 1e-9 {
			continue
		}
		if err != nil || v != want || got[name].Err != nil {
			t.Errorf("%s: %v (%v, %v), expected %v", name, v, err, got[name].Err, want)
		}
	}
	// All holding registers in one request.
	if r := p.take(); !slices.Equal(r, []string{"discrete 3+1", "input 40+1", "holding 0+16"}) {
		t.Errorf("%v", r)
	}
	if _, err := d.Read(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

func TestNeighboursAreReadTogether(t *testing.T) {
	p := start(t)
	s := setup(p.port,
		prop{name: "a", register: "holding", address: 0}, prop{name: "b", register: "holding", address: 9},
		prop{name: "c", register: "holding", address: 19}, prop{name: "d", register: "holding", address: 20},
		prop{name: "same", register: "holding", address: 20, more: map[string]any{"type": "uint32"}},
		prop{name: "x", register: "coil", address: 0}, prop{name: "y", register: "coil", address: 5},
		prop{name: "near hole", register: "holding", address: 48}, prop{name: "hole", register: "holding", address: 50}, prop{name: "behind", register: "holding", address: 52},
	)
	d := open(t, s)
	want := []string{"coils 0+6", "holding 0+10", "holding 19+3", "holding 48+5"}
	for round := range 2 {
		got, err := d.Read(t.Context(), names(s))
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names(s) {
			if bad := got[n].Err != nil; bad != (n == "hole") {
				t.Errorf("%s: %v", n, got[n].Err)
			}
		}
		r := p.take()
		want := append(slices.Clone(want[:3+map[bool]int{true: 1}[round == 0]]), "holding 48+1", "holding 50+1", "holding 52+1")
		if !slices.Equal(r, want) {
			t.Errorf("round %d: %v, expected %v", round, r, want)
		}
	}
	if len(p.clients) != 1 {
		t.Errorf("%d connections", len(p.clients))
	}
}

func TestWrites(t *testing.T) {
	p := start(t)
	m := func(kv ...any) map[string]any { return map[string]any{kv[0].(string): kv[1]} }
	s := setup(p.port,
		prop{name: "coil", register: "coil", address: 4, writable: true},
		prop{name: "u16", register: "holding", address: 1, more: m("scale", 0.5), writable: true},
		prop{name: "f32", register: "holding", address: 2, more: map[string]any{"type": "float32", "wordOrder": "low", "byteOrder": "little"}, writable: true},
		prop{name: "i32", register: "holding", address: 6, more: m("type", "int32"), writable: true},
		prop{name: "hole", register: "holding", address: 50, writable: true},
		prop{name: "bool", register: "holding", address: 10, more: m("type", "bool"), writable: true},
	)
	d := open(t, s)
	for _, w := range []struct {
		name  string
		value any
		want  any
	}{{"coil", true, true}, {"u16", 12.5, 12.5}, {"f32", -3.25, -3.25}, {"i32", int64(-70000), -70000.0}, {"bool", true, true}, {"coil", int64(0), false}} {
		if err := d.Write(t.Context(), w.name, w.value); err != nil {
			t.Errorf("%s: %v", w.name, err)
			continue
		}
		got, err := d.Read(t.Context(), []string{w.name})
		if err != nil {
			t.Fatal(err)
		}
		kind := devices.Double
		if _, ok := w.want.(bool); ok {
			kind = devices.Bool
		}
		if v, err := kind.Convert(got[w.name].Value); err != nil || v != w.want {
			t.Errorf("%s holds %v, expected %v (%v)", w.name, v, w.want, err)
		}
	}
	if p.holding[1] != 25 {
		t.Errorf("register 1 holds %d", p.holding[1])
	}
	for name, value := range map[string]any{"u16": 1e6, "i32": math.NaN(), "hole": 1.0, "coil": "on", "f32": "x"} {
		if err := d.Write(t.Context(), name, value); !wire.IsCode(err, wire.InvalidArgument) {
			t.Errorf("%s = %v: %v", name, value, err)
		}
	}
}

func TestADeviceThatGoesAndComesBack(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := setup(l.Addr().(*net.TCPAddr).Port, prop{name: "a", register: "holding"})
	d := open(t, s)
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	if _, err := d.Read(t.Context(), []string{"a"}); err == nil {
		t.Error("a closed connection was read")
	}
	_ = l.Close()
	if err := d.Connect(t.Context()); err == nil {
		t.Error("nobody listens")
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

func TestRefusedConfigurations(t *testing.T) {
	for want, p := range map[string]prop{
		"a.register":  {register: "register"},
		"a.type":      {register: "coil", more: map[string]any{"type": "int16"}},
		"a.address":   {register: "holding", address: 65535, more: map[string]any{"type": "float32"}},
		"a.scale":     {register: "holding", more: map[string]any{"scale": 0.0}},
		"a.bit":       {register: "holding", more: map[string]any{"bit": int64(3)}},
		"a.wordOrder": {register: "holding", more: map[string]any{"wordOrder": "up"}},
		"a.adress":    {register: "holding", more: map[string]any{"adress": int64(1)}},
	} {
		p.name = "a"
		_, err := modbus.New(setup(1, p))
		var e *wire.Error
		if !errors.As(err, &e) || e.Field != want {
			t.Errorf("%s: %v", want, err)
		}
	}
	if _, err := modbus.New(setup(1, prop{name: "a", register: "input", writable: true})); err == nil {
		t.Error("an input register that is ReadWrite")
	}
	if _, err := modbus.New(setup(70000)); err == nil {
		t.Error("port 70000")
	}
}
