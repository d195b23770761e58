package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
)

type registered struct {
	engine Engine
	rank   int
}

var (
	registryMu sync.RWMutex
	registry   = map[string]registered{}
)

// Register makes an engine selectable by name and format. Among engines for
// one format the higher rank is tried first; the pure-Go engine has rank 0,
// native ones should take a positive rank. It is meant for init functions and
// panics on an empty or taken name.
func Register(e Engine, rank int) {
	registryMu.Lock()
	defer registryMu.Unlock()
	name := e.Name()
	if name == "" {
		panic("engine: registered without a name")
	}
	if _, taken := registry[name]; taken {
		panic("engine: registered twice: " + name)
	}
	registry[name] = registered{e, rank}
}

// Lookup finds an engine by name, or wraps ErrUnknown and lists the known.
func Lookup(name string) (Engine, error) {
	registryMu.RLock()
	defer registryMu.RUnlock()
	r, ok := registry[name]
	if !ok {
		return nil, fmt.Errorf("engine %q: %w (known: %s)", name, ErrUnknown, strings.Join(names(), ", "))
	}
	return r.engine, nil
}

// Names lists the registered engines in alphabetical order.
func Names() []string {
	registryMu.RLock()
	defer registryMu.RUnlock()
	return names()
}

func names() []string {
	var out []string
	for n := range registry {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// For lists the engines that load a format, the preferred first. It is empty
// when there is none.
func For(format string) []Engine {
	registryMu.RLock()
	defer registryMu.RUnlock()
	var found []registered
	for _, r := range registry {
		if slices.Contains(r.engine.Formats(), format) {
			found = append(found, r)
		}
	}
	slices.SortFunc(found, func(a, b registered) int {
		return cmp.Or(cmp.Compare(b.rank, a.rank), cmp.Compare(a.engine.Name(), b.engine.Name()))
	})
	engines := make([]Engine, len(found))
	for i, r := range found {
		engines[i] = r.engine
	}
	return engines
}

// Open loads a model with the first engine for the format that can run it:
// it goes on to the next one on ErrUnavailable and ErrUnsupported only, so a
// broken file is not tried again. It returns the engine that took the model;
// if none did, the error tells what each one said.
func Open(ctx context.Context, format, path string, opts Options) (Session, Engine, error) {
	engines := For(format)
	if len(engines) == 0 {
		return nil, nil, fmt.Errorf("model format %q: %w (known engines: %s)", format, ErrUnknown, strings.Join(Names(), ", "))
	}
	var refusals []error
	for _, e := range engines {
		s, err := e.Load(ctx, path, opts)
		if err == nil {
			return s, e, nil
		}
		err = fmt.Errorf("engine %s: %w", e.Name(), err)
		if !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrUnsupported) {
			return nil, nil, err
		}
		refusals = append(refusals, err)
	}
	return nil, nil, errors.Join(refusals...)
}
