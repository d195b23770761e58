package store

import (
	"database/sql"
	"errors"
	"time"
)

// States of a model on disk.
const (
	ModelFetched     = "fetched"     // the bytes are those of its digest
	ModelVerified    = "verified"    // a throwaway process has loaded it
	ModelLoaded      = "loaded"      // this process has loaded it at least once
	ModelQuarantined = "quarantined" // it was loading at too many crashes; its file is gone
)

// Model is one model file.
type Model struct {
	SHA256        string // the key
	Name, Version string
	Format        string
	Path          string // of the file, relative to the data directory
	Size          int64  // bytes
	State         string
	Crashes       int       // process starts that found it loading, in a row
	LoadingSince  time.Time // zero when it is not being loaded
	LastUsed      time.Time
}

const modelColumns = "sha256, name, version, format, path, size, state, crashes, loading_since, last_used"

func scanModel(row interface{ Scan(...any) error }) (*Model, error) {
	var m Model
	var loading, used int64
	err := row.Scan(&m.SHA256, &m.Name, &m.Version, &m.Format, &m.Path, &m.Size, &m.State, &m.Crashes, &loading, &used)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m.LoadingSince, m.LastUsed = fromMicros(loading), fromMicros(used)
	return &m, nil
}

// Model gives the model of a digest, or nil.
func (t *Tx) Model(sha256 string) (*Model, error) {
	return scanModel(t.tx.QueryRowContext(t.ctx, "SELECT "+modelColumns+" FROM models WHERE sha256 = ?", sha256))
}

// Models gives all models, those used last first.
func (t *Tx) Models() ([]*Model, error) {
	rows, err := t.tx.QueryContext(t.ctx, "SELECT "+modelColumns+" FROM models ORDER BY last_used DESC, sha256")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []*Model
	for rows.Next() {
		m, err := scanModel(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, rows.Err()
}

// PutModel writes a model, over one of the same digest.
func (t *Tx) PutModel(m *Model) error {
	return t.exec("INSERT OR REPLACE INTO models ("+modelColumns+") VALUES (?,?,?,?,?,?,?,?,?,?)",
		m.SHA256, m.Name, m.Version, m.Format, m.Path, m.Size, m.State, m.Crashes, micros(m.LoadingSince), micros(m.LastUsed))
}

// DeleteModel removes a model's row; it is no error if there is none.
func (t *Tx) DeleteModel(sha256 string) error {
	return t.exec("DELETE FROM models WHERE sha256 = ?", sha256)
}
