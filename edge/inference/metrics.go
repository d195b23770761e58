package inference

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgetwin/sedna/edge/inference/upstream"
	"github.com/edgetwin/sedna/lib/metrics"
)

// stats counts what one service did since it was first activated.
type stats struct {
	edge, cloud   atomic.Int64 // requests answered, by source
	errors        atomic.Int64 // requests refused or failed
	samples, hard atomic.Int64

	readings, refused, skipped, answers, dropped atomic.Int64 // of the inputs, see InputsStatus
	replaced                                     atomic.Int64 // images without an id that a newer one replaced
	writes                                       atomic.Int64 // of the result property

	mu       sync.Mutex
	fallback map[string]int64 // by reason
}

func (s *stats) count(o *outcome) {
	if o.cloud > 0 {
		s.cloud.Add(1)
	} else {
		s.edge.Add(1)
	}
	s.samples.Add(int64(o.samples))
	s.hard.Add(int64(len(o.hard)))
}

func (s *stats) fell(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fallback == nil {
		s.fallback = map[string]int64{}
	}
	s.fallback[reason]++
}

func (s *stats) fallbacks() map[string]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.fallback)
}

// hardShare is the share of samples that were hard, 0 before the first.
func (s *stats) hardShare() float64 {
	n := s.samples.Load()
	if n == 0 {
		return 0
	}
	return float64(s.hard.Load()) / float64(n)
}

// observed is the Manager as Prometheus sees it: histograms that requests
// write, and counters that are read from the services when asked for.
type observed struct {
	m       *Manager
	seconds *prometheus.HistogramVec

	requests, errors, samples, hard, share, fallback, bytes, circuit, memory *prometheus.Desc
	readings, refused, dropped, replaced, writes                             *prometheus.Desc
}

var _ prometheus.Collector = (*observed)(nil)

func newObserved(m *Manager) *observed {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, append([]string{"service"}, labels...), nil)
	}
	return &observed{
		m: m,
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "sedna_inference_seconds",
			Help:    "Time that requests took, by stage: compute is the edge model with its queue, cloud a call that was answered, total all.",
			Buckets: prometheus.ExponentialBuckets(10e-6, 2.5, 16), // 10 us to 9 s
		}, []string{"service", "stage"}),
		requests: desc("sedna_inference_requests_total", "Requests answered, by who answered.", "source"),
		errors:   desc("sedna_inference_errors_total", "Requests that got an error."),
		samples:  desc("sedna_inference_samples_total", "Samples in the requests answered."),
		hard:     desc("sedna_hard_examples_total", "Samples that the rule found hard."),
		share:    desc("sedna_hard_example_ratio", "Share of samples that the rule found hard."),
		fallback: desc("sedna_cloud_fallback_total", "Requests for the cloud that it did not answer, by reason.", "reason"),
		bytes:    desc("sedna_cloud_bytes_total", "Bytes of bodies sent to and received from the cloud.", "direction"),
		circuit:  desc("sedna_cloud_circuit", "1 for the state that the circuit to the cloud is in.", "state"),
		memory:   desc("sedna_model_memory_bytes", "Estimate of what the edge model holds in memory."),
		readings: desc("sedna_input_readings_total", "Readings taken for the inputs."),
		refused:  desc("sedna_input_refused_total", "Messages for the inputs that held no reading that fits."),
		dropped:  desc("sedna_input_dropped_total", "Windows of the inputs that a newer one overtook before they were inferred."),
		replaced: desc("sedna_images_replaced_total", "Images on the bus without an id that a newer one replaced."),
		writes:   desc("sedna_result_writes_total", "Answers written into the result property."),
	}
}

func (o *observed) register(r *metrics.Registry) error {
	if err := r.Register(o.seconds); err != nil {
		return err
	}
	return r.Register(o)
}

func (o *observed) forget(service string) {
	o.seconds.DeletePartialMatch(prometheus.Labels{"service": service})
}

// Describe sends the descriptions of what Collect sends.
func (o *observed) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{o.requests, o.errors, o.samples, o.hard, o.share, o.fallback, o.bytes, o.circuit, o.memory,
		o.readings, o.refused, o.dropped, o.replaced, o.writes} {
		ch <- d
	}
}

// Collect sends the counters of all services.
func (o *observed) Collect(ch chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	for _, e := range o.m.entries() {
		l := e.slot.Acquire()
		if l == nil {
			continue
		}
		st := &e.stats
		counter(o.requests, st.edge.Load(), e.name, SourceEdge)
		counter(o.requests, st.cloud.Load(), e.name, SourceCloud)
		counter(o.errors, st.errors.Load(), e.name)
		counter(o.samples, st.samples.Load(), e.name)
		counter(o.hard, st.hard.Load(), e.name)
		counter(o.replaced, st.replaced.Load(), e.name)
		if l.Value.feed != nil {
			counter(o.readings, st.readings.Load(), e.name)
			counter(o.refused, st.refused.Load(), e.name)
			counter(o.dropped, st.dropped.Load(), e.name)
		}
		if l.Value.writer != nil {
			counter(o.writes, st.writes.Load(), e.name)
		}
		ch <- prometheus.MustNewConstMetric(o.share, prometheus.GaugeValue, st.hardShare(), e.name)
		ch <- prometheus.MustNewConstMetric(o.memory, prometheus.GaugeValue, float64(l.Value.model.MemoryBytes()), e.name)
		for reason, n := range st.fallbacks() {
			counter(o.fallback, n, e.name, reason)
		}
		if up := l.Value.cloud; up != nil {
			status := up.Status()
			counter(o.bytes, status.BytesSent, e.name, "sent")
			counter(o.bytes, status.BytesReceived, e.name, "received")
			for _, state := range []upstream.State{upstream.Closed, upstream.Open, upstream.HalfOpen} {
				v := 0.0
				if state == status.Circuit {
					v = 1
				}
				ch <- prometheus.MustNewConstMetric(o.circuit, prometheus.GaugeValue, v, e.name, string(state))
			}
		}
		l.Release()
	}
}
