package dataset

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/lib/dataset/format"
)

// Source reads data that is not on this node.
type Source interface {
	// Version tells the content that url names from earlier ones; empty when
	// the server does not say.
	Version(ctx context.Context, url string) (string, error)
	// Fetch brings what url names to the file dst, whole.
	Fetch(ctx context.Context, url, dst string) error
}

// Limits bound the work on datasets. Zero fields mean the defaults.
type Limits struct {
	QuotaBytes   int64         `yaml:"quotaBytes"`   // segments and shards together; default 20 GiB
	SegmentBytes int64         `yaml:"segmentBytes"` // read or copied between two transactions; default 64 MiB
	MaxRecord    int           `yaml:"maxRecord"`    // bytes of one sample; longer ones are refused; default 1 MiB
	MaxFiles     int           `yaml:"maxFiles"`     // of a directory of images; default 200000
	Settle       time.Duration `yaml:"settle"`       // a last line without line end is taken after the file has not changed for so long; default 10m
	Gap          time.Duration `yaml:"gap"`          // between two looks at one dataset, whatever happens there; default 500ms
	EvalShards   int           `yaml:"evalShards"`   // newest ones that make up the evaluation set; default 5
	TrainShards  int           `yaml:"trainShards"`  // of the newest rounds that are kept; default 5
	Rounds       int64         `yaml:"rounds"`       // that are remembered for each job; default 200
}

// WithDefaults fills in zero fields.
func (l Limits) WithDefaults() Limits {
	l.QuotaBytes = cmp.Or(l.QuotaBytes, 20<<30)
	l.SegmentBytes = cmp.Or(l.SegmentBytes, 64<<20)
	l.MaxRecord = cmp.Or(l.MaxRecord, 1<<20)
	l.MaxFiles = cmp.Or(l.MaxFiles, 200_000)
	l.Settle = cmp.Or(l.Settle, 10*time.Minute)
	l.Gap = cmp.Or(l.Gap, 500*time.Millisecond)
	l.EvalShards = cmp.Or(l.EvalShards, 5)
	l.TrainShards = cmp.Or(l.TrainShards, 5)
	l.Rounds = cmp.Or(l.Rounds, 200)
	return l
}

// Options of a Manager.
type Options struct {
	Dir       string // the node's data directory; files go to Dir/datasets
	Store     *store.Store
	DataRoots []string // directories that paths in tasks may point into
	Source    Source   // of http(s) and s3; nil: those are refused
	Limits    Limits
	Changed   func(Key)         // told when a dataset's status has changed; may be nil, must not block
	Events    func(store.Event) // told of what happens; may be nil, must not block
	Log       *slog.Logger      // may be nil
	Now       func() time.Time  // default time.Now
}

// Key names a dataset.
type Key = store.DatasetKey

// Reasons of a Status that is not ready, beside those of wire codes.
const (
	NotRead  = "NotRead"  // nobody has looked yet
	NotThere = "NotThere" // the file has not been there yet
	Missing  = "Missing"  // the file was there and is not any more
	Full     = "Full"     // the quota is used up; nothing is read until it is not
)

// Reasons of events, of kind dataset.
const (
	Found     = "Found"
	Rotated   = "Rotated"   // the file was renamed; the new one under its name goes on
	Truncated = "Truncated" // the file became shorter
	Replaced  = "Replaced"  // other content took the place of what was read
	Continued = "Continued" // another file begins with what was read
	Returned  = "Returned"  // a missing file is back
	Lost      = "Lost"      // samples that nobody can take any more, or may have been there
	BadRows   = "BadRows"   // the first refused rows

	OtherColumns = "OtherColumns" // of a csv file that goes on with another header
)

// Status is what is known of a dataset.
type Status struct {
	Key
	Ready    bool
	Reason   string // why it is not ready
	Message  string
	Samples  int64 // in the data; those of rotated files count, those that were replaced or cut off do not
	Total    int64 // that were ever read
	Size     int64 // bytes of the file, or of all images
	Waiting  int64 // bytes behind the last whole record
	Contents int64 // how many times the data was begun anew, from 1
	Stats    format.Stats
	LookedAt time.Time
	GrewAt   time.Time // when the number of samples last changed
}

// Modes of a split.
const (
	ByHash     = "hash"       // each sample by a keyed hash of its bytes, see format.InTrain; the default
	Sequential = "sequential" // of the samples of a round the first ones train, as in the reference system
)

// Consumer is a job that takes the samples of a dataset.
type Consumer struct {
	TrainProb float64 // share of the samples that are for training, 0 to 1
	Mode      string  // ByHash or Sequential; empty: ByHash
	Seed      int64   // of ByHash
}

// Shard is an immutable file with samples, as the dataset's format has them.
type Shard struct {
	Path    string // absolute; empty when there are no samples
	SHA256  string
	Size    int64 // bytes
	Samples int64
	Round   int64
}

// Round is what a job has taken in one of its rounds.
type Round struct {
	Round       int64
	First, Last int64 // ordinals, Last is behind the last sample
	Train, Eval Shard
	EvalSet     []Shard // the newest evaluation shards up to this round's, oldest first
}

// Samples of the round.
func (r *Round) Samples() int64 { return r.Train.Samples + r.Eval.Samples }
