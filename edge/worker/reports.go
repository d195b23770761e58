package worker

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// Routes mounts the reference system's door for reports of workers, with the
// worker's capability in the path or as a bearer token. It needs no other guard:
// a capability is good for one life of one worker.
func (s *Supervisor) Routes(r gin.IRouter) {
	r.POST("/sedna/workers/:name/info", s.postInfo)
	r.POST("/w/:capability/sedna/workers/:name/info", s.postInfo)
}

// answer is the reference system's reply.
type answer struct {
	Status  int
	Message string
}

func (s *Supervisor) postInfo(c *gin.Context) {
	if err := s.takeReport(c.Writer, c.Request, c.Param("capability"), c.Param("name")); err != nil {
		e := wire.AsError(s.o.Metrics.Reject(metrics.DoorHTTP, err))
		c.AbortWithStatusJSON(e.Code.Status(), answer{e.Code.Status(), e.Error()})
		return
	}
	s.metrics.reports.Inc()
	c.JSON(http.StatusOK, answer{http.StatusOK, "OK"})
}

func (s *Supervisor) takeReport(w http.ResponseWriter, r *http.Request, capability, name string) error {
	if capability == "" {
		capability, _ = strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	}
	k, ok := s.holderOf(capability)
	if !ok {
		return wire.E(wire.Unauthenticated, "", "no worker that runs now has this capability", "post to the address in LC_SERVER")
	}
	if name != k.Name {
		return wire.E(wire.PermissionDenied, "name", fmt.Sprintf("this capability is not that of worker %.80q", name), "")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, task.MaxWorkerReport))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return wire.E(wire.TooLarge, "", fmt.Sprintf("body larger than %d bytes", task.MaxWorkerReport), "")
	case err != nil:
		return wire.E(wire.InvalidArgument, "", "the body ended early", "")
	}
	report, err := task.DecodeWorkerReport(body)
	if err != nil {
		return err
	}
	if report.Name != name {
		return wire.E(wire.InvalidArgument, "name", fmt.Sprintf("%.80q in the body and %.80q in the path", report.Name, name), "")
	}
	return s.o.Reports.WorkerReport(r.Context(), k, report)
}

// holderOf finds the worker whose life has a capability. Hashes are compared,
// so the time it takes tells nothing of a capability.
func (s *Supervisor) holderOf(capability string) (Key, bool) {
	if capability == "" {
		return Key{}, false
	}
	hash := capabilityHash(capability)
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, u := range s.units {
		if u.row.Capability == hash {
			return k, true
		}
	}
	return Key{}, false
}
