// Package dataset watches the data of Datasets on this node and hands its
// growth to jobs, each sample exactly once and in order.
//
// A file is read from where the last look ended, in whole records. What was
// read is known by the file's begin, its last bytes before the cursor and a
// running digest, so that appended, truncated, rotated, replaced and returning
// files are told apart without reading them again. Each sample has an ordinal
// that is never used twice. While jobs are registered, samples are copied into
// segments; Take makes a train and an eval shard of those that a job has not
// had. Segments and shards are immutable files named by their sha256, synced
// and renamed into place before one SQLite transaction has cursor, statistics,
// segments and positions move together: a crash in between neither loses nor
// repeats a sample.
//
// A file is expected to have one writer, which appends. Changes within what
// was read that leave the file's begin and the bytes before the cursor alone go
// unnoticed, unless they come as another file. A file that is made and renamed
// away between two looks is missed.
package dataset
