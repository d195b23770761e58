package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

var (
	// ErrDirInUse says that another control plane, in this process or another, has the data directory open.
	ErrDirInUse = errors.New("data directory is in use by another control plane")

	// ErrStoreDied is what Wait reports when etcd ends without having been asked to.
	ErrStoreDied = errors.New("control plane: etcd stopped unexpectedly")
)

// etcdMember names the only member. Its URLs are in the stored membership, so neither may depend on paths or ports.
const (
	etcdMember  = "sedna"
	etcdPeerURL = "unix://sedna"
)

// maxSocketPath is what fits in sockaddr_un with its closing NUL.
const maxSocketPath = 107

// walSegment is what etcd allocates at once for its log, twice: its default of 64 MiB would make every data directory 128
// MiB. The setting is one per process.
const walSegment = 16 << 20

var walOnce sync.Once

// etcdStore is the running etcd with what it holds outside its own state.
type etcdStore struct {
	*embed.Etcd
	endpoint  string   // of the client socket, as etcd clients want it
	lock      *os.File // flock on the data directory
	socketDir string   // temporary directory of the socket, "" when it lies in the data directory
	closing   atomic.Bool
}

// startEtcd opens the store in dir and returns when it serves. It listens on one unix socket in a directory that only
// this user may enter, and on no port; a single member needs no peer listener.
func startEtcd(ctx context.Context, dir string, log *slog.Logger) (_ *etcdStore, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	s := &etcdStore{}
	defer func() {
		// etcd meets unreadable state with a fatal log line, which our logger turns into this panic.
		if r := recover(); r != nil {
			err = fmt.Errorf("etcd: cannot open %s: %v", dir, r)
		}
		if err != nil {
			s.close()
		}
	}()
	if s.lock, err = lockDir(dir); err != nil {
		return nil, err
	}
	if err := checkDatabase(filepath.Join(dir, "member", "snap", "db")); err != nil {
		return nil, err
	}
	socket, err := s.makeSocketPath(dir)
	if err != nil {
		return nil, err
	}
	s.endpoint = "unix://" + socket

	walOnce.Do(func() { wal.SegmentSizeBytes = walSegment })
	if s.Etcd, err = embed.StartEtcd(etcdConfig(dir, socket, etcdLogger(log, &s.closing))); err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	select {
	case <-s.Server.ReadyNotify():
		return s, nil
	case <-s.Server.StopNotify():
		return nil, errors.New("etcd: stopped while starting")
	case err := <-s.Err():
		return nil, fmt.Errorf("etcd: %w", err)
	case <-ctx.Done():
		return nil, fmt.Errorf("etcd: starting: %w", ctx.Err())
	}
}

func etcdConfig(dir, socket string, log *zap.Logger) *embed.Config {
	peer := url.URL{Scheme: "unix", Host: etcdMember}
	cfg := embed.NewConfig()
	cfg.Name = etcdMember
	cfg.Dir = dir
	cfg.ListenPeerUrls = nil
	cfg.AdvertisePeerUrls = []url.URL{peer}
	cfg.InitialCluster = etcdMember + "=" + etcdPeerURL
	cfg.ListenClientUrls = []url.URL{{Scheme: "unix", Path: socket}}
	cfg.AdvertiseClientUrls = []url.URL{peer}
	cfg.EnableGRPCGateway = false
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(log)

	// A lone member has nobody to wait for: short terms make it its own leader at once.
	cfg.TickMs = 50
	cfg.ElectionMs = 250

	// No follower will ever ask for old raft entries, and each may be a task document of 256 KiB.
	cfg.SnapshotCatchUpEntries = 64

	// The API server compacts history every five minutes; revisions are bounded here too in case it cannot.
	cfg.AutoCompactionMode = embed.CompactorModeRevision
	cfg.AutoCompactionRetention = "100000"
	cfg.QuotaBackendBytes = 4 << 30
	cfg.BootstrapDefragThresholdMegabytes = 64
	return cfg
}

// makeSocketPath chooses where the client socket goes: in the data directory, or in a temporary directory where the path
// is too long or the file system has no sockets.
func (s *etcdStore) makeSocketPath(dir string) (string, error) {
	const name = "etcd.sock"
	if path := filepath.Join(dir, name); socketWorks(path) {
		return path, nil
	}
	for _, parent := range []string{os.TempDir(), "/tmp"} {
		tmp, err := os.MkdirTemp(parent, "sedna-etcd-") // mode 0700
		if err != nil {
			continue
		}
		if path := filepath.Join(tmp, name); socketWorks(path) {
			s.socketDir = tmp
			return path, nil
		}
		os.Remove(tmp)
	}
	return "", fmt.Errorf("etcd: no place for a unix socket in %s, %s or /tmp", dir, os.TempDir())
}

// socketWorks tries a socket at path. What lies there is left over from a killed process: the directory is locked.
func socketWorks(path string) bool {
	if len(path) > maxSocketPath {
		return false
	}
	os.Remove(path)
	l, err := net.Listen("unix", path)
	if err != nil {
		return false
	}
	return l.Close() == nil
}

// checkDatabase opens the database once, because etcd does so in a goroutine whose panic nobody can catch.
func checkDatabase(path string) error {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return fmt.Errorf("etcd: cannot open %s: %w", path, err)
	}
	return db.Close()
}

// close stops etcd, if it runs, and gives back the lock and the socket directory.
func (s *etcdStore) close() {
	s.closing.Store(true)
	if s.Etcd != nil {
		s.Etcd.Close()
	}
	if s.socketDir != "" {
		os.RemoveAll(s.socketDir)
	}
	if s.lock != nil {
		s.lock.Close()
	}
}

// lockDir takes the directory for this server. etcd's own lock on its database would make a second server wait for ever.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s", ErrDirInUse, dir)
		}
		return nil, fmt.Errorf("etcd: locking %s: %w", dir, err)
	}
	return f, nil
}
