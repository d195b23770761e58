// Command sensor watches a pump: readings over Modbus and MQTT go through an
// anomaly model at the edge, and what it decides is written to the pump's
// alarm, also while the cloud is away.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/edgetwin/sedna/examples/internal/fakes/modbus"
	"github.com/edgetwin/sedna/examples/internal/standalone"
	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/models/wire"
)

var (
	//go:embed manifests/pump.yaml
	pumpManifest []byte
	//go:embed manifests/pressure.yaml
	pressureManifest []byte
	//go:embed manifests/service.yaml
	serviceManifest []byte
)

const (
	service = "pump-watch"
	// period is how long a fault and the quiet before it take at most.
	period      = 8 * time.Second
	firstWithin = 30 * time.Second
)

func main() {
	var e example
	e.Flags(flag.CommandLine, 48)
	flag.Float64Var(&e.floor, "floor", 0.8, "the least precision and recall that pass")
	flag.Parse()
	os.Exit(e.Main(e.run))
}

type example struct {
	standalone.Example
	floor float64

	mu       sync.Mutex
	readings []time.Time // when they came
}

func (e *example) run(ctx context.Context, s *standalone.Stack) (err error) {
	model, held, err := buildModel(ctx, e.Seed)
	if err != nil {
		return err
	}
	e.Say("trained on %d samples of a pump; on another pump precision %.1f%%, recall %.1f%%", trainSamples, 100*held.All.Precision, 100*held.All.Recall)
	p, err := startPlant(ctx, s.MQTT, e.Seed)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	host, port, err := net.SplitHostPort(p.registers.Addr())
	if err != nil {
		return err
	}
	pump, err := standalone.Fill(pumpManifest, "host: 192.168.1.20, port: 502", "host: "+host+", port: "+port)
	if err != nil {
		return err
	}
	manifests := [][]byte{pump, pressureManifest, serviceManifest}

	answers, err := s.Collect(ctx, service)
	if err != nil {
		return err
	}
	defer answers.Close()
	sensors, err := standalone.Listen(ctx, s.MQTT, "example-readings", []string{wire.Sensor(standalone.NodeName, "default", "+", "+")}, e.takeReading)
	if err != nil {
		return err
	}
	defer sensors.Close()
	if err := s.PushModel(ctx, "pump-anomaly", model, labels); err != nil {
		return err
	}
	for _, m := range manifests {
		if err := s.Kube.ApplyManifest(ctx, m); err != nil {
			return err
		}
	}
	if err := s.Kube.AwaitReady(ctx, service); err != nil {
		return err
	}
	if err := answers.Await(ctx, firstWithin); err != nil {
		return err
	}
	e.Say("the pump and its gauge are read, the first window is decided")

	before, err := e.desire(ctx, s, p, 1480)
	if err != nil {
		return err
	}
	from := time.Now()
	faults, away, err := e.schedule(ctx, s, p)
	if err != nil {
		return err
	}
	to := time.Now()
	after, twin, register, err := e.recover(ctx, s, p)
	if err != nil {
		return err
	}

	readings, decisions, errs := e.taken(), answers.Results(), answers.Errors()
	f := judge(faults, decisions, p.registers.Writes(), from, to)
	f.HeldOut, f.Errors = held, len(errs)
	f.Seconds = to.Sub(from).Seconds()
	during := func(from, to time.Time) func(time.Time) bool {
		return func(at time.Time) bool { return !at.Before(from) && at.Before(to) }
	}
	f.Readings = countIf(readings, during(from, to))
	f.ReadingsPerSecond, f.DecisionsPerSecond = float64(f.Readings)/f.Seconds, float64(f.Decisions)/f.Seconds
	f.CloudAway.Seconds = to.Sub(away).Seconds()
	f.CloudAway.Readings = countIf(readings, during(away, to))
	f.CloudAway.Decisions = countIf(decisions, func(d standalone.Result) bool { return during(away, to)(d.At) })
	f.DesiredMS.Before, f.DesiredMS.After = before, after
	f.Twin, f.TwinExpected = twin, register

	left, err := s.CleanUp(ctx, manifests...)
	if err != nil {
		return err
	}
	f.LeftBehind = len(left)
	e.Say("everything deleted: %d things left behind %s", len(left), strings.Join(left, ", "))
	fmt.Fprintln(e.Out)
	if err := f.print(e.Out); err != nil {
		return err
	}
	return errors.Join(e.Save(&f), e.verdict(&f, errs))
}

// schedule injects faults, and takes the cloud away at half-time for the rest.
func (e *example) schedule(ctx context.Context, s *standalone.Stack, p *plant) (faults []episode, away time.Time, err error) {
	all := time.Duration(e.Seconds * float64(time.Second))
	n := max(2, int(all/period))
	each := all / time.Duration(n)
	e.Say("%d faults in %v, each after %v of quiet", n, all, each*11/20)
	for i := range n {
		if i == n/2 {
			s.KillCloud()
			away = time.Now()
			e.Say("the cloud was killed (SIGKILL)")
		}
		if err := pause(ctx, each*11/20); err != nil {
			return nil, away, err
		}
		ep := episode{Fault: fault(1 + i%2), CloudAway: !away.IsZero()}
		ep.From = p.inject(ep.Fault)
		err := pause(ctx, each*9/20)
		ep.To = p.inject(none)
		if err != nil {
			return nil, away, err
		}
		faults = append(faults, ep)
	}
	return faults, away, pause(ctx, transition)
}

// recover brings the cloud back: a desired value reaches the pump again, and
// the twins in the cloud say what the pump's registers hold.
func (e *example) recover(ctx context.Context, s *standalone.Stack, p *plant) (desiredMS float64, twin, register string, err error) {
	if err := s.StartCloud(ctx); err != nil {
		return 0, "", "", err
	}
	e.Say("the cloud is back")
	const speed = 1520
	if desiredMS, err = e.desire(ctx, s, p, speed); err != nil {
		return 0, "", "", err
	}
	// The speed in the cloud is news: reports go up again.
	if err := s.AwaitReported(ctx, "pump-1", "speed", func(value string) bool { return value == strconv.Itoa(speed) }); err != nil {
		return 0, "", "", err
	}
	err = s.AwaitReported(ctx, "pump-1", "alarm", func(value string) bool {
		twin, register = value, strconv.Itoa(int(p.registers.Holding(alarmRegister)))
		return twin == register
	})
	e.Say("the twins in the cloud say speed %d, alarm %s", speed, twin)
	return desiredMS, twin, register, err
}

// desire patches the Device's desired speed and waits until the pump has it. It
// gives the milliseconds that took.
func (e *example) desire(ctx context.Context, s *standalone.Stack, p *plant, speed uint16) (float64, error) {
	const longest = 30 * time.Second
	began := time.Now()
	if err := s.Desire(ctx, "pump-1", "speed", strconv.Itoa(int(speed))); err != nil {
		return 0, err
	}
	w, err := p.registers.Await(ctx, longest, func(w modbus.Write) bool {
		return w.Address == speedRegister && w.Value == speed && w.At.After(began)
	})
	if err != nil {
		return 0, fmt.Errorf("the desired speed of %d did not reach the pump: %w", speed, err)
	}
	took := w.At.Sub(began)
	e.Say("the speed of %d 1/min, desired in the cloud, reached the pump in %d ms", speed, took.Milliseconds())
	return float64(took.Microseconds()) / 1000, nil
}

func (e *example) takeReading(m bus.Message) {
	if m.Retained {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.readings = append(e.readings, time.Now())
}

// taken gives when readings have come so far.
func (e *example) taken() []time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.readings)
}

// verdict fails the example when it did not show what it is to show.
func (e *example) verdict(f *figures, answerErrors []string) error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(f.Live.Precision >= e.floor && f.Live.Recall >= e.floor, "precision %.1f%%, recall %.1f%%, expected %.1f%% at least", 100*f.Live.Precision, 100*f.Live.Recall, 100*e.floor)
	check(f.Faults.Detected == f.Faults.Injected, "%d of %d faults were not detected: %s", len(f.Faults.Missed), f.Faults.Injected, strings.Join(f.Faults.Missed, ", "))
	check(f.AlarmsMissed == 0, "%d of %d changes of the alarm did not reach the pump", f.AlarmsMissed, f.AlarmChanges)
	check(f.CloudAway.Readings > 0 && f.CloudAway.Decisions > 0, "nothing went on while the cloud was away")
	check(f.Errors == 0, "%d errors: %s", f.Errors, strings.Join(answerErrors, "; "))
	check(f.LeftBehind == 0, "%d things were left behind", f.LeftBehind)
	return errors.Join(errs...)
}

func countIf[T any](values []T, ok func(T) bool) (n int) {
	for _, v := range values {
		if ok(v) {
			n++
		}
	}
	return n
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
