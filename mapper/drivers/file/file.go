// Package file replays what was recorded: the pictures of a directory as a
// camera's frames, or the rows of a CSV file as readings, at a given rate, once
// or over and over. Files lie under data roots of the mapper's configuration.
package file

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"image/jpeg"
	"image/png"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/edgetwin/sedna/mapper/devices"
	"github.com/edgetwin/sedna/mapper/drivers/frames"
	"github.com/edgetwin/sedna/models/wire"
)

// Protocol is the name that Devices use.
const Protocol = "sedna-file"

// Limits of what is replayed.
const (
	maxPictures  = 100000
	maxRowFields = 1024
	maxPixels    = 40 << 20
)

// Options are what the devices of a process share.
type Options struct {
	Roots []string         // directories that files may lie in
	Sink  frames.FrameSink // nil: no inference service can be named
	Bus   frames.Publisher // nil: frames cannot be published
}

// Config is protocol.configData.
type Config struct {
	Path  string  `conf:"path,required,max=1024"`           // of a directory of .jpg, .jpeg and .png, or of a .csv file with a line of names; below a data root
	Rate  float64 `conf:"ratePerSecond,min=0.001,max=1000"` // pictures or rows; 1
	Loop  bool    `conf:"loop"`                             // begin again at the end; true
	Comma string  `conf:"comma,min=1,max=1"`                // between fields; ,

	Service       string `conf:"service,max=128"`       // inference service that gets the pictures; default: none
	PublishFrames bool   `conf:"publishFrames"`         // put pictures on the bus; false
	Width         int64  `conf:"width,min=0,max=7680"`  // pictures that are wider are made smaller; 0: as they are
	Quality       int64  `conf:"quality,min=1,max=100"` // of JPEGs that were made here; 85
}

// Visitor is visitors.configData: one of the two.
type Visitor struct {
	Column string `conf:"column,max=256"`                       // of the CSV file, by its name
	Value  string `conf:"value,oneof=|frames|passed|name|rows"` // pictures so far, those that were handed on, the name of the last one, rows so far
}

// New gives a Factory.
func New(o Options) devices.Factory {
	return func(s devices.Setup) (devices.Driver, error) {
		c := Config{Rate: 1, Loop: true, Comma: ",", Quality: 85}
		if err := s.Protocol.Decode(&c); err != nil {
			return nil, err
		}
		set := frames.Settings{Service: c.Service, PublishFrames: c.PublishFrames, Width: int(c.Width), Quality: int(c.Quality)}
		if err := set.Check(o.Sink); err != nil {
			return nil, s.Protocol.Error("service", "%s", wire.AsError(err).Message)
		}
		if c.PublishFrames && o.Bus == nil {
			return nil, s.Protocol.Error("publishFrames", "there is no bus here")
		}
		d := &driver{c: c, setup: s, visitors: map[string]Visitor{}}
		var err error
		if d.root, d.name, err = locate(o.Roots, c.Path); err != nil {
			return nil, s.Protocol.Error("path", "%v", err)
		}
		for _, p := range s.Properties {
			if p.Kind == devices.Stream {
				continue
			}
			var v Visitor
			if err := p.Visitor.Decode(&v); err != nil {
				return nil, err
			}
			if (v.Column == "") == (v.Value == "") {
				return nil, p.Visitor.Error("column", "expected a column or a value")
			}
			if p.Writable {
				return nil, p.Visitor.Error("column", "a file is not written, and the property is ReadWrite")
			}
			d.visitors[p.Name] = v
		}
		d.output = frames.New(set, frames.Camera{Node: s.Node, Namespace: s.Namespace, Name: s.Name}, o.Sink, o.Bus, s.Log)
		return d, nil
	}
}

// locate finds the data root that path lies in.
func locate(roots []string, path string) (root, name string, err error) {
	if len(roots) == 0 {
		return "", "", errors.New("the mapper has no data roots (devices.dataRoots)")
	}
	for _, r := range roots {
		name := path
		if filepath.IsAbs(path) {
			if name, err = filepath.Rel(r, path); err != nil {
				continue
			}
		}
		if filepath.IsLocal(name) {
			return r, name, nil
		}
	}
	return "", "", fmt.Errorf("%.200q lies in none of the data roots", path)
}

type driver struct {
	c          Config
	setup      devices.Setup
	root, name string
	visitors   map[string]Visitor
	output     *frames.Output

	stop func() // nil: nothing is replayed

	mu   sync.Mutex
	err  error // why the replay has failed
	rows int64
	last string // name of the last picture
}

// Connect begins the replay anew.
func (d *driver) Connect(context.Context) error {
	d.halt()
	root, err := os.OpenRoot(d.root)
	if err != nil {
		return err
	}
	info, err := root.Stat(d.name)
	var play func(context.Context, *os.Root) error
	switch {
	case err != nil:
	case info.IsDir():
		play = d.pictures
	case strings.EqualFold(filepath.Ext(d.name), ".csv"):
		play = d.csv
	default:
		err = errors.New("expected a directory of pictures or a .csv file")
	}
	if err != nil {
		_ = root.Close()
		return fmt.Errorf("%s: %w", d.name, err)
	}
	d.mu.Lock()
	d.err = nil
	d.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { d.output.Run(ctx) })
	wg.Go(func() {
		defer root.Close()
		if err := play(ctx, root); err != nil && ctx.Err() == nil {
			d.mu.Lock()
			d.err = fmt.Errorf("%s: %w", d.name, err)
			d.mu.Unlock()
			d.setup.Wake()
		}
	})
	d.stop = func() {
		cancel()
		wg.Wait()
	}
	return nil
}

func (d *driver) halt() {
	if d.stop != nil {
		d.stop()
		d.stop = nil
	}
}

// ticker paces the replay.
func (d *driver) ticker() *time.Ticker {
	return time.NewTicker(time.Duration(float64(time.Second) / d.c.Rate))
}

func next(ctx context.Context, t *time.Ticker) bool {
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// pictures offers the directory's pictures by name.
func (d *driver) pictures(ctx context.Context, root *os.Root) error {
	t := d.ticker()
	defer t.Stop()
	for {
		names, err := pictureNames(root, d.name)
		if err != nil {
			return err
		}
		for _, name := range names {
			b, err := readPicture(root, filepath.Join(d.name, name), int(d.c.Quality))
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			d.mu.Lock()
			d.last = name
			d.mu.Unlock()
			d.output.Offer(b)
			if !next(ctx, t) {
				return nil
			}
		}
		if !d.c.Loop {
			return nil
		}
	}
}

func pictureNames(root *os.Root, dir string) ([]string, error) {
	f, err := root.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var names []string
	for {
		some, err := f.ReadDir(1000)
		for _, e := range some {
			if e.Type().IsRegular() && isPicture(e.Name()) {
				names = append(names, e.Name())
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if len(names) > maxPictures {
			return nil, fmt.Errorf("over %d pictures", maxPictures)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("no .jpg, .jpeg or .png in it: %w", fs.ErrNotExist)
	}
	slices.Sort(names)
	return names, nil
}

func isPicture(name string) bool {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".jpg", ".jpeg", ".png":
		return true
	}
	return false
}

// readPicture gives the picture as JPEG.
func readPicture(root *os.Root, name string, quality int) ([]byte, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, frames.MaxBytes+1))
	if err != nil {
		return nil, err
	}
	if len(b) > frames.MaxBytes {
		return nil, fmt.Errorf("over %d bytes", frames.MaxBytes)
	}
	if !strings.EqualFold(filepath.Ext(name), ".png") {
		return b, nil
	}
	c, err := png.DecodeConfig(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	if c.Width*c.Height > maxPixels {
		return nil, fmt.Errorf("%d×%d pixels", c.Width, c.Height)
	}
	img, err := png.Decode(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = jpeg.Encode(&out, img, &jpeg.Options{Quality: quality})
	return out.Bytes(), err
}

// csv emits the file's rows.
func (d *driver) csv(ctx context.Context, root *os.Root) error {
	t := d.ticker()
	defer t.Stop()
	for {
		if err := d.play(ctx, root, t); err != nil || !d.c.Loop || ctx.Err() != nil {
			return err
		}
	}
}

// play goes through the file once.
func (d *driver) play(ctx context.Context, root *os.Root, t *time.Ticker) error {
	f, err := root.Open(d.name)
	if err != nil {
		return err
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.Comma, r.ReuseRecord, r.TrimLeadingSpace = rune(d.c.Comma[0]), true, true
	head, err := r.Read()
	if err != nil {
		return fmt.Errorf("the line of names: %w", err)
	}
	if len(head) > maxRowFields {
		return fmt.Errorf("%d columns, at most %d are taken", len(head), maxRowFields)
	}
	columns := map[string]int{}
	for property, v := range d.visitors {
		if v.Column == "" {
			continue
		}
		i := slices.Index(head, v.Column)
		if i < 0 {
			return fmt.Errorf("there is no column %.80q", v.Column)
		}
		columns[property] = i
	}
	for rows := 0; ; rows++ {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			if rows == 0 {
				return errors.New("there are no rows")
			}
			return nil
		}
		if err != nil {
			return err
		}
		now := time.Now()
		for property, i := range columns {
			if cell := strings.TrimSpace(row[i]); cell != "" {
				d.setup.Emit(property, devices.Reading{Value: strings.Clone(cell), Time: now})
			}
		}
		d.mu.Lock()
		d.rows++
		d.mu.Unlock()
		if !next(ctx, t) {
			return nil
		}
	}
}

// Read gives the counts; rows come by Emit.
func (d *driver) Read(_ context.Context, names []string) (map[string]devices.Reading, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return nil, d.err
	}
	s := d.output.Stats()
	out := map[string]devices.Reading{}
	for _, name := range names {
		switch d.visitors[name].Value {
		case "frames":
			out[name] = devices.Reading{Value: s.Frames}
		case "passed":
			out[name] = devices.Reading{Value: s.Passed}
		case "rows":
			out[name] = devices.Reading{Value: d.rows}
		case "name":
			if d.last != "" {
				out[name] = devices.Reading{Value: d.last}
			}
		}
	}
	return out, nil
}

// Write refuses: files are not written.
func (d *driver) Write(context.Context, string, any) error {
	return wire.E(wire.Unimplemented, "", "a file is not written", "")
}

func (d *driver) Close() error {
	d.halt()
	return nil
}
