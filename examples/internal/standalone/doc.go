// Package standalone is what the examples share: Sedna's parts as processes of
// the sedna binary, the Kubernetes API as a user reaches it, and a look at what
// deleted work leaves behind.
package standalone
