// Package wire holds what travels between processes and is not a Kubernetes
// object: the error codes that clients see, the MQTT topics, and the frames of
// edgelink. It links no Kubernetes package, so that edge binaries stay small.
package wire
