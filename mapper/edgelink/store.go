package edgelink

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"

	_ "github.com/mattn/go-sqlite3" // driver
	"google.golang.org/protobuf/proto"

	pb "github.com/edgetwin/sedna/models/dmi"
)

const schema = `
CREATE TABLE IF NOT EXISTS device (namespace TEXT, name TEXT, uid TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (namespace, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS model (namespace TEXT, name TEXT, body BLOB NOT NULL, PRIMARY KEY (namespace, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stranger (namespace TEXT, name TEXT, PRIMARY KEY (namespace, name)) WITHOUT ROWID;
`

// key names a device or a model.
type key struct{ ns, name string }

func (k key) String() string { return k.ns + "/" + k.name }

// record is one device; it is replaced, never changed.
type record struct {
	uid      string
	device   *pb.Device
	declared map[string]bool // its properties
	stranger bool            // lost on its creation: stored, and not registered
	birth    uint64          // counts registrations: the same device can leave and come again
}

func newRecord(uid string, d *pb.Device) *record {
	r := &record{uid: uid, device: d, declared: map[string]bool{}}
	for _, p := range d.GetSpec().GetProperties() {
		r.declared[p.GetName()] = true
	}
	return r
}

func (r *record) protocol() string { return r.device.GetSpec().GetProtocol().GetProtocolName() }

func (r *record) same(other *record) bool {
	return r.uid == other.uid && r.stranger == other.stranger && proto.Equal(r.device, other.device)
}

func (r *record) model() key {
	return key{r.device.GetNamespace(), r.device.GetSpec().GetDeviceModelReference()}
}

// store keeps the node's devices and models in memory and in SQLite. It is a
// copy of what the cloud has: a file that cannot be read is put aside.
type store struct {
	db *sql.DB

	mu      sync.RWMutex
	devices map[key]*record
	models  map[key]*pb.DeviceModel
	births  uint64
	untold  map[key]*record // strangers that mappers do not know, with their models; see lose.go
}

// openStore gives the store at path. aside is why an older file was renamed.
func openStore(path string) (s *store, aside error, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, nil, err
	}
	s, err = loadStore(path)
	if err == nil {
		return s, nil, nil
	}
	aside = err
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Rename(path+suffix, path+suffix+".bad"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, errors.Join(aside, err)
		}
	}
	s, err = loadStore(path)
	return s, aside, err
}

func loadStore(path string) (_ *store, err error) {
	dsn := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: "_journal_mode=WAL&_synchronous=NORMAL&_busy_timeout=5000"}
	db, err := sql.Open("sqlite3", dsn.String())
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("edgelink store %s: %w", path, errors.Join(err, db.Close()))
		}
	}()
	db.SetMaxOpenConns(1)
	// Damage is to show now, and not when a frame cannot be stored.
	var sound string
	if err := db.QueryRow(`PRAGMA quick_check(1)`).Scan(&sound); err != nil {
		return nil, err
	}
	if sound != "ok" {
		return nil, errors.New(sound)
	}
	if _, err := db.Exec(schema); err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, err
	}
	s := &store{db: db, devices: map[key]*record{}, models: map[key]*pb.DeviceModel{}, untold: map[key]*record{}}
	err = each(db, `SELECT namespace, name, uid, body FROM device`, func(k key, uid string, body []byte) error {
		d := &pb.Device{}
		s.devices[k] = newRecord(uid, d)
		if err := proto.Unmarshal(body, d); err != nil {
			return err
		}
		s.devices[k] = newRecord(uid, d)
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = each(db, `SELECT namespace, name, '', NULL FROM stranger`, func(k key, _ string, _ []byte) error {
		if r := s.devices[k]; r != nil {
			r.stranger = true
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = each(db, `SELECT namespace, name, '', body FROM model`, func(k key, _ string, body []byte) error {
		s.models[k] = &pb.DeviceModel{}
		return proto.Unmarshal(body, s.models[k])
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// each calls f for each row of namespace, name, uid and body.
func each(db *sql.DB, query string, f func(k key, uid string, body []byte) error) (err error) {
	rows, err := db.Query(query)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var k key
		var uid string
		var body []byte
		if err := rows.Scan(&k.ns, &k.name, &uid, &body); err != nil {
			return err
		}
		if err := f(k, uid, body); err != nil {
			return fmt.Errorf("%s: %w", k, err)
		}
	}
	return rows.Err()
}

func (s *store) close() error { return s.db.Close() }

// device gives the device; nil if there is none.
func (s *store) device(k key) *record {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.devices[k]
}

// member gives the device if reports of it are taken; nil if not.
func (s *store) member(k key) *record {
	if r := s.device(k); r != nil && !r.stranger {
		return r
	}
	return nil
}

// model gives the model; nil if there is none.
func (s *store) model(k key) *pb.DeviceModel {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.models[k]
}

// keys lists the devices.
func (s *store) keys() []key {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]key, 0, len(s.devices))
	for k := range s.devices {
		out = append(out, k)
	}
	return out
}

// ofProtocol gives the devices of a protocol.
func (s *store) ofProtocol(protocol string) map[key]*record {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := map[key]*record{}
	for k, r := range s.devices {
		if r.protocol() == protocol {
			out[k] = r
		}
	}
	return out
}

// modelInUse tells whether a device of the protocol has the model.
func (s *store) modelInUse(protocol string, model key) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, r := range s.devices {
		if r.protocol() == protocol && r.model() == model {
			return true
		}
	}
	return false
}

// putDevice stores the device and gives its predecessor, nil for none. changed
// is false when the store had it like that.
func (s *store) putDevice(k key, r *record) (old *record, changed bool, err error) {
	old = s.device(k)
	if old != nil && old.same(r) {
		return old, false, nil
	}
	if err := s.keepDevice(k, r); err != nil {
		return nil, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old != nil && old.uid == r.uid {
		r.birth = old.birth
	} else {
		s.births++
		r.birth = s.births
	}
	s.devices[k] = r
	delete(s.untold, k)
	return old, true, nil
}

// keepDevice writes the device to disk alone.
func (s *store) keepDevice(k key, r *record) error {
	body, err := proto.Marshal(r.device)
	if err != nil {
		return err
	}
	_, err = s.db.Exec(`INSERT INTO device VALUES (?,?,?,?) ON CONFLICT DO UPDATE SET uid=excluded.uid, body=excluded.body`, k.ns, k.name, r.uid, body)
	if err == nil && r.stranger {
		_, err = s.db.Exec(`INSERT INTO stranger VALUES (?,?) ON CONFLICT DO NOTHING`, k.ns, k.name)
	} else if err == nil {
		_, err = s.db.Exec(`DELETE FROM stranger WHERE namespace=? AND name=?`, k.ns, k.name)
	}
	if err != nil {
		return fmt.Errorf("store device %s: %w", k, err)
	}
	return nil
}

// putModel stores the model.
func (s *store) putModel(m *pb.DeviceModel) (changed bool, err error) {
	k := key{m.GetNamespace(), m.GetName()}
	if old := s.model(k); old != nil && proto.Equal(old, m) {
		return false, nil
	}
	body, err := proto.Marshal(m)
	if err != nil {
		return false, err
	}
	if _, err := s.db.Exec(`INSERT INTO model VALUES (?,?,?) ON CONFLICT DO UPDATE SET body=excluded.body`, k.ns, k.name, body); err != nil {
		return false, fmt.Errorf("store model %s: %w", k, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.models[k] = m
	return true, nil
}

// removeDevice drops the device and gives it; nil if there was none.
func (s *store) removeDevice(k key) (*record, error) {
	old := s.device(k)
	if old == nil && s.stranger(k) == nil {
		return nil, nil
	}
	for _, table := range []string{"device", "stranger"} {
		if _, err := s.db.Exec(`DELETE FROM `+table+` WHERE namespace=? AND name=?`, k.ns, k.name); err != nil {
			return nil, fmt.Errorf("remove device %s: %w", k, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.devices, k)
	delete(s.untold, k)
	return old, nil
}

// dropUnusedModels forgets the models that no device has.
func (s *store) dropUnusedModels() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	used := map[key]bool{}
	for _, r := range s.devices {
		used[r.model()] = true
	}
	for _, r := range s.untold {
		used[r.model()] = true
	}
	for k := range s.models {
		if used[k] {
			continue
		}
		if _, err := s.db.Exec(`DELETE FROM model WHERE namespace=? AND name=?`, k.ns, k.name); err != nil {
			return fmt.Errorf("remove model %s: %w", k, err)
		}
		delete(s.models, k)
	}
	return nil
}
