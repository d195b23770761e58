package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"

	sqlite3 "github.com/mattn/go-sqlite3"
)

// All that depends on the SQLite driver is in this file.

// connector opens connections with settings that belong to a connection, so
// that a replaced one has them too.
type connector struct {
	drv *sqlite3.SQLiteDriver
	dsn string
}

func (c connector) Connect(context.Context) (driver.Conn, error) { return c.drv.Open(c.dsn) }
func (c connector) Driver() driver.Driver                        { return c.drv }

// pageSize is SQLite's page in bytes, set when a database is made.
const pageSize = 4096

// openWriter gives the handle of the one connection that writes.
func openWriter(path string, maxBytes int64) *sql.DB {
	db := sql.OpenDB(connector{
		drv: &sqlite3.SQLiteDriver{ConnectHook: func(c *sqlite3.SQLiteConn) error {
			_, err := c.Exec(fmt.Sprintf("PRAGMA max_page_count=%d; PRAGMA journal_size_limit=4194304", maxBytes/pageSize), nil)
			return err
		}},
		dsn: dsn(path, url.Values{"_journal_mode": {"WAL"}, "_synchronous": {"FULL"}, "_txlock": {"immediate"}}),
	})
	db.SetMaxOpenConns(1)
	return db
}

// openReaders gives a pool of connections that cannot write.
func openReaders(path string, n int) *sql.DB {
	db := sql.OpenDB(connector{
		drv: &sqlite3.SQLiteDriver{},
		dsn: dsn(path, url.Values{"_query_only": {"true"}}),
	})
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	return db
}

func dsn(path string, v url.Values) string {
	v.Set("_busy_timeout", "5000")
	return (&url.URL{Scheme: "file", Path: path, RawQuery: v.Encode()}).String()
}

// classify gives driver errors the sentinel that callers can act on.
func classify(err error) error {
	var se sqlite3.Error
	if !errors.As(err, &se) {
		return err
	}
	switch se.Code {
	case sqlite3.ErrCorrupt, sqlite3.ErrNotADB:
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	case sqlite3.ErrFull:
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}
