package dataset

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/edgetwin/sedna/edge/store"
	"github.com/edgetwin/sedna/models/wire"
)

const (
	imageBatch = 256             // files between two transactions
	imageAge   = 2 * time.Second // since the last change of an image, so that it is whole
	maxClasses = 4096            // directories
)

// images looks through a directory with a directory of images for each class.
// Its samples are lines as in txt: the image's path and its class. What the
// store knows of an image is looked up by its name, so that only new and changed
// ones are read; one whose bytes are the same is not a new sample.
func (r *runner) images(ctx context.Context, st *state) error {
	dir, _ := st.Spec.Path()
	base, name, err := r.m.openRoot(dir)
	if wire.IsCode(err, wire.NotFound) {
		return condition{NotThere, err}
	}
	if err != nil {
		return err
	}
	defer base.Close()
	abs := filepath.Join(base.Name(), name)
	root, err := base.OpenRoot(name)
	if err = fileError(dir, err); wire.IsCode(err, wire.NotFound) {
		if st.Contents > 0 {
			return condition{Missing, err}
		}
		return condition{NotThere, err}
	}
	if err != nil {
		return err
	}
	defer root.Close()
	r.m.watch.add(abs, r)
	if st.Contents == 0 {
		st.Contents = 1
		st.say(r.key, Found, "a directory")
	}
	w := imageWalk{r: r, st: st, root: root, abs: abs}
	if err := w.walk(ctx); err != nil {
		return err
	}
	if err := w.gone(ctx); err != nil {
		return err
	}
	if err := w.commit(ctx, true); err != nil {
		return err
	}
	return w.refill(ctx)
}

// imageWalk is one look through a directory.
type imageWalk struct {
	r     *runner
	st    *state
	root  *os.Root
	abs   string
	lines []string // samples that are not committed yet
	seen  int
}

func (w *imageWalk) walk(ctx context.Context) error {
	classes, err := fs.ReadDir(w.root.FS(), ".")
	if err != nil {
		return fileError(w.abs, err)
	}
	if len(classes) > maxClasses {
		return wire.E(wire.TooLarge, "spec.url", fmt.Sprintf("%s has more than %d entries", w.abs, maxClasses), "it should have a directory for each class")
	}
	for _, c := range classes {
		if !c.IsDir() || strings.HasPrefix(c.Name(), ".") {
			continue
		}
		w.r.m.watch.add(filepath.Join(w.abs, c.Name()), w.r)
		if err := w.class(ctx, c.Name()); err != nil {
			return err
		}
	}
	return nil
}

func (w *imageWalk) class(ctx context.Context, name string) error {
	dir, err := w.root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fileError(w.abs, err)
	}
	defer dir.Close()
	for {
		entries, err := dir.ReadDir(imageBatch)
		slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
		for _, e := range entries {
			if !e.Type().IsRegular() || strings.HasPrefix(e.Name(), ".") {
				continue
			}
			if w.seen++; w.seen > w.r.m.o.Limits.MaxFiles {
				return wire.E(wire.TooLarge, "spec.url", fmt.Sprintf("%s has more than %d images", w.abs, w.r.m.o.Limits.MaxFiles), "raise maxFiles, or use several datasets")
			}
			if err := w.image(ctx, path.Join(name, e.Name()), name, e); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err := errors.Join(err, ctx.Err(), w.commit(ctx, false)); err != nil {
			return err
		}
	}
}

// image takes one image if it is new or other than it was.
func (w *imageWalk) image(ctx context.Context, name, class string, e fs.DirEntry) error {
	info, err := e.Info()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fileError(name, err)
	}
	var was *store.DatasetFile
	err = w.r.m.o.Store.View(ctx, func(tx *store.Tx) (err error) {
		was, err = tx.DatasetFile(w.r.key, name)
		return err
	})
	if err != nil {
		return err
	}
	if was != nil && !was.Gone && was.Size == info.Size() && was.Modified.Equal(info.ModTime()) {
		return nil
	}
	if age := w.r.m.o.Now().Sub(info.ModTime()); age >= 0 && age < imageAge {
		w.r.period = min(w.r.period, imageAge)
		return nil
	}
	row := store.DatasetFile{Path: name, Size: info.Size(), Modified: info.ModTime(), Ordinal: -1}
	bad, err := w.read(ctx, &row)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fileError(filepath.Join(w.abs, name), err)
	}
	w.settle(was, &row, class, bad)
	return nil
}

// read reads an image; bad says why it is none.
func (w *imageWalk) read(ctx context.Context, row *store.DatasetFile) (bad string, err error) {
	f, err := openRegular(w.root, row.Path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	head := make([]byte, 512)
	n, err := io.ReadFull(f, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return "", err
	}
	sum.Write(head[:n])
	if _, err := io.Copy(sum, contextReader{ctx, f}); err != nil {
		return "", err
	}
	row.SHA256 = hex.EncodeToString(sum.Sum(nil))
	switch kind := http.DetectContentType(head[:n]); {
	case strings.ContainsAny(row.Path, " \t\r\n\v\f"):
		return "its name holds white space", nil
	case !strings.HasPrefix(kind, "image/"):
		return "not an image: " + kind, nil
	}
	return "", nil
}

// settle counts an image for what it is to what was there under its name.
func (w *imageWalk) settle(was, row *store.DatasetFile, class, bad string) {
	st := w.st
	if was != nil && !was.Gone {
		w.uncount(was)
	}
	switch {
	case bad != "":
		st.Stats.AddBad(0, fmt.Sprintf("%.200s: %s", row.Path, bad))
	case was != nil && was.SHA256 == row.SHA256 && was.Ordinal >= 0: // touched, or back
		row.Ordinal = was.Ordinal
	default:
		row.Ordinal = st.Next
		st.Next++
		w.lines = append(w.lines, w.line(row.Path))
	}
	if row.Ordinal >= 0 {
		st.Stats.Samples++
		st.Stats.AddClass(class)
		st.Size += row.Size
	}
	st.files = append(st.files, *row)
}

func (w *imageWalk) line(name string) string {
	return filepath.Join(w.abs, name) + " " + path.Dir(name)
}

// uncount takes an image out of the statistics.
func (w *imageWalk) uncount(f *store.DatasetFile) {
	if f.Ordinal < 0 {
		w.st.Stats.Bad--
		return
	}
	w.st.Stats.Samples--
	w.st.Stats.RemoveClass(path.Dir(f.Path))
	w.st.Size -= f.Size
}

// gone finds images that are not there any more. They are remembered, so that
// they are no new samples when they are back.
func (w *imageWalk) gone(ctx context.Context) error {
	after := ""
	for {
		var files []store.DatasetFile
		err := w.r.m.o.Store.View(ctx, func(tx *store.Tx) (err error) {
			files, err = tx.DatasetFiles(w.r.key, after, imageBatch)
			return err
		})
		if err != nil || len(files) == 0 {
			return err
		}
		for _, f := range files {
			after = f.Path
			if f.Gone || slices.ContainsFunc(w.st.files, func(n store.DatasetFile) bool { return n.Path == f.Path }) {
				continue
			}
			if _, err := w.root.Lstat(f.Path); errors.Is(err, fs.ErrNotExist) {
				w.uncount(&f)
				f.Gone = true
				w.st.files = append(w.st.files, f)
			}
		}
		if err := w.commit(ctx, false); err != nil {
			return err
		}
	}
}

// commit writes what was found, when there is enough of it or all must go.
func (w *imageWalk) commit(ctx context.Context, all bool) error {
	st := w.st
	if len(st.files) == 0 && (!all || len(st.events) == 0) || !all && len(st.files) < imageBatch {
		return nil
	}
	if len(w.lines) == 0 {
		return w.r.m.commit(ctx, w.r.key, st, nil)
	}
	st.GrewAt = w.r.m.o.Now().UTC()
	first := st.Next - int64(len(w.lines))
	gaps, err := w.r.gaps(ctx, st)
	if err != nil {
		return err
	}
	var seg *segment
	if len(gaps) == 1 && gaps[0].From == first { // else what is missing before comes first
		if seg, err = w.r.segment(ctx, st, first); err != nil {
			return err
		}
	}
	defer seg.drop()
	for _, line := range w.lines {
		if err := seg.add([]byte(line)); err != nil {
			return err
		}
	}
	w.lines = w.lines[:0]
	return w.r.put(ctx, st, seg)
}

// refill makes segments of images that were found before a consumer was
// registered.
func (w *imageWalk) refill(ctx context.Context) error {
	gaps, err := w.r.gaps(ctx, w.st)
	if err != nil || len(gaps) == 0 {
		return err
	}
	fill := filling{r: w.r, ctx: ctx, st: w.st, gaps: gaps}
	next := gaps[0].From
	for err == nil {
		var files []store.DatasetFile
		err = w.r.m.o.Store.View(ctx, func(tx *store.Tx) (err error) {
			files, err = tx.DatasetSamples(w.r.key, next, imageBatch)
			return err
		})
		if err == nil && len(files) == 0 {
			err = io.EOF
		}
		for _, f := range files {
			if next = f.Ordinal + 1; err == nil && !f.Gone {
				err = fill.add(f.Ordinal, nil, []byte(w.line(f.Path)))
			}
		}
	}
	if err == io.EOF {
		err = nil
	}
	return fill.end(err)
}
