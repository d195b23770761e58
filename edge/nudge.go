package edge

import (
	"time"

	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/models/wire"
)

// nudgeGap is the least time between two nudges that are followed: anybody can
// publish on the bus.
const nudgeGap = 5 * time.Second

// followNudges has the node report at once when the cloud waits for it. Without
// nudges it does so when its time has come.
func (c *controller) followNudges() {
	var last time.Time
	c.bus.Subscribe(wire.Nudge(c.cfg.Node), 1, func(m bus.Message) {
		now := time.Now()
		if m.Retained || !last.IsZero() && now.Sub(last) < nudgeGap {
			return
		}
		last = now
		c.log.Debug("nudged")
		c.tasks.ReportAll()
		c.beacon.Soon()
	})
}
