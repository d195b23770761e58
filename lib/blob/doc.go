// Package blob keeps and moves bytes that are named by their sha256: models,
// datasets, examples, weights. Dir is a Backend in a directory, package s3blob
// has one in S3. Client fetches from and uploads to a blob server
// (cloud/blobserver), resuming where it was cut off; FetchURL and PutURL do the
// like with any web server. Nothing is visible under its name before its digest
// was checked and its bytes are on the disk.
package blob
