package edgelink

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"

	"github.com/edgetwin/sedna/models/wire"
)

// writeTimeout bounds one frame on its way to the cloud.
const writeTimeout = 10 * time.Second

// keepLinked dials, and dials again with back-off, until ctx ends.
func (e *Edge) keepLinked(ctx context.Context) {
	wait, failures := e.c.Limits.MinBackoff, 0
	for {
		if !e.gate.await(ctx) {
			return
		}
		since := time.Now()
		err := e.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if e.connected.Swap(false) {
			e.c.Log.Warn("link to the cloud lost", "cloud", e.c.Cloud, "err", err)
			failures = 0
			if time.Since(since) > e.c.Limits.MaxBackoff {
				wait = e.c.Limits.MinBackoff
			}
		} else if failures++; failures == 1 {
			e.c.Log.Warn("cloud not reached, trying on", "cloud", e.c.Cloud, "err", err)
		}
		if e.gate.leave() {
			wait = e.c.Limits.MinBackoff
			continue // it was cut, not lost
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait + time.Duration(rand.Int64N(int64(wait)/5+1))):
		}
		wait = min(2*wait, e.c.Limits.MaxBackoff)
	}
}

// session is one life of the link.
func (e *Edge) session(ctx context.Context) error {
	ctx, end := e.gate.enter(ctx)
	defer end()
	dialCtx, cancelDial := context.WithTimeout(ctx, e.c.Limits.ConnectWithin)
	defer cancelDial()
	url := strings.TrimSuffix(e.c.Cloud, "/") + wire.EdgelinkPath
	conn, _, err := websocket.Dial(dialCtx, url, &websocket.DialOptions{HTTPClient: e.client, CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return err
	}
	defer conn.CloseNow()
	conn.SetReadLimit(wire.MaxFrame)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	pinged := make(chan struct{})
	go func() {
		defer close(pinged)
		cancel(e.ping(ctx, conn))
	}()
	defer func() { cancel(nil); <-pinged }()
	e.uplink.attach(func(ctx context.Context, b []byte) error {
		ctx, cancel := context.WithTimeout(ctx, writeTimeout)
		defer cancel()
		return conn.Write(ctx, websocket.MessageText, b)
	})
	defer e.uplink.attach(nil)
	e.lose.beginSync()
	e.connected.Store(true)
	e.c.Log.Info("linked to the cloud", "cloud", e.c.Cloud)
	err = e.read(ctx, conn)
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	_ = conn.Close(websocket.StatusNormalClosure, "")
	return err
}

// read takes frames until the link breaks or one cannot be stored.
func (e *Edge) read(ctx context.Context, conn *websocket.Conn) error {
	for {
		typ, b, err := conn.Read(ctx)
		if err != nil {
			return err
		}
		if typ != websocket.MessageText {
			return e.rejectFrame(wire.E(wire.InvalidArgument, "", "a frame is a text message", ""))
		}
		if err := e.take(b); err != nil {
			return err
		}
	}
}

// ping keeps the link alive and finds out when it is not; it returns why.
func (e *Edge) ping(ctx context.Context, conn *websocket.Conn) error {
	tick := time.NewTicker(e.c.Limits.Ping)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		pingCtx, cancel := context.WithTimeout(ctx, e.c.Limits.Ping)
		err := conn.Ping(pingCtx)
		cancel()
		if err != nil {
			return fmt.Errorf("cloud does not answer: %w", err)
		}
	}
}

// newHTTPClient gives a client for WebSockets, which need HTTP/1.1.
func newHTTPClient(c *Config) *http.Client {
	conf := c.TLS.Clone()
	conf.NextProtos = []string{"http/1.1"}
	return &http.Client{Transport: &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		TLSClientConfig:     conf,
		TLSHandshakeTimeout: c.Limits.ConnectWithin,
	}}
}
