package edgelink

import (
	"context"
	"encoding/json"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/edgetwin/sedna/models/wire"
)

// uplink sends frames to the cloud at edgeHub's rate. What comes while the
// link is down is lost, as with KubeEdge: who reports repeats until the cloud
// has acknowledged.
type uplink struct {
	limiter *rate.Limiter
	queue   chan *wire.Frame
	sent    prometheus.Counter
	lost    *prometheus.CounterVec
	lose    *loser

	mu    sync.Mutex
	write func(context.Context, []byte) error // nil while the link is down
}

func newUplink(l Limits, r prometheus.Registerer, lose *loser) *uplink {
	u := &uplink{
		lose:    lose,
		limiter: rate.NewLimiter(rate.Limit(l.UpRate), l.UpBurst),
		queue:   make(chan *wire.Frame, l.UpQueue),
		sent:    prometheus.NewCounter(prometheus.CounterOpts{Name: "sedna_edgelink_up_sent_total", Help: "Messages sent to the cloud."}),
		lost:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sedna_edgelink_up_lost_total", Help: "Messages to the cloud that were lost, by reason (offline, full, broken, chance)."}, []string{"reason"}),
	}
	r.MustRegister(u.sent, u.lost)
	return u
}

// send never blocks.
func (u *uplink) send(f *wire.Frame) {
	if u.writer() == nil {
		u.lost.WithLabelValues("offline").Inc()
		return
	}
	if u.lose.chance(u.lose.DropUp) {
		u.lost.WithLabelValues("chance").Inc()
		return
	}
	select {
	case u.queue <- f:
	default:
		u.lost.WithLabelValues("full").Inc()
	}
}

func (u *uplink) writer() func(context.Context, []byte) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.write
}

// attach sets the way to write; nil when the link is down.
func (u *uplink) attach(write func(context.Context, []byte) error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.write = write
}

// run sends until ctx ends.
func (u *uplink) run(ctx context.Context) {
	for {
		var f *wire.Frame
		select {
		case <-ctx.Done():
			return
		case f = <-u.queue:
		}
		if u.limiter.Wait(ctx) != nil {
			return
		}
		reason := "offline"
		if write := u.writer(); write != nil {
			reason = "broken"
			if b, err := json.Marshal(f); err == nil && write(ctx, b) == nil {
				u.sent.Inc()
				continue
			}
		}
		u.lost.WithLabelValues(reason).Inc()
	}
}
