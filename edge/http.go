package edge

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/lib/unixsocket"
	"github.com/edgetwin/sedna/models/wire"
)

// Times and sizes of the HTTP server. An answer may have to wait for the cloud
// as long as a service's timeout allows, which is ten minutes at most.
const (
	headerTimeout  = 5 * time.Second
	readTimeout    = time.Minute
	writeTimeout   = 11 * time.Minute
	idleTimeout    = time.Minute
	maxHeaderBytes = 16 << 10
	stopTimeout    = 3 * time.Second
	readyTimeout   = 5 * time.Second
)

// door is one way to the local HTTP API.
type door struct {
	listener net.Listener
	server   *http.Server
}

// open listens on the HTTP address, which comes first, and on the socket.
func (c *controller) open() ([]door, error) {
	l, err := net.Listen("tcp", c.cfg.HTTP)
	if err != nil {
		return nil, fmt.Errorf("local HTTP: %w", err)
	}
	doors := []door{{l, c.server(c.handler(c.authorize))}}
	if c.cfg.Socket == "" {
		return doors, nil
	}
	// The file's mode is what keeps other users out.
	if l, err = unixsocket.Listen(c.cfg.Socket, 0o600); err != nil {
		_ = doors[0].listener.Close()
		return nil, fmt.Errorf("local HTTP: %w", err)
	}
	return append(doors, door{l, c.server(c.handler())}), nil
}

func (c *controller) server(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes, ErrorLog: slog.NewLogLogger(c.log.Handler(), slog.LevelDebug),
	}
}

// handler is the local HTTP API behind guards.
func (c *controller) handler(guards ...gin.HandlerFunc) http.Handler {
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	r.Use(gin.CustomRecoveryWithWriter(io.Discard, c.recovered))
	r.Use(guards...)
	r.NoRoute(func(g *gin.Context) { c.refuse(g, wire.E(wire.NotFound, "", "no route "+g.Request.URL.Path, "")) })
	r.GET("/healthz", c.getHealth)
	r.GET("/readyz", c.getReady)
	r.GET("/metrics", gin.WrapH(c.metrics.Handler()))
	r.GET("/v1/tasks", c.getTasks)
	r.GET("/v1/tasks/:namespace/:device", c.getTask)
	c.inference.Routes(r)
	return r
}

func (c *controller) recovered(g *gin.Context, cause any) {
	c.log.Error("request handler panicked", "path", g.Request.URL.Path, "panic", cause, "stack", string(debug.Stack()))
	c.refuse(g, wire.E(wire.Internal, "", "this request met a defect; see the log", ""))
}

// refuse answers with an error in the form of the route and counts it.
func (c *controller) refuse(g *gin.Context, err error) {
	e := wire.AsError(c.metrics.Reject(metrics.DoorHTTP, err))
	body := e.JSON()
	if p := g.Request.URL.Path; p == "/v2" || strings.HasPrefix(p, "/v2/") {
		body = e.OIP()
	}
	g.Abort()
	g.Data(e.Code.Status(), "application/json", body)
}

// authorize asks for the token, where there is one. Without one the server is
// on loopback, and requests that a browser was tricked into by a name that
// leads here are refused.
func (c *controller) authorize(g *gin.Context) {
	if g.Request.URL.Path == "/healthz" {
		return
	}
	if c.cfg.Token == "" {
		host := g.Request.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		if !loopback(strings.Trim(host, "[]")) {
			c.refuse(g, wire.E(wire.PermissionDenied, "", fmt.Sprintf("host %.80q is not this machine's loopback", host), "use http://127.0.0.1, or set a token"))
		}
		return
	}
	given, ok := strings.CutPrefix(g.GetHeader("Authorization"), "Bearer ")
	// Digests have one length, so that the time tells nothing of the token's.
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(string(c.cfg.Token)))
	if !ok || subtle.ConstantTimeCompare(a[:], b[:]) != 1 {
		g.Header("WWW-Authenticate", `Bearer realm="sedna"`)
		c.refuse(g, wire.E(wire.Unauthenticated, "", "missing or wrong token", "send Authorization: Bearer and the node's token"))
	}
}

// getHealth is 200 while the process can do its work at all.
func (c *controller) getHealth(g *gin.Context) {
	if err := c.store.Err(); err != nil {
		c.refuse(g, wire.E(wire.Internal, "", err.Error(), "restart; the database is moved aside and filled again from the cloud"))
		return
	}
	g.JSON(http.StatusOK, gin.H{"status": "ok"})
}

// Readiness is the answer of /readyz. Neither the cloud nor the bus is needed
// to be ready.
type Readiness struct {
	Ready      bool      `json:"ready"`
	Node       string    `json:"node"`
	Version    string    `json:"version"`
	Store      string    `json:"store"`                // ok, or what is wrong
	Aside      string    `json:"storeAside,omitempty"` // where this start has moved a damaged database
	NotServing []string  `json:"notServing"`           // tasks that ought to serve and do not yet
	Cloud      Link      `json:"cloud"`
	Bus        Link      `json:"bus"`
	Since      time.Time `json:"since"` // of this process's start
}

// Link is a connection that may be away.
type Link struct {
	Connected bool `json:"connected"`
}

func (c *controller) readiness(ctx context.Context) Readiness {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	r := Readiness{
		Node: c.cfg.Node, Version: wire.Version, Store: "ok", Aside: c.store.Aside(), NotServing: []string{},
		Cloud: Link{c.cloud.reachable.Load()}, Bus: Link{c.bus.Connected()}, Since: c.started,
	}
	waiting, err := c.tasks.NotServing(ctx)
	if err == nil {
		err = c.store.Err()
	}
	if err != nil {
		r.Store = err.Error()
	}
	r.NotServing = append(r.NotServing, waiting...)
	r.Ready = err == nil && len(waiting) == 0
	return r
}

func (c *controller) getReady(g *gin.Context) {
	r := c.readiness(g.Request.Context())
	status := http.StatusOK
	if !r.Ready {
		status = http.StatusServiceUnavailable
	}
	g.JSON(status, r)
}

func (c *controller) getTasks(g *gin.Context) {
	views, err := c.tasks.Tasks(g.Request.Context())
	if err != nil {
		c.refuse(g, err)
		return
	}
	g.JSON(http.StatusOK, gin.H{"node": c.cfg.Node, "tasks": views})
}

func (c *controller) getTask(g *gin.Context) {
	view, err := c.tasks.Task(g.Request.Context(), g.Param("namespace"), g.Param("device"))
	if err != nil {
		c.refuse(g, err)
		return
	}
	g.JSON(http.StatusOK, view)
}
