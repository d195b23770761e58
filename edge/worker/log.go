package worker

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/edgetwin/sedna/models/task"
)

// logWriter appends to a log of at most files files of about size bytes each;
// the oldest goes. What cannot be written, on a full disk, is dropped: a worker
// never waits for its log.
type logWriter struct {
	dir   string
	size  int64
	files int

	mu   sync.Mutex
	f    *os.File // nil: could not be opened
	have int64    // bytes in f
}

func newLogWriter(dir string, size int64, files int) *logWriter {
	w := &logWriter{dir: dir, size: size, files: files}
	w.open()
	return w
}

func (w *logWriter) open() {
	f, err := os.OpenFile(filepath.Join(w.dir, logFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return
	}
	w.f, w.have = f, info.Size()
}

// write appends a line or a piece of one.
func (w *logWriter) write(p []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.have > 0 && w.have+int64(len(p)) > w.size {
		w.rotate()
	}
	if w.f == nil {
		w.open()
	}
	if w.f == nil {
		return
	}
	n, err := w.f.Write(p)
	w.have += int64(n)
	if err != nil {
		w.f.Close()
		w.f = nil
	}
}

// rotate makes log log.1, log.1 log.2 and so on.
func (w *logWriter) rotate() {
	if w.f != nil {
		w.f.Close()
		w.f = nil
	}
	for i := w.files - 1; i > 0; i-- {
		_ = os.Rename(logPath(w.dir, i-1), logPath(w.dir, i))
	}
	if w.files < 2 {
		_ = os.Remove(logPath(w.dir, 0))
	}
	w.have = 0
}

func (w *logWriter) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.f != nil {
		w.f.Close()
		w.f = nil
	}
}

// logPath is the n-th log file, 0 the newest.
func logPath(dir string, n int) string {
	if n == 0 {
		return filepath.Join(dir, logFile)
	}
	return filepath.Join(dir, logFile+"."+strconv.Itoa(n))
}

// copyLines hands r on by lines, those over task.MaxProgressLine in pieces, of
// which none is said to be whole. A last line gets the end that it lacks: what
// comes from another stream is not to follow on it.
func copyLines(r io.Reader, each func(line []byte, whole bool)) {
	br := bufio.NewReaderSize(r, task.MaxProgressLine)
	inside := false // of a line too long
	for {
		line, err := br.ReadSlice('\n')
		if err != nil && err != bufio.ErrBufferFull && len(line) > 0 {
			line = append(line, '\n')
		}
		if len(line) > 0 {
			each(line, err != bufio.ErrBufferFull && !inside)
		}
		inside = err == bufio.ErrBufferFull
		if err != nil && err != bufio.ErrBufferFull {
			return
		}
	}
}

// Bounds of the end of a log in a status.
const (
	tailBytes = 8 << 10
	tailLines = 20
	tailLine  = 400 // bytes of one line
)

// tail gives the last lines of the newest log files, valid UTF-8.
func tail(dir string) []string {
	var text []byte
	for n := 0; n < 2 && len(text) < tailBytes; n++ {
		text = append(lastBytes(logPath(dir, n), tailBytes-len(text)), text...)
	}
	if len(text) == 0 {
		return nil
	}
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	if len(text) == tailBytes && len(lines) > 1 {
		lines = lines[1:] // its beginning is missing
	}
	lines = lines[max(0, len(lines)-tailLines):]
	for i, l := range lines {
		lines[i] = cut(strings.ToValidUTF8(l, "\uFFFD"), tailLine)
	}
	return lines
}

func lastBytes(path string, n int) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil
	}
	b, err := io.ReadAll(io.NewSectionReader(f, max(0, info.Size()-int64(n)), int64(n)))
	if err != nil {
		return nil
	}
	return b
}

// cut shortens s to at most n bytes, at a rune.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// openLog gives all of a worker's log, the oldest first.
func openLog(dir string, files int) (io.ReadCloser, error) {
	l := &wholeLog{}
	var parts []io.Reader
	for n := files - 1; n >= 0; n-- {
		f, err := os.Open(logPath(dir, n))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, errors.Join(err, l.Close())
		}
		l.files, parts = append(l.files, f), append(parts, f)
	}
	if parts == nil {
		parts = []io.Reader{bytes.NewReader(nil)}
	}
	l.Reader = io.MultiReader(parts...)
	return l, nil
}

type wholeLog struct {
	io.Reader
	files []*os.File
}

func (l *wholeLog) Close() error {
	var errs []error
	for _, f := range l.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
