package devices

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgetwin/sedna/mapper/budget"
)

// counters are the engine's metrics.
type counters struct {
	readings, refused, unpublished *prometheus.CounterVec // by protocol
	failures                       *prometheus.CounterVec // by protocol
	writes                         *prometheus.CounterVec // by protocol and result
	pushes                         *prometheus.CounterVec // by method and result
	reports, reportsDropped        prometheus.Counter
	reportsRefused                 prometheus.Counter
}

func newCounters(e *Engine) *counters {
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sedna_mapper_" + name, Help: help}, labels)
	}
	one := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "sedna_mapper_" + name, Help: help})
	}
	m := &counters{
		readings:       vec("readings_total", "Readings that passed their checks.", "protocol"),
		refused:        vec("readings_refused_total", "Readings that failed, or broke the type or range of the DeviceModel.", "protocol"),
		unpublished:    vec("readings_unpublished_total", "Readings that the bus did not take.", "protocol"),
		failures:       vec("device_failures_total", "Times that a device was lost or could not be connected.", "protocol"),
		writes:         vec("device_writes_total", "Values written to devices.", "protocol", "result"),
		pushes:         vec("pushes_total", "Readings pushed by pushMethod.", "method", "result"),
		reports:        one("device_reports_total", "Twin updates sent for sensors, actuators and cameras."),
		reportsDropped: one("device_reports_dropped_total", "Readings that a newer one replaced before the budget let them go."),
		reportsRefused: one("device_reports_refused_total", "Twin updates of sensors that edgecore refused."),
	}
	e.c.Metrics.MustRegister(m.readings, m.refused, m.unpublished, m.failures, m.writes, m.pushes, m.reports, m.reportsDropped, m.reportsRefused,
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "sedna_mapper_budget_spent_total", Help: "Updates sent to the cloud.", ConstLabels: prometheus.Labels{"for": "tasks"}},
			func() float64 { return float64(e.c.Budget.Spent(budget.Task)) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "sedna_mapper_budget_spent_total", Help: "Updates sent to the cloud.", ConstLabels: prometheus.Labels{"for": "sensors"}},
			func() float64 { return float64(e.c.Budget.Spent(budget.Sensor)) }),
		stateCollector{e})
	return m
}

// stateCollector shows each device's state, and what is wrong with it.
type stateCollector struct{ e *Engine }

var (
	stateDesc   = prometheus.NewDesc("sedna_mapper_device_state", "1 for the state that a device is in.", []string{"namespace", "device", "protocol", "state"}, nil)
	problemDesc = prometheus.NewDesc("sedna_mapper_device_problem", "1 for each device that is not as it should be, with the reason.", []string{"namespace", "device", "protocol", "problem"}, nil)
)

// Describe is part of prometheus.Collector.
func (s stateCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- stateDesc
	ch <- problemDesc
}

// Collect is part of prometheus.Collector.
func (s stateCollector) Collect(ch chan<- prometheus.Metric) {
	for _, d := range s.e.status(false) {
		ch <- prometheus.MustNewConstMetric(stateDesc, prometheus.GaugeValue, 1, d.Namespace, d.Name, d.Protocol, d.State)
		if d.Problem != "" {
			ch <- prometheus.MustNewConstMetric(problemDesc, prometheus.GaugeValue, 1, d.Namespace, d.Name, d.Protocol, clip(d.Problem, 200))
		}
	}
}
