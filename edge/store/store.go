package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/edgetwin/sedna/lib/faults"
)

var (
	// ErrDamaged: SQLite cannot read the file. Opening the store again moves it
	// aside.
	ErrDamaged = errors.New("database damaged")
	// ErrFull: the disk or Options.MaxBytes is used up; nothing was written.
	ErrFull = errors.New("database full")
	// ErrNewerSchema: a newer build has written the file.
	ErrNewerSchema = errors.New("database schema is newer than this build")
	// ErrInUse: another process has the data directory open.
	ErrInUse = errors.New("data directory is in use by another process")
)

// FileName is the database's name in the data directory.
const FileName = "sedna.db"

// Options bound one store. Zero fields mean the defaults.
type Options struct {
	Dir           string           // data directory, made with mode 0700
	MaxBytes      int64            // largest database file in bytes, default 1 GiB
	MaxTombstones int              // default 100000, the oldest go first
	TombstoneAge  time.Duration    // older ones go, default 2 years
	MaxEvents     int              // length of the event log, default 2000
	Readers       int              // connections for reading, default 4
	Now           func() time.Time // default the system's clock
}

func (o Options) withDefaults() Options {
	if o.MaxBytes == 0 {
		o.MaxBytes = 1 << 30
	}
	if o.MaxTombstones == 0 {
		o.MaxTombstones = 100_000
	}
	if o.TombstoneAge == 0 {
		o.TombstoneAge = 2 * 365 * 24 * time.Hour
	}
	if o.MaxEvents == 0 {
		o.MaxEvents = 2000
	}
	if o.Readers == 0 {
		o.Readers = 4
	}
	if o.Now == nil {
		o.Now = func() time.Time { return faults.Clock(time.Now()) }
	}
	return o
}

// Store is an open database. All methods are safe for concurrent use.
type Store struct {
	opts    Options
	lock    *os.File
	writer  *sql.DB
	readers *sql.DB
	damaged atomic.Bool

	fresh bool
	aside string
}

// Open opens or makes the database in o.Dir and holds the directory's lock
// until Close.
func Open(ctx context.Context, o Options) (*Store, error) {
	o = o.withDefaults()
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("store %s: %w", o.Dir, err)
	}
	o.Dir = dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{opts: o, lock: lock}
	err = s.open(ctx)
	if errors.Is(err, ErrDamaged) {
		if s.aside, err = moveAside(s.Path(), o.Now()); err == nil {
			err = s.open(ctx)
		}
	}
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("store %s: %w", s.Path(), err)
	}
	return s, nil
}

// lockDir takes the lock that the kernel frees when the process ends, however
// it ends.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("store %s: %w", dir, ErrInUse)
		}
		return nil, fmt.Errorf("store %s: lock: %w", dir, err)
	}
	return f, nil
}

func (s *Store) open(ctx context.Context) (err error) {
	path := s.Path()
	_, statErr := os.Stat(path)
	s.fresh = errors.Is(statErr, fs.ErrNotExist)
	// SQLite gives its side files the mode of the database.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(0o600), f.Close()); err != nil {
		return err
	}
	s.writer = openWriter(path, s.opts.MaxBytes)
	s.readers = openReaders(path, s.opts.Readers)
	defer func() {
		if err != nil {
			err = errors.Join(classify(err), s.writer.Close(), s.readers.Close())
		}
	}()
	if err := check(ctx, s.writer); err != nil {
		return err
	}
	if err := migrate(ctx, s.writer); err != nil {
		return err
	}
	return s.Update(ctx, func(tx *Tx) error { return tx.pruneTombstones() })
}

// check reads the whole file once, so that damage shows at the start and not
// in the middle of a task.
func check(ctx context.Context, db *sql.DB) error {
	var result string
	if err := db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&result); err != nil {
		return err
	}
	if result != "ok" {
		return fmt.Errorf("%w: %s", ErrDamaged, result)
	}
	return nil
}

// moveAside keeps a damaged database for inspection, its side files too.
func moveAside(path string, now time.Time) (string, error) {
	aside := path + ".damaged-" + now.UTC().Format("20060102T150405.000000000Z")
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Rename(path+suffix, aside+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("move the damaged database aside: %w", err)
		}
	}
	return aside, nil
}

// Path is the database file.
func (s *Store) Path() string { return filepath.Join(s.opts.Dir, FileName) }

// Fresh tells whether this Open made the database; after damage it did.
func (s *Store) Fresh() bool { return s.fresh }

// Aside is where a damaged database was moved by this Open, or empty.
func (s *Store) Aside() string { return s.aside }

// Err is ErrDamaged once an operation has met damage; only a restart heals it.
func (s *Store) Err() error {
	if s.damaged.Load() {
		return ErrDamaged
	}
	return nil
}

// Close ends the store; the write-ahead log is folded into the database.
func (s *Store) Close() error {
	return errors.Join(s.readers.Close(), s.writer.Close(), s.lock.Close())
}

// Update runs fn in one write transaction and commits it, durably, if fn
// returns nil. fn must not use the store but through tx.
func (s *Store) Update(ctx context.Context, fn func(*Tx) error) error {
	return s.run(ctx, s.writer, nil, fn)
}

// View runs fn on a snapshot.
func (s *Store) View(ctx context.Context, fn func(*Tx) error) error {
	return s.run(ctx, s.readers, &sql.TxOptions{ReadOnly: true}, fn)
}

func (s *Store) run(ctx context.Context, db *sql.DB, o *sql.TxOptions, fn func(*Tx) error) error {
	err := func() error {
		raw, err := db.BeginTx(ctx, o)
		if err != nil {
			return err
		}
		defer raw.Rollback() // after Commit this does nothing
		if err := fn(&Tx{ctx: ctx, tx: raw, opts: &s.opts}); err != nil {
			return err
		}
		return raw.Commit()
	}()
	if err = classify(err); errors.Is(err, ErrDamaged) {
		s.damaged.Store(true)
	}
	return err
}

// Tx is one transaction; it must not outlive the function it was given to.
type Tx struct {
	ctx  context.Context
	tx   *sql.Tx
	opts *Options
}

func (t *Tx) exec(query string, args ...any) error {
	_, err := t.tx.ExecContext(t.ctx, query, args...)
	return err
}

// Times are kept in microseconds since 1970; the zero time is 0.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMicro(n).UTC()
}
