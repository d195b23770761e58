// Package robustness puts the task protocol to the test as outsiders can: jobs
// are made, changed and deleted at random on two nodes while links drop,
// processes and buses are killed, databases come to harm, Devices are deleted by
// hand or by force, clocks are wrong, and somebody on the bus plays old messages
// again. Observers on the Kubernetes API and on the MQTT buses write down what
// they see; package history judges it.
package robustness
