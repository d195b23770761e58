// Package serving is what the edge and the cloud share to answer inference
// requests: a Model, which is an engine session under the names of the Open
// Inference Protocol with its labels, its checks and its bounds, and a Slot,
// which holds what serves now and exchanges it without losing a request.
package serving
