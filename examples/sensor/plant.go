package main

import (
	"context"
	"encoding/json"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/edgetwin/sedna/examples/internal/fakes/modbus"
	"github.com/edgetwin/sedna/examples/internal/standalone"
	"github.com/edgetwin/sedna/lib/bus"
)

// Registers of the pump and the gauge's topic, as in the manifests.
const (
	alarmRegister = 0
	speedRegister = 1
	pressureTopic = "plant/pump-1/pressure"
)

// plant is a pump with a Modbus interface and a pressure gauge that speaks
// MQTT, both fed by the made-up pump.
type plant struct {
	registers *modbus.Device
	gauge     *bus.Client
	cancel    context.CancelFunc
	done      chan struct{}

	mu    sync.Mutex
	fault fault
}

// startPlant runs the plant until Close; the gauge's broker is at mqtt.
func startPlant(ctx context.Context, mqtt string, seed int64) (*plant, error) {
	registers, err := modbus.Start()
	if err != nil {
		return nil, err
	}
	gauge, err := standalone.Listen(ctx, mqtt, "gauge", nil, nil)
	if err != nil {
		_ = registers.Close()
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	p := &plant{registers: registers, gauge: gauge, cancel: cancel, done: make(chan struct{})}
	go p.run(ctx, newPump(rand.New(rand.NewPCG(uint64(seed), 3))))
	return p, nil
}

// run has the pump give samples. A message of the gauge that does not get
// through is lost, as with a real one.
func (p *plant) run(ctx context.Context, pump *pump) {
	defer close(p.done)
	tick := time.NewTicker(time.Second / rate)
	defer tick.Stop()
	for {
		p.mu.Lock()
		f := p.fault
		p.mu.Unlock()
		s := pump.step(f)
		p.registers.SetInput(uint16(math.Round(100*s.vibration)), uint16(int16(math.Round(10*s.temperature))))
		if b, err := json.Marshal(map[string]float64{"bar": math.Round(1000*s.pressure) / 1000}); err == nil {
			_ = p.gauge.Publish(ctx, pressureTopic, 0, false, b)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// inject sets what is wrong with the pump from now on.
func (p *plant) inject(f fault) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
	return time.Now()
}

// Close ends the plant.
func (p *plant) Close() error {
	p.cancel()
	<-p.done
	p.gauge.Close()
	return p.registers.Close()
}
