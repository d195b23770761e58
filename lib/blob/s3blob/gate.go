package s3blob

import (
	"context"
	"sync"
)

// gates are locks by name that a waiter can give up on.
type gates struct {
	mu sync.Mutex
	m  map[string]*gate
}

type gate struct {
	ch    chan struct{} // capacity 1, holds a value while locked
	users int           // that hold it or wait, guarded by gates.mu
}

func (g *gates) lock(ctx context.Context, name string) (unlock func(), err error) {
	g.mu.Lock()
	one := g.m[name]
	if one == nil {
		one = &gate{ch: make(chan struct{}, 1)}
		g.m[name] = one
	}
	one.users++
	g.mu.Unlock()
	leave := func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if one.users--; one.users == 0 {
			delete(g.m, name)
		}
	}
	select {
	case one.ch <- struct{}{}:
		return func() { <-one.ch; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}
