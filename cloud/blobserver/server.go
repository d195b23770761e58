package blobserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/edgetwin/sedna/lib/blob"
	"github.com/edgetwin/sedna/lib/identity"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// Store is where the blobs are. All methods are those of blob.Backend.
type Store interface {
	Size(ctx context.Context, sha string) (int64, error)
	Touch(ctx context.Context, sha string) error
	Open(ctx context.Context, sha string) (io.ReadSeekCloser, error)
	Put(ctx context.Context, sha string, r io.Reader) (blob.Info, error)
	Offset(ctx context.Context, sha string) (int64, error)
	Resume(ctx context.Context, sha string, offset, total int64, r io.Reader) (have int64, err error)
}

var _ Store = blob.Backend(nil)

// Grants say what nodes may read.
type Grants interface {
	// MayRead tells whether a task of node refers to the blob now. It is asked
	// on every request.
	MayRead(node, sha string) bool
}

// Config of the server.
type Config struct {
	// Store has the blobs. Required.
	Store Store
	// Grants say what nodes may read. Required.
	Grants Grants
	// Node gives the node that a request comes from, or refuses one that was
	// revoked. Default identity.NodeFrom, for which every certificate of our CA
	// is good.
	Node func(*http.Request) (string, error)
	// MaxBlob is the largest upload, in bytes. Default 2 GiB.
	MaxBlob int64
	// PerPeer is how many requests a node, or all administrators together, may
	// have running. Default 16.
	PerPeer int
	// Stall is how long a client may neither send nor take a byte. Default 1
	// min.
	Stall time.Duration
	// Metrics counts refusals at the door "blob". Default none.
	Metrics *metrics.Registry
	// Log gets uploads and refusals. Default none.
	Log *slog.Logger
}

// Server serves the routes.
type Server struct {
	Config

	mu      sync.Mutex
	running map[string]int // by peer
}

// New checks c and fills in its defaults.
func New(c Config) (*Server, error) {
	if c.Store == nil || c.Grants == nil {
		return nil, errors.New("blob server: Store and Grants are required")
	}
	if c.Node == nil {
		c.Node = nodeFrom
	}
	if c.MaxBlob == 0 {
		c.MaxBlob = blob.DefaultLimit
	}
	if c.PerPeer == 0 {
		c.PerPeer = 16
	}
	if c.Stall == 0 {
		c.Stall = time.Minute
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{Config: c, running: map[string]int{}}, nil
}

// Routes adds the routes to mux.
func (s *Server) Routes(mux *http.ServeMux) {
	mux.HandleFunc("GET "+blob.Path+"{sha}", s.door(s.get)) // HEAD as well
	mux.HandleFunc("PUT "+blob.Path+"{sha}", s.door(s.put))
}

// door lets in who may do what the method does, and counts what is refused.
func (s *Server) door(f func(w *patient, r *http.Request, sha string) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		sha := r.PathValue("sha")
		peer, err := s.admit(r, sha)
		if err == nil {
			defer s.leave(peer)
			err = f(&patient{w, http.NewResponseController(w), s.Stall}, r, sha)
		}
		if err != nil {
			s.refuse(w, r, err)
		}
	}
}

// admit names the peer that may do this, and counts its requests.
func (s *Server) admit(r *http.Request, sha string) (peer string, err error) {
	peer = "admin"
	var node string
	isNode := !identity.IsAdmin(r)
	if isNode {
		if node, err = s.Node(r); err != nil {
			return "", err
		}
		peer = "node " + node
	}
	if !task.ValidDigest(sha) {
		return "", wire.E(wire.InvalidArgument, "sha256", fmt.Sprintf("expected 64 lower-case hex digits, got %.80q", sha), "")
	}
	if isNode && r.Method == http.MethodPut {
		return "", wire.E(wire.PermissionDenied, "", "nodes may not upload blobs", "")
	}
	if isNode && !s.Grants.MayRead(node, sha) {
		return "", wire.E(wire.PermissionDenied, "sha256", "no task of this node refers to this blob", "")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running[peer] >= s.PerPeer {
		return "", wire.E(wire.ResourceExhausted, "", fmt.Sprintf("%d requests of yours are running", s.PerPeer), "try again when one has ended")
	}
	s.running[peer]++
	return peer, nil
}

func nodeFrom(r *http.Request) (string, error) {
	node, ok := identity.NodeFrom(r)
	if !ok {
		return "", wire.E(wire.Unauthenticated, "", "expected a client certificate", "enrol the node with a token")
	}
	return node, nil
}

func (s *Server) leave(peer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running[peer]--; s.running[peer] == 0 {
		delete(s.running, peer)
	}
}

// get serves GET and HEAD.
func (s *Server) get(w *patient, r *http.Request, sha string) error {
	f, err := s.Store.Open(r.Context(), sha)
	if wire.IsCode(err, wire.NotFound) && r.Method == http.MethodHead && identity.IsAdmin(r) {
		offset, oerr := s.Store.Offset(r.Context(), sha)
		if oerr != nil {
			return oerr
		}
		w.Header().Set(blob.OffsetHeader, strconv.FormatInt(offset, 10))
		w.WriteHeader(http.StatusNotFound) // how an upload begins, no refusal
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if ranges := r.Header.Get("Range"); ranges != "" {
		size, err := s.Store.Size(r.Context(), sha)
		if err != nil {
			return err
		}
		if !goodRange(ranges, size) {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", size))
			return badRange{wire.E(wire.InvalidArgument, "Range", fmt.Sprintf("expected one range within %d bytes, got %.80q", size, ranges), "")}
		}
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("ETag", `"`+sha+`"`)
	h.Set("Cache-Control", "private, max-age=31536000, immutable")
	http.ServeContent(w, r, "", time.Time{}, f)
	w.settle()
	return nil
}

// put stores an upload or a part of one.
func (s *Server) put(w *patient, r *http.Request, sha string) error {
	offset, total, err := s.extent(r)
	if err != nil {
		return err
	}
	// What is here already counts as stored now, so that it is not collected
	// before the one who brings it has named it.
	if err := s.Store.Touch(r.Context(), sha); err == nil {
		w.WriteHeader(http.StatusOK)
		return nil
	} else if !wire.IsCode(err, wire.NotFound) {
		return err
	}
	body := &source{r: http.MaxBytesReader(w, r.Body, s.MaxBlob), touch: w.touchRead}
	have := total
	if total < 0 {
		_, err = s.Store.Put(r.Context(), sha, body)
	} else {
		have, err = s.Store.Resume(r.Context(), sha, offset, total, body)
	}
	if err != nil {
		if wire.IsCode(err, wire.Conflict) {
			w.Header().Set(blob.OffsetHeader, strconv.FormatInt(have, 10))
		}
		return body.explain(err)
	}
	if have < total {
		w.Header().Set(blob.OffsetHeader, strconv.FormatInt(have, 10))
		w.WriteHeader(http.StatusAccepted)
		return nil
	}
	s.Log.Info("blob stored", "sha256", sha, "remote", r.RemoteAddr)
	w.WriteHeader(http.StatusCreated)
	return nil
}

// extent says where the body lies in the blob; total is -1 when the client
// does not tell.
func (s *Server) extent(r *http.Request) (offset, total int64, err error) {
	total = r.ContentLength
	if header := r.Header.Get("Content-Range"); header != "" {
		first, last, whole, ok := parseContentRange(header)
		if !ok || r.ContentLength != last-first+1 {
			return 0, 0, wire.E(wire.InvalidArgument, "Content-Range", fmt.Sprintf("expected bytes FIRST-LAST/TOTAL and a Content-Length to match, got %.80q", header), "")
		}
		offset, total = first, whole
	}
	if total > s.MaxBlob {
		return 0, 0, wire.E(wire.TooLarge, "", fmt.Sprintf("blob of %d bytes, at most %d are taken", total, s.MaxBlob), "")
	}
	return offset, total, nil
}

// badRange is refused with 416 in place of its code's status.
type badRange struct{ refusal *wire.Error }

func (e badRange) Error() string { return e.refusal.Error() }
func (e badRange) Unwrap() error { return e.refusal }

func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	e := wire.AsError(err)
	_ = s.Metrics.Reject(metrics.DoorBlob, e)
	s.Log.Warn("refused", "method", r.Method, "path", r.URL.Path, "remote", r.RemoteAddr, "error", err)
	if e.Code == wire.Internal {
		e = wire.E(wire.Internal, "", "our fault, the log says more", "")
	}
	status := e.Code.Status()
	if _, ok := errors.AsType[badRange](err); ok {
		status = http.StatusRequestedRangeNotSatisfiable
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(e.JSON())
}
