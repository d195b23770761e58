package main

import (
	"testing"
	"time"

	"github.com/edgetwin/sedna/examples/internal/fakes/modbus"
	"github.com/edgetwin/sedna/examples/internal/standalone"
)

func TestJudge(t *testing.T) {
	zero := time.Unix(1000, 0)
	at := func(ms int) time.Time { return zero.Add(time.Duration(ms) * time.Millisecond) }
	faults := []episode{
		{Fault: cavitation, From: at(4000), To: at(8000)},
		{Fault: bearing, From: at(12000), To: at(16000), CloudAway: true},
	}
	decisions := []standalone.Result{
		{At: at(-500), Label: "normal"},
		{At: at(1000), Label: "normal"},  // true negative; the start is no change of state
		{At: at(3000), Label: anomaly},   // false positive, change
		{At: at(3500), Label: "normal"},  // true negative, change that is missed
		{At: at(4400), Label: anomaly},   // in transition: detected after 0.4 s, change
		{At: at(6000), Label: anomaly},   // true positive
		{At: at(7000), Label: "normal"},  // false negative, change
		{At: at(8100), Label: anomaly},   // in transition, change
		{At: at(9000), Label: "normal"},  // true negative, change
		{At: at(13500), Label: "normal"}, // false negative
		{At: at(16500), Label: anomaly},  // in transition, too late to detect it, change
		{At: at(20000), Label: "normal"}, // after the end
	}
	writes := []modbus.Write{
		{At: at(-490), Address: alarmRegister, Value: 0},
		{At: at(3010), Address: alarmRegister, Value: 1},
		{At: at(3505), Address: speedRegister, Value: 0},
		{At: at(4398), Address: alarmRegister, Value: 1}, // before the result came here
		{At: at(7004), Address: alarmRegister, Value: 0},
		{At: at(8150), Address: alarmRegister, Value: 1},
		{At: at(9006), Address: alarmRegister, Value: 0},
		{At: at(16520), Address: alarmRegister, Value: 1},
		{At: at(20008), Address: alarmRegister, Value: 0},
	}
	f := judge(faults, decisions, writes, at(0), at(18000))
	if f.Decisions != 10 || f.InTransition != 3 {
		t.Errorf("%d decisions, %d in transition", f.Decisions, f.InTransition)
	}
	if s := f.Live; s.TruePositives != 1 || s.FalsePositives != 1 || s.FalseNegatives != 2 || s.TrueNegatives != 3 || s.Precision != 0.5 || s.Recall != 1.0/3 {
		t.Errorf("%+v", s)
	}
	if f.Faults.Injected != 2 || f.Faults.Detected != 1 || len(f.Faults.Missed) != 1 || f.Faults.Missed[0] != "bearing" || f.CloudAway.Faults != 1 || f.CloudAway.Detected != 0 || f.DelaySeconds.Max != 0.4 {
		t.Errorf("%+v %+v %+v", f.Faults, f.CloudAway, f.DelaySeconds)
	}
	if f.AlarmChanges != 7 || f.AlarmsMissed != 1 || f.ActuatorMS.P50 != 6 || f.ActuatorMS.P95 != 50 {
		t.Errorf("%d changes, %d missed, %+v", f.AlarmChanges, f.AlarmsMissed, f.ActuatorMS)
	}
}

// TestVerdict holds the verdict to each thing that it is to notice.
func TestVerdict(t *testing.T) {
	good := func() figures {
		var f figures
		f.Live.Precision, f.Live.Recall = 1, 1
		f.Faults.Injected, f.Faults.Detected = 2, 2
		f.CloudAway.Readings, f.CloudAway.Decisions = 10, 5
		return f
	}
	e := example{floor: 0.8}
	f := good()
	if err := e.verdict(&f, nil); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(*figures){
		"precision":   func(f *figures) { f.Live.Precision = 0.79 },
		"recall":      func(f *figures) { f.Live.Recall = 0.79 },
		"detection":   func(f *figures) { f.Faults.Detected = 1 },
		"alarm":       func(f *figures) { f.AlarmsMissed = 1 },
		"cloud away":  func(f *figures) { f.CloudAway.Decisions = 0 },
		"errors":      func(f *figures) { f.Errors = 1 },
		"left behind": func(f *figures) { f.LeftBehind = 1 },
	} {
		f := good()
		spoil(&f)
		if e.verdict(&f, nil) == nil {
			t.Errorf("%s passes", name)
		}
	}
}
