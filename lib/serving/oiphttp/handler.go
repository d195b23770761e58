package oiphttp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/edgetwin/sedna/models/oip"
	"github.com/edgetwin/sedna/models/wire"
)

// Backend answers for models by service name. version is empty when the caller
// takes the current one; a version that is not served is a not_found. Errors
// are wire errors. All methods may be called from any goroutine.
type Backend interface {
	// Ready is nil when requests can be answered.
	Ready() error
	// Model describes a model that is ready to serve.
	Model(service, version string) (*oip.ModelMetadata, error)
	// Infer answers one request. It keeps neither req nor the answer.
	Infer(ctx context.Context, service, version string, req *oip.InferRequest) (*oip.InferResponse, error)
}

// Config says how the door behaves.
type Config struct {
	// Name and Version are what GET /v2 tells of this server.
	Name, Version string
	// Limits bound request bodies. Zero fields mean the defaults.
	Limits oip.Limits
	// Authorize, when set, is asked before a model is touched.
	Authorize func(r *http.Request, service string) error
	// Reject, when set, is told of each refusal.
	Reject func(error)
}

// Handler serves /v2 and what is below it.
type Handler struct {
	backend Backend
	cfg     Config
	server  []byte // the answer to GET /v2
}

var _ http.Handler = (*Handler)(nil)

// New makes the door to a backend.
func New(backend Backend, cfg Config) *Handler {
	cfg.Limits = cfg.Limits.WithDefaults()
	server := mustJSON(oip.ServerMetadata{Name: cfg.Name, Version: cfg.Version, Extensions: []string{}})
	return &Handler{backend: backend, cfg: cfg, server: server}
}

// ServeHTTP expects paths that start with /v2.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rest, found := strings.CutPrefix(r.URL.Path, "/v2")
	if !found {
		h.refuse(w, notFound(r.URL.Path))
		return
	}
	h.Serve(w, r, rest)
}

// Serve answers a request by the part of its path behind /v2, for routers that
// mount the door below a prefix.
func (h *Handler) Serve(w http.ResponseWriter, r *http.Request, rest string) {
	if err := h.route(w, r, rest); err != nil {
		h.refuse(w, err)
	}
}

func (h *Handler) route(w http.ResponseWriter, r *http.Request, rest string) error {
	model, isModel := strings.CutPrefix(rest, "/models/")
	if isModel {
		service, version, leaf, ok := splitModel(model)
		if !ok {
			return notFound(rest)
		}
		return h.model(w, r, service, version, leaf)
	}
	if err := allow(w, r, http.MethodGet); err != nil {
		return err
	}
	switch rest {
	case "", "/":
		write(w, http.StatusOK, h.server)
	case "/health/live":
		write(w, http.StatusOK, mustJSON(oip.Live{Live: true}))
	case "/health/ready":
		if err := h.backend.Ready(); err != nil {
			return err
		}
		write(w, http.StatusOK, mustJSON(oip.Ready{Ready: true}))
	default:
		return notFound(rest)
	}
	return nil
}

// splitModel reads {service}[/versions/{v}][/ready|/infer].
func splitModel(path string) (service, version, leaf string, ok bool) {
	service, path, _ = strings.Cut(path, "/")
	if rest, found := strings.CutPrefix(path, "versions/"); found {
		if version, path, _ = strings.Cut(rest, "/"); version == "" {
			return "", "", "", false
		}
	}
	return service, version, path, service != "" && (path == "" || path == "ready" || path == "infer")
}

func (h *Handler) model(w http.ResponseWriter, r *http.Request, service, version, leaf string) error {
	method := http.MethodGet
	if leaf == "infer" {
		method = http.MethodPost
	}
	if err := allow(w, r, method); err != nil {
		return err
	}
	if h.cfg.Authorize != nil {
		if err := h.cfg.Authorize(r, service); err != nil {
			return err
		}
	}
	if leaf == "infer" {
		return h.infer(w, r, service, version)
	}
	m, err := h.backend.Model(service, version)
	if err != nil {
		return err
	}
	if leaf == "ready" {
		write(w, http.StatusOK, mustJSON(oip.ModelReady{Name: service, Ready: true}))
	} else {
		write(w, http.StatusOK, mustJSON(m))
	}
	return nil
}

// buffers hold bodies on their way in and out. Those that grew large are left
// to the collector.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func release(b *bytes.Buffer) {
	const kept = 1 << 20
	if b.Cap() <= kept {
		b.Reset()
		buffers.Put(b)
	}
}

func (h *Handler) infer(w http.ResponseWriter, r *http.Request, service, version string) error {
	if r.Header.Get("Inference-Header-Content-Length") != "" {
		return wire.E(wire.Unimplemented, "", "binary tensors are not taken", "send the tensors as JSON")
	}
	buf := buffers.Get().(*bytes.Buffer)
	defer release(buf)
	if err := readBody(buf, r, h.cfg.Limits); err != nil {
		return err
	}
	req, err := oip.DecodeRequest(buf.Bytes(), h.cfg.Limits)
	if err != nil {
		return err
	}
	resp, err := h.backend.Infer(r.Context(), service, version, req)
	if err != nil {
		return err
	}
	buf.Reset()
	out, err := resp.AppendJSON(buf.AvailableBuffer())
	if err != nil {
		return err
	}
	write(w, http.StatusOK, out)
	return nil
}

func readBody(buf *bytes.Buffer, r *http.Request, lim oip.Limits) error {
	if r.ContentLength > lim.MaxBody {
		return oip.TooLarge(r.ContentLength, lim)
	}
	if r.ContentLength > 0 {
		buf.Grow(int(r.ContentLength) + bytes.MinRead)
	}
	n, err := buf.ReadFrom(io.LimitReader(r.Body, lim.MaxBody+1))
	var tooLarge *http.MaxBytesError
	switch {
	case n > lim.MaxBody || errors.As(err, &tooLarge):
		return oip.TooLarge(0, lim)
	case err != nil:
		return wire.E(wire.InvalidArgument, "", "the body could not be read: "+err.Error(), "")
	}
	return nil
}

func allow(w http.ResponseWriter, r *http.Request, method string) error {
	if r.Method == method || method == http.MethodGet && r.Method == http.MethodHead {
		return nil
	}
	w.Header().Set("Allow", method)
	return &notAllowed{wire.E(wire.InvalidArgument, "", fmt.Sprintf("method %.20s is not served here, expected %s", r.Method, method), "")}
}

// notAllowed is a refusal whose HTTP status is more exact than its code's.
type notAllowed struct{ cause *wire.Error }

func (e *notAllowed) Error() string { return e.cause.Error() }
func (e *notAllowed) Unwrap() error { return e.cause }

func notFound(path string) error {
	return wire.E(wire.NotFound, "", fmt.Sprintf("no route %.200q", path), "")
}

func (h *Handler) refuse(w http.ResponseWriter, err error) {
	if h.cfg.Reject != nil {
		h.cfg.Reject(err)
	}
	e := wire.AsError(err)
	status := e.Code.Status()
	if _, ok := err.(*notAllowed); ok {
		status = http.StatusMethodNotAllowed
	}
	write(w, status, e.OIP())
}

func write(w http.ResponseWriter, status int, body []byte) {
	header := w.Header()
	header["Content-Type"] = jsonType
	header["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(status)
	_, _ = w.Write(body) // the caller is gone: nobody is left to tell
}

var jsonType = []string{"application/json"}

// mustJSON marshals values made of strings, numbers and bools.
func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
