// Package storage brings what a URL names to the local disk, and back: files
// below given roots, http and https, S3. It is how manifests' datasets and
// models get to workers. Everything is bounded (bytes, files, depth, time);
// what is fetched appears under its name when it is whole and, where a digest
// was given, right; archives are unpacked by package archive.
//
// A URL is an absolute path or file://, http://, https://, s3://bucket/key or
// obs://bucket/key, which is S3 too. "#sha256=<hex>" at its end says what the
// bytes must be.
package storage
