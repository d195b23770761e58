package serving

import (
	"sync"
	"sync/atomic"
)

// Slot holds the value that serves now. Who uses it takes a lease; a value
// that was exchanged stays usable for the leases it has and is drained after
// the last one. The zero Slot is empty.
type Slot[T any] struct {
	mu      sync.Mutex // orders Swap and Clear
	current atomic.Pointer[Lease[T]]
}

// Lease is the use of one value. Release it exactly once.
type Lease[T any] struct {
	Value   T
	refs    atomic.Int64 // leases, and one for being current
	once    sync.Once
	drained func()
}

// Acquire leases the current value; nil when the slot is empty.
func (s *Slot[T]) Acquire() *Lease[T] {
	for {
		l := s.current.Load()
		if l == nil {
			return nil
		}
		l.refs.Add(1)
		// Still current: its own reference was held when ours was added, so
		// it was not drained before, and is not until we release.
		if s.current.Load() == l {
			return l
		}
		l.Release()
	}
}

// Release ends the lease.
func (l *Lease[T]) Release() {
	if l.refs.Add(-1) == 0 {
		l.once.Do(l.drained)
	}
}

// Swap makes v current. drained is called once, when v was exchanged and its
// last lease has ended; on the goroutine that ended it.
func (s *Slot[T]) Swap(v T, drained func()) {
	l := &Lease[T]{Value: v, drained: drained}
	l.refs.Store(1)
	s.put(l)
}

// Clear empties the slot.
func (s *Slot[T]) Clear() { s.put(nil) }

func (s *Slot[T]) put(l *Lease[T]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.current.Swap(l); old != nil {
		old.Release()
	}
}
