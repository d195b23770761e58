package edgelink

import "sync"

// queue holds keys in order of arrival, each once.
type queue struct {
	mu     sync.Mutex
	keys   []key
	queued map[key]bool
	left   map[key]bool  // queued keys of Devices that have left the node meanwhile
	wake   chan struct{} // capacity 1
}

func newQueue() *queue {
	return &queue{queued: map[key]bool{}, left: map[key]bool{}, wake: make(chan struct{}, 1)}
}

func (q *queue) add(keys ...key) {
	q.mu.Lock()
	for _, k := range keys {
		if !q.queued[k] {
			q.queued[k] = true
			q.keys = append(q.keys, k)
		}
	}
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// addLeft adds a key and notes that its Device was taken off the node, which
// may have it back by the time that the key is read: binding anew is not to
// coalesce into nothing.
func (q *queue) addLeft(k key) {
	q.mu.Lock()
	q.left[k] = true
	q.mu.Unlock()
	q.add(k)
}

// hasLeft tells, once, whether addLeft was called for k.
func (q *queue) hasLeft(k key) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	left := q.left[k]
	delete(q.left, k)
	return left
}

func (q *queue) next() (k key, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.keys) == 0 {
		return k, false
	}
	k, q.keys = q.keys[0], q.keys[1:]
	delete(q.queued, k)
	return k, true
}
