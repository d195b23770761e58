package tasks

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/edgetwin/sedna/edge/model"
	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// permanent holds the reasons that only a new generation can cure.
var permanent = map[string]bool{
	reasonOf(wire.BadModel):         true,
	reasonOf(wire.Quarantined):      true,
	reasonOf(wire.InvalidArgument):  true,
	reasonOf(wire.UnsupportedMedia): true,
	reasonOf(wire.Unimplemented):    true,
	reasonOf(wire.PermissionDenied): true,
	reasonOf(wire.TooLarge):         true,
}

// reasonOf is a code as the reason of a report: bad_model is BadModel.
func reasonOf(c wire.Code) string {
	var b strings.Builder
	for word := range strings.SplitSeq(string(c), "_") {
		b.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	return b.String()
}

// errMoved: the row is not what the attempt was made for any more.
var errMoved = errors.New("the task has moved on")

// change moves a row if it is still that of uid and generation, and writes the
// event that goes with it.
func (m *Manager) change(ctx context.Context, was *store.Task, on Event, edit func(*store.Task)) error {
	k := key{was.Namespace, was.Device}
	e := store.Event{Kind: "task"}
	err := m.o.Store.Update(ctx, func(tx *store.Tx) error {
		row, err := tx.Task(k.namespace, k.device)
		if err != nil {
			return err
		}
		if row == nil || row.UID != was.UID || row.Epoch != was.Epoch || row.Generation != was.Generation || row.State != was.State {
			return errMoved
		}
		if err := move(row, on); err != nil {
			return err
		}
		edit(row)
		if err := tx.PutTask(row); err != nil {
			return err
		}
		e = store.Event{
			Time: now(), Kind: "task", Reason: string(on), Namespace: row.Namespace, Device: row.Device, UID: row.UID, Generation: row.Generation, Message: row.Detail,
		}
		if on == Begun {
			return nil // the next event says more
		}
		return tx.AddEvent(e)
	})
	if err != nil {
		return err
	}
	m.reporter.news(k)
	m.o.Events(e)
	m.o.Changed()
	return nil
}

// slot waits for one of the places in slots.
func slot(ctx context.Context, slots chan struct{}) (free func(), err error) {
	select {
	case slots <- struct{}{}:
		return func() { <-slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// attempt makes the row's document serve, or records why it cannot. It returns
// when to try again.
func (m *Manager) attempt(ctx context.Context, row *store.Task) time.Duration {
	k := key{row.Namespace, row.Device}
	free, err := slot(ctx, m.slots)
	if err != nil {
		return 0
	}
	defer free()
	again := func(err error) time.Duration {
		if err == nil || errors.Is(err, errMoved) || ctx.Err() != nil {
			return 0 // whoever moved it has left a kick
		}
		return m.trouble(ctx, k, err)
	}
	if err := m.change(ctx, row, Begun, func(*store.Task) {}); err != nil {
		return again(err)
	}
	file, err := m.serve(ctx, row)
	if ctx.Err() != nil {
		if err == nil {
			file.Release()
		}
		return 0
	}
	if err != nil {
		return again(m.fail(ctx, row, err))
	}
	defer file.Release()
	err = m.change(ctx, row, Served, func(t *store.Task) {
		t.Serving, t.ServingSHA256, t.ModelSHA256 = row.Document, file.SHA256, file.SHA256
		t.Model = modelName(row.Document, file.SHA256)
		t.Reason, t.Detail, t.Attempts = "", "", 0
	})
	if err != nil {
		return again(err)
	}
	m.o.Log.Info("task running", "task", k.String(), "generation", row.Generation, "sha256", file.SHA256)
	if err := m.o.Models.Collect(ctx); err != nil {
		m.o.Log.Error("cannot collect models", "error", err)
	}
	return 0
}

// serve brings the model here and activates the service.
func (m *Manager) serve(ctx context.Context, row *store.Task) (model.File, error) {
	doc, spec, err := parse(row.Document)
	if err != nil {
		return model.File{}, err
	}
	file, err := m.o.Models.Ensure(ctx, spec.Model)
	if err != nil {
		return model.File{}, err
	}
	if err := m.activate(ctx, row, doc, spec, file); err != nil {
		file.Release()
		return model.File{}, err
	}
	return file, nil
}

// activate has a document served. What the Server holds is noted at once, so
// that it is stopped later even when the store fails in between.
func (m *Manager) activate(ctx context.Context, row *store.Task, doc *task.Document, spec *task.JointInference, file model.File) error {
	return m.o.Models.Loading(ctx, file.SHA256, func() error {
		err := m.o.Server.Activate(ctx, Service{
			Namespace: doc.Namespace, Name: doc.Name, Model: spec.Model, ModelPath: file.Path,
			HardExample: spec.HardExample, Cloud: spec.Cloud, OnCloudError: spec.OnCloudError,
			Inputs: spec.Inputs, Result: spec.Result,
		})
		if err != nil {
			return err
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.serving[key{row.Namespace, row.Device}] = active{row.UID, doc.Namespace, doc.Name}
		return nil
	})
}

// fail records a failed attempt and has it tried again, unless the cause is
// permanent: then the retry finds nothing to do.
func (m *Manager) fail(ctx context.Context, row *store.Task, cause error) error {
	e := wire.AsError(cause)
	k := key{row.Namespace, row.Device}
	m.o.Log.Warn("task failed", "task", k.String(), "generation", row.Generation, "error", cause)
	err := m.change(ctx, row, Failing, func(t *store.Task) {
		t.Reason, t.Detail, t.Attempts = reasonOf(e.Code), e.Message, t.Attempts+1
		if t.Serving != nil {
			t.Detail += "; " + t.Model + " goes on serving"
		}
	})
	if err != nil {
		return err
	}
	m.again(k)
	return nil
}

// again has the worker look at its task once more without cancelling it.
func (m *Manager) again(k key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w := m.workers[k]; w != nil {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// restore activates what served when the process ended, from local files only.
// When they are gone the task is prepared again.
func (m *Manager) restore(ctx context.Context, row *store.Task) error {
	free, err := slot(ctx, m.restores)
	if err != nil {
		return err
	}
	defer free()
	cause := func() error {
		doc, spec, err := parse(row.Serving)
		if err != nil {
			return err
		}
		file, err := m.o.Models.Local(ctx, row.ServingSHA256)
		if err != nil {
			return err
		}
		defer file.Release()
		return m.activate(ctx, row, doc, spec, file)
	}()
	k := key{row.Namespace, row.Device}
	if cause == nil {
		m.o.Log.Info("task restored", "task", k.String(), "generation", row.Generation, "sha256", row.ServingSHA256)
		m.wg.Go(func() { m.recheck(row) })
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	m.o.Log.Warn("task cannot be restored from this node's disk", "task", k.String(), "error", cause)
	err = m.change(ctx, row, Lost, func(t *store.Task) { t.Serving, t.ServingSHA256, t.Model = nil, "", "" })
	if errors.Is(err, errMoved) {
		return nil
	}
	return err
}

// recheck reads the file of a restored task in the background. A model that has
// changed on disk goes on serving from memory while it is fetched again.
func (m *Manager) recheck(row *store.Task) {
	err := m.o.Models.Check(m.ctx, row.ServingSHA256)
	if !wire.IsCode(err, wire.DigestMismatch) || m.ctx.Err() != nil {
		return
	}
	m.o.Log.Error("model changed on disk", "task", key{row.Namespace, row.Device}.String(), "error", err)
	if err := m.change(m.ctx, row, Lost, func(t *store.Task) { t.Detail = err.Error() }); err == nil {
		m.kick(key{row.Namespace, row.Device})
	}
}

func parse(document []byte) (*task.Document, *task.JointInference, error) {
	doc, err := task.Parse(document)
	if err != nil {
		return nil, nil, fmt.Errorf("stored document: %w", err)
	}
	spec, err := doc.JointInference()
	if err != nil {
		return nil, nil, fmt.Errorf("stored document: %w", err)
	}
	return doc, spec, nil
}

// modelName is the property model of a report: name:version:digest12, in the
// twins' alphabet.
func modelName(document []byte, sha256 string) string {
	_, spec, err := parse(document)
	if err != nil {
		return ""
	}
	return twinSafe(spec.Model.Name) + ":" + twinSafe(spec.Model.Version) + ":" + sha256[:min(len(sha256), 12)]
}

// twinSafe puts a dash in place of what may not be in a part of a twin value,
// and cuts it.
func twinSafe(s string) string {
	const shown = 128
	s = strings.Map(func(r rune) rune {
		if r != ':' && r != ',' && wire.TwinKey.MatchString(string(r)) {
			return r
		}
		return '-'
	}, s)
	return s[:min(len(s), shown)]
}
