package dataset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/edgetwin/sedna/lib/dataset/format"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// runner watches one dataset. All but its channels belongs to its goroutine.
type runner struct {
	m      *Manager
	key    Key
	cancel context.CancelFunc
	done   chan struct{}
	wake   chan struct{}
	asks   chan chan error
	looked atomic.Int64 // µs since 1970
	held   *os.File     // the file that the cursor is of
	period time.Duration
}

// condition is why a dataset is not ready, where no wire code says it.
type condition struct {
	reason string
	error
}

func (c condition) Unwrap() error { return c.error }

// kick has the dataset looked at soon.
func (r *runner) kick() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *runner) run(ctx context.Context) {
	defer close(r.done)
	defer r.hold(nil)
	defer r.m.watch.remove(r)
	var last time.Time
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var answer chan error
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
			timer.Reset(time.Until(last.Add(r.m.o.Limits.Gap)))
			continue
		case answer = <-r.asks:
		case <-timer.C:
		}
		err := r.look(ctx)
		last = time.Now()
		timer.Reset(max(r.period, r.m.o.Limits.Gap))
		if answer != nil {
			answer <- err
		}
		if errors.Is(err, errStopped) {
			return
		}
	}
}

func (r *runner) load(ctx context.Context) (st *state, err error) {
	st, err = r.m.load(ctx, r.key)
	if err == nil && st == nil {
		err = errStopped
	}
	return st, err
}

// look reads what is new and writes down why it cannot.
func (r *runner) look(ctx context.Context) error {
	st, err := r.load(ctx)
	if err != nil {
		return err
	}
	r.period = st.Spec.Period()
	cause := r.update(ctx, st)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(cause, errStopped) {
		return cause
	}
	reason, message := "", ""
	if cause != nil {
		// What update had done in memory did not come to the disk.
		if st, err = r.load(ctx); err != nil {
			return errors.Join(cause, err)
		}
		reason, message = reasonOf(cause)
	}
	r.looked.Store(r.m.o.Now().UnixMicro())
	if st.Reason == reason && st.Message == message {
		return cause
	}
	if reason != "" && st.Reason != reason {
		st.say(r.key, reason, "%s", message)
	}
	st.Reason, st.Message = reason, message
	return errors.Join(cause, r.m.commit(ctx, r.key, st, nil))
}

func reasonOf(err error) (reason, message string) {
	if c, ok := errors.AsType[condition](err); ok {
		return c.reason, wire.AsError(c.error).Message
	}
	e := wire.AsError(err)
	return codeReason(e.Code), e.Message
}

// codeReason is a code as a reason: not_found is NotFound.
func codeReason(c wire.Code) string {
	var b strings.Builder
	for word := range strings.SplitSeq(string(c), "_") {
		b.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	return b.String()
}

// update reads what is new.
func (r *runner) update(ctx context.Context, st *state) error {
	if st.Spec.Format == task.DatasetImages {
		return r.images(ctx, st)
	}
	f, err := r.open(ctx, st)
	if wire.IsCode(err, wire.NotFound) {
		return r.missing(ctx, st, err)
	}
	if err != nil {
		return err
	}
	defer func() {
		if r.held != f {
			_ = f.Close()
		}
	}()
	id, err := idOf(f)
	if err != nil {
		return err
	}
	if st.Reason == Missing {
		st.say(r.key, Returned, "it is back")
	}
	on, err := r.recognise(ctx, st, f, id)
	if err != nil || !on {
		return err
	}
	r.hold(f)
	_, local := st.Spec.Path()
	return r.read(ctx, st, f, !local)
}

// missing reads what a file got before it lost its name.
func (r *runner) missing(ctx context.Context, st *state, cause error) error {
	if st.Cursor.File.Ino == 0 {
		return condition{NotThere, cause}
	}
	old, _, err := r.old(st)
	if err == nil && old != nil {
		err = r.read(ctx, st, old, false)
	}
	if err != nil {
		return err
	}
	return condition{Missing, cause}
}

// recognise finds out what f, which has the dataset's name, is to what was read,
// and puts the cursor where it is to be read from. on is false when it is not
// time for f yet.
func (r *runner) recognise(ctx context.Context, st *state, f *os.File, id fileID) (on bool, err error) {
	c := &st.Cursor
	switch {
	case c.File.Ino == 0:
		r.begin(st, id, Found, fmt.Sprintf("%d bytes", id.Size))
		return true, nil
	case !id.same(c.File):
		return r.another(ctx, st, f, id)
	case id.Size < c.Scan.Offset:
		return true, r.shorter(ctx, st, f, id)
	}
	t, err := c.resume(f)
	if err == nil && t == nil {
		err = r.anew(ctx, st, id, Replaced, "its content is not what was read")
	}
	return true, err
}

// another deals with a file that is not the one that was read, but has its name.
func (r *runner) another(ctx context.Context, st *state, f *os.File, id fileID) (on bool, err error) {
	old, was, err := r.old(st)
	if err == nil && old != nil {
		err = r.read(ctx, st, old, false)
	}
	if err != nil {
		return false, err
	}
	c := &st.Cursor
	same, err := r.goesOn(ctx, st, f, id)
	switch {
	case err != nil:
		return false, err
	case same:
		st.say(r.key, Continued, "another file begins with the %d bytes that were read", c.Scan.Offset)
		c.File = id
		return true, nil
	case id.Size == 0 && old != nil && was.links > 0:
		return false, nil // the writer may still be at the old one
	case old == nil:
		return true, r.anew(ctx, st, id, Replaced, "another file has its name, and the one that was read is gone; what it may have got after the last look is lost")
	}
	if err := r.read(ctx, st, old, true); err != nil {
		return false, err
	}
	if was.links == 0 {
		return true, r.anew(ctx, st, id, Replaced, "another file has its name")
	}
	r.begin(st, id, Rotated, "the file was renamed; it was read to its end")
	return true, nil
}

// goesOn tells whether f begins with all that was read.
func (r *runner) goesOn(ctx context.Context, st *state, f *os.File, id fileID) (bool, error) {
	c := &st.Cursor
	if c.Scan.Offset == 0 || id.Size < c.Scan.Offset {
		return false, nil
	}
	t, err := c.resume(f)
	if err != nil || t == nil {
		return false, err
	}
	want := t.digest()
	all := newTracker()
	if _, err := io.Copy(all.sum, contextReader{ctx, io.NewSectionReader(f, 0, c.Scan.Offset)}); err != nil {
		return false, err
	}
	return all.digest() == want, nil
}

// begin has a file read from its start.
func (r *runner) begin(st *state, id fileID, reason, message string) {
	st.Cursor = cursor{File: id}
	st.Base = st.Next
	st.Contents++
	st.say(r.key, reason, "%s", message)
}

// anew is begin where what was read does not count any more.
func (r *runner) anew(ctx context.Context, st *state, id fileID, reason, message string) error {
	if err := r.sayLost(ctx, st); err != nil {
		return err
	}
	st.Stats, st.Columns = format.Stats{}, nil
	r.begin(st, id, reason, message)
	return nil
}

// sayLost tells of samples that were counted but that nobody can take any more.
func (r *runner) sayLost(ctx context.Context, st *state) error {
	gaps, err := r.gaps(ctx, st)
	var lost int64
	for _, g := range gaps {
		lost += g.To - g.From
	}
	if lost > 0 {
		st.say(r.key, Lost, "%d samples were gone before they were copied for the jobs that wait for them", lost)
	}
	return err
}

// shorter deals with a file that has become shorter. When it is a begin of what
// was read, nothing of it is a new sample.
func (r *runner) shorter(ctx context.Context, st *state, f *os.File, id fileID) error {
	was := st.Cursor.Scan.Offset
	next, err := r.recount(ctx, st, f, id)
	if err != nil {
		return err
	}
	if next == nil {
		return r.anew(ctx, st, id, Truncated, fmt.Sprintf("from %d bytes to %d, which are not what was read", was, id.Size))
	}
	if err := r.sayLost(ctx, st); err != nil {
		return err
	}
	st.Cursor, st.Stats = next.cursor, next.stats
	st.Base = st.Next
	st.Next += next.samples
	st.skip = span{st.Base, st.Next}
	st.Contents++
	st.say(r.key, Truncated, "from %d bytes to %d; the %d samples that are left are not counted again", was, id.Size, next.samples)
	return nil
}

// contextReader ends with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
