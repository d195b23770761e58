// Package cloud puts the GlobalManager together: the Kubernetes API (embedded
// or a cluster's), the controllers, enrolment, blobs, cloud inference and
// edgelink, behind one TLS port that edge nodes dial.
package cloud
