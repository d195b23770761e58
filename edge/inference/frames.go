package inference

import (
	"bytes"
	"context"
	"image"
	"sync"

	"github.com/google/uuid"

	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/models/oip"
	"github.com/edgetwin/sedna/models/wire"
)

// frame is the newest image without an id that waits for a service.
type frame struct {
	mu      sync.Mutex
	image   []byte // nil: none
	working bool   // a worker will look for the next
}

// takeImage queues an image of the bus, and refuses what needs no worker.
func (g *gateway) takeImage(ctx context.Context, msg bus.Message) {
	service, id, request, ok := wire.ParseInferImage(g.m.cfg.Node, msg.Topic)
	if !ok || ctx.Err() != nil {
		return
	}
	var err error
	most := g.m.cfg.Limits.ImageBytes
	switch {
	case msg.Retained:
		_ = g.m.cfg.Metrics.Reject(metrics.DoorMQTT, wire.E(wire.Stale, "", "a retained image is no request", ""))
		return
	case request && !oip.ValidID(id):
		id, err = "", oip.BadID(id)
	case int64(len(msg.Payload)) > most:
		err = oip.TooLarge(int64(len(msg.Payload)), oip.Limits{MaxBody: most})
	case request:
		err = g.enqueue(job{service: service, payload: msg.Payload, kind: jobImage, id: id})
	default:
		err = g.keepFrame(service, msg.Payload)
	}
	if err != nil {
		g.outbox.offer(g.refusal(service, id, err))
	}
}

// keepFrame has an image inferred next, in place of one that waits.
func (g *gateway) keepFrame(service string, payload []byte) error {
	e, err := g.m.find(service)
	if err != nil {
		return err
	}
	e.frame.mu.Lock()
	defer e.frame.mu.Unlock()
	if e.frame.image != nil {
		e.stats.replaced.Add(1)
	}
	e.frame.image = payload
	if e.frame.working {
		return nil
	}
	if err := g.enqueue(job{service: service, kind: jobFrame}); err != nil {
		e.frame.image = nil
		return err
	}
	e.frame.working = true
	return nil
}

// next gives the image that waits; nil when there is none and nobody works on
// the service's images any more.
func (f *frame) next() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.image
	f.image, f.working = nil, b != nil
	return b
}

// frames answers the images without an id of one service until none waits.
func (g *gateway) frames(service string) {
	e, err := g.m.find(service)
	if err != nil {
		return // stopped since
	}
	for b := e.frame.next(); b != nil; b = e.frame.next() {
		g.outbox.put(g.ctx, g.image(service, "", b))
	}
}

// image makes the result of an image; without an id it is one that nobody asked
// for.
func (g *gateway) image(service, id string, payload []byte) message {
	e, l, err := g.m.lease(service)
	if err != nil {
		return g.refusal(service, id, err)
	}
	defer l.Release()
	name := id
	if id == "" {
		name = uuid.Must(uuid.NewV7()).String()
	}
	o, err := g.m.inferImage(g.ctx, e, l.Value, name, func() (image.Image, error) {
		contentType := imageType(payload)
		if contentType == "" {
			return nil, wire.E(wire.UnsupportedMedia, "", "the message begins neither as "+typePNG+" nor as "+typeJPEG, "")
		}
		return decodeImage(contentType, payload, g.m.cfg.Limits.ImagePixels)
	})
	switch {
	case err != nil:
		return g.refusal(service, id, err)
	case id == "":
		return g.unasked(l.Value, o)
	}
	return g.result(l.Value, o)
}

// imageType tells the content type of an image by how it begins; empty for
// what is neither.
func imageType(b []byte) string {
	switch {
	case bytes.HasPrefix(b, []byte("\x89PNG\r\n\x1a\n")):
		return typePNG
	case bytes.HasPrefix(b, []byte("\xff\xd8\xff")):
		return typeJPEG
	}
	return ""
}
