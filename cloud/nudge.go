package cloud

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/edgetwin/sedna/lib/metrics"
)

// nodePlace stands for a node's name in Nudge.URL.
const nodePlace = "{node}"

const (
	nudgeTimeout = 3 * time.Second
	nudgesAtOnce = 8
)

// nudger asks nodes that the cloud waits for to report at once, over KubeEdge's
// Router: a node that was cut off would else be heard of with its next beat.
type nudger struct {
	cfg     Nudge
	waiting func(longer time.Duration) []string
	client  *http.Client
	nudges  *prometheus.CounterVec
	log     *slog.Logger
}

func newNudger(cfg Nudge, waiting func(time.Duration) []string, reg *metrics.Registry, log *slog.Logger) (*nudger, error) {
	n := &nudger{
		cfg: cfg, waiting: waiting, log: log,
		client: &http.Client{Timeout: nudgeTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		nudges: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sedna_nudges_total", Help: "Nodes asked to report at once, by outcome."}, []string{"outcome"}),
	}
	return n, reg.Register(n.nudges)
}

// Start nudges until ctx ends.
func (n *nudger) Start(ctx context.Context) error {
	tick := time.NewTicker(n.cfg.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			n.round(ctx)
		}
	}
}

// round nudges each node that is waited for, once.
func (n *nudger) round(ctx context.Context) {
	var g errgroup.Group
	g.SetLimit(nudgesAtOnce)
	for _, node := range n.waiting(n.cfg.Every) {
		g.Go(func() error {
			err := n.nudge(ctx, node)
			outcome := "done"
			if err != nil {
				outcome = "failed"
				n.log.Debug("node not nudged", "node", node, "err", err)
			}
			n.nudges.WithLabelValues(outcome).Inc()
			return nil
		})
	}
	_ = g.Wait() // failures are counted
}

func (n *nudger) nudge(ctx context.Context, node string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.ReplaceAll(n.cfg.URL, nodePlace, url.PathEscape(node)), strings.NewReader("{}"))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	res, err := n.client.Do(r)
	if err != nil {
		return errors.Unwrap(err) // without the URL, which may hold a password
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10))
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("answered %s", res.Status)
	}
	return nil
}
