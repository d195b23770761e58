// Package s3blob keeps blobs in a bucket of S3, for a GlobalManager whose disk
// does not hold them or that shares them with others.
//
// A blob lies under <prefix><sha256>/<generation>. Each time that it is stored
// again or touched it gets a new generation, and a collector removes
// generations, not blobs: what it has looked at can go without harm to what
// another process stores meanwhile. Bytes are received and checked in a
// directory first, so nothing is visible in the bucket before its digest is
// known to be right; large ones then go there in parts, and what a failure
// left is gone on with. The directory is also a cache.
package s3blob
