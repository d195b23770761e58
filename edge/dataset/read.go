package dataset

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/lib/dataset/format"
	"github.com/edgetwin/sedna/models/wire"
)

// read reads f, which is what the cursor is of, to its end, and then what jobs
// need of what was read before. With final, or when it has not changed for long,
// a last line without line end is taken too.
func (r *runner) read(ctx context.Context, st *state, f *os.File, final bool) error {
	id, err := idOf(f)
	if err != nil {
		return err
	}
	c := &st.Cursor
	changed := !id.same(c.File) || st.Size != id.Size || len(st.events) > 0
	c.File, st.Size = id, id.Size
	if id.Size > c.Scan.Offset || changed {
		quiet := r.m.o.Now().UnixNano()-id.Modified >= r.m.o.Limits.Settle.Nanoseconds() && len(c.Cuts) < maxCuts
		if err := r.scan(ctx, st, f, final || quiet, changed); err != nil {
			return err
		}
	}
	return r.refill(ctx, st, f)
}

// scan takes the records behind the cursor, a segment and a transaction at a
// time. Without news it writes only what has changed in the file.
func (r *runner) scan(ctx context.Context, st *state, f *os.File, final, news bool) error {
	c := &st.Cursor
	t, err := c.resume(f)
	if err == nil && t == nil {
		err = wire.E(wire.Unavailable, "", "the file changed while it was looked at", "")
	}
	if err != nil {
		return err
	}
	sc := r.scanner(ctx, f, c.Scan, -1, st, final, t.took)
	for done := false; !done; {
		// Behind a gap nothing is copied: it is taken first, and must find room.
		gaps, err := r.gaps(ctx, st)
		if err != nil {
			return err
		}
		var seg *segment
		if len(gaps) == 0 {
			if seg, err = r.segment(ctx, st, st.Next); err != nil {
				return err
			}
		}
		was := c.Scan.Offset
		done, err = r.chunk(st, sc, seg)
		if err == nil {
			c.Scan = sc.State()
			if n := len(c.Cuts); done && final && c.Scan.Mid != format.Whole && (n == 0 || c.Cuts[n-1] < c.Scan.Offset) {
				c.Cuts = append(c.Cuts, c.Scan.Offset)
			}
			err = t.store(c)
		}
		if err == nil && (news || c.Scan.Offset != was) {
			err = r.put(ctx, st, seg)
		}
		seg.drop()
		if err != nil {
			return err
		}
	}
	return nil
}

// scanner reads f from a state on, to limit bytes of the file or, with -1, to
// its end.
func (r *runner) scanner(ctx context.Context, f io.ReaderAt, from format.State, limit int64, st *state, final bool, took func([]byte)) *format.Scanner {
	if limit < 0 {
		limit = 1 << 62
	}
	src := contextReader{ctx, io.NewSectionReader(f, from.Offset, limit-from.Offset)}
	return format.NewScanner(src, from, format.Options{Format: st.Spec.Format, MaxRecord: r.m.o.Limits.MaxRecord, Final: final, Took: took})
}

// chunk takes as many records as one transaction may hold; done is true at the
// end of the file.
func (r *runner) chunk(st *state, sc *format.Scanner, seg *segment) (done bool, err error) {
	begin, was := sc.Offset(), st.Next
	var columns []string
	defer func() {
		if st.Next != was {
			st.GrewAt = r.m.o.Now().UTC()
		}
	}()
	for sc.Offset()-begin < r.m.o.Limits.SegmentBytes {
		rec, err := sc.Next()
		if err == io.EOF {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		if rec.Bad != "" {
			if st.Stats.Bad == 0 {
				st.say(r.key, BadRows, "line %d is refused: %s", rec.Line, rec.Bad)
			}
			st.Stats.AddBad(rec.Line, rec.Bad)
			continue
		}
		if columns == nil && sc.Columns() != nil {
			columns = sc.Columns()
			seg.header(columns)
			if st.Columns != nil && !slices.Equal(columns, st.Columns) {
				st.say(r.key, OtherColumns, "the statistics begin anew")
				st.Stats = format.Stats{}
			}
			st.Columns = columns
		}
		st.Stats.Add(st.Spec.Format, columns, rec, st.Spec.Label)
		st.Next++
		if err := seg.add(rec.Raw); err != nil {
			return false, err
		}
	}
	return false, nil
}

// segment is one that is being written; nil where no job needs it.
type segment struct {
	*file
	row store.DatasetSegment
}

// segment begins one whose first sample has the ordinal first, if there are
// consumers.
func (r *runner) segment(ctx context.Context, st *state, first int64) (*segment, error) {
	var consumers []store.DatasetConsumer
	err := r.m.o.Store.View(ctx, func(tx *store.Tx) (err error) {
		consumers, err = tx.DatasetConsumers(r.key)
		return err
	})
	if err != nil || len(consumers) == 0 {
		return nil, err
	}
	if err := r.m.spool.roomForSegment(ctx, min(r.m.o.Limits.SegmentBytes, max(st.Size-st.Cursor.Scan.Offset, 1))); err != nil {
		return nil, condition{Full, err}
	}
	f, err := r.m.spool.create()
	if err != nil {
		return nil, err
	}
	return &segment{f, store.DatasetSegment{DatasetKey: r.key, First: first}}, nil
}

func (s *segment) header(columns []string) {
	if s == nil {
		return
	}
	var b strings.Builder
	w := csv.NewWriter(&b)
	_ = w.Write(columns) // a Builder takes everything
	w.Flush()
	s.row.Header = []byte(strings.TrimSuffix(b.String(), "\n"))
}

func (s *segment) add(raw []byte) error {
	if s == nil {
		return nil
	}
	s.row.Samples++
	return s.file.add(raw)
}

func (s *segment) drop() {
	if s != nil {
		s.file.drop()
	}
}

// put commits the state with the segment, if it holds anything.
func (r *runner) put(ctx context.Context, st *state, seg *segment) error {
	if seg == nil || seg.row.Samples == 0 {
		return r.m.commit(ctx, r.key, st, nil)
	}
	if err := errors.Join(r.m.step("segment"), seg.finish("")); err != nil {
		return err
	}
	seg.row.SHA256, seg.row.Size = seg.sha256, seg.size
	return r.m.commit(ctx, r.key, st, &seg.row)
}

// gaps are the samples that were read and that some consumer is to take, but
// that no segment has: those from before it was registered.
func (r *runner) gaps(ctx context.Context, st *state) (out []span, err error) {
	var rows []store.DatasetConsumer
	var segs []store.DatasetSegment
	err = r.m.o.Store.View(ctx, func(tx *store.Tx) (err error) {
		if rows, err = tx.DatasetConsumers(r.key); err != nil {
			return err
		}
		segs, err = tx.DatasetSegments(r.key)
		return err
	})
	if err != nil {
		return nil, err
	}
	p := st.Next
	for _, row := range rows {
		c, err := parseConsumer(row)
		if err != nil {
			return nil, err
		}
		p = min(p, c.after(max(row.Position, st.Base)))
	}
	for _, s := range segs {
		if s.First > p {
			out = append(out, span{p, min(s.First, st.Next)})
		}
		p = max(p, s.Last())
	}
	if p < st.Next {
		out = append(out, span{p, st.Next})
	}
	return out, nil
}

// refill reads again what consumers need that were registered after it was
// read. What is not there any more they leave out.
func (r *runner) refill(ctx context.Context, st *state, f *os.File) error {
	gaps, err := r.gaps(ctx, st)
	if err != nil || len(gaps) == 0 {
		return err
	}
	fill := filling{r: r, ctx: ctx, st: st, gaps: gaps}
	next := st.Base
	err = r.replay(ctx, st, f, func(columns []string, rec format.Record) error {
		next++
		return fill.add(next-1, columns, rec.Raw)
	})
	return fill.end(err)
}

// filling makes segments for gaps.
type filling struct {
	r    *runner
	ctx  context.Context
	st   *state
	gaps []span
	seg  *segment
}

// add takes the samples in order; io.EOF: no more are needed.
func (f *filling) add(ordinal int64, columns []string, raw []byte) error {
	for len(f.gaps) > 0 && ordinal >= f.gaps[0].To {
		f.gaps = f.gaps[1:]
	}
	switch {
	case len(f.gaps) == 0:
		return io.EOF
	case ordinal < f.gaps[0].From:
		return nil
	case f.seg != nil && f.seg.row.First+f.seg.row.Samples != ordinal:
		if err := f.flush(); err != nil {
			return err
		}
	}
	if f.seg == nil {
		seg, err := f.r.segment(f.ctx, f.st, ordinal)
		if err != nil {
			return err
		}
		if seg == nil { // nobody needs it any more
			return io.EOF
		}
		f.seg = seg
		if columns != nil {
			seg.header(columns)
		}
	}
	if err := f.seg.add(raw); err != nil {
		return err
	}
	if ordinal+1 == f.gaps[0].To || f.seg.size >= f.r.m.o.Limits.SegmentBytes {
		return f.flush()
	}
	return nil
}

func (f *filling) flush() error {
	if f.seg == nil {
		return nil
	}
	err := f.r.put(f.ctx, f.st, f.seg)
	f.seg.drop()
	f.seg = nil
	return err
}

// end has the consumers leave out what was not there.
func (f *filling) end(err error) error {
	if err == nil {
		err = f.flush()
	}
	f.seg.drop()
	if err != nil {
		return err
	}
	left, err := f.r.gaps(f.ctx, f.st)
	if err != nil || len(left) == 0 {
		return err
	}
	if err := f.r.sayLost(f.ctx, f.st); err != nil {
		return err
	}
	for _, g := range left {
		f.st.skip = g
		if err := f.r.m.commit(f.ctx, f.r.key, f.st, nil); err != nil {
			return err
		}
	}
	return nil
}

// replay gives the samples that were read of f once more, as they were taken,
// until each says io.EOF.
func (r *runner) replay(ctx context.Context, st *state, f io.ReaderAt, each func([]string, format.Record) error) error {
	at := format.State{}
	ends := st.Cursor.Cuts
	if n := len(ends); n == 0 || ends[n-1] < st.Cursor.Scan.Offset {
		ends = append(slices.Clone(ends), st.Cursor.Scan.Offset)
	}
	for i, end := range ends {
		sc := r.scanner(ctx, f, at, end, st, i < len(st.Cursor.Cuts), nil)
		for {
			rec, err := sc.Next()
			if err == io.EOF {
				break
			}
			if err == nil && rec.Bad == "" {
				err = each(sc.Columns(), rec)
			}
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
		}
		at = sc.State()
	}
	return nil
}

// recounted is what a recount gives.
type recounted struct {
	cursor  cursor
	stats   format.Stats
	samples int64
}

// recount reads f, which has become shorter, from its start. It is nil when f is
// not a begin of what was read: by its first bytes and by the digests of longer
// begins, as far as they are known.
func (r *runner) recount(ctx context.Context, st *state, f *os.File, id fileID) (*recounted, error) {
	head, err := readAt(f, 0, min(id.Size, int64(len(st.Cursor.Head))))
	if err != nil || len(head) == 0 || string(head) != string(st.Cursor.Head[:len(head)]) {
		return nil, err
	}
	marks := st.Cursor.Marks
	out := &recounted{cursor: cursor{File: id}}
	t := newTracker()
	sc := r.scanner(ctx, f, format.State{}, id.Size, st, true, t.took)
	for done := false; !done; {
		rec, err := sc.Next()
		switch {
		case err == io.EOF:
			done = true
		case err != nil:
			return nil, err
		case rec.Bad != "":
			out.stats.AddBad(rec.Line, rec.Bad)
		default:
			out.stats.Add(st.Spec.Format, sc.Columns(), rec, st.Spec.Label)
			out.samples++
		}
		for len(marks) > 0 && marks[0].Offset <= sc.Offset() {
			if sc.State(); marks[0].Offset == t.offset && marks[0].SHA256 != t.digest() {
				return nil, nil
			}
			if marks[0].Offset == t.offset {
				out.cursor.Marks = append(out.cursor.Marks, marks[0])
			}
			marks = marks[1:]
		}
	}
	c := &out.cursor
	if c.Scan = sc.State(); c.Scan.Mid != format.Whole {
		c.Cuts = []int64{c.Scan.Offset}
	}
	if err := t.store(c); err != nil {
		return nil, fmt.Errorf("recount: %w", err)
	}
	return out, nil
}
