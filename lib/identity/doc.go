// Package identity is who is who between cloud and edge: the GlobalManager's
// certificate authority and signing keys, the one-time tokens with which nodes
// enrol, and a node's own key, certificate and pinned keys. Private keys and
// token records are 0600 files in 0700 directories, each written whole or not
// at all, so that a kill at any moment leaves a state that loads.
package identity
