package tasks

import (
	"hash/fnv"
	"time"

	"github.com/edgetwin/sedna/lib/faults"
)

// now is the wall clock, which may be wrong and may step: what is compared
// with it was written by it, and may be hours off.
func now() time.Time { return faults.Clock(time.Now()).UTC() }

// Backoff is the wait before another try: Base doubled with every failed one,
// at most Max.
type Backoff struct {
	Base, Max time.Duration
}

// After gives the wait after n failed tries, 1 or more. Up to a fifth is added,
// always the same for one key, so that the tries of many keys spread.
func (b Backoff) After(n int, key string) time.Duration {
	d := b.Base
	for i := 1; i < n && d < b.Max; i++ {
		d *= 2
	}
	d = min(d, b.Max)
	h := fnv.New32a()
	h.Write([]byte(key))
	return d + time.Duration(float64(d)*0.2*float64(h.Sum32())/(1<<32))
}
