// Package task is the contract between the GlobalManager and a LocalController:
// the signed task document that goes down in a twin, and the signed report of
// small properties that comes up. It links no Kubernetes package.
package task
