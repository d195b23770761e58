// Package oiphttp is the REST door of the Open Inference Protocol v2 on
// net/http: it reads and bounds requests, hands them to a Backend, and writes
// answers and errors in the protocol's form. The edge and the cloud serve the
// same routes with it.
package oiphttp
