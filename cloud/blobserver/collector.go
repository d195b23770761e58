package blobserver

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgetwin/sedna/lib/blob"
	"github.com/edgetwin/sedna/lib/metrics"
)

// References tells which blobs are needed.
type References interface {
	// InUse gives the digests of all blobs that something refers to. When it
	// cannot tell for sure it returns an error, and nothing is removed.
	InUse(ctx context.Context) (map[string]bool, error)
}

// Collectable is a store whose blobs can be removed one by one. Its methods are
// those of blob.Backend.
type Collectable interface {
	Entries(ctx context.Context) ([]blob.Entry, error)
	// Remove leaves a blob alone that was stored again or touched since e.
	Remove(ctx context.Context, e blob.Entry) (removed bool, err error)
}

var _ Collectable = blob.Backend(nil)

// CollectorConfig says what a Collector keeps.
type CollectorConfig struct {
	// Store has the blobs. Required.
	Store Collectable
	// References tell which of them are needed. Required.
	References References
	// Grace is how long a blob is kept after it was stored, whether anything
	// refers to it or not: an upload comes before what names it. Default 1 h.
	Grace time.Duration
	// Exclusive says that no other process stores blobs here. Then a blob that
	// was referred to, and is not any more, needs no grace. Default false.
	Exclusive bool
	// Quota is how many bytes the store may hold before blobs that nothing
	// refers to are removed, the oldest first. Default 0: they all go.
	Quota int64
	// Every is the time between two sweeps. Default 1 min.
	Every time.Duration
	// Now is the clock that grace is measured with. Default time.Now.
	Now func() time.Time
	// Metrics counts what was removed. Default none.
	Metrics *metrics.Registry
	// Log gets what was removed. Default none.
	Log *slog.Logger
}

// removeTimeout bounds the removal of one blob.
const removeTimeout = 30 * time.Second

// Collector removes blobs that nothing refers to. It never removes one that is
// referred to, that is within its grace time, or that is stored again while it
// looks.
type Collector struct {
	CollectorConfig
	kick chan struct{} // capacity 1: look now

	removed, removedBytes prometheus.Counter
	blobs, bytes          prometheus.Gauge

	// removing is held while a blob is looked at for the last time and removed;
	// mu is taken within it.
	removing sync.Mutex
	mu       sync.Mutex
	named    map[string]bool // digests that were referred to since they were stored, as far as this process knows
	used     map[string]bool // digests that were named since the sweep began
	over     bool            // the last sweep ended above the quota
}

// NewCollector checks c and fills in its defaults.
func NewCollector(c CollectorConfig) (*Collector, error) {
	if c.Store == nil || c.References == nil {
		return nil, errors.New("collector of blobs: Store and References are required")
	}
	if c.Grace == 0 {
		c.Grace = time.Hour
	}
	if c.Every == 0 {
		c.Every = time.Minute
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	g := &Collector{
		CollectorConfig: c, kick: make(chan struct{}, 1), named: map[string]bool{}, used: map[string]bool{},
		removed:      prometheus.NewCounter(prometheus.CounterOpts{Name: "sedna_blobs_removed_total", Help: "Blobs removed because nothing referred to them."}),
		removedBytes: prometheus.NewCounter(prometheus.CounterOpts{Name: "sedna_blobs_removed_bytes_total", Help: "Bytes of the blobs that were removed."}),
		blobs:        prometheus.NewGauge(prometheus.GaugeOpts{Name: "sedna_blobs_stored", Help: "Blobs in the store after the last sweep."}),
		bytes:        prometheus.NewGauge(prometheus.GaugeOpts{Name: "sedna_blobs_stored_bytes", Help: "Bytes in the store after the last sweep."}),
	}
	if c.Metrics != nil {
		c.Metrics.MustRegister(g.removed, g.removedBytes, g.blobs, g.bytes)
	}
	return g, nil
}

// Used tells that something refers to the digest now. It waits for a removal
// that is going on, so that who looks for the blob after it sees the truth.
func (c *Collector) Used(sha256 string) {
	c.removing.Lock()
	defer c.removing.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.named[sha256], c.used[sha256] = true, true
}

// Storing tells that somebody is about to store or touch the blob. From now on
// it has its grace time again.
func (c *Collector) Storing(sha256 string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.named, sha256)
}

// Kick has the collector look now.
func (c *Collector) Kick() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// Start looks now and then until ctx ends.
func (c *Collector) Start(ctx context.Context) error {
	tick := time.NewTicker(c.Every)
	defer tick.Stop()
	for {
		if err := c.Sweep(ctx); err != nil && ctx.Err() == nil {
			c.Log.Warn("blobs were not swept", "error", err)
		}
		select {
		case <-tick.C:
		case <-c.kick:
		case <-ctx.Done():
			return nil
		}
	}
}

// Sweep looks once.
func (c *Collector) Sweep(ctx context.Context) error {
	c.mu.Lock()
	clear(c.used)
	c.mu.Unlock()
	inUse, err := c.References.InUse(ctx)
	if err != nil {
		return err
	}
	entries, err := c.Store.Entries(ctx)
	if err != nil {
		return err
	}
	count, total := len(entries), int64(0)
	for _, e := range entries {
		total += e.Size
	}
	var errs []error
	for _, e := range c.candidates(entries, inUse) {
		if c.Quota > 0 && total <= c.Quota {
			break
		}
		removed, err := c.remove(ctx, e)
		if err != nil {
			errs = append(errs, err)
		}
		if removed {
			count, total = count-1, total-e.Size
			c.removed.Inc()
			c.removedBytes.Add(float64(e.Size))
			c.Log.Info("blob removed, nothing refers to it", "sha256", e.SHA256, "bytes", e.Size, "stored", e.StoredAt)
		}
	}
	c.blobs.Set(float64(count))
	c.bytes.Set(float64(total))
	if over := c.Quota > 0 && total > c.Quota; over != c.over {
		if c.over = over; over {
			c.Log.Warn("the blobs that are needed or new exceed the quota", "bytes", total, "quota", c.Quota)
		}
	}
	return errors.Join(errs...)
}

// candidates gives what may be removed, the oldest first.
func (c *Collector) candidates(entries []blob.Entry, inUse map[string]bool) []blob.Entry {
	newest := map[string]blob.Entry{}
	for _, e := range entries {
		if best, ok := newest[e.SHA256]; !ok || e.StoredAt.After(best.StoredAt) {
			newest[e.SHA256] = e
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for sha := range c.named {
		if _, there := newest[sha]; !there && !c.used[sha] {
			delete(c.named, sha)
		}
	}
	now := c.Now()
	var out []blob.Entry
	for _, e := range entries {
		if inUse[e.SHA256] {
			c.named[e.SHA256] = true
			if newest[e.SHA256].Version == e.Version {
				continue
			}
		}
		ended := c.Exclusive && c.named[e.SHA256] && !inUse[e.SHA256]
		if ended || now.Sub(e.StoredAt) >= c.Grace {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b blob.Entry) int {
		return cmp.Or(a.StoredAt.Compare(b.StoredAt), cmp.Compare(a.SHA256, b.SHA256), cmp.Compare(a.Version, b.Version))
	})
	return out
}

// remove removes e unless something has come to refer to it meanwhile.
func (c *Collector) remove(ctx context.Context, e blob.Entry) (bool, error) {
	c.removing.Lock()
	defer c.removing.Unlock()
	c.mu.Lock()
	used := c.used[e.SHA256]
	c.mu.Unlock()
	if used {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	return c.Store.Remove(ctx, e)
}
