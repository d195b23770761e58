package enginetest

import (
	"context"
	"sync"

	"github.com/edgetwin/sedna/lib/engine"
)

var (
	_ engine.Engine  = (*Fake)(nil)
	_ engine.Session = (*FakeSession)(nil)
)

// Fake is an engine whose sessions do what Do says.
type Fake struct {
	EngineName string
	Format     []string
	LoadErr    error // returned by Load, if set
	In, Out    []engine.TensorInfo
	// Do stands for the model; nil returns no tensors.
	Do func(ctx context.Context, in []engine.Tensor) ([]engine.Tensor, error)
}

// Name is EngineName.
func (f *Fake) Name() string { return f.EngineName }

// Formats is Format.
func (f *Fake) Formats() []string { return f.Format }

// Load makes a session without reading the path.
func (f *Fake) Load(ctx context.Context, _ string, opts engine.Options) (engine.Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if f.LoadErr != nil {
		return nil, f.LoadErr
	}
	return &FakeSession{fake: f, limits: opts.Limits}, nil
}

// FakeSession is a session of a Fake. It keeps the contract of engine.Session.
type FakeSession struct {
	fake   *Fake
	limits engine.Limits

	mu     sync.RWMutex
	closed bool
}

// Inputs is the Fake's In.
func (s *FakeSession) Inputs() []engine.TensorInfo { return s.fake.In }

// Outputs is the Fake's Out.
func (s *FakeSession) Outputs() []engine.TensorInfo { return s.fake.Out }

// MemoryBytes is 1.
func (s *FakeSession) MemoryBytes() int64 { return 1 }

// Infer checks the inputs and calls Do.
func (s *FakeSession) Infer(ctx context.Context, in []engine.Tensor) ([]engine.Tensor, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, engine.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := engine.Check(in, s.fake.In, s.limits); err != nil {
		return nil, err
	}
	if s.fake.Do == nil {
		return nil, nil
	}
	return s.fake.Do(ctx, in)
}

// Close waits for running calls.
func (s *FakeSession) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}
