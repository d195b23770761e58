package edgelink

import "sync"

// queue holds keys in order of arrival, each once.
type queue struct {
	mu     sync.Mutex
	keys   []key
	queued map[key]bool
	wake   chan struct{} // capacity 1
}

func newQueue() *queue {
	return &queue{queued: map[key]bool{}, wake: make(chan struct{}, 1)}
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
