// Package edge is the LocalController: the part of a node that keeps and runs
// its tasks. It composes the store, the model files, the task state machine and
// the inference gateway with the MQTT bus and a local HTTP server, and works
// whether the cloud and the bus are there or not.
package edge
