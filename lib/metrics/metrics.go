// Package metrics is one process part's Prometheus registry with the counter
// that every front door shares: sedna_rejected_total{door,code}.
package metrics

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/edgetwin/sedna/models/wire"
)

// Doors by which something can come in and be refused.
const (
	DoorManifest = "manifest" // a Kubernetes object
	DoorMQTT     = "mqtt"     // a message on the bus
	DoorHTTP     = "http"     // a request to a LocalController or the GlobalManager
	DoorTwin     = "twin"     // a task document, a report or a twin update
	DoorFile     = "file"     // a model or data file
	DoorBlob     = "blob"     // an upload or download of a blob
	DoorEnrol    = "enrol"    // a node asking for its certificate
	DoorEdgelink = "edgelink" // a frame of edgelink
)

// Registry collects the metrics of one part (GlobalManager, LocalController or
// mapper); parts that share a process have one each.
type Registry struct {
	*prometheus.Registry
	rejected *prometheus.CounterVec
}

// New makes a registry with the Go runtime's and the process's own metrics.
func New() *Registry {
	r := &Registry{
		Registry: prometheus.NewRegistry(),
		rejected: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sedna_rejected_total",
			Help: "Inputs refused, by the door they came to and the wire error code.",
		}, []string{"door", "code"}),
	}
	r.MustRegister(r.rejected, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Reject counts err as one refusal at door and returns it.
func (r *Registry) Reject(door string, err error) error {
	if err != nil && r != nil {
		r.rejected.WithLabelValues(door, string(wire.AsError(err).Code)).Inc()
	}
	return err
}

// Handler serves the registry in Prometheus' text format.
func (r *Registry) Handler() http.Handler {
	return promhttp.HandlerFor(r.Registry, promhttp.HandlerOpts{})
}
