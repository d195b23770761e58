package inference

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/edgetwin/sedna/edge/inference/upstream"
	"github.com/edgetwin/sedna/lib/algorithms/hardexample"
	"github.com/edgetwin/sedna/lib/serving"
	"github.com/edgetwin/sedna/models/oip"
	"github.com/edgetwin/sedna/models/wire"
)

// Parameters of requests. They do not go on to the cloud.
const (
	ParamRoute   = "sedna_route"   // edge or cloud: who is to answer, whatever the rule says
	ParamExplain = "sedna_explain" // true: tell the labels, and the edge's answer beside the cloud's
)

// Parameters of responses. Those of labels and confidences are a value for one
// sample, and texts joined by commas for a batch.
const (
	ParamSource      = "sedna_source"        // edge, or cloud when at least one sample is the cloud's
	ParamHardExample = "sedna_hard_example"  // the rule found at least one sample hard
	ParamVersion     = "sedna_model_version" // of the model that answered
	ParamFallback    = "sedna_fallback"      // why the cloud did not answer, where it was to
	ParamService     = "sedna_service"
	ParamHardRows    = "sedna_hard_rows"  // batches: how many samples were hard
	ParamCloudRows   = "sedna_cloud_rows" // batches: how many are the cloud's
	ParamLabel       = "sedna_label"      // explain, answers to readings and images: the answer's class
	ParamEdgeLabel   = "sedna_edge_label" // explain: the edge model's class
	ParamConfidence  = "sedna_confidence" // explain: the edge model's score of it
	ParamScore       = "sedna_score"      // answers to readings and images: the score of the answer's class
	ParamMissing     = "sedna_missing"    // answers to readings: the sources whose last values stood in
	ParamDevice      = "sedna_device"     // answers to a camera's image: namespace/name of the camera
)

// Sources of an answer.
const (
	SourceEdge  = "edge"
	SourceCloud = "cloud"
)

// outputsDiffer is the fallback reason where a part of a batch came back in
// another form than the edge model's, so that it cannot be merged.
const outputsDiffer upstream.Reason = "cloud outputs differ"

// options are what a request asks of the cascade.
type options struct {
	route   string // "", SourceEdge or SourceCloud
	explain bool
}

func parseOptions(p oip.Parameters) (o options, err error) {
	if v, given := p[ParamRoute]; given {
		if o.route, _ = v.(string); o.route != SourceEdge && o.route != SourceCloud {
			return o, wire.E(wire.InvalidArgument, "parameters."+ParamRoute, fmt.Sprintf("is %v, expected edge or cloud", v), "")
		}
	}
	if v, given := p[ParamExplain]; given {
		var ok bool
		if o.explain, ok = v.(bool); !ok {
			return o, wire.E(wire.InvalidArgument, "parameters."+ParamExplain, fmt.Sprintf("is %v, expected true or false", v), "")
		}
	}
	return o, nil
}

// outcome is the way that one request took.
type outcome struct {
	resp     *oip.InferResponse
	samples  int
	hard     []int  // samples that the rule found hard
	cloud    int    // samples that the cloud answered
	fallback string // why the cloud did not answer, where it was to

	edgeLabel, confidence any // explain; nil where the edge has no classes
}

func (o *outcome) source() string {
	if o.cloud > 0 {
		return SourceCloud
	}
	return SourceEdge
}

// infer answers a request and counts it.
func (s *service) infer(ctx context.Context, st *stats, req *oip.InferRequest) (*outcome, error) {
	start := time.Now()
	opt, err := parseOptions(req.Parameters)
	if err != nil {
		return nil, err
	}
	o, err := s.cascade(ctx, st, req, opt)
	if err != nil {
		st.errors.Add(1)
		return nil, err
	}
	s.finish(o, req, opt)
	s.total.Observe(time.Since(start).Seconds())
	st.count(o)
	return o, nil
}

func (s *service) cascade(ctx context.Context, st *stats, req *oip.InferRequest, opt options) (*outcome, error) {
	if opt.route == SourceCloud && s.cloud == nil {
		return nil, wire.E(wire.FailedPrecondition, "parameters."+ParamRoute, "service "+s.name+" has no cloud side", "")
	}
	o := &outcome{samples: s.model.Rows(req)}
	straight := s.cloud != nil && (opt.route == SourceCloud || opt.route == "" && s.cloudOnly)
	if straight && !opt.explain {
		if err := s.model.Check(req); err != nil {
			return nil, err
		}
		if opt.route == "" {
			o.hard = all(o.samples)
		}
		err := s.ask(ctx, st, o, req, all(o.samples))
		if err != nil || o.cloud > 0 {
			return o, err
		}
	}
	begin := time.Now()
	resp, err := s.model.InferAll(ctx, req)
	if err != nil {
		return nil, err
	}
	s.compute.Observe(time.Since(begin).Seconds())
	o.resp = resp
	scores, classes := s.model.Scores(resp, o.samples)
	if opt.explain && classes {
		o.edgeLabel, o.confidence = s.labels(scores, o.samples)
	}
	if o.fallback != "" {
		return o, nil
	}
	if opt.route == "" {
		o.hard = s.judge(scores, classes, o.samples)
	}
	wanted := o.hard
	switch {
	case s.cloud == nil || opt.route == SourceEdge:
		wanted = nil
	case opt.route == SourceCloud:
		wanted = all(o.samples)
	}
	if len(wanted) == 0 {
		return o, nil
	}
	return o, s.ask(ctx, st, o, req, wanted)
}

// judge lists the samples that the rule finds hard.
func (s *service) judge(scores serving.Scores, classes bool, samples int) []int {
	var hard []int
	for i := range samples {
		var out hardexample.Output
		if classes {
			out.Probabilities = scores.Row(i)
		}
		if s.miner.Decide(out).Hard {
			hard = append(hard, i)
		}
	}
	return hard
}

// ask has the cloud answer the wanted samples of the request and puts the
// answer into o; where there is none, the reason. It is an error where the
// service takes nothing else.
func (s *service) ask(ctx context.Context, st *stats, o *outcome, req *oip.InferRequest, wanted []int) error {
	forward := &oip.InferRequest{ID: req.ID, Parameters: foreign(req.Parameters), Inputs: req.Inputs}
	part := len(wanted) < o.samples
	if part {
		forward.Inputs = takeRows(req.Inputs, wanted, o.samples)
	}
	begin := time.Now()
	answer, err := s.cloud.Infer(ctx, forward)
	if err == nil {
		s.asked.Observe(time.Since(begin).Seconds())
		if !part {
			o.resp = answer
		} else if !putRows(o.resp, answer, wanted, o.samples) {
			err = &upstream.Failure{Reason: outputsDiffer}
		} else {
			o.resp.ModelVersion = answer.ModelVersion
		}
	}
	if err == nil {
		o.cloud = len(wanted)
		return nil
	}
	var f *upstream.Failure
	if !errors.As(err, &f) {
		return serving.ContextError(ctx, "service "+s.name)
	}
	st.fell(string(f.Reason))
	if s.strict {
		return wire.E(wire.Unavailable, "", "the cloud did not answer: "+f.Error(), "the service's onCloudError is error")
	}
	o.fallback = string(f.Reason)
	return nil
}

// foreign leaves out the parameters that are meant for us.
func foreign(p oip.Parameters) oip.Parameters {
	var kept oip.Parameters
	for name, v := range p {
		if strings.HasPrefix(name, "sedna_") {
			continue
		}
		if kept == nil {
			kept = oip.Parameters{}
		}
		kept[name] = v
	}
	return kept
}

// finish dresses the answer: names, parameters, the outputs asked for.
func (s *service) finish(o *outcome, req *oip.InferRequest, opt options) {
	r := o.resp
	r.ID, r.ModelName = req.ID, s.name
	p := oip.Parameters{
		ParamSource: o.source(), ParamHardExample: len(o.hard) > 0, ParamVersion: r.ModelVersion, ParamService: s.name,
	}
	if o.fallback != "" {
		p[ParamFallback] = o.fallback
	}
	if o.samples > 1 {
		p[ParamHardRows], p[ParamCloudRows] = len(o.hard), o.cloud
	}
	if opt.explain {
		if o.edgeLabel != nil {
			p[ParamEdgeLabel] = o.edgeLabel
		}
		if o.confidence != nil {
			p[ParamConfidence] = o.confidence
		}
		if scores, ok := s.model.Scores(r, o.samples); ok {
			if label, _ := s.labels(scores, o.samples); label != nil {
				p[ParamLabel] = label
			}
		}
	}
	r.Parameters = p
	serving.Select(r, req)
}

// labels gives the best class of each sample and its score, as parameters.
func (s *service) labels(scores serving.Scores, samples int) (label, confidence any) {
	class, score := scores.Best(0)
	if s.model.Label(class) == "" {
		return nil, nil
	}
	if samples == 1 {
		if !math.IsNaN(score) && !math.IsInf(score, 0) {
			confidence = score
		}
		return s.model.Label(class), confidence
	}
	names, values := make([]string, samples), make([]string, samples)
	for i := range samples {
		class, score := scores.Best(i)
		names[i] = s.model.Label(class)
		values[i] = strconv.FormatFloat(score, 'g', -1, 32)
	}
	return strings.Join(names, ","), strings.Join(values, ",")
}

// all lists 0…n-1.
func all(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}
