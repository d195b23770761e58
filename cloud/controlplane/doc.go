// Package controlplane is a Kubernetes API server in one Go value, for machines that have no cluster: custom resources,
// stored in an embedded etcd under a data directory, served over TLS to controllers and to stock kubectl.
//
// In: a directory, a serving certificate, the CA of client certificates, the CRDs to install. Out: an https address that
// speaks the Kubernetes API for those CRDs and for any that are added later.
//
// Every request needs a client certificate of that CA (CN = user, O = groups), the health, version and metrics routes
// included: no certificate, or one of another CA, is answered 401, and a certificate outside the group system:masters 403,
// because edge nodes hold certificates of the same CA and have no business here.
//
// There is no core/v1: no Namespace objects (namespaced resources live in any namespace), Secrets, Events or Leases, no
// garbage collector and no admission.
package controlplane
