package hardexample

import (
	"math"
	"slices"
	"sync"
)

const (
	// window is how many confidences the quantile is taken over, and so how
	// many samples a drift takes to be followed.
	window = 512
	// settle is how many confidences are needed before the quantile replaces
	// the rule's own threshold.
	settle = 32
)

// budget keeps the share of hard decisions at a target: the threshold is the
// target quantile of the last confidences. What was sent too little or too
// much moves the target, so that the share holds over time even when many
// confidences are equal or the distribution drifts.
type budget struct {
	share float64

	mu     sync.Mutex // guards what follows
	ring   []float64  // the last confidences in order of arrival
	next   int        // place in ring that is overwritten next
	sorted []float64  // the same, ascending
	debt   float64    // decisions that should have been hard and were not
}

func newBudget(share float64) *budget { return &budget{share: share} }

// decide turns the rule's own decision into one within the budget. Unsound
// outputs stay as the rule decided, and count.
func (b *budget) decide(d Decision) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	hard := d.Hard
	if !math.IsNaN(d.Confidence) {
		hard = b.within(d)
		b.remember(d.Confidence)
	}
	b.debt += b.share
	if hard {
		b.debt--
	}
	// What could not be helped, such as a flood of unsound outputs, is
	// forgotten after a window.
	b.debt = max(-window, min(window, b.debt))
	return hard
}

func (b *budget) within(d Decision) bool {
	switch {
	case b.share == 0 || b.share == 1:
		return b.share == 1
	case len(b.sorted) < settle:
		return d.Hard
	}
	target := max(0, min(1, b.share+b.debt/window))
	rank := int(math.Round(target * float64(len(b.sorted))))
	if rank == 0 {
		return false
	}
	at := b.sorted[rank-1]
	return d.Confidence < at || d.Confidence == at && b.debt >= 0
}

func (b *budget) remember(c float64) {
	if len(b.ring) < window {
		b.ring = append(b.ring, c)
	} else {
		old, _ := slices.BinarySearch(b.sorted, b.ring[b.next])
		b.sorted = slices.Delete(b.sorted, old, old+1)
		b.ring[b.next] = c
		b.next = (b.next + 1) % window
	}
	at, _ := slices.BinarySearch(b.sorted, c)
	b.sorted = slices.Insert(b.sorted, at, c)
}
