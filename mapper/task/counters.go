package task

import "github.com/prometheus/client_golang/prometheus"

// counters are the bridge's metrics.
type counters struct {
	published, restored prometheus.Counter
	sent, acked         prometheus.Counter
	refused             *prometheus.CounterVec
}

func newCounters(b *Bridge) counters {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "sedna_mapper_" + name, Help: help})
	}
	c := counters{
		published: counter("desired_published_total", "Retained desired messages published or cleared."),
		restored:  counter("desired_restored_total", "Retained desired messages restored after somebody else changed them."),
		sent:      counter("reports_sent_total", "Reports sent as twin updates, repetitions included."),
		acked:     counter("reports_acked_total", "Reports that the cloud has acknowledged."),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sedna_mapper_twin_refused_total",
			Help: "Twin updates that edgecore refused, by its code.",
		}, []string{"code"}),
	}
	b.c.Metrics.MustRegister(c.published, c.restored, c.sent, c.acked, c.refused,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "sedna_mapper_devices", Help: "Devices of protocol sedna."},
			func() float64 { return float64(b.Devices()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "sedna_mapper_reports_pending", Help: "Reports that the cloud has not acknowledged."},
			func() float64 { return float64(b.pendingReports()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "sedna_mapper_bus_dropped_total", Help: "Messages lost to full queues or over the size limit."},
			func() float64 { return float64(b.c.Bus.Dropped()) }))
	return c
}
