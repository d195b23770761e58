package inference

import (
	"context"
	"errors"
	"fmt"
	"image"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/edgetwin/sedna/edge/inference/upstream"
	"github.com/edgetwin/sedna/models/oip"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// Routes mounts /v2 and below, POST /v1/services/{service}/image and GET
// /v1/models. Time limits on reading and writing are the server's.
func (m *Manager) Routes(r gin.IRouter) {
	v2 := func(c *gin.Context) { m.oip.Serve(c.Writer, c.Request, c.Param("path")) }
	r.Any("/v2", v2)
	r.Any("/v2/*path", v2)
	r.POST("/v1/services/:service/image", m.postImage)
	r.GET("/v1/models", m.getModels)
}

// ImageAnswer is the answer to an image.
type ImageAnswer struct {
	ID          string       `json:"id"`
	Source      string       `json:"source"` // edge or cloud
	HardExample bool         `json:"hardExample"`
	Fallback    string       `json:"fallback,omitempty"` // why the cloud did not answer, where it was to
	Model       string       `json:"model"`              // name:version of the model that answered
	Predictions []Prediction `json:"predictions"`        // the most confident first
}

// Prediction is one class of an image.
type Prediction struct {
	Label      string  `json:"label"`
	Confidence float64 `json:"confidence"`
}

// postImage answers one image; ?id= gives it an id. With ?device=, which is
// namespace/name of the camera that it comes from, the answer also goes onto
// the bus and into the service's result property.
func (m *Manager) postImage(c *gin.Context) {
	answer, err := m.answerImage(c.Request, c.Param("service"), c.Query("id"), c.Query("device"))
	if err != nil {
		m.fail(c, err)
		return
	}
	c.JSON(http.StatusOK, answer)
}

func (m *Manager) answerImage(r *http.Request, service, id, device string) (*ImageAnswer, error) {
	if id == "" {
		id = uuid.Must(uuid.NewV7()).String()
	} else if !oip.ValidID(id) {
		return nil, oip.BadID(id)
	}
	if ns, name, _ := strings.Cut(device, "/"); device != "" && (!task.ValidName(ns) || !task.ValidName(name)) {
		return nil, wire.E(wire.InvalidArgument, "device", fmt.Sprintf("is %.80q, expected namespace/name", device), "")
	}
	e, l, err := m.lease(service)
	if err != nil {
		return nil, err
	}
	defer l.Release()
	s := l.Value
	o, err := m.inferImage(r.Context(), e, s, id, func() (image.Image, error) { return m.readImage(r) })
	if err != nil {
		return nil, err
	}
	if device != "" {
		m.announce(s, o, device)
	}
	answer := &ImageAnswer{ID: id, Source: o.source(), HardExample: len(o.hard) > 0, Fallback: o.fallback, Predictions: []Prediction{}}
	answer.Model = s.spec.Model.Name + ":" + o.resp.ModelVersion
	if o.cloud > 0 {
		answer.Model = s.spec.Cloud.Model + ":" + o.resp.ModelVersion
	}
	list, err := s.predictions(o.resp)
	switch {
	case err == nil:
		answer.Predictions = list
	case device == "" || !wire.IsCode(err, wire.FailedPrecondition):
		return nil, err // what a camera sends is of use on the bus without classes, too
	}
	return answer, nil
}

// announce publishes the answer to a camera's image, while the bus is served.
func (m *Manager) announce(s *service, o *outcome, device string) {
	if g := m.link.Load(); g != nil {
		o.resp.Parameters[ParamDevice] = device
		g.outbox.offer(g.unasked(s, o))
	}
}

// inferImage answers one image, which open decodes when its turn has come.
func (m *Manager) inferImage(ctx context.Context, e *entry, s *service, id string, open func() (image.Image, error)) (*outcome, error) {
	if s.image.err != nil {
		return nil, s.image.err
	}
	input, err := m.imageInput(ctx, &s.image, open)
	if err != nil {
		return nil, err
	}
	return s.infer(ctx, &e.stats, &oip.InferRequest{ID: id, Inputs: []oip.Tensor{input}})
}

// imageInput makes the model's input of an image.
func (m *Manager) imageInput(ctx context.Context, plan *imagePlan, open func() (image.Image, error)) (oip.Tensor, error) {
	if err := m.images.Enter(ctx); err != nil {
		return oip.Tensor{}, err
	}
	defer m.images.Leave()
	img, err := open()
	if err != nil {
		return oip.Tensor{}, err
	}
	return plan.tensor(img), nil
}

// readImage reads and decodes a bounded body.
func (m *Manager) readImage(r *http.Request) (image.Image, error) {
	lim := oip.Limits{MaxBody: m.cfg.Limits.ImageBytes}
	contentType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		contentType = ""
	}
	if r.ContentLength > lim.MaxBody {
		return nil, oip.TooLarge(r.ContentLength, lim)
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, lim.MaxBody+1))
	var tooLarge *http.MaxBytesError
	switch {
	case int64(len(body)) > lim.MaxBody || errors.As(err, &tooLarge):
		return nil, oip.TooLarge(0, lim)
	case err != nil:
		return nil, wire.E(wire.InvalidArgument, "", "the body could not be read: "+err.Error(), "")
	}
	return decodeImage(contentType, body, m.cfg.Limits.ImagePixels)
}

// predictions lists the classes of an answer for one sample.
func (s *service) predictions(r *oip.InferResponse) ([]Prediction, error) {
	scores, ok := s.model.Scores(r, 1)
	if !ok || s.model.Label(0) == "" {
		return nil, wire.E(wire.FailedPrecondition, "model.postprocess", "the model's outputs are no classes", "ask for the tensors at /v2/models/"+s.name+"/infer")
	}
	row := scores.Row(0)
	list := make([]Prediction, len(row))
	for i, v := range row {
		if v-v != 0 {
			return nil, wire.E(wire.BadModel, "", "the model gave a confidence that is not a finite number", "")
		}
		list[i] = Prediction{Label: s.model.Label(i), Confidence: float64(v)}
	}
	slices.SortStableFunc(list, func(a, b Prediction) int {
		switch {
		case a.Confidence > b.Confidence:
			return -1
		case a.Confidence < b.Confidence:
			return 1
		}
		return 0
	})
	return list, nil
}

// ModelStatus is one service in GET /v1/models.
type ModelStatus struct {
	Service     string            `json:"service"`
	Model       string            `json:"model"`
	Version     string            `json:"version"`
	SHA256      string            `json:"sha256,omitempty"`
	Metadata    oip.ModelMetadata `json:"metadata"`
	Labels      []string          `json:"labels,omitempty"`
	MemoryBytes int64             `json:"memoryBytes"`
	HardExample string            `json:"hardExampleMining"`
	Requests    RequestCounts     `json:"requests"`
	HardShare   float64           `json:"hardShare"` // of the samples
	Fallbacks   map[string]int64  `json:"fallbacks,omitempty"`
	Cloud       *upstream.Status  `json:"cloud,omitempty"`
	Inputs      *InputsStatus     `json:"inputs,omitempty"`
	Result      *ResultStatus     `json:"resultProperty,omitempty"`
}

// RequestCounts counts requests since the service was first activated.
type RequestCounts struct {
	Edge   int64 `json:"edge"`
	Cloud  int64 `json:"cloud"`
	Errors int64 `json:"errors"`
}

// Models tells the state of all services, by name.
func (m *Manager) Models() []ModelStatus {
	list := []ModelStatus{}
	for _, e := range m.entries() {
		l := e.slot.Acquire()
		if l == nil {
			continue
		}
		s, st := l.Value, &e.stats
		status := ModelStatus{
			Service: e.name, Model: s.spec.Model.Name, Version: s.spec.Model.Version, SHA256: s.spec.Model.SHA256,
			Metadata: *s.model.Metadata(), Labels: s.spec.Model.Labels, MemoryBytes: s.model.MemoryBytes(), HardExample: s.spec.HardExample.Name,
			Requests:  RequestCounts{Edge: st.edge.Load(), Cloud: st.cloud.Load(), Errors: st.errors.Load()},
			HardShare: st.hardShare(), Fallbacks: st.fallbacks(),
		}
		if s.cloud != nil {
			cloud := s.cloud.Status()
			status.Cloud = &cloud
		}
		if s.feed != nil {
			status.Inputs = s.feed.status()
		}
		if s.writer != nil {
			status.Result = s.writer.status()
		}
		l.Release()
		list = append(list, status)
	}
	return list
}

func (m *Manager) getModels(c *gin.Context) {
	c.JSON(http.StatusOK, map[string]any{"models": m.Models()})
}

// fail answers in the general error form.
func (m *Manager) fail(c *gin.Context, err error) {
	m.rejectHTTP(err)
	e := wire.AsError(err)
	c.Data(e.Code.Status(), "application/json", e.JSON())
}
