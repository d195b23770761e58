package inference

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgetwin/sedna/edge/inference/upstream"
	"github.com/edgetwin/sedna/lib/algorithms/hardexample"
	"github.com/edgetwin/sedna/lib/serving"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// Rules that this package treats apart from others.
const (
	ruleCloudOnly = "CloudOnly" // the edge model only runs when the cloud fails
	ruleEdgeOnly  = "EdgeOnly"
	ruleRandom    = "Random" // takes a seed
)

// service is one spec, loaded. It does not change.
type service struct {
	name      string
	spec      ServiceSpec
	model     *serving.Model
	miner     hardexample.Miner
	cloud     *upstream.Upstream // nil: the edge always answers
	cloudOnly bool
	strict    bool // no answer from the cloud is an error
	image     imagePlan
	feed      *feed   // nil: no inputs
	writer    *writer // nil: no result property

	compute, asked, total prometheus.Observer // seconds
}

// load makes a service; cloud side, feed and writer of old are taken over where
// they are the same, so that circuit and windows are not forgotten.
func (m *Manager) load(ctx context.Context, e *entry, spec ServiceSpec, old *service) (*service, error) {
	s := &service{
		name: e.name, spec: spec,
		cloudOnly: spec.HardExample.Name == ruleCloudOnly,
		strict:    spec.OnCloudError == task.AnswerAnError,
		compute:   m.observed.seconds.WithLabelValues(e.name, "compute"),
		asked:     m.observed.seconds.WithLabelValues(e.name, "cloud"),
		total:     m.observed.seconds.WithLabelValues(e.name, "total"),
	}
	var err error
	if s.miner, err = m.miner(spec.HardExample); err != nil {
		return nil, err
	}
	lim := m.cfg.Limits
	s.model, err = serving.Load(ctx, e.name, spec.Model, spec.ModelPath, serving.Options{
		Open: m.cfg.Open, Engine: lim.Engine, MaxConcurrent: lim.MaxConcurrent, MaxQueue: lim.MaxQueue,
	})
	if err != nil {
		return nil, err
	}
	if err := m.equip(e, s, old); err != nil {
		_ = s.model.Close()
		return nil, err
	}
	return s, nil
}

// equip gives a service with a model what feeds it and what takes its answers.
func (m *Manager) equip(e *entry, s, old *service) (err error) {
	s.image = planImage(s.spec.Model.Preprocess, s.model.Inputs())
	if s.feed, err = m.feedOf(e, &s.spec, s.model.Inputs(), old); err != nil {
		return err
	}
	if s.writer, err = m.writerOf(s, &e.stats, old); err != nil {
		return err
	}
	if old != nil && reflect.DeepEqual(old.spec.Cloud, s.spec.Cloud) {
		s.cloud = old.cloud
		return nil
	}
	s.cloud, err = m.upstream(e.name, s.spec.Cloud)
	return err
}

func (m *Manager) miner(a task.Algorithm) (hardexample.Miner, error) {
	params := a.Map()
	if a.Name == "" {
		a.Name = ruleEdgeOnly
	}
	if _, given := params["seed"]; a.Name == ruleRandom && !given && m.cfg.Seed != 0 {
		params["seed"] = strconv.FormatUint(m.cfg.Seed, 10)
	}
	miner, err := hardexample.New(a.Name, params)
	switch {
	case errors.Is(err, hardexample.ErrUnknownRule):
		return nil, wire.E(wire.InvalidArgument, "hardExampleMining.name", err.Error(), "")
	case err != nil:
		return nil, wire.E(wire.InvalidArgument, "hardExampleMining.parameters", err.Error(), "")
	}
	return miner, nil
}

// upstream makes the cloud side; a URL that is a path is on the GlobalManager.
func (m *Manager) upstream(service string, side *task.CloudSide) (*upstream.Upstream, error) {
	if side == nil {
		return nil, nil
	}
	target, client := side.URL, m.cfg.Client
	if strings.HasPrefix(target, "/") {
		target, client = strings.TrimSuffix(m.cfg.CloudURL, "/")+target, m.cfg.CloudClient
		if m.cfg.CloudURL == "" || client == nil {
			return nil, wire.E(wire.FailedPrecondition, "cloud.url", fmt.Sprintf("%q is a path on the GlobalManager, and this node has none", side.URL), "join the node, or give a whole URL")
		}
	}
	return upstream.New(upstream.Config{
		URL: target, Model: side.Model, Client: noRedirects(client), Timeout: side.Timeout(), MaxConcurrent: side.MaxConcurrent,
		Limits: m.cfg.Limits.Request, Log: m.cfg.Log.With("service", service),
	})
}

// noRedirects keeps requests on the server that the manifest names.
func noRedirects(c *http.Client) *http.Client {
	kept := *c
	kept.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &kept
}

func (s *service) checkVersion(version string) error {
	if version == "" || version == s.spec.Model.Version {
		return nil
	}
	return wire.E(wire.NotFound, "", fmt.Sprintf("service %s has version %q, not %.80q", s.name, s.spec.Model.Version, version), "")
}
