package dataset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/lib/dataset/format"
	"github.com/edgetwin/sedna/models/wire"
)

// Roles of shards.
const (
	roleTrain = "train"
	roleEval  = "eval"
)

// Register has a job take the samples of a dataset, from the first one that the
// data holds now. For a job that is registered already only how it splits is
// changed, from its next round on.
func (m *Manager) Register(ctx context.Context, k Key, job string, c Consumer) error {
	if c.Mode == "" {
		c.Mode = ByHash
	}
	if !(c.TrainProb >= 0 && c.TrainProb <= 1) {
		return wire.E(wire.InvalidArgument, "dataset.trainProb", fmt.Sprintf("expected 0 to 1, got %v", c.TrainProb), "")
	}
	if c.Mode != ByHash && c.Mode != Sequential {
		return wire.E(wire.InvalidArgument, "dataset.split", fmt.Sprintf("expected %s or %s, got %.40q", ByHash, Sequential, c.Mode), "")
	}
	err := m.o.Store.Update(ctx, func(tx *store.Tx) error {
		st, err := loadState(tx, k)
		if err == nil && st == nil {
			err = noDataset(k)
		}
		if err != nil {
			return err
		}
		row, now, err := findConsumer(tx, k, job)
		if wire.IsCode(err, wire.NotFound) {
			row, err = store.DatasetConsumer{DatasetKey: k, Job: job, Position: st.Base}, nil
		}
		if err != nil {
			return err
		}
		now.Consumer = c
		return putConsumer(tx, row, now)
	})
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.runners[k]; r != nil {
		r.kick()
	}
	return nil
}

// Unregister forgets a job with its shards; it is no error if there is none.
func (m *Manager) Unregister(ctx context.Context, k Key, job string) error {
	m.taking.Lock()
	defer m.taking.Unlock()
	err := m.o.Store.Update(ctx, func(tx *store.Tx) error {
		if err := tx.DeleteDatasetConsumer(k, job); err != nil {
			return err
		}
		return dropSegments(tx, k)
	})
	if err != nil {
		return err
	}
	return m.spool.sweep(ctx)
}

// dropSegments removes the segments that every consumer has taken.
func dropSegments(tx *store.Tx, k Key) error {
	st, err := loadState(tx, k)
	if err != nil || st == nil {
		return err
	}
	rows, err := tx.DatasetConsumers(k)
	if err != nil {
		return err
	}
	before := st.Next
	for _, row := range rows {
		before = min(before, row.Position)
	}
	return tx.DeleteDatasetSegments(k, before)
}

func findConsumer(tx *store.Tx, k Key, job string) (store.DatasetConsumer, consumer, error) {
	rows, err := tx.DatasetConsumers(k)
	if err != nil {
		return store.DatasetConsumer{}, consumer{}, err
	}
	for _, row := range rows {
		if row.Job == job {
			c, err := parseConsumer(row)
			return row, c, err
		}
	}
	return store.DatasetConsumer{}, consumer{}, wire.E(wire.NotFound, "job", fmt.Sprintf("job %s is not registered for dataset %s/%s", job, k.Namespace, k.Name), "")
}

// piece is a part of a segment.
type piece struct {
	seg      store.DatasetSegment
	from, to int64 // ordinals
}

// offer is what a job can take now.
type offer struct {
	row    store.DatasetConsumer
	c      consumer
	format string
	pieces []piece
	shards []store.DatasetShard // of its rounds
}

func (m *Manager) offer(ctx context.Context, k Key, job string) (o offer, err error) {
	err = m.o.Store.View(ctx, func(tx *store.Tx) error {
		st, err := loadState(tx, k)
		if err == nil && st == nil {
			err = noDataset(k)
		}
		if err != nil {
			return err
		}
		if o.row, o.c, err = findConsumer(tx, k, job); err != nil {
			return err
		}
		segs, err := tx.DatasetSegments(k)
		if err != nil {
			return err
		}
		o.format = st.scanFormat()
		o.pieces = plan(o.c, o.row.Position, st.Base, segs)
		o.shards, err = tx.DatasetShards(k, job)
		return err
	})
	return o, err
}

// plan gives what comes next in the segments. A hole from base on ends it, since
// it will be filled; one before base will not, and is passed over.
func plan(c consumer, p, base int64, segs []store.DatasetSegment) (out []piece) {
	for _, s := range segs {
		if p = c.after(p); s.First > p {
			if p = c.after(max(p, min(s.First, base))); s.First > p {
				return out
			}
		}
		for p < s.Last() {
			if q := c.after(p); q != p {
				p = q
				continue
			}
			to := s.Last()
			for _, skip := range c.Skips {
				if skip.From > p {
					to = min(to, skip.From)
				}
			}
			out = append(out, piece{s, p, to})
			p = to
		}
	}
	return out
}

// Pending is how many samples a job can take.
func (m *Manager) Pending(ctx context.Context, k Key, job string) (n int64, err error) {
	o, err := m.offer(ctx, k, job)
	for _, p := range o.pieces {
		n += p.to - p.from
	}
	return n, err
}

// Take gives a round of a job the samples that its rounds have not had, at most
// limit of them unless that is 0. They are of one header: when a csv file's
// columns have changed, the next round has the rest. Asked again for a round it
// gives the same. It is failed_precondition when there is nothing to take, or
// when a later round was taken.
func (m *Manager) Take(ctx context.Context, k Key, job string, round, limit int64) (Round, error) {
	m.taking.Lock()
	defer m.taking.Unlock()
	o, err := m.offer(ctx, k, job)
	if err != nil {
		return Round{}, err
	}
	if got, ok := m.roundOf(o.shards, round); ok {
		return got, nil
	}
	if round <= o.c.Round {
		return Round{}, wire.E(wire.FailedPrecondition, "round", fmt.Sprintf("expected more than %d, got %d", o.c.Round, round), "")
	}
	pieces, n := o.choose(limit)
	if n == 0 {
		return Round{}, wire.E(wire.FailedPrecondition, "dataset", fmt.Sprintf("dataset %s/%s has no new samples for job %s", k.Namespace, k.Name, job), "wait until it has grown")
	}
	var bytes int64
	for _, p := range pieces {
		bytes += p.seg.Size
	}
	if err := m.makeRoom(ctx, k, job, bytes); err != nil {
		return Round{}, err
	}
	train, eval, err := m.split(ctx, o, pieces, n)
	defer train.drop()
	defer eval.drop()
	if err != nil {
		return Round{}, err
	}
	first, last := pieces[0].from, pieces[len(pieces)-1].to
	err = m.o.Store.Update(ctx, func(tx *store.Tx) error {
		row, c, err := findConsumer(tx, k, job)
		if err != nil {
			return err
		}
		row.Position, c.Round = last, round
		for len(c.Skips) > 0 && c.Skips[0].To <= last {
			c.Skips = c.Skips[1:]
		}
		if err := putConsumer(tx, row, c); err != nil {
			return err
		}
		for _, s := range []struct {
			role string
			*file
		}{{roleTrain, train}, {roleEval, eval}} {
			shard := store.DatasetShard{DatasetKey: k, Job: job, Round: round, Role: s.role, First: first, Last: last}
			if s.file != nil && s.samples > 0 {
				shard.Samples, shard.SHA256, shard.Size, shard.File, shard.Kept = s.samples, s.sha256, s.size, s.name, true
			}
			if err := tx.PutDatasetShard(shard); err != nil {
				return err
			}
		}
		if err := m.letGo(tx, k, job, round); err != nil {
			return err
		}
		return dropSegments(tx, k)
	})
	if err != nil {
		return Round{}, err
	}
	if err := errors.Join(m.step("round committed"), m.spool.sweep(ctx)); err != nil {
		return Round{}, err
	}
	return m.Round(ctx, k, job, round)
}

// choose gives the pieces of one header up to limit samples.
func (o *offer) choose(limit int64) (out []piece, n int64) {
	for _, p := range o.pieces {
		if len(out) > 0 && string(p.seg.Header) != string(out[0].seg.Header) {
			break
		}
		if limit > 0 {
			p.to = min(p.to, p.from+limit-n)
		}
		if p.from == p.to {
			break
		}
		out = append(out, p)
		n += p.to - p.from
	}
	return out, n
}

// split writes the two shards of n samples in pieces. The files are to be
// dropped also after an error.
func (m *Manager) split(ctx context.Context, o offer, pieces []piece, n int64) (train, eval *file, err error) {
	if train, err = m.spool.create(); err != nil {
		return nil, nil, err
	}
	if eval, err = m.spool.create(); err != nil {
		return train, nil, err
	}
	firstInTrain := format.FirstInTrain(n, o.c.TrainProb)
	var at int64
	for _, p := range pieces {
		err := m.samples(ctx, o.format, p, func(raw []byte) error {
			to := eval
			if o.c.Mode == Sequential && at < firstInTrain || o.c.Mode != Sequential && format.InTrain(o.c.Seed, raw, o.c.TrainProb) {
				to = train
			}
			at++
			if to.samples == 0 && len(p.seg.Header) > 0 {
				if err := to.add(p.seg.Header); err != nil {
					return err
				}
			}
			to.samples++
			return to.add(raw)
		})
		if err != nil {
			return train, eval, err
		}
	}
	for _, f := range []*file{train, eval} {
		if f.samples == 0 {
			continue
		}
		if err := errors.Join(m.step("shard"), f.finish("."+o.format), m.step("shard written")); err != nil {
			return train, eval, err
		}
	}
	return train, eval, nil
}

// samples gives the samples of a piece in order.
func (m *Manager) samples(ctx context.Context, as string, p piece, each func([]byte) error) error {
	f, err := os.Open(m.spool.path(p.seg.SHA256))
	if err != nil {
		return fmt.Errorf("segment of dataset %s/%s: %w", p.seg.Namespace, p.seg.Name, err)
	}
	defer f.Close()
	src := io.Reader(contextReader{ctx, f})
	if len(p.seg.Header) > 0 {
		src = io.MultiReader(strings.NewReader(string(p.seg.Header)+"\n"), src)
	}
	// A segment is not the begin of a file, where a byte order mark may be.
	sc := format.NewScanner(src, format.State{Offset: 1}, format.Options{Format: as, MaxRecord: m.o.Limits.MaxRecord + len(p.seg.Header)})
	for at := p.seg.First; at < p.to; at++ {
		rec, err := sc.Next()
		if err == nil && rec.Bad != "" {
			err = errors.New(rec.Bad)
		}
		if err == nil && at >= p.from {
			err = each(rec.Raw)
		}
		if err != nil {
			return fmt.Errorf("segment %s of dataset %s/%s: %w", p.seg.SHA256, p.seg.Namespace, p.seg.Name, err)
		}
	}
	return nil
}

// makeRoom lets go of the job's earlier training shards when it must.
func (m *Manager) makeRoom(ctx context.Context, k Key, job string, bytes int64) error {
	if err := m.spool.roomForShards(ctx, bytes); !wire.IsCode(err, wire.ResourceExhausted) {
		return err
	}
	if err := m.release(ctx, k, job, func(store.DatasetShard) bool { return true }); err != nil {
		return err
	}
	return m.spool.roomForShards(ctx, bytes)
}

// letGo lets go of shards that rounds before this one do not need any more.
func (m *Manager) letGo(tx *store.Tx, k Key, job string, round int64) error {
	shards, err := tx.DatasetShards(k, job)
	if err != nil {
		return err
	}
	left := map[string]int{roleTrain: m.o.Limits.TrainShards, roleEval: m.o.Limits.EvalShards}
	for i := len(shards) - 1; i >= 0; i-- {
		s := shards[i]
		if s.Samples == 0 {
			continue
		}
		if left[s.Role]--; left[s.Role] >= 0 || !s.Kept {
			continue
		}
		s.Kept = false
		if err := tx.PutDatasetShard(s); err != nil {
			return err
		}
	}
	return tx.PruneDatasetShards(k, job, round-m.o.Limits.Rounds)
}

// Round gives a round that was taken; not_found if it was not, or too long ago.
// The path of a shard that was let go is empty.
func (m *Manager) Round(ctx context.Context, k Key, job string, round int64) (Round, error) {
	var shards []store.DatasetShard
	err := m.o.Store.View(ctx, func(tx *store.Tx) (err error) {
		shards, err = tx.DatasetShards(k, job)
		return err
	})
	if err != nil {
		return Round{}, err
	}
	if got, ok := m.roundOf(shards, round); ok {
		return got, nil
	}
	return Round{}, wire.E(wire.NotFound, "round", fmt.Sprintf("round %d of job %s has taken nothing of dataset %s/%s", round, job, k.Namespace, k.Name), "")
}

func (m *Manager) roundOf(shards []store.DatasetShard, round int64) (out Round, ok bool) {
	for _, s := range shards {
		if s.Round > round {
			break
		}
		shard := Shard{SHA256: s.SHA256, Size: s.Size, Samples: s.Samples, Round: s.Round}
		if s.Kept {
			shard.Path = m.spool.path(s.File)
		}
		if s.Role == roleEval && shard.Path != "" {
			out.EvalSet = append(out.EvalSet, shard)
		}
		if s.Round != round {
			continue
		}
		ok = true
		out.Round, out.First, out.Last = round, s.First, s.Last
		if s.Role == roleTrain {
			out.Train = shard
		} else {
			out.Eval = shard
		}
	}
	if n := len(out.EvalSet) - m.o.Limits.EvalShards; n > 0 {
		out.EvalSet = out.EvalSet[n:]
	}
	return out, ok
}

// Release lets go of the training shard of a round whose training is over.
func (m *Manager) Release(ctx context.Context, k Key, job string, round int64) error {
	return m.release(ctx, k, job, func(s store.DatasetShard) bool { return s.Round == round })
}

// release lets go of the training shards of a job that which is true of.
func (m *Manager) release(ctx context.Context, k Key, job string, which func(store.DatasetShard) bool) error {
	err := m.o.Store.Update(ctx, func(tx *store.Tx) error {
		shards, err := tx.DatasetShards(k, job)
		if err != nil {
			return err
		}
		for _, s := range shards {
			if s.Role != roleTrain || !s.Kept || !which(s) {
				continue
			}
			s.Kept = false
			if err := tx.PutDatasetShard(s); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return m.spool.sweep(ctx)
}
