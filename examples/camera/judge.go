package main

import (
	"time"

	"github.com/edgetwin/sedna/examples/internal/standalone"
)

// judge holds answers against what was on display, by time: an answer is right
// when it names the digit that is on display as it comes. One that comes within
// settle of a change is not judged, since its frame may show the digit before;
// changes are in order of time, and the display ends at end.
func judge(changes []change, end time.Time, answers []standalone.Result, settle time.Duration) (f figures) {
	var latency []float64
	next := 0
	for k, c := range changes {
		until := end
		if k+1 < len(changes) {
			until = changes[k+1].At
		}
		seen, read := false, false
		for ; next < len(answers) && answers[next].At.Before(until); next++ {
			a := answers[next]
			if a.At.Before(c.At) {
				continue // before the first change
			}
			f.FramesAnswered++
			right := a.Label == c.Label
			if a.Source == "cloud" {
				f.fromCloud++
			}
			if right && !seen {
				seen = true
				latency = append(latency, float64(a.At.Sub(c.At).Microseconds())/1000)
			}
			read = right
			if a.At.Sub(c.At) < settle {
				f.InTransition++
				continue
			}
			f.Judged++
			if right {
				f.right++
			}
		}
		f.DigitsShown++
		if read {
			f.DigitsRead++
		}
	}
	f.Accuracy = standalone.Share(f.right, f.Judged)
	f.SentToCloud = standalone.Share(f.fromCloud, f.FramesAnswered)
	f.LatencyMS.P50, f.LatencyMS.P95 = standalone.Quantile(latency, 0.5), standalone.Quantile(latency, 0.95)
	f.LatencyMS.Digits = len(latency)
	return f
}
