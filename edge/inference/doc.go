// Package inference answers inference requests on a node. Requests come in over
// HTTP (Open Inference Protocol v2, images) and over the node's MQTT bus; each
// is for a service, which is a model with a rule that tells hard examples and,
// perhaps, a larger model in the cloud. A service may also be fed: by readings
// on the bus, of which windows are made, and by images of cameras. Its answers
// then go onto the bus, and into a property of a device where it has one.
//
// A request runs through the cascade: edge model, rule, and for what is hard
// the cloud. When the cloud does not answer, the edge's answer goes out and
// says why; a service may ask for an error instead. Services are activated,
// exchanged and deactivated while requests run; none is lost or answered by
// parts of two models.
//
// Lock order: entry.mu, then Manager.mu or router.mu; feed.mu, frame.mu and
// writer.mu are innermost. None is held during inference.
package inference
