// Package modbus stands in for a machine that speaks Modbus TCP: a bank of
// input registers that the machine sets, and one of holding registers that
// others write.
package modbus

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/simonvetter/modbus"
)

// Registers of each bank.
const Registers = 64

// Write is one holding register that was written.
type Write struct {
	At      time.Time
	Address int
	Value   uint16
}

// Device is the fake. Its methods may be called from any goroutine.
type Device struct {
	server *modbus.ModbusServer
	addr   string

	mu      sync.Mutex
	input   [Registers]uint16
	holding [Registers]uint16
	writes  []Write
	written chan struct{} // closed at the next write
}

// Start has the device listen on a free port of loopback.
func Start() (*Device, error) {
	// The library does not tell which port it took: one that was free just now
	// is named.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	d := &Device{addr: l.Addr().String(), written: make(chan struct{})}
	if err := l.Close(); err != nil {
		return nil, err
	}
	d.server, err = modbus.NewServer(&modbus.ServerConfiguration{
		URL: "tcp://" + d.addr, MaxClients: 4, Timeout: time.Minute, Logger: log.New(io.Discard, "", 0),
	}, handler{d})
	if err != nil {
		return nil, err
	}
	return d, d.server.Start()
}

// Close ends the device.
func (d *Device) Close() error { return d.server.Stop() }

// Addr is its host:port.
func (d *Device) Addr() string { return d.addr }

// SetInput sets input registers from 0 on.
func (d *Device) SetInput(values ...uint16) {
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(d.input[:], values)
}

// Holding gives a holding register.
func (d *Device) Holding(address int) uint16 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.holding[address]
}

// Writes gives all writes of holding registers so far, in order.
func (d *Device) Writes() []Write {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.writes)
}

// Await waits for a write such as ok says, which may have been before, for at
// most longest.
func (d *Device) Await(ctx context.Context, longest time.Duration, ok func(Write) bool) (Write, error) {
	timeout := time.NewTimer(longest)
	defer timeout.Stop()
	for {
		d.mu.Lock()
		writes, written := d.writes, d.written // writes only grow
		d.mu.Unlock()
		if i := slices.IndexFunc(writes, ok); i >= 0 {
			return writes[i], nil
		}
		select {
		case <-written:
		case <-timeout.C:
			return Write{}, fmt.Errorf("no such write within %s", longest)
		case <-ctx.Done():
			return Write{}, ctx.Err()
		}
	}
}

// handler is what the library calls.
type handler struct{ d *Device }

var _ modbus.RequestHandler = handler{}

func (h handler) HandleCoils(*modbus.CoilsRequest) ([]bool, error) {
	return nil, modbus.ErrIllegalFunction
}

func (h handler) HandleDiscreteInputs(*modbus.DiscreteInputsRequest) ([]bool, error) {
	return nil, modbus.ErrIllegalFunction
}

func (h handler) HandleInputRegisters(r *modbus.InputRegistersRequest) ([]uint16, error) {
	if int(r.Addr)+int(r.Quantity) > Registers {
		return nil, modbus.ErrIllegalDataAddress
	}
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	return slices.Clone(h.d.input[r.Addr : r.Addr+r.Quantity]), nil
}

func (h handler) HandleHoldingRegisters(r *modbus.HoldingRegistersRequest) ([]uint16, error) {
	if int(r.Addr)+int(r.Quantity) > Registers {
		return nil, modbus.ErrIllegalDataAddress
	}
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if r.IsWrite {
		now := time.Now()
		for i, v := range r.Args {
			address := int(r.Addr) + i
			h.d.holding[address] = v
			h.d.writes = append(h.d.writes, Write{now, address, v})
		}
		close(h.d.written)
		h.d.written = make(chan struct{})
	}
	return slices.Clone(h.d.holding[r.Addr : r.Addr+r.Quantity]), nil
}
