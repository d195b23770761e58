package main

import (
	"testing"
	"time"

	"github.com/edgetwin/sedna/examples/internal/standalone"
)

func TestJudge(t *testing.T) {
	zero := time.Unix(1000, 0)
	at := func(ms int) time.Time { return zero.Add(time.Duration(ms) * time.Millisecond) }
	changes := []change{{At: at(0), Label: "3"}, {At: at(1000), Label: "7"}, {At: at(2000), Label: "1"}}
	answers := []standalone.Result{
		{At: at(-10), Label: "3"},                   // before the first change
		{At: at(100), Label: "8", Source: "cloud"},  // in transition
		{At: at(600), Label: "3"},                   // right, the first
		{At: at(900), Label: "3", Source: "cloud"},  // right
		{At: at(1040), Label: "3"},                  // in transition, of the digit before
		{At: at(1080), Label: "7"},                  // in transition, and the first right one
		{At: at(1500), Label: "7"},                  // just no longer in transition
		{At: at(1999), Label: "1"},                  // wrong, and the last
		{At: at(2700), Label: "2"},                  // wrong
		{At: at(3000), Label: "1", Source: "cloud"}, // after the end
	}
	f := judge(changes, at(3000), answers, 500*time.Millisecond)
	if f.FramesAnswered != 8 || f.InTransition != 3 || f.Judged != 5 || f.Accuracy != 0.6 {
		t.Errorf("answered %d, in transition %d, judged %d, accuracy %v", f.FramesAnswered, f.InTransition, f.Judged, f.Accuracy)
	}
	if f.DigitsShown != 3 || f.DigitsRead != 1 || f.SentToCloud != 0.25 {
		t.Errorf("digits %d of %d, cloud %v", f.DigitsRead, f.DigitsShown, f.SentToCloud)
	}
	if f.LatencyMS.Digits != 2 || f.LatencyMS.P50 != 80 || f.LatencyMS.P95 != 600 {
		t.Errorf("latency %+v", f.LatencyMS)
	}
}

func TestJudgeWithoutAnswers(t *testing.T) {
	f := judge([]change{{At: time.Unix(0, 0), Label: "3"}}, time.Unix(1, 0), nil, time.Second)
	if f.Judged != 0 || f.Accuracy != 0 || f.DigitsRead != 0 || f.LatencyMS.Digits != 0 {
		t.Errorf("%+v", f)
	}
	e := example{floor: 0}
	if e.verdict(&f, nil) == nil {
		t.Error("an example without answers passes")
	}
}
