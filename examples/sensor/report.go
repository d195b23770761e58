package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// figures is what the example measured, in the form of --json.
type figures struct {
	Seconds           float64    `json:"seconds"`
	HeldOut           evaluation `json:"held_out"` // of the model, before it was pushed
	Readings          int        `json:"readings"`
	ReadingsPerSecond float64    `json:"readings_per_second"`

	Decisions          int     `json:"decisions"`
	DecisionsPerSecond float64 `json:"decisions_per_second"`
	InTransition       int     `json:"in_transition"` // decisions that were not judged
	Live               score   `json:"live"`          // all others
	Errors             int     `json:"errors"`

	Faults struct {
		Injected int      `json:"injected"`
		Detected int      `json:"detected"`
		Missed   []string `json:"missed,omitempty"` // what they were
	} `json:"faults"`
	DelaySeconds struct { // from the start of a fault to the first decision that says so
		P50 float64 `json:"p50"`
		Max float64 `json:"max"`
	} `json:"delay_seconds"`

	AlarmChanges int      `json:"alarm_changes"` // decisions that differ from the one before
	AlarmsMissed int      `json:"alarms_missed"` // of these, not seen in the alarm register
	ActuatorMS   struct { // from the result on the bus to the alarm register
		P50 float64 `json:"p50"`
		P95 float64 `json:"p95"`
	} `json:"actuator_ms"`

	CloudAway struct {
		Seconds   float64 `json:"seconds"`
		Readings  int     `json:"readings"`
		Decisions int     `json:"decisions"`
		Faults    int     `json:"faults"`
		Detected  int     `json:"detected"`
	} `json:"cloud_away"`
	DesiredMS struct { // from the patch of the Device to the pump's register
		Before float64 `json:"before"` // the cloud was away
		After  float64 `json:"after"`
	} `json:"desired_ms"`
	Twin         string `json:"twin"`          // the alarm in the cloud at the end
	TwinExpected string `json:"twin_expected"` // the pump's register then
	LeftBehind   int    `json:"left_behind"`
}

// print shows the closing table.
func (f *figures) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(t, name+"\t"+format+"\n", args...) }
	pr := func(s score) string {
		return fmt.Sprintf("precision %.1f%%, recall %.1f%%", 100*s.Precision, 100*s.Recall)
	}
	row("model, held-out windows", "%s (in one state: %s)", pr(f.HeldOut.All), pr(f.HeldOut.Settled))
	row("live decisions", "%s of %d; %d in transition not judged", pr(f.Live), f.Decisions-f.InTransition, f.InTransition)
	row("readings, decisions per second", "%.1f, %.1f", f.ReadingsPerSecond, f.DecisionsPerSecond)
	row("faults detected", "%d of %d, after %.1f s (p50), %.1f s at most", f.Faults.Detected, f.Faults.Injected, f.DelaySeconds.P50, f.DelaySeconds.Max)
	row("decision to alarm register", "p50 %.1f ms, p95 %.1f ms, %d of %d missed", f.ActuatorMS.P50, f.ActuatorMS.P95, f.AlarmsMissed, f.AlarmChanges)
	row("cloud killed for", "%.1f s: %d readings, %d decisions, %d of %d faults detected", f.CloudAway.Seconds, f.CloudAway.Readings, f.CloudAway.Decisions, f.CloudAway.Detected, f.CloudAway.Faults)
	row("speed desired to register", "%.0f ms; after the cloud was back %.0f ms", f.DesiredMS.Before, f.DesiredMS.After)
	row("twin `alarm` in the cloud", "%s, the register holds %s", f.Twin, f.TwinExpected)
	row("errors, left behind", "%d, %d", f.Errors, f.LeftBehind)
	return t.Flush()
}
