package tasks_test

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/edgetwin/sedna/edge/tasks"
)

// BenchmarkAccept measures from the publication of a desired message to the
// event that says that its document is on disk: broker, client, signature,
// checks and a synchronous SQLite transaction. In "idle" the node is done with
// one document before the next comes; in "busy" it fetches, tests and loads
// models for 50 services meanwhile.
func BenchmarkAccept(b *testing.B) {
	for name, idle := range map[string]bool{"idle": true, "busy": false} {
		b.Run(name, func(b *testing.B) { benchmarkAccept(b, idle) })
	}
}

func benchmarkAccept(b *testing.B, idle bool) {
	c := newCloud(b)
	e := c.edge(b, b.TempDir(), edgeOptions{})
	m := c.model("v1", "good 1")
	took := make([]time.Duration, 0, b.N)
	b.ResetTimer()
	for i := range b.N {
		name := "svc" + strconv.Itoa(i%50)
		payload := c.message(c.doc(name, "u-"+name, int64(i/50+1), m), "0:0")
		began := time.Now()
		c.send(name, payload)
		e.reason(string(tasks.Accepted))
		took = append(took, time.Since(began))
		if idle {
			b.StopTimer()
			e.reason(string(tasks.Served))
			b.StartTimer()
		}
	}
	b.StopTimer()
	slices.Sort(took)
	at := func(q float64) float64 {
		return float64(took[int(q*float64(len(took)-1))].Microseconds()) / 1000
	}
	b.ReportMetric(at(0.50), "p50-ms")
	b.ReportMetric(at(0.99), "p99-ms")
}
