package store

import (
	"database/sql"
	"errors"
	"time"
)

// DatasetKey names a dataset.
type DatasetKey struct{ Namespace, Name string }

// Dataset is what is known of a dataset, up to where it was read.
type Dataset struct {
	DatasetKey
	State []byte
}

// Dataset gives one dataset, or nil if there is none.
func (t *Tx) Dataset(k DatasetKey) (*Dataset, error) {
	d := Dataset{DatasetKey: k}
	err := t.tx.QueryRowContext(t.ctx, "SELECT state FROM datasets WHERE namespace = ? AND name = ?", k.Namespace, k.Name).Scan(&d.State)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return &d, err
}

// Datasets gives all datasets in key order.
func (t *Tx) Datasets() ([]Dataset, error) {
	return collect(t, func(r *sql.Rows, d *Dataset) error { return r.Scan(&d.Namespace, &d.Name, &d.State) },
		"SELECT namespace, name, state FROM datasets ORDER BY namespace, name")
}

// PutDataset writes a dataset, over one with the same key.
func (t *Tx) PutDataset(d Dataset) error {
	return t.exec("INSERT OR REPLACE INTO datasets (namespace, name, state) VALUES (?,?,?)", d.Namespace, d.Name, d.State)
}

// DeleteDataset removes a dataset with its files, segments, consumers and
// shards; it is no error if there is none.
func (t *Tx) DeleteDataset(k DatasetKey) error {
	err := t.exec("DELETE FROM datasets WHERE namespace = ? AND name = ?", k.Namespace, k.Name)
	for _, table := range []string{"dataset_files", "dataset_segments", "dataset_consumers", "dataset_shards"} {
		if err == nil {
			err = t.exec("DELETE FROM "+table+" WHERE namespace = ? AND dataset = ?", k.Namespace, k.Name)
		}
	}
	return err
}

// DatasetFile is one file of a dataset that is a directory.
type DatasetFile struct {
	Path     string // relative to the directory
	Size     int64
	Modified time.Time // in nanoseconds
	SHA256   string
	Ordinal  int64 // of its sample; -1: it is none
	Gone     bool
}

const datasetFileColumns = "path, size, modified, sha256, ordinal, gone"

func scanDatasetFile(r interface{ Scan(...any) error }, f *DatasetFile) error {
	var modified int64
	err := r.Scan(&f.Path, &f.Size, &modified, &f.SHA256, &f.Ordinal, &f.Gone)
	f.Modified = time.Unix(0, modified).UTC()
	return err
}

// DatasetFile gives one file of a dataset, or nil.
func (t *Tx) DatasetFile(k DatasetKey, path string) (*DatasetFile, error) {
	var f DatasetFile
	err := scanDatasetFile(t.tx.QueryRowContext(t.ctx, "SELECT "+datasetFileColumns+" FROM dataset_files WHERE namespace = ? AND dataset = ? AND path = ?", k.Namespace, k.Name, path), &f)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return &f, err
}

// DatasetFiles gives at most limit files behind a path, in path order.
func (t *Tx) DatasetFiles(k DatasetKey, after string, limit int) ([]DatasetFile, error) {
	return collect(t, func(r *sql.Rows, f *DatasetFile) error { return scanDatasetFile(r, f) },
		"SELECT "+datasetFileColumns+" FROM dataset_files WHERE namespace = ? AND dataset = ? AND path > ? ORDER BY path LIMIT ?", k.Namespace, k.Name, after, limit)
}

// DatasetSamples gives at most limit files whose samples have an ordinal of
// first or more, in that order.
func (t *Tx) DatasetSamples(k DatasetKey, first int64, limit int) ([]DatasetFile, error) {
	return collect(t, func(r *sql.Rows, f *DatasetFile) error { return scanDatasetFile(r, f) },
		"SELECT "+datasetFileColumns+" FROM dataset_files WHERE namespace = ? AND dataset = ? AND ordinal >= ? ORDER BY ordinal LIMIT ?", k.Namespace, k.Name, first, limit)
}

// PutDatasetFile writes a file, over one of the same path.
func (t *Tx) PutDatasetFile(k DatasetKey, f DatasetFile) error {
	return t.exec("INSERT OR REPLACE INTO dataset_files (namespace, dataset, "+datasetFileColumns+") VALUES (?,?,?,?,?,?,?,?)",
		k.Namespace, k.Name, f.Path, f.Size, f.Modified.UnixNano(), f.SHA256, f.Ordinal, f.Gone)
}

// DeleteDatasetFiles removes all files of a dataset.
func (t *Tx) DeleteDatasetFiles(k DatasetKey) error {
	return t.exec("DELETE FROM dataset_files WHERE namespace = ? AND dataset = ?", k.Namespace, k.Name)
}

// DatasetSegment is a file with samples that somebody has yet to take.
type DatasetSegment struct {
	DatasetKey
	First   int64 // ordinal of its first sample
	Samples int64
	Header  []byte // goes before the samples in a shard
	SHA256  string
	Size    int64 // bytes
}

// Last is the ordinal behind its last sample.
func (s *DatasetSegment) Last() int64 { return s.First + s.Samples }

// DatasetSegments gives the segments of a dataset in order.
func (t *Tx) DatasetSegments(k DatasetKey) ([]DatasetSegment, error) {
	return collect(t, func(r *sql.Rows, s *DatasetSegment) error {
		return r.Scan(&s.Namespace, &s.Name, &s.First, &s.Samples, &s.Header, &s.SHA256, &s.Size)
	}, "SELECT namespace, dataset, first, samples, header, sha256, size FROM dataset_segments WHERE namespace = ? AND dataset = ? ORDER BY first", k.Namespace, k.Name)
}

// PutDatasetSegment writes a segment.
func (t *Tx) PutDatasetSegment(s DatasetSegment) error {
	if s.Header == nil {
		s.Header = []byte{}
	}
	return t.exec("INSERT OR REPLACE INTO dataset_segments (namespace, dataset, first, samples, header, sha256, size) VALUES (?,?,?,?,?,?,?)",
		s.Namespace, s.Name, s.First, s.Samples, s.Header, s.SHA256, s.Size)
}

// DeleteDatasetSegments removes the segments whose samples all come before an
// ordinal.
func (t *Tx) DeleteDatasetSegments(k DatasetKey, before int64) error {
	return t.exec("DELETE FROM dataset_segments WHERE namespace = ? AND dataset = ? AND first + samples <= ?", k.Namespace, k.Name, before)
}

// DatasetConsumer is a job that takes samples of a dataset.
type DatasetConsumer struct {
	DatasetKey
	Job      string
	Position int64 // ordinal of the next sample that it takes
	State    []byte
}

// DatasetConsumers gives the consumers of a dataset in key order.
func (t *Tx) DatasetConsumers(k DatasetKey) ([]DatasetConsumer, error) {
	return collect(t, func(r *sql.Rows, c *DatasetConsumer) error {
		return r.Scan(&c.Namespace, &c.Name, &c.Job, &c.Position, &c.State)
	}, "SELECT namespace, dataset, job, position, state FROM dataset_consumers WHERE namespace = ? AND dataset = ? ORDER BY job", k.Namespace, k.Name)
}

// PutDatasetConsumer writes a consumer, over one with the same key.
func (t *Tx) PutDatasetConsumer(c DatasetConsumer) error {
	return t.exec("INSERT OR REPLACE INTO dataset_consumers (namespace, dataset, job, position, state) VALUES (?,?,?,?,?)", c.Namespace, c.Name, c.Job, c.Position, c.State)
}

// DeleteDatasetConsumer removes a consumer with its shards; it is no error if
// there is none.
func (t *Tx) DeleteDatasetConsumer(k DatasetKey, job string) error {
	if err := t.exec("DELETE FROM dataset_consumers WHERE namespace = ? AND dataset = ? AND job = ?", k.Namespace, k.Name, job); err != nil {
		return err
	}
	return t.exec("DELETE FROM dataset_shards WHERE namespace = ? AND dataset = ? AND job = ?", k.Namespace, k.Name, job)
}

// DatasetShard is what a round of a job has taken for one purpose.
type DatasetShard struct {
	DatasetKey
	Job         string
	Round       int64
	Role        string // what it is for
	First, Last int64  // ordinals that the round has taken: First up to, but without, Last
	Samples     int64
	SHA256      string
	Size        int64  // bytes
	File        string // name; empty when there are no samples
	Kept        bool   // somebody needs the file
}

// DatasetShards gives the shards of a job in the order of their rounds.
func (t *Tx) DatasetShards(k DatasetKey, job string) ([]DatasetShard, error) {
	return collect(t, func(r *sql.Rows, s *DatasetShard) error {
		return r.Scan(&s.Namespace, &s.Name, &s.Job, &s.Round, &s.Role, &s.First, &s.Last, &s.Samples, &s.SHA256, &s.Size, &s.File, &s.Kept)
	}, `SELECT namespace, dataset, job, round, role, first, last, samples, sha256, size, file, kept FROM dataset_shards
		WHERE namespace = ? AND dataset = ? AND job = ? ORDER BY round, role`, k.Namespace, k.Name, job)
}

// PutDatasetShard writes a shard, over one with the same key.
func (t *Tx) PutDatasetShard(s DatasetShard) error {
	return t.exec(`INSERT OR REPLACE INTO dataset_shards (namespace, dataset, job, round, role, first, last, samples, sha256, size, file, kept)
		VALUES (?,?,?,?,?,?,?,?,?,?,?,?)`, s.Namespace, s.Name, s.Job, s.Round, s.Role, s.First, s.Last, s.Samples, s.SHA256, s.Size, s.File, s.Kept)
}

// PruneDatasetShards removes the rows of a job's rounds before one; what they
// kept was let go before.
func (t *Tx) PruneDatasetShards(k DatasetKey, job string, before int64) error {
	return t.exec("DELETE FROM dataset_shards WHERE namespace = ? AND dataset = ? AND job = ? AND round < ? AND kept = 0", k.Namespace, k.Name, job, before)
}

// DatasetFileNames gives the names of all files that segments and kept shards
// need, with their sizes; a segment's name is its digest.
func (t *Tx) DatasetFileNames() (map[string]int64, error) {
	rows, err := t.tx.QueryContext(t.ctx, "SELECT sha256, size FROM dataset_segments UNION SELECT file, size FROM dataset_shards WHERE kept = 1 AND file <> ''")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[string]int64{}
	for rows.Next() {
		var name string
		var size int64
		if err := rows.Scan(&name, &size); err != nil {
			return nil, err
		}
		out[name] = size
	}
	return out, rows.Err()
}

// DatasetBytes gives how much the files of segments and of kept shards take.
func (t *Tx) DatasetBytes() (segments, shards int64, err error) {
	err = t.tx.QueryRowContext(t.ctx, `SELECT coalesce((SELECT sum(size) FROM (SELECT DISTINCT sha256, size FROM dataset_segments)), 0),
		coalesce((SELECT sum(size) FROM (SELECT DISTINCT file, size FROM dataset_shards WHERE kept = 1)), 0)`).Scan(&segments, &shards)
	return segments, shards, err
}

// collect gives the rows of a query.
func collect[T any](t *Tx, scan func(*sql.Rows, *T) error, query string, args ...any) ([]T, error) {
	rows, err := t.tx.QueryContext(t.ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []T
	for rows.Next() {
		var v T
		if err := scan(rows, &v); err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}
