package worker

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// Limits bound what workers take of a node. Zero fields mean the defaults.
type Limits struct {
	Workers          int           `yaml:"workers"`          // workers at a time; default 64
	RestartBase      time.Duration `yaml:"restartBase"`      // before the first restart; default 1s
	RestartMax       time.Duration `yaml:"restartMax"`       // before later ones, doubling; default 5m
	HealthyAfter     time.Duration `yaml:"healthyAfter"`     // a life of this length begins the back-off anew; default 1m
	Poll             time.Duration `yaml:"poll"`             // between two looks at a worker's progress; default 500ms
	LogBytes         int64         `yaml:"logBytes"`         // of one log file; default 4 MiB
	LogFiles         int           `yaml:"logFiles"`         // of one worker, the newest included; default 3
	RelayConnections int           `yaml:"relayConnections"` // of one relay at a time; default 64
	RelayIdle        time.Duration `yaml:"relayIdle"`        // after which a silent relayed connection is closed; default 10m
	RelayDial        time.Duration `yaml:"relayDial"`        // for reaching the target; default 15s
}

// WithDefaults fills in zero fields.
func (l Limits) WithDefaults() Limits {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&l.RestartBase, time.Second}, {&l.RestartMax, 5 * time.Minute}, {&l.HealthyAfter, time.Minute}, {&l.Poll, 500 * time.Millisecond},
		{&l.RelayIdle, 10 * time.Minute}, {&l.RelayDial, 15 * time.Second},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	for _, n := range []struct {
		field *int
		value int
	}{{&l.Workers, 64}, {&l.LogFiles, 3}, {&l.RelayConnections, 64}} {
		if *n.field == 0 {
			*n.field = n.value
		}
	}
	if l.LogBytes == 0 {
		l.LogBytes = 4 << 20
	}
	return l
}

// Key names a worker on this node.
type Key struct {
	UID  string // of the task
	Name string // of the worker
}

func (k Key) String() string { return k.UID + "/" + k.Name }

// Request is what is to run for a task.
type Request struct {
	UID        string      `json:"uid"`                 // of the task
	Generation int64       `json:"generation"`          // of the task's document
	Namespace  string      `json:"namespace,omitempty"` // of the job, for events
	Worker     task.Worker `json:"worker"`
	// OutputDir is where the worker leaves result.json. Empty: the directory out
	// of its own. The caller has checked that it is under a data root.
	OutputDir string `json:"outputDir,omitempty"`
}

// Reports takes what workers post.
type Reports interface {
	// WorkerReport takes a report of the worker k, which has proven that it is
	// k. The report is stored when it returns nil; what else the report says of
	// its origin is the worker's word only.
	WorkerReport(ctx context.Context, k Key, r *task.WorkerReport) error
}

// Conn is a connection of which one direction can be ended alone.
type Conn interface {
	net.Conn
	CloseWrite() error
}

// Dialer reaches the services that workers find on loopback.
type Dialer interface {
	// Dial connects to target, a host:port as in the task document.
	Dial(ctx context.Context, target string) (Conn, error)
}

// Options of a Supervisor.
type Options struct {
	// Dir has the workers' own directories. To run workers as other users, these
	// must be able to enter it.
	Dir string
	// Roots are the directories that programs may be started from; none: no
	// worker is started. An interpreter in one of them runs what it is given.
	Roots []string
	// User and Group are for workers that ask for none; nil: this process's.
	User, Group *uint32
	// Cgroup is a cgroup v2 directory that is delegated to this process. Empty:
	// its own cgroup is used where that is permitted.
	Cgroup string
	// Server gives the base URL of the local HTTP API, which LC_SERVER is made of.
	Server  func() string
	Store   *store.Store
	Reports Reports
	Dialer  Dialer // nil: relays are refused
	Limits  Limits
	Metrics *metrics.Registry // may be nil
	Events  func(store.Event) // told of what happens; may be nil, must not block
	Changed func(Key)         // told when a worker's status has changed; may be nil, must not block
	Log     *slog.Logger      // may be nil
}

// check says what is wrong with the options and makes paths absolute.
func (o *Options) check() (err error) {
	if o.Dir == "" || o.Server == nil || o.Store == nil || o.Reports == nil {
		return wire.E(wire.Internal, "", "a supervisor of workers needs Dir, Server, Store and Reports", "")
	}
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return wire.E(wire.InvalidArgument, "workersDir", err.Error(), "")
	}
	roots := make([]string, len(o.Roots))
	for i, r := range o.Roots {
		field := fmt.Sprintf("workerRoots[%d]", i)
		if !filepath.IsAbs(r) {
			return wire.E(wire.InvalidArgument, field, fmt.Sprintf("expected an absolute path, got %.80q", r), "")
		}
		if roots[i], err = filepath.EvalSymlinks(r); err != nil {
			return wire.E(wire.InvalidArgument, field, err.Error(), "")
		}
		info, err := os.Stat(roots[i])
		switch {
		case err != nil:
			return wire.E(wire.InvalidArgument, field, err.Error(), "")
		case !info.IsDir():
			return wire.E(wire.InvalidArgument, field, r+" is not a directory", "")
		case info.Mode().Perm()&0o002 != 0:
			return wire.E(wire.InvalidArgument, field, r+" can be written by anyone, and what is in it would be run", "chmod o-w, or name another directory")
		}
	}
	o.Roots = roots
	return nil
}
