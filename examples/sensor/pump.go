package main

import (
	"math"
	"math/rand/v2"
)

// rate is how many samples a second the pump gives and the mapper reads.
const rate = 20

// fault is what is wrong with the pump.
type fault int

// The faults come up over rampUp samples.
const (
	none       fault = iota
	cavitation       // gas at the inlet: pressure falls and pulsates, the casing rattles
	bearing          // a worn bearing: the casing beats with its rolls and it warms up
	rampUp     = rate / 2
)

func (f fault) String() string { return [...]string{"none", "cavitation", "bearing"}[f] }

// sample is what is measured at one moment.
type sample struct {
	vibration   float64 // mm/s
	temperature float64 // °C
	pressure    float64 // bar
}

// columns of a row, in the order of the service's sources.
const columns = 3

func (s sample) row() [columns]float32 {
	return [columns]float32{float32(s.vibration), float32(s.temperature), float32(s.pressure)}
}

// pump makes up the measurements of a pump that runs at changing load:
//
//	load        wanders slowly between 0 and 1
//	vibration   2 + 0.6 load, noise 0.15; now and then the knock of a valve nearby, one sample of up to 2 more
//	temperature follows 55 + 8 load with a time constant of 10 s, noise 0.2
//	pressure    4 + 0.8 load, noise 0.05
//
// With severity s, which grows from 0 to 1 in half a second:
//
//	cavitation  pressure − 0.35 s, its noise + 0.3 s; the noise of vibration + 0.55 s
//	bearing     vibration + s + 0.6 s sin(2π 3 Hz t); temperature rises by 1.5 s a second
//
// A single sample of a faulty pump is often one that a sound pump could give:
// it takes some in a row to tell.
type pump struct {
	rng      *rand.Rand
	n        int // samples so far
	load     float64
	warm     float64 // temperature without noise
	friction float64 // what the bearing adds to it
	fault    fault
	severity float64
}

func newPump(rng *rand.Rand) *pump {
	p := &pump{rng: rng, load: rng.Float64()}
	p.warm = 55 + 8*p.load
	return p
}

// step gives the next sample, with or without a fault.
func (p *pump) step(f fault) sample {
	const dt = 1.0 / rate
	if f != p.fault {
		p.fault, p.severity = f, 0
	}
	p.load = max(0, min(1, p.load+0.02*p.rng.NormFloat64()))
	p.warm += (55 + 8*p.load - p.warm) * dt / 10
	p.friction *= 1 - dt/2
	s := sample{
		vibration: 2 + 0.6*p.load + 0.15*p.rng.NormFloat64(),
		pressure:  4 + 0.8*p.load + 0.05*p.rng.NormFloat64(),
	}
	if p.rng.IntN(10*rate) == 0 {
		s.vibration += 2 * p.rng.Float64()
	}
	if f != none {
		p.severity = min(1, p.severity+1.0/rampUp)
	}
	switch f {
	case cavitation:
		s.pressure += p.severity * (-0.35 + 0.3*p.rng.NormFloat64())
		s.vibration += p.severity * 0.55 * p.rng.NormFloat64()
	case bearing:
		s.vibration += p.severity * (1 + 0.6*math.Sin(2*math.Pi*3*float64(p.n)*dt))
		p.friction += 1.5 * p.severity * dt
	}
	s.temperature = p.warm + p.friction + 0.2*p.rng.NormFloat64()
	s.vibration, s.pressure = max(0, s.vibration), max(0, s.pressure)
	p.n++
	return s
}
