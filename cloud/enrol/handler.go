package enrol

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/edgetwin/sedna/lib/identity"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// MaxBody bounds the body of a request in bytes.
const MaxBody = 64 << 10

// Times that one request may take.
const (
	bodyTime     = 30 * time.Second // for its body to come in
	registryTime = 15 * time.Second // for the Registry
)

// Registry keeps the nodes. Its errors that are *wire.Error are answered as
// they are, others as unavailable.
type Registry interface {
	// Enrolled makes pub the key of node, in place of any other, and takes
	// back a revocation: an administrator has made a token for it. It is
	// durable when it returns; calling it again with the same key changes
	// nothing.
	Enrolled(ctx context.Context, node string, pub ed25519.PublicKey) error
	// Revoked tells whether a certificate of node for pub is no longer good:
	// the node was revoked or forgotten, or has enrolled with another key.
	Revoked(ctx context.Context, node string, pub ed25519.PublicKey) (bool, error)
}

// Config of the door. All fields are required unless they say a default.
type Config struct {
	// CA signs the certificates.
	CA *identity.CA
	// Keys are the GlobalManager's signing keys, which nodes pin.
	Keys *identity.SigningKeys
	// TokenDir is where identity.CreateToken keeps the tokens.
	TokenDir string
	// Registry keeps the nodes.
	Registry Registry
	// Epoch is the cloud's current epoch. Default 0 always.
	Epoch func() int64
	// Failures is how many failed attempts one address (an IPv4 address, or an
	// IPv6 /64) may make at once; they come back at the same number a minute.
	// Default 20.
	Failures int
	// Metrics counts refusals at the door "enrol". Default none.
	Metrics *metrics.Registry
	// Log gets enrolments, renewals and refusals. Default none.
	Log *slog.Logger
	// Now is the clock of tokens and rate limits. Default time.Now.
	Now func() time.Time
}

// Handler serves the routes.
type Handler struct {
	Config
	failures *failures
}

// New checks c and fills in its defaults.
func New(c Config) (*Handler, error) {
	if c.CA == nil || c.Keys == nil || c.Registry == nil || c.TokenDir == "" {
		return nil, errors.New("enrol: CA, Keys, Registry and TokenDir are required")
	}
	if c.Epoch == nil {
		c.Epoch = func() int64 { return 0 }
	}
	if c.Failures == 0 {
		c.Failures = 20
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Handler{Config: c, failures: newFailures(c.Failures, time.Minute, c.Now)}, nil
}

// Routes adds the routes to mux.
func (h *Handler) Routes(mux *http.ServeMux) {
	mux.HandleFunc("POST "+identity.EnrolPath, h.door(h.enrol))
	mux.HandleFunc("POST "+identity.RenewPath, h.door(h.renew))
}

// door limits failures, answers with what f grants and counts what it refuses.
func (h *Handler) door(f func(*http.Request, identity.EnrolRequest) (string, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		source := sourceOf(r.RemoteAddr)
		var certificate string
		var err error
		if wait, ok := h.failures.take(source); !ok {
			w.Header().Set("Retry-After", fmt.Sprint(int(wait.Seconds())+1))
			err = wire.E(wire.ResourceExhausted, "", "too many failed attempts from your address", "try again later")
		} else {
			var req identity.EnrolRequest
			if req, err = readRequest(w, r); err == nil {
				certificate, err = f(r, req)
			}
			if err == nil || wire.AsError(err).Code.Status() >= http.StatusInternalServerError {
				h.failures.giveBack(source)
			}
		}
		if err != nil {
			h.refuse(w, r, err)
			return
		}
		g := identity.Grant{Certificate: certificate, CA: string(h.CA.CertPEM()), Epoch: h.Epoch()}
		for _, k := range h.Keys.Public() {
			g.SigningKeys = append(g.SigningKeys, k)
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		if err := json.NewEncoder(w).Encode(g); err != nil {
			h.Log.Warn("grant not delivered", "remote", r.RemoteAddr, "error", err)
		}
	}
}

// enrol redeems the token, has the node registered, and certifies its key.
// A crash or a lost answer after Redeem costs the token and nothing else: the
// node asks again with a new one, and Enrolled finds the key it knows.
func (h *Handler) enrol(r *http.Request, req identity.EnrolRequest) (string, error) {
	if !task.ValidName(req.Node) {
		return "", wire.E(wire.InvalidArgument, "node", fmt.Sprintf("expected a node name, got %.80q", req.Node), "")
	}
	pub, err := identity.ParseCSR([]byte(req.CSR), req.Node)
	if err != nil {
		return "", err
	}
	if err := identity.Redeem(h.TokenDir, req.Token, req.Node, h.Now()); err != nil {
		return "", err
	}
	certificate, err := h.CA.SignNode([]byte(req.CSR), req.Node)
	if err != nil {
		return "", err
	}
	// A client that hangs up must not stop the registration half way.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), registryTime)
	defer cancel()
	if err := h.Registry.Enrolled(ctx, req.Node, pub); err != nil {
		return "", h.registryError("register", req.Node, err, "the token is used up, make a new one")
	}
	h.Log.Info("node enrolled", "node", req.Node, "key", task.KeyID(pub), "remote", r.RemoteAddr)
	return string(certificate), nil
}

// renew certifies the key of the client's certificate again.
func (h *Handler) renew(r *http.Request, req identity.EnrolRequest) (string, error) {
	node, ok := identity.NodeFrom(r)
	held, hasKey := identity.NodeKey(r)
	if !ok || !hasKey {
		return "", wire.E(wire.Unauthenticated, "", "expected a node's client certificate", "enrol with a token")
	}
	if req.Node != "" && req.Node != node {
		return "", wire.E(wire.PermissionDenied, "node", "the certificate is another node's", "")
	}
	pub, err := identity.ParseCSR([]byte(req.CSR), node)
	if err != nil {
		return "", err
	}
	if !pub.Equal(held) {
		return "", wire.E(wire.PermissionDenied, "csr", "for another key than the certificate's", "enrol with a token to change the key")
	}
	ctx, cancel := context.WithTimeout(r.Context(), registryTime)
	defer cancel()
	revoked, err := h.Registry.Revoked(ctx, node, pub)
	if err != nil {
		return "", h.registryError("look up", node, err, "try again later")
	}
	if revoked {
		return "", wire.E(wire.Revoked, "node", "the node's certificate was withdrawn", "enrol with a new token")
	}
	certificate, err := h.CA.SignNode([]byte(req.CSR), node)
	if err != nil {
		return "", err
	}
	h.Log.Info("certificate renewed", "node", node, "remote", r.RemoteAddr)
	return string(certificate), nil
}

// registryError keeps what went wrong inside to the log.
func (h *Handler) registryError(what, node string, err error, hint string) error {
	var e *wire.Error
	if errors.As(err, &e) {
		return e
	}
	h.Log.Error("node registry failed", "operation", what, "node", node, "error", err)
	return wire.E(wire.Unavailable, "node", "cannot "+what+" the node now", hint)
}

func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, err error) {
	e := wire.AsError(err)
	_ = h.Metrics.Reject(metrics.DoorEnrol, e)
	h.Log.Warn("refused", "path", r.URL.Path, "remote", r.RemoteAddr, "error", err)
	if e.Code == wire.Internal {
		e = wire.E(wire.Internal, "", "our fault, the log says more", "")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.Code.Status())
	_, _ = w.Write(e.JSON())
}

func readRequest(w http.ResponseWriter, r *http.Request) (req identity.EnrolRequest, err error) {
	// Where the connection has no deadlines the server's own must do.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime))
	err = json.NewDecoder(http.MaxBytesReader(w, r.Body, MaxBody)).Decode(&req)
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return req, wire.E(wire.TooLarge, "", fmt.Sprintf("at most %d bytes are taken", MaxBody), "")
	case err != nil:
		return req, wire.E(wire.InvalidArgument, "", "expected a JSON object with token, node and csr: "+err.Error(), "")
	}
	return req, nil
}
