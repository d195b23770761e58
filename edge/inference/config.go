package inference

import (
	"crypto/ed25519"
	"log/slog"
	"net/http"
	"runtime"
	"time"

	"github.com/edgetwin/sedna/lib/engine"
	"github.com/edgetwin/sedna/lib/metrics"
	"github.com/edgetwin/sedna/lib/serving"
	"github.com/edgetwin/sedna/models/oip"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// Limits bound what requests may use. Zero fields mean the defaults.
type Limits struct {
	// Request bounds bodies and tensors, of requests and of the cloud's answers.
	Request oip.Limits
	// Engine bounds inputs and model files.
	Engine engine.Options
	// MaxServices is how many services are active at a time. Default 64.
	MaxServices int
	// MaxConcurrent is how many calls of one model run at once. Default GOMAXPROCS.
	MaxConcurrent int
	// MaxQueue is how many calls of one model wait; further ones are refused
	// with resource_exhausted. Default 256.
	MaxQueue int
	// ImageBytes is the most bytes of an image as it comes. Default 16 MiB.
	ImageBytes int64
	// ImagePixels is the most pixels of an image; decoding takes up to 12 bytes
	// for each. Default 16 Mi, which is 4096x4096.
	ImagePixels int64
	// ImageConcurrent is how many images are decoded at once, and ImageQueue how
	// many wait for it. Defaults GOMAXPROCS and 32.
	ImageConcurrent, ImageQueue int
	// BusPayload is the most bytes of a request on the bus. Default 4 MiB.
	BusPayload int
	// BusWorkers is how many requests of the bus are answered at once, waiting
	// for the cloud included. Default 64.
	BusWorkers int
	// BusQueue is how many further ones wait; beyond that requests are answered
	// with resource_exhausted. Default 1024.
	BusQueue int
	// BusOutbox is the most bytes of results that wait for the bus. When it is
	// full no further requests are worked on. Default 64 MiB.
	BusOutbox int64
	// InputValues is how many values the windows of one service hold, and
	// ReadingBytes the most bytes of a message with a reading. Defaults 4 Mi
	// and 1 MiB.
	InputValues, ReadingBytes int
	// Window is how many request ids of the bus are remembered, and WindowTime
	// for how long, to recognise redelivery. Defaults 8192 and 2 minutes.
	Window     int
	WindowTime time.Duration
	// DrainTime is how long requests of the bus that were taken may go on when
	// the process is to stop. Default 3 s.
	DrainTime time.Duration
}

// WithDefaults replaces zero fields by the defaults.
func (l Limits) WithDefaults() Limits {
	l.Request = l.Request.WithDefaults()
	set(&l.MaxServices, 64)
	set(&l.ImageBytes, 16<<20)
	set(&l.ImagePixels, 16<<20)
	set(&l.ImageConcurrent, runtime.GOMAXPROCS(0))
	set(&l.ImageQueue, 32)
	set(&l.BusPayload, 4<<20)
	set(&l.BusWorkers, 64)
	set(&l.BusQueue, 1024)
	set(&l.BusOutbox, 64<<20)
	set(&l.InputValues, 4<<20)
	set(&l.ReadingBytes, 1<<20)
	set(&l.Window, 8192)
	set(&l.WindowTime, 2*time.Minute)
	set(&l.DrainTime, 3*time.Second)
	return l
}

func set[T int | int64 | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

// Config is what a Manager needs. Zero fields mean the defaults.
type Config struct {
	// Node is the name of this node. Required.
	Node string
	// Version is this program's, shown by GET /v2.
	Version string
	// Limits bound what requests may use.
	Limits Limits
	// Open loads model files. Default engine.Open.
	Open serving.Opener
	// Metrics collects. Default: none are collected.
	Metrics *metrics.Registry
	// CloudURL is the GlobalManager's base URL, and CloudClient the client with
	// this node's certificate, for cloud sides that are paths there. Without
	// them such services cannot be activated.
	CloudURL    string
	CloudClient *http.Client
	// Client is for cloud sides with a URL of their own. It carries no
	// credential of ours. Default: a client of its own with HTTP/2.
	Client *http.Client
	// Key signs writes of result properties; it is the node's. Without one
	// services with a result property cannot be activated.
	Key ed25519.PrivateKey
	// Log tells of activations and of the cloud's coming and going. Default: none.
	Log *slog.Logger
	// Seed makes rules that use chance repeatable. Default: the rules' own.
	Seed uint64
}

func (c *Config) normalize() error {
	if !task.ValidName(c.Node) {
		return wire.E(wire.InvalidArgument, "node", "expected a node name", "")
	}
	c.Limits = c.Limits.WithDefaults()
	if c.Metrics == nil {
		c.Metrics = metrics.New()
	}
	if c.Client == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.MaxIdleConnsPerHost = 32 // HTTP/1.1 servers: keep what a burst opened
		c.Client = &http.Client{Transport: t}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// ServiceSpec is what a service answers with.
type ServiceSpec struct {
	Namespace, Name string
	Model           task.Model
	ModelPath       string          // the model's file here
	HardExample     task.Algorithm  // no name: nothing is hard
	Cloud           *task.CloudSide // nil: the edge always answers
	OnCloudError    string          // task.AnswerLocally (default) or task.AnswerAnError

	Inputs []task.Input         // what feeds the model without being asked
	Result *task.ResultProperty // takes the answers to inputs and camera frames; nil: none
}
