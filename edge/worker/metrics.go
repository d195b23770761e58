package worker

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgetwin/sedna/lib/metrics"
)

// workerMetrics counts what the supervisor does.
type workerMetrics struct {
	starts     prometheus.Counter
	adopted    prometheus.Counter
	ends       *prometheus.CounterVec // by reason
	reports    prometheus.Counter
	relayed    prometheus.Counter // bytes
	refused    prometheus.Counter // relayed connections
	connection prometheus.Gauge
}

var workersDesc = prometheus.NewDesc("sedna_workers", "Worker processes of this node by phase.", []string{"phase"}, nil)

// phases are counted when somebody asks.
type phases struct{ s *Supervisor }

func (p phases) Describe(ch chan<- *prometheus.Desc) { ch <- workersDesc }

func (p phases) Collect(ch chan<- prometheus.Metric) {
	counts := map[string]float64{}
	p.s.mu.Lock()
	for _, u := range p.s.units {
		counts[u.row.Phase]++
	}
	p.s.mu.Unlock()
	for phase, n := range counts {
		ch <- prometheus.MustNewConstMetric(workersDesc, prometheus.GaugeValue, n, phase)
	}
}

func newWorkerMetrics(s *Supervisor, r *metrics.Registry) *workerMetrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &workerMetrics{
		starts:  counter("sedna_worker_starts_total", "Starts of worker processes."),
		adopted: counter("sedna_worker_adoptions_total", "Worker processes found running at a start of this process."),
		ends: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sedna_worker_ends_total", Help: "Ends of worker processes, by reason.",
		}, []string{"reason"}),
		reports:    counter("sedna_worker_reports_total", "Reports taken from worker processes."),
		relayed:    counter("sedna_worker_relay_bytes_total", "Bytes relayed for worker processes, both ways."),
		refused:    counter("sedna_worker_relay_refused_total", "Connections to relays that were over the limit or led nowhere."),
		connection: prometheus.NewGauge(prometheus.GaugeOpts{Name: "sedna_worker_relay_connections", Help: "Connections that are being relayed."}),
	}
	if r != nil {
		r.MustRegister(phases{s}, m.starts, m.adopted, m.ends, m.reports, m.relayed, m.refused, m.connection)
	}
	return m
}
