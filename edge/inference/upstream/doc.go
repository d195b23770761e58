// Package upstream is the cloud as the edge sees it: one model on a server of
// the Open Inference Protocol v2 over HTTP. Calls are bounded in time, number
// and size; after a few failures in a row they fail at once, until a probe in
// the background finds the model ready again.
package upstream
