package worker

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/models/task"
)

// life is what a shim is told: one start of a worker.
type life struct {
	ID        string        `json:"id"`
	Dir       string        `json:"dir"` // of the worker
	Path      string        `json:"path"`
	Argv      []string      `json:"argv"`
	Env       []string      `json:"env"`
	WorkDir   string        `json:"workDir"`
	User      *uint32       `json:"user,omitempty"`
	Group     *uint32       `json:"group,omitempty"`
	Cgroup    string        `json:"cgroup,omitempty"`    // directory; empty: none
	DataBytes int64         `json:"dataBytes,omitempty"` // memory of each process where no cgroup limits it
	CPUs      int           `json:"cpus,omitempty"`      // that it may run on where no cgroup limits it
	TimeLimit time.Duration `json:"timeLimit,omitempty"`
	Grace     time.Duration `json:"grace"`
	LogBytes  int64         `json:"logBytes"`
	LogFiles  int           `json:"logFiles"`
}

// ids are the user and the group that the life runs as.
func (l *life) ids() (uid, gid int) {
	uid, gid = os.Getuid(), os.Getgid()
	if l.User != nil {
		uid = int(*l.User)
	}
	if l.Group != nil {
		gid = int(*l.Group)
	}
	return uid, gid
}

// running is what a shim says of a life while it runs, in run.json.
type running struct {
	Life     string             `json:"life"`
	PID      int                `json:"pid"` // of the worker
	Progress task.Progress      `json:"progress"`
	Metrics  map[string]float64 `json:"metrics,omitempty"`
}

// outcome is what a shim says of a life that is over, in exit.json. Nothing
// that the life has started runs any more when it is written.
type outcome struct {
	running
	Code      int       `json:"code"`             // 128 and the signal's number when one ended it
	Reason    string    `json:"reason,omitempty"` // why it was ended
	Message   string    `json:"message,omitempty"`
	CPUMillis int64     `json:"cpuMillis"`
	MaxRSS    int64     `json:"maxRSS"` // of its largest process, bytes
	EndedAt   time.Time `json:"endedAt"`
}

// Reasons for which a life ends or a worker waits.
const (
	ReasonTimeLimit   = "TimeLimit"   // the life took longer than it may
	ReasonMemoryLimit = "MemoryLimit" // the life took more memory than it may
	ReasonInterrupted = "Interrupted" // the life was ended for a reason outside the task
	ReasonLost        = "Lost"        // the life ended together with its shim, nobody knows how
	ReasonExit        = "Exit"        // the life ended by itself with another code than 0
	ReasonCrashLoop   = "CrashLoop"   // several lives in a row have failed early
	ReasonNotStarted  = "NotStarted"  // the life could not begin
)

// Files of a shim in the worker's directory, and the variable by which what it
// has started is known.
const (
	lockFile    = "lock"
	runFile     = "run.json"
	exitFile    = "exit.json"
	logFile     = "log"
	markerEnv   = "SEDNA_WORKER"
	outputEnv   = "SEDNA_OUTPUT_DIR"
	resultFile  = "result.json"
	maxShimFile = 64 << 10 // run.json and exit.json, bytes
)

// launcher starts lives and finds them again.
type launcher interface {
	// prepare starts the shim of a life, which runs nothing before release.
	prepare(l *life) (process, error)
	// find gives the shim of a row's life if it lives, else nil.
	find(w *store.Worker) process
	// outcome tells how the life of w, which is over, ended; nil if nobody knows.
	outcome(dir string, w *store.Worker) *outcome
	// watch tells how the life of w goes, nil if that is not known yet.
	watch(dir string, w *store.Worker) *running
	// clear ends what is left of a life without a shim. Nothing is when it
	// returns nil.
	clear(life, cgroup string) error
	// orphan ends the life that goes on in a directory nobody knows; ours is false
	// when no shim has ever run there.
	orphan(dir string) (ours bool, err error)
	// group makes the cgroup of a life and says which limits are kept by it.
	group(life string, memory, cpuMilli int64) (dir string, memoryKept, cpuKept bool)
	// bootID is the same until the machine starts anew.
	bootID() string
}

// process is the shim of a life.
type process interface {
	identity() (pid int, startTicks int64)
	release() error        // lets a prepared life run
	done() <-chan struct{} // closed when the shim is gone
	terminate()            // ends the life: SIGTERM, and after the grace time SIGKILL
	kill()                 // ends the shim
	leave()                // lets it live on unwatched
}

// readShimFile reads a small file that a shim has written about life.
func readShimFile(path, id string, v any, life *string) bool {
	b, err := readBounded(path, maxShimFile)
	return err == nil && json.Unmarshal(b, v) == nil && *life == id
}

var errTooLarge = errors.New("file too large")

// readBounded reads a regular file; it follows no link and waits for nobody,
// because a worker may have made it.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: path, Err: errors.New("not a regular file")}
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = &fs.PathError{Op: "read", Path: path, Err: errTooLarge}
	}
	return b, err
}

// writeAtomic puts a file in place as a whole; durable: it survives a power cut.
func writeAtomic(dir, name string, v any, durable bool) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, name+".new")
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil && durable {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(dir, name)); err != nil || !durable {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
