package inference

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/edgetwin/sedna/lib/engine"
	"github.com/edgetwin/sedna/lib/jsonpath"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// input is one tensor of a feed: the newest readings of its sources, and the
// rows that were made of them.
type input struct {
	spec    task.Input
	layout  layout
	sources []source

	// The ring holds the newest rows, of columns values each; 0 columns before
	// the first row, which tells how many there are.
	columns  int
	bySource bool
	spare    int       // rows that are kept beyond the window
	ring     []float64 // window+spare rows
	missing  []uint64  // per row: a bit for each source that was missing
	rows     int64     // made so far
	tensor   tensor

	bad   bool        // the sources that have spoken make no row
	timer *time.Timer // makes rows while the first source is silent; nil: nothing does
}

// source is one column, or several, of an input.
type source struct {
	reader
	name, field, topic string

	values []float64 // the newest; empty before the first
	at     time.Time // when they came
	bad    bool      // the last message was refused
}

// newInput checks input i of a service against the model and prepares it.
func newInput(node, ns string, i int, spec task.Input, infos []engine.TensorInfo) (*input, error) {
	field := fmt.Sprintf("inputs[%d]", i)
	spec.Window, spec.Stride = max(1, spec.Window), max(1, spec.Stride)
	in := &input{spec: spec, sources: make([]source, len(spec.Sources))}
	at := slices.IndexFunc(infos, func(t engine.TensorInfo) bool { return t.Name == spec.Tensor })
	if at < 0 {
		return nil, wire.E(wire.InvalidArgument, field+".tensor", fmt.Sprintf("the model has no input %.80q, expected %s", spec.Tensor, inputNames(infos)), "")
	}
	var err error
	if in.layout, err = newLayout(infos[at], spec.Window); err != nil {
		return nil, wire.E(wire.InvalidArgument, field+".tensor", fmt.Sprintf("the model's input %.80q %v", spec.Tensor, err), "")
	}
	if i == 0 {
		in.spare = spec.Stride - 1
	}
	single := 0
	for j, s := range spec.Sources {
		src := &in.sources[j]
		src.field = fmt.Sprintf("%s.sources[%d]", field, j)
		src.datatype = infos[at].Datatype
		if s.Topic == "" {
			src.name, src.topic = s.Device+"."+s.Property, wire.Sensor(node, ns, s.Device, s.Property)
			src.document, src.path, src.single = true, sampleValue, true
			single++
			continue
		}
		src.name, src.topic, src.document = s.Topic, s.Topic, s.JSONPath != ""
		if src.path, err = jsonpath.Compile(s.JSONPath); err != nil {
			return nil, wire.E(wire.InvalidArgument, src.field+".jsonPath", err.Error(), "")
		}
	}
	return in, in.check(field, single == len(in.sources))
}

func inputNames(infos []engine.TensorInfo) string {
	names := make([]string, len(infos))
	for i, t := range infos {
		names[i] = fmt.Sprintf("%q", t.Name)
	}
	return strings.Join(names, ", ")
}

// check tells whether rows can make the tensor at all. Sources that are topics
// may turn out to give several values.
func (in *input) check(field string, allSingle bool) error {
	least, most := len(in.sources), in.mostColumns()
	_, _, ok := in.layout.shape(least)
	switch {
	case allSingle && ok, !allSingle && in.layout.open > 0, !allSingle && most >= least && in.layout.known == most*in.layout.window:
		return nil
	}
	return wire.E(wire.InvalidArgument, field+".window", fmt.Sprintf("%d rows of %s do not make the model's input %.80q of shape %v",
		in.spec.Window, counted(least, allSingle), in.spec.Tensor, in.layout.info.Shape), "the batch is 1; window times the number of values in a row is the number of elements")
}

func counted(values int, exactly bool) string {
	if exactly {
		return fmt.Sprintf("%d values", values)
	}
	return fmt.Sprintf("%d or more values", values)
}

// mostColumns is how many values a row has where the model says so, else the
// number of sources, which are at least as many.
func (in *input) mostColumns() int {
	if in.layout.open > 0 {
		return len(in.sources)
	}
	return in.layout.known / in.layout.window
}

// mostValues is how many of them one source can give.
func (in *input) mostValues() int { return in.mostColumns() - len(in.sources) + 1 }

// cost is how many values the ring holds with rows of the given length.
func (in *input) cost(columns int) int { return (in.layout.window + in.spare) * columns }

// full tells whether there are rows for the whole window.
func (in *input) full() bool { return in.rows >= int64(in.layout.window) }

// lacking tells which sources have no value that counts at the time, by a bit
// each, and whether one has never spoken.
func (in *input) lacking(now time.Time) (bits uint64, never bool) {
	age := in.spec.MaxAge()
	for j := range in.sources {
		s := &in.sources[j]
		if len(s.values) == 0 {
			never = true
		}
		if len(s.values) == 0 || age > 0 && now.Sub(s.at) > age {
			bits |= 1 << j
		}
	}
	return bits, never
}

// take reads a message for source j into values, which is used again.
func (in *input) take(j int, payload []byte, values []float64, now time.Time) ([]float64, error) {
	s := &in.sources[j]
	values, err := s.read(values[:0], payload)
	switch {
	case err != nil:
		return values, err
	case in.columns > 0 && len(values) != len(s.values):
		return values, wire.E(wire.InvalidArgument, "", fmt.Sprintf("expected %d values as before, got %d", len(s.values), len(values)), "")
	case in.layout.open == 0 && len(values) > in.mostValues():
		return values, wire.E(wire.InvalidArgument, "", fmt.Sprintf("expected at most %d values, got %d", in.mostValues(), len(values)), "")
	}
	s.values, s.at = append(s.values[:0], values...), now
	return values, nil
}

// begin finds out what rows are like, from the first that there could be. free
// is how many values may be kept.
func (in *input) begin(free int) error {
	columns := 0
	for j := range in.sources {
		columns += len(in.sources[j].values)
	}
	if in.cost(columns) > free {
		return wire.E(wire.TooLarge, "", fmt.Sprintf("%d rows of %d values are more than is kept of a service's readings", in.layout.window+in.spare, columns), "use a smaller window")
	}
	shape, bySource, ok := in.layout.shape(columns)
	if !ok {
		return wire.E(wire.InvalidArgument, "", fmt.Sprintf("%d rows of %d values do not make the model's input %.80q of shape %v", in.layout.window, columns, in.spec.Tensor, in.layout.info.Shape), "")
	}
	var err error
	if in.tensor, err = newTensor(in.spec.Tensor, in.layout.info.Datatype, shape, in.layout.window*columns); err != nil {
		return err
	}
	in.columns, in.bySource = columns, bySource
	in.ring, in.missing = make([]float64, in.cost(columns)), make([]uint64, in.cost(1))
	return nil
}

// add makes a row of the newest values.
func (in *input) add(missing uint64) {
	slot := int(in.rows % int64(len(in.missing)))
	in.missing[slot] = missing
	row := in.ring[slot*in.columns : slot*in.columns : (slot+1)*in.columns]
	for j := range in.sources {
		row = append(row, in.sources[j].values...)
	}
	in.rows++
}

// fill makes the tensor of the window that ends with row last, counted from 1,
// and gives the sources that were missing in it.
func (in *input) fill(last int64) (missing uint64) {
	window, capacity := in.layout.window, int64(len(in.missing))
	set := in.tensor.set
	for r := range window {
		slot := int((last - int64(window) + int64(r)) % capacity)
		missing |= in.missing[slot]
		for c, v := range in.ring[slot*in.columns : (slot+1)*in.columns] {
			if in.bySource {
				set(c*window+r, v)
			} else {
				set(r*in.columns+c, v)
			}
		}
	}
	return missing
}

// names lists the sources of bits.
func (in *input) names(bits uint64) []string {
	var list []string
	for j := range in.sources {
		if bits&(1<<j) != 0 && !slices.Contains(list, in.sources[j].name) {
			list = append(list, in.sources[j].name)
		}
	}
	return list
}
