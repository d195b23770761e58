// Package robustness puts the task protocol to the test as outsiders can: jobs
// are made, changed and deleted at random while the link between edge and cloud
// drops, GlobalManager, mapper and LocalController are killed, and somebody on
// the bus plays old messages again. Observers on the Kubernetes API and on the
// MQTT bus write down what they see; package history judges it.
package robustness
