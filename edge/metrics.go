package edge

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
)

var tasksDesc = prometheus.NewDesc("sedna_tasks", "Tasks of this node by phase.", []string{"phase"}, nil)

// taskCollector counts tasks when it is asked.
type taskCollector struct{ c *controller }

func (t taskCollector) Describe(ch chan<- *prometheus.Desc) { ch <- tasksDesc }

func (t taskCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	views, err := t.c.tasks.Tasks(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(tasksDesc, err)
		return
	}
	counts := map[string]float64{}
	for _, v := range views {
		counts[v.Phase]++
	}
	for phase, n := range counts {
		ch <- prometheus.MustNewConstMetric(tasksDesc, prometheus.GaugeValue, n, phase)
	}
}

// register adds the LocalController's own metrics to the registry.
func (c *controller) register() {
	truth := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	c.metrics.MustRegister(
		taskCollector{c},
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "sedna_bus_connected", Help: "1 while the MQTT broker is there."},
			func() float64 { return truth(c.bus.Connected()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "sedna_cloud_reachable", Help: "1 while the GlobalManager answers."},
			func() float64 { return truth(c.cloud.reachable.Load()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "sedna_bus_dropped_total", Help: "Messages of the bus that were lost to a full queue or too large."},
			func() float64 { return float64(c.bus.Dropped()) }),
	)
}
