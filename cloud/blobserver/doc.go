// Package blobserver serves content-addressed blobs over HTTP:
//
//	GET  /v1/blobs/{sha256}  the bytes; one Range is honoured, ETag is the digest
//	HEAD /v1/blobs/{sha256}  200 and the size, or 404 and, in Upload-Offset, how
//	                         much of an upload is here
//	PUT  /v1/blobs/{sha256}  201 stored, 200 was here already and is kept as if
//	                         it had been stored now
//
// An upload that is cut off can be resumed: HEAD tells the offset n, and a PUT
// with Content-Range: bytes n-b/total and the bytes from n on continues it. It
// is answered 202 and Upload-Offset when bytes are still missing after b. A
// range that begins at 0 begins anew; one that begins elsewhere is refused with
// conflict and Upload-Offset.
//
// Administrators may do all of this, a node may read what Grants allow it.
// Refusals are wire.Error bodies, counted at the door "blob".
//
// A Collector removes blobs that nothing refers to, above a quota.
package blobserver
