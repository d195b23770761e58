package serving

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"

	"github.com/edgetwin/sedna/lib/engine"
	"github.com/edgetwin/sedna/models/oip"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// Values of task.Model.Postprocess. Empty is as argmax.
const (
	Softmax    = "softmax"    // outputs are scores that softmax makes probabilities
	Argmax     = "argmax"     // outputs are per class, as they are
	Detections = "detections" // outputs are boxes
	None       = "none"       // outputs are no classes; labels are not given
)

// Runtimes of task.Model.Runtime that load a model file. Empty is by format.
const (
	runtimeONNX    = "onnx"
	runtimeBuiltin = "builtin"
)

// Opener loads a model file with an engine for its format; engine.Open is one.
type Opener func(ctx context.Context, format, path string, opts engine.Options) (engine.Session, engine.Engine, error)

// Options bound what one model may use. Zero fields mean the defaults.
type Options struct {
	// Open loads the model file. Default engine.Open.
	Open Opener
	// Engine holds the limits on inputs and on the model file.
	Engine engine.Options
	// MaxConcurrent is how many calls run at once. Default GOMAXPROCS:
	// throughput comes from parallel calls of one thread each.
	MaxConcurrent int
	// MaxQueue is how many calls wait for their turn; further ones are refused
	// with resource_exhausted. Default 256.
	MaxQueue int
}

func (o Options) withDefaults() Options {
	if o.Open == nil {
		o.Open = engine.Open
	}
	if o.MaxConcurrent == 0 {
		o.MaxConcurrent = runtime.GOMAXPROCS(0)
	}
	if o.MaxQueue == 0 {
		o.MaxQueue = 256
	}
	return o
}

// Model is a loaded model under the name of the service that it answers for.
// Its methods may be called from any goroutine.
type Model struct {
	service string
	spec    task.Model
	session engine.Session
	meta    *oip.ModelMetadata
	limits  engine.Limits

	gate    *Gate
	scores  int  // index of the output that holds scores per class; -1: none
	softmax bool // to be applied to the scores
}

// Load opens the model file at path, runs it once, and finds out how its
// outputs are to be read. Errors are wire errors: bad_model for what no engine
// takes, unavailable for a missing native library.
func Load(ctx context.Context, service string, spec task.Model, path string, opts Options) (*Model, error) {
	opts = opts.withDefaults()
	if err := checkSpec(&spec); err != nil {
		return nil, err
	}
	session, eng, err := opts.Open(ctx, spec.Format, path, opts.Engine)
	if err != nil {
		return nil, loadError(ctx, &spec, err)
	}
	m := &Model{
		service: service, spec: spec, session: session,
		meta: &oip.ModelMetadata{
			Name: service, Versions: []string{spec.Version}, Platform: eng.Name() + "_" + spec.Format,
			Inputs: metadata(session.Inputs()), Outputs: metadata(session.Outputs()),
		},
		limits: opts.Engine.Limits.WithDefaults(),
		gate:   NewGate("model "+service, opts.MaxConcurrent, opts.MaxQueue),
		scores: scoresOutput(session.Outputs()),
	}
	if err := m.prepare(ctx); err != nil {
		_ = session.Close()
		return nil, err
	}
	return m, nil
}

func checkSpec(spec *task.Model) error {
	switch spec.Postprocess {
	case "", Softmax, Argmax, None:
	case Detections:
		return wire.E(wire.Unimplemented, "model.postprocess", "detections are not served by this build", "set none and read the outputs as they are")
	default:
		return wire.E(wire.InvalidArgument, "model.postprocess", fmt.Sprintf("is %.40q, expected softmax, argmax, detections or none", spec.Postprocess), "")
	}
	switch spec.Runtime {
	case "", runtimeONNX, runtimeBuiltin:
		return nil
	case "worker":
		return wire.E(wire.Unimplemented, "model.runtime", "worker runtimes are not served by this build", "")
	}
	return wire.E(wire.InvalidArgument, "model.runtime", fmt.Sprintf("is %.40q, expected onnx, builtin or worker", spec.Runtime), "")
}

func loadError(ctx context.Context, spec *task.Model, err error) error {
	if cause := ctx.Err(); cause != nil {
		return wire.E(wire.DeadlineExceeded, "model", fmt.Sprintf("load %s: %v", spec.Name, cause), "")
	}
	message := fmt.Sprintf("load %s: %v", spec.Name, err)
	switch {
	case errors.Is(err, engine.ErrUnknown):
		return wire.E(wire.BadModel, "model.format", message, "")
	case errors.Is(err, engine.ErrInvalidModel), errors.Is(err, engine.ErrUnsupported):
		return wire.E(wire.BadModel, "model", message, "")
	case errors.Is(err, engine.ErrUnavailable):
		return wire.E(wire.Unavailable, "model.runtime", message, "install the engine's native library")
	}
	return wire.E(wire.BadModel, "model", message, "")
}

// prepare runs the model for the first time and checks its labels.
func (m *Model) prepare(ctx context.Context) error {
	if err := engine.WarmUp(ctx, m.session); err != nil {
		if cause := ctx.Err(); cause != nil {
			return wire.E(wire.DeadlineExceeded, "model", fmt.Sprintf("load %s: %v", m.spec.Name, cause), "")
		}
		return wire.E(wire.BadModel, "model", fmt.Sprintf("load %s: %v", m.spec.Name, err), "")
	}
	if m.scores >= 0 && m.spec.Postprocess != None && len(m.spec.Labels) > 0 {
		shape := m.session.Outputs()[m.scores].Shape
		if n := len(shape); n > 0 && shape[n-1] >= 0 && shape[n-1] != int64(len(m.spec.Labels)) {
			return wire.E(wire.InvalidArgument, "model.labels", fmt.Sprintf("has %d entries, the model %s has %d classes", len(m.spec.Labels), m.spec.Name, shape[n-1]), "")
		}
	}
	if m.spec.Postprocess == Softmax {
		if m.scores < 0 {
			return wire.E(wire.BadModel, "model.postprocess", fmt.Sprintf("softmax needs an output of FP32 or FP64, the model %s has none", m.spec.Name), "")
		}
		m.softmax = !m.givesProbabilities(ctx)
	}
	return nil
}

// Infer checks the request against the model, runs it and gives the outputs
// that were asked for. The scores are probabilities when the model's
// postprocess is softmax, be it that the graph ends in a softmax or not.
// Errors are wire errors.
func (m *Model) Infer(ctx context.Context, req *oip.InferRequest) (*oip.InferResponse, error) {
	r, err := m.InferAll(ctx, req)
	if err == nil {
		Select(r, req)
	}
	return r, err
}

// InferAll is Infer with all outputs, whatever the request asks for.
func (m *Model) InferAll(ctx context.Context, req *oip.InferRequest) (*oip.InferResponse, error) {
	in, err := m.check(req)
	if err != nil {
		return nil, err
	}
	if err := m.gate.Enter(ctx); err != nil {
		return nil, err
	}
	defer m.gate.Leave()
	out, err := m.run(ctx, in)
	if err != nil {
		return nil, m.inferError(ctx, err)
	}
	return m.response(req, out), nil
}

// run shields the process from an engine that panics: it takes one request down
// and not the node.
func (m *Model) run(ctx context.Context, in []engine.Tensor) (out []engine.Tensor, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the engine panicked: %v", p)
		}
	}()
	return m.session.Infer(ctx, in)
}

// Check tells whether the model takes the request, without running it.
func (m *Model) Check(req *oip.InferRequest) error {
	_, err := m.check(req)
	return err
}

func (m *Model) check(req *oip.InferRequest) ([]engine.Tensor, error) {
	in := make([]engine.Tensor, len(req.Inputs))
	for i := range req.Inputs {
		t := &req.Inputs[i]
		in[i] = engine.Tensor{Name: t.Name, Datatype: t.Datatype, Shape: t.Shape, Data: t.Data}
	}
	var bad *engine.InputError
	if err := engine.Check(in, m.session.Inputs(), m.limits); errors.As(err, &bad) {
		return nil, wire.E(wire.InvalidArgument, bad.Field, bad.Message, "")
	}
	return in, m.checkOutputs(req.Outputs)
}

func (m *Model) inferError(ctx context.Context, err error) error {
	var input *engine.InputError
	switch {
	case errors.As(err, &input):
		return wire.E(wire.InvalidArgument, input.Field, input.Message, "")
	case ctx.Err() != nil:
		return ContextError(ctx, "model "+m.service)
	case errors.Is(err, engine.ErrClosed):
		return wire.E(wire.Unavailable, "", "model "+m.service+" is being unloaded", "try again")
	}
	return wire.E(wire.BadModel, "", fmt.Sprintf("run %s: %v", m.service, err), "")
}

func (m *Model) checkOutputs(wanted []oip.RequestedOutput) error {
	for i, w := range wanted {
		if !slices.ContainsFunc(m.meta.Outputs, func(o oip.TensorMetadata) bool { return o.Name == w.Name }) {
			return wire.E(wire.InvalidArgument, fmt.Sprintf("outputs[%d].name", i), fmt.Sprintf("model %s has no output %.80q", m.service, w.Name), "")
		}
	}
	return nil
}

func (m *Model) response(req *oip.InferRequest, out []engine.Tensor) *oip.InferResponse {
	r := &oip.InferResponse{ModelName: m.service, ModelVersion: m.spec.Version, ID: req.ID, Outputs: make([]oip.Tensor, len(out))}
	for i := range out {
		t := &out[i]
		if m.softmax && i == m.scores {
			softmax(t)
		}
		r.Outputs[i] = oip.Tensor{Name: t.Name, Datatype: t.Datatype, Shape: t.Shape, Data: t.Data}
	}
	return r
}

// Select leaves in r the outputs that req asks for, in its order; all when it
// names none.
func Select(r *oip.InferResponse, req *oip.InferRequest) {
	if len(req.Outputs) == 0 {
		return
	}
	selected := make([]oip.Tensor, 0, len(req.Outputs))
	for _, w := range req.Outputs {
		if t := r.Output(w.Name); t != nil {
			selected = append(selected, *t)
		}
	}
	r.Outputs = selected
}

// Close frees the model; calls that run are waited for.
func (m *Model) Close() error {
	if err := m.session.Close(); err != nil {
		return fmt.Errorf("close model %s: %w", m.service, err)
	}
	return nil
}

// Spec is what the model was loaded from. The caller must not change it.
func (m *Model) Spec() *task.Model { return &m.spec }

// Inputs describes the inputs. The caller must not change it.
func (m *Model) Inputs() []engine.TensorInfo { return m.session.Inputs() }

// MemoryBytes estimates what the model holds.
func (m *Model) MemoryBytes() int64 { return m.session.MemoryBytes() }

// Metadata is the protocol's description of the model. The caller must not
// change it.
func (m *Model) Metadata() *oip.ModelMetadata { return m.meta }

func metadata(infos []engine.TensorInfo) []oip.TensorMetadata {
	out := make([]oip.TensorMetadata, len(infos))
	for i, info := range infos {
		out[i] = oip.TensorMetadata{Name: info.Name, Datatype: info.Datatype, Shape: info.Shape}
	}
	return out
}
