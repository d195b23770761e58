package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// figures is what the example measured, in the form of --json.
type figures struct {
	Source           string  `json:"source"`
	Seconds          float64 `json:"seconds"`
	FramesShown      int     `json:"frames_shown"`
	FramesAnswered   int     `json:"frames_answered"`
	AnswersPerSecond float64 `json:"answers_per_second"`
	Errors           int     `json:"errors"`

	SettleMS       float64 `json:"settle_ms"`       // answers that come earlier after a change are not judged
	InTransition   int     `json:"in_transition"`   // such answers
	Judged         int     `json:"judged"`          // all others
	Accuracy       float64 `json:"accuracy"`        // share of the judged that name what is on display
	DirectAccuracy float64 `json:"direct_accuracy"` // of the same service for the same digits without display and camera

	DigitsShown int `json:"digits_shown"`
	DigitsRead  int `json:"digits_read"` // whose last answer was right

	LatencyMS struct { // from the first frame of a digit to the first right answer
		P50    float64 `json:"p50"`
		P95    float64 `json:"p95"`
		Digits int     `json:"digits"` // that had a right answer
	} `json:"latency_ms"`

	SentToCloud  float64 `json:"sent_to_cloud"` // share of the answers
	Twin         string  `json:"twin"`          // what the twin said at the end
	TwinExpected string  `json:"twin_expected"` // the last answer
	LeftBehind   int     `json:"left_behind"`

	right, fromCloud int
}

// print shows the closing table.
func (f *figures) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(t, name+"\t"+format+"\n", args...) }
	row("frames shown, answered", "%d, %d (%s)", f.FramesShown, f.FramesAnswered, f.Source)
	row("answers per second", "%.1f", f.AnswersPerSecond)
	row("accuracy", "%.1f%% of %d answers; %d within %.0f ms of a change not judged", 100*f.Accuracy, f.Judged, f.InTransition, f.SettleMS)
	row("the same digits without camera", "%.1f%%", 100*f.DirectAccuracy)
	row("digits read", "%d of %d", f.DigitsRead, f.DigitsShown)
	row("new digit to first right answer", "p50 %.0f ms, p95 %.0f ms", f.LatencyMS.P50, f.LatencyMS.P95)
	row("answered by the cloud", "%.1f%%", 100*f.SentToCloud)
	row("twin `reading` in the cloud", "%s, the last answer was %s", f.Twin, f.TwinExpected)
	row("errors, left behind", "%d, %d", f.Errors, f.LeftBehind)
	return t.Flush()
}
