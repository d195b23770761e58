package engine

import (
	"context"
	"errors"
)

var (
	// ErrUnknown: no engine of that name, or none for that format, is
	// registered.
	ErrUnknown = errors.New("unknown engine")
	// ErrUnavailable: the engine is compiled in but cannot run here, for
	// instance because its native library was not found.
	ErrUnavailable = errors.New("engine unavailable")
	// ErrUnsupported: the model is well formed but asks for something that
	// this engine does not have. Another engine may run it.
	ErrUnsupported = errors.New("model not supported by engine")
	// ErrInvalidModel: the file is no valid model of the format. No other
	// engine will run it either.
	ErrInvalidModel = errors.New("invalid model")
	// ErrClosed: the session was closed before or during the call.
	ErrClosed = errors.New("session closed")
)

// Options are the caller's wishes for one session. The zero value is usable.
type Options struct {
	// Limits bound what Infer accepts. Zero fields mean the defaults.
	Limits Limits
	// Threads is how many threads one Infer call may use. 0 leaves it to the
	// engine, which should choose 1: throughput comes from parallel calls.
	Threads int
	// MaxModelBytes bounds the model file. Default 512 MiB.
	MaxModelBytes int64
}

// DefaultMaxModelBytes is what Options.MaxModelBytes means when it is 0.
const DefaultMaxModelBytes = 512 << 20

// Engine makes sessions from model files.
//
// All methods are safe for concurrent use. Name and Formats are constant.
type Engine interface {
	// Name is the stable lower-case name by which users select the engine.
	Name() string
	// Formats lists the model formats it loads, lower case, such as "onnx".
	Formats() []string
	// Load reads the model file at path. It does not keep the file open or
	// mapped once it has returned, so the file may be replaced or removed.
	// The context bounds loading only, not the session's life. Errors wrap
	// ErrUnavailable, ErrUnsupported or ErrInvalidModel where one of these
	// is the cause; a partly loaded model leaves nothing behind.
	Load(ctx context.Context, path string, opts Options) (Session, error)
}

// Session is a loaded model.
//
// Infer, Inputs, Outputs and MemoryBytes may be called from any number of
// goroutines at once, also beside Close.
type Session interface {
	// Inputs and Outputs describe the model, in its own order. The caller
	// must not change what they return.
	Inputs() []TensorInfo
	Outputs() []TensorInfo
	// Infer runs the model on one set of inputs, in any order, and returns
	// all outputs in the order of Outputs. An input that does not fit the
	// model yields an *InputError. After Close it returns ErrClosed. When
	// the context ends first it returns the context's error, as soon as the
	// engine can stop; the result is then lost but the session stays usable.
	Infer(ctx context.Context, in []Tensor) ([]Tensor, error)
	// MemoryBytes estimates what the session holds: weights and buffers.
	MemoryBytes() int64
	// Close frees the model once running Infer calls have ended. Calling it
	// again does nothing and returns nil.
	Close() error
}
