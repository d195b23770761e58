package purego

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/edgetwin/sedna/lib/engine"
	"github.com/edgetwin/sedna/lib/onnx"
)

// Name is the engine's name in the registry.
const Name = "purego"

func init() { engine.Register(Engine{}, 0) }

var (
	_ engine.Engine  = Engine{}
	_ engine.Session = (*session)(nil)
)

// Engine loads ONNX files into lib/onnx.
type Engine struct{}

// Name is "purego".
func (Engine) Name() string { return Name }

// Formats is "onnx" alone.
func (Engine) Formats() []string { return []string{"onnx"} }

// Load reads and compiles a model file. opts.Threads is not used: one call
// runs on one thread, and calls run beside each other.
func (Engine) Load(ctx context.Context, path string, opts engine.Options) (engine.Session, error) {
	b, err := read(path, opts.MaxModelBytes)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return New(b, opts)
}

// New makes a session from the bytes of an ONNX model.
func New(b []byte, opts engine.Options) (engine.Session, error) {
	lim := opts.Limits.WithDefaults()
	graph := onnx.Limits{MaxBytes: max(len(b), 1), MaxElements: max(lim.MaxElements, onnx.Limits{}.WithDefaults().MaxElements), MaxRank: lim.MaxRank}
	m, err := onnx.Decode(b, graph)
	if err != nil {
		return nil, classify(err)
	}
	p, err := onnx.Compile(m, graph)
	if err != nil {
		return nil, classify(err)
	}
	s := &session{program: p, limits: lim}
	if s.inputs, err = infos(p.Inputs()); err != nil {
		return nil, err
	}
	if s.outputs, err = infos(p.Outputs()); err != nil {
		return nil, err
	}
	return s, nil
}

// read refuses a file over the limit without reading it whole.
func read(path string, limit int64) ([]byte, error) {
	if limit == 0 {
		limit = engine.DefaultMaxModelBytes
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read model %s: %w", path, err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%w: %s has more than %d bytes", engine.ErrInvalidModel, path, limit)
	}
	return b, nil
}

// classify adds the engine's sentinel to an error of lib/onnx. What exceeds
// this package's limits may still run in an engine with other limits.
func classify(err error) error {
	if errors.Is(err, onnx.ErrUnsupported) || errors.Is(err, onnx.ErrLimit) {
		return fmt.Errorf("%w: %w", engine.ErrUnsupported, err)
	}
	return fmt.Errorf("%w: %w", engine.ErrInvalidModel, err)
}

var datatypes = map[onnx.DType]string{
	onnx.Bool: engine.Bool, onnx.Uint8: engine.Uint8, onnx.Uint16: engine.Uint16, onnx.Uint32: engine.Uint32,
	onnx.Uint64: engine.Uint64, onnx.Int8: engine.Int8, onnx.Int16: engine.Int16, onnx.Int32: engine.Int32,
	onnx.Int64: engine.Int64, onnx.Float16: engine.FP16, onnx.Float32: engine.FP32, onnx.Float64: engine.FP64,
}

// types is datatypes the other way round.
var types = func() map[string]onnx.DType {
	m := map[string]onnx.DType{}
	for t, name := range datatypes {
		m[name] = t
	}
	return m
}()

func infos(values []onnx.ValueInfo) ([]engine.TensorInfo, error) {
	out := make([]engine.TensorInfo, len(values))
	for i, v := range values {
		dt, ok := datatypes[v.Type]
		if !ok {
			return nil, fmt.Errorf("%w: %q has type %v", engine.ErrUnsupported, v.Name, v.Type)
		}
		out[i] = engine.TensorInfo{Name: v.Name, Datatype: dt, Shape: v.Shape()}
	}
	return out, nil
}

type session struct {
	program         *onnx.Program
	limits          engine.Limits
	inputs, outputs []engine.TensorInfo

	// mu is held for reading while Infer runs, so that Close waits for it.
	mu     sync.RWMutex
	closed bool
}

func (s *session) Inputs() []engine.TensorInfo  { return s.inputs }
func (s *session) Outputs() []engine.TensorInfo { return s.outputs }

func (s *session) Infer(ctx context.Context, in []engine.Tensor) ([]engine.Tensor, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, engine.ErrClosed
	}
	if err := engine.Check(in, s.inputs, s.limits); err != nil {
		return nil, err
	}
	var room [4]onnx.Tensor
	args := room[:0]
	for _, t := range in {
		args = append(args, onnx.Tensor{Name: t.Name, Type: types[t.Datatype], Shape: t.Shape, Data: t.Data})
	}
	out, err := s.program.Run(ctx, args)
	if err != nil {
		return nil, inputError(err)
	}
	result := make([]engine.Tensor, len(out))
	for i, t := range out {
		result[i] = engine.Tensor{Name: t.Name, Datatype: s.outputs[i].Datatype, Shape: t.Shape, Data: t.Data}
	}
	return result, nil
}

// inputError blames the inputs for what only a run can find out, such as
// batch sizes that differ between inputs or a batch too large for the limits.
func inputError(err error) error {
	for _, fault := range []error{onnx.ErrInput, onnx.ErrShape, onnx.ErrLimit} {
		if errors.Is(err, fault) {
			return &engine.InputError{Field: "inputs", Message: err.Error()}
		}
	}
	return err
}

// MemoryBytes counts the weights twice: as they were read and as they are laid
// out for multiplication.
func (s *session) MemoryBytes() int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return 0
	}
	return 2 * s.program.WeightBytes()
}

func (s *session) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed, s.program = true, nil
	return nil
}
