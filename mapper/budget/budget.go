// Package budget is the one allowance of updates that a node may send to the
// cloud: KubeEdge takes about 30 messages a second of a node, and drops or
// delays the rest. Tasks go before sensors, and sensors never take the last of
// the burst, so that a task's report finds room at once.
package budget

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Defaults of New, for a node on which other mappers report too.
const (
	DefaultRate  = 15.0 // updates per second
	DefaultBurst = 10   // updates that may follow each other at once
)

// Priority orders those who wait.
type Priority int

const (
	Task   Priority = iota // reports and states of tasks
	Sensor                 // reports and states of sensors and cameras
	priorities
)

// Budget is a token bucket with priorities. Its methods may be called from any
// goroutine.
type Budget struct {
	rate  float64
	burst float64

	mu      sync.Mutex
	tokens  float64
	at      time.Time // when tokens was right
	waiting [priorities][]chan struct{}
	timer   *time.Timer // fires when the next token is there; nil: nobody waits
	spent   [priorities]uint64
}

// New makes a full bucket. Values of zero or less mean the defaults.
func New(rate float64, burst int) *Budget {
	if rate <= 0 {
		rate = DefaultRate
	}
	if burst <= 0 {
		burst = DefaultBurst
	}
	return &Budget{rate: rate, burst: float64(burst), tokens: float64(burst), at: time.Now()}
}

// Wait takes one token, waiting for it until ctx ends. Among those who wait
// tasks come first, and then who came first.
func (b *Budget) Wait(ctx context.Context, p Priority) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	granted := make(chan struct{})
	b.mu.Lock()
	b.waiting[p] = append(b.waiting[p], granted)
	b.grant()
	b.mu.Unlock()
	select {
	case <-granted:
		return nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := slices.Index(b.waiting[p], granted); i >= 0 {
		b.waiting[p] = slices.Delete(b.waiting[p], i, i+1)
	} else {
		// Granted in the same moment, and not used.
		b.tokens = min(b.tokens+1, b.burst)
		b.spent[p]--
	}
	b.grant()
	return ctx.Err()
}

// Spent counts the tokens that were taken at a priority.
func (b *Budget) Spent(p Priority) uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.spent[p]
}

// reserve is what p leaves in the bucket.
func (b *Budget) reserve(p Priority) float64 {
	if p == Task {
		return 0
	}
	return float64(int(b.burst) / 2)
}

// grant hands out what there is and sets the timer for who is left. Called
// with mu held.
func (b *Budget) grant() {
	now := time.Now()
	b.tokens = min(b.tokens+now.Sub(b.at).Seconds()*b.rate, b.burst)
	b.at = now
	if b.timer != nil {
		b.timer.Stop()
		b.timer = nil
	}
	const rounding = 1e-9
	for p := range priorities {
		for len(b.waiting[p]) > 0 {
			need := 1 + b.reserve(p)
			if b.tokens+rounding < need {
				missing := time.Duration((need - b.tokens) / b.rate * float64(time.Second))
				b.timer = time.AfterFunc(max(missing, time.Microsecond), b.tick)
				return
			}
			close(b.waiting[p][0])
			b.waiting[p] = b.waiting[p][1:]
			b.tokens--
			b.spent[p]++
		}
	}
}

func (b *Budget) tick() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.grant()
}
