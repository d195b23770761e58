package edgelink

import (
	"math/rand/v2"
	"sync"

	"github.com/edgetwin/sedna/lib/losses"
)

// loser decides what is lost. KubeEdge's edge keeps two memories: what the
// cloud's resync brings goes to disk (metamanager) and not to the twin module,
// which answers reports and tells mappers. A restart reads from disk.
type loser struct {
	losses.Set
	syncing bool // from the link's beginning to FrameSynced; of keepLinked alone

	mu     sync.Mutex
	random *rand.Rand
}

func newLoser(s losses.Set, seed int64) *loser {
	return &loser{Set: s, random: rand.New(rand.NewPCG(uint64(seed), 0))}
}

func (l *loser) beginSync() { l.syncing = true }
func (l *loser) endSync()   { l.syncing = false }

// chance is true with probability p.
func (l *loser) chance(p float64) bool {
	if p <= 0 {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.random.Float64() < p
}

// loseRemoval tells whether a removal is overheard.
func (l *loser) loseRemoval() bool { return l.syncing && l.DeleteOffline }

// loseEmpty tells whether a property is left out of what goes up: it is
// reported for the first time since the device was registered, and is empty.
func (l *loser) loseEmpty(c twinChange) bool {
	return l.FirstEmpty && c.Last == nil && value(c.Current.Actual) == ""
}

// loseDevice tells whether nobody hears of r for now; it is stored then. A
// device that was never registered stays a stranger when it is heard of.
func (e *Edge) loseDevice(k key, r *record) (lost bool, err error) {
	old := e.store.device(k)
	switch {
	case old == nil && e.lose.syncing && e.lose.CreateOffline:
		r.stranger = true
		return true, e.store.keepStranger(k, r)
	case old == nil:
		r.stranger = e.lose.CreateOffline && e.store.stranger(k) != nil || e.lose.TwinOffline && e.lose.syncing
		return false, nil
	}
	r.stranger = (e.lose.CreateOffline || e.lose.TwinOffline) && old.stranger && old.uid == r.uid
	switch {
	case old.same(r):
		return false, nil
	case e.lose.syncing:
		lost = e.lose.DesiredOffline || (e.lose.CreateOffline && old.uid != r.uid)
	default:
		lost = e.lose.chance(e.lose.DropDown)
	}
	if lost {
		err = e.store.keepDevice(k, r)
	}
	return lost, err
}

// keepStranger stores a device of which nobody hears.
func (s *store) keepStranger(k key, r *record) error {
	if err := s.keepDevice(k, r); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.untold[k] = r
	return nil
}

// stranger gives a device of which nobody has heard; nil if it is none.
func (s *store) stranger(k key) *record {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.untold[k]
}

// strangers lists them.
func (s *store) strangers() []key {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]key, 0, len(s.untold))
	for k := range s.untold {
		out = append(out, k)
	}
	return out
}
