package main

import (
	"slices"
	"time"

	"github.com/edgetwin/sedna/examples/internal/fakes/modbus"
	"github.com/edgetwin/sedna/examples/internal/standalone"
)

// episode is one fault that was injected.
type episode struct {
	Fault     fault
	From, To  time.Time
	CloudAway bool
}

// transition is how long after the start and after the end of a fault a
// decision is not judged: its window lies in both states.
const transition = (window + 2) * time.Second / rate

// judge holds decisions and writes of the alarm register against the faults.
// All are in order of time.
//
// A decision counts as right by the state of the pump as it comes, unless that
// state is younger than transition. A fault is detected when a decision says so
// while it lasts; its delay is the time to the first such decision. Each
// decision that differs from the one before it has to show in the alarm
// register: the actuator's delay is the time from the result on the bus to
// there, which can be below zero since both go out at the same time.
func judge(faults []episode, decisions []standalone.Result, writes []modbus.Write, from, to time.Time) (f figures) {
	var delays, actuator []float64
	detected := make([]bool, len(faults))
	for i, d := range decisions {
		said := d.Label == anomaly
		if i > 0 && d.Label != decisions[i-1].Label && d.At.After(from) && d.At.Before(to) {
			f.AlarmChanges++
			if delay, ok := written(writes, decisions, i); ok {
				actuator = append(actuator, float64(delay.Microseconds())/1000)
			} else {
				f.AlarmsMissed++
			}
		}
		if d.At.Before(from) || d.At.After(to) {
			continue
		}
		f.Decisions++
		is, since := false, from
		for k, e := range faults {
			if d.At.Before(e.From) {
				break
			}
			is, since = d.At.Before(e.To), e.From
			if !is {
				since = e.To
			}
			if is && said && !detected[k] {
				detected[k] = true
				delays = append(delays, d.At.Sub(e.From).Seconds())
			}
		}
		if len(faults) > 0 && since != from && d.At.Sub(since) < transition {
			f.InTransition++
			continue
		}
		f.Live.count(said, is)
	}
	f.Faults.Injected = len(faults)
	for k, e := range faults {
		if detected[k] {
			f.Faults.Detected++
		} else {
			f.Faults.Missed = append(f.Faults.Missed, e.Fault.String())
		}
		if e.CloudAway {
			f.CloudAway.Faults++
			if detected[k] {
				f.CloudAway.Detected++
			}
		}
	}
	f.DelaySeconds.P50, f.DelaySeconds.Max = standalone.Quantile(delays, 0.5), standalone.Quantile(delays, 1)
	f.ActuatorMS.P50, f.ActuatorMS.P95 = standalone.Quantile(actuator, 0.5), standalone.Quantile(actuator, 0.95)
	return f
}

// early is how long before its result on the bus came here a decision may have
// reached the register.
const early = 100 * time.Millisecond

// written finds when decision i came into the alarm register: the first write of
// its value between it and the next decision that says otherwise.
func written(writes []modbus.Write, decisions []standalone.Result, i int) (time.Duration, bool) {
	var value uint16
	if decisions[i].Label == anomaly {
		value = 1
	}
	until := time.Time{}
	if k := slices.IndexFunc(decisions[i+1:], func(d standalone.Result) bool { return d.Label != decisions[i].Label }); k >= 0 {
		until = decisions[i+1+k].At.Add(early)
	}
	for _, w := range writes {
		if w.Address != alarmRegister || w.Value != value || w.At.Before(decisions[i].At.Add(-early)) {
			continue
		}
		return w.At.Sub(decisions[i].At), until.IsZero() || w.At.Before(until)
	}
	return 0, false
}
