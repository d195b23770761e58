package dataset

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"

	"github.com/fsnotify/fsnotify"
)

// watcher tells runners that something has happened in their directories. It is
// a hint: what it misses, the period finds.
type watcher struct {
	notify *fsnotify.Watcher // nil where the system has none to give
	log    *slog.Logger

	mu   sync.Mutex
	dirs map[string]map[*runner]struct{}
}

func newWatcher(log *slog.Logger) *watcher {
	n, err := fsnotify.NewWatcher()
	if err != nil {
		log.Warn("changes of datasets are found by the period alone", "error", err)
	}
	return &watcher{notify: n, log: log, dirs: map[string]map[*runner]struct{}{}}
}

func (w *watcher) run(ctx context.Context) {
	if w.notify == nil {
		return
	}
	defer w.notify.Close()
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-w.notify.Events:
			if !ok {
				return
			}
			w.tell(e)
		case err, ok := <-w.notify.Errors:
			if !ok {
				return
			}
			w.log.Warn("watching datasets", "error", err)
			w.tellAll()
		}
	}
}

func (w *watcher) tell(e fsnotify.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for r := range w.dirs[filepath.Dir(e.Name)] {
		r.kick()
	}
	if e.Has(fsnotify.Remove | fsnotify.Rename) {
		for r := range w.dirs[e.Name] { // the directory itself; it is added again when it is back
			r.kick()
		}
		delete(w.dirs, e.Name)
	}
}

// tellAll is for events that were lost.
func (w *watcher) tellAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, runners := range w.dirs {
		for r := range runners {
			r.kick()
		}
	}
}

// add has r told of what happens in dir. A directory that is not there is found
// by the period.
func (w *watcher) add(dir string, r *runner) {
	if w.notify == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, known := w.dirs[dir][r]; known {
		return
	}
	if len(w.dirs[dir]) == 0 {
		if err := w.notify.Add(dir); err != nil {
			w.log.Debug("directory is not watched", "dir", dir, "error", err)
			return
		}
		w.dirs[dir] = map[*runner]struct{}{}
	}
	w.dirs[dir][r] = struct{}{}
}

// remove ends what add has begun.
func (w *watcher) remove(r *runner) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for dir, runners := range w.dirs {
		if delete(runners, r); len(runners) == 0 {
			delete(w.dirs, dir)
			_ = w.notify.Remove(dir)
		}
	}
}
