package inference

import (
	"hash/maphash"
	"sync"
	"time"
)

// requestKey is a request as its sender names it, and what it says.
type requestKey struct {
	service, id string
	payload     uint64 // hash
}

// window remembers the last requests of the bus. A message of QoS 1 can be
// delivered twice, and must not get two results: the same id with the same
// payload within the window is passed over. An id with another payload is a
// new request.
type window struct {
	seed maphash.Seed
	age  time.Duration

	mu   sync.Mutex
	seen map[requestKey]sighting
	ring []requestKey // in order of arrival
	next int          // place in ring that is overwritten next
}

type sighting struct {
	at   time.Time
	slot int // in ring
}

func newWindow(size int, age time.Duration) *window {
	return &window{seed: maphash.MakeSeed(), age: age, seen: map[requestKey]sighting{}, ring: make([]requestKey, size)}
}

func (w *window) key(service, id string, payload []byte) requestKey {
	return requestKey{service, id, maphash.Bytes(w.seed, payload)}
}

// begin notes a request; false when it was noted before.
func (w *window) begin(k requestKey) bool {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if s, known := w.seen[k]; known && now.Sub(s.at) < w.age {
		return false
	}
	// The place may have been the oldest request's, unless that came again
	// since and has another place.
	if old := w.ring[w.next]; w.seen[old].slot == w.next {
		delete(w.seen, old)
	}
	w.ring[w.next] = k
	w.seen[k] = sighting{now, w.next}
	w.next = (w.next + 1) % len(w.ring)
	return true
}

// forget lets a request be made again.
func (w *window) forget(k requestKey) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.seen, k)
}
