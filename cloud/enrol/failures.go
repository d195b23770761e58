package enrol

import (
	"net/netip"
	"sync"
	"time"
)

// maxSources bounds the addresses whose failures are remembered. When it is
// reached all new addresses share one allowance.
const maxSources = 4096

// failures is an allowance of failed attempts per source address: attempts
// take from it when they begin, so that parallel ones cannot pass it together,
// and give back when they did not fail.
type failures struct {
	burst  float64
	period time.Duration // in which burst comes back
	now    func() time.Time

	mu      sync.Mutex
	sources map[netip.Prefix]*allowance
}

type allowance struct {
	left float64
	at   time.Time
}

func newFailures(burst int, period time.Duration, now func() time.Time) *failures {
	return &failures{burst: float64(burst), period: period, now: now, sources: map[netip.Prefix]*allowance{}}
}

// take begins an attempt; not ok means to wait for the time it gives.
func (f *failures) take(source netip.Prefix) (wait time.Duration, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	a := f.of(source)
	if a.left < 1 {
		return time.Duration((1 - a.left) / f.burst * float64(f.period)), false
	}
	a.left--
	return 0, true
}

// giveBack undoes a take.
func (f *failures) giveBack(source netip.Prefix) {
	f.mu.Lock()
	defer f.mu.Unlock()
	a := f.of(source)
	a.left = min(a.left+1, f.burst)
}

// of is the allowance of source as of now. The caller holds mu.
func (f *failures) of(source netip.Prefix) *allowance {
	now := f.now()
	a := f.sources[source]
	if a == nil && len(f.sources) >= maxSources {
		f.forget(now)
		if len(f.sources) >= maxSources {
			source = netip.Prefix{}
			a = f.sources[source]
		}
	}
	if a == nil {
		a = &allowance{left: f.burst, at: now}
		f.sources[source] = a
	}
	if passed := now.Sub(a.at); passed > 0 {
		a.left = min(a.left+f.burst*float64(passed)/float64(f.period), f.burst)
	}
	a.at = now
	return a
}

// forget drops the sources that have their whole allowance back.
func (f *failures) forget(now time.Time) {
	for s, a := range f.sources {
		if now.Sub(a.at) >= f.period {
			delete(f.sources, s)
		}
	}
}

// sourceOf is the network that an address counts for.
func sourceOf(remote string) netip.Prefix {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	addr := ap.Addr().Unmap()
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	p, err := addr.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}
