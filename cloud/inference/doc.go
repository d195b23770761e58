// Package inference serves big models on the GlobalManager's /v2 routes, for
// the hard examples of edge nodes. Models are set and removed by the
// controllers under the name of their service; requests of the Open Inference
// Protocol v2 come in over TLS from nodes, each of which may only ask for the
// services that it works for.
package inference
