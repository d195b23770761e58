package camera

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Limits of what comes between two frames.
const (
	maxHeaders     = 32
	maxHeaderBytes = 8 << 10
	maxPreamble    = 64 << 10
)

// mjpegReader takes a multipart stream of JPEGs apart. Cameras differ: with
// and without Content-Length, with a boundary that begins with dashes in the
// header or not, or with none named at all.
type mjpegReader struct {
	r        *bufio.Reader
	boundary []byte // with its two dashes; empty: the first line that begins with dashes
	max      int    // bytes of a frame
	begun    bool   // the boundary before the next part was read
}

func newMJPEGReader(r io.Reader, boundary string, maxFrame int) *mjpegReader {
	m := &mjpegReader{r: bufio.NewReaderSize(r, 32<<10), max: maxFrame}
	if boundary != "" {
		m.boundary = []byte("--" + strings.TrimPrefix(boundary, "--"))
	}
	return m
}

// next gives the next frame, in memory of its own. io.EOF means a proper end.
func (m *mjpegReader) next() ([]byte, error) {
	if !m.begun {
		if err := m.findBoundary(); err != nil {
			return nil, err
		}
	}
	m.begun = false
	length, err := m.headers()
	if err != nil {
		return nil, err
	}
	if length > m.max {
		return nil, fmt.Errorf("frame of %d bytes, at most %d are taken", length, m.max)
	}
	if length >= 0 {
		return m.exactly(length)
	}
	return m.untilBoundary()
}

// isBoundary tells whether a line ends a part; final that it ends the stream.
func (m *mjpegReader) isBoundary(line []byte) (yes, final bool) {
	line = bytes.TrimRight(line, " \t\r\n")
	if len(m.boundary) == 0 {
		if len(line) > 2 && len(line) < 80 && bytes.HasPrefix(line, []byte("--")) {
			m.boundary = bytes.Clone(line)
			return true, false
		}
		return false, false
	}
	rest, ok := bytes.CutPrefix(line, m.boundary)
	return ok && (len(rest) == 0 || string(rest) == "--"), ok && string(rest) == "--"
}

func (m *mjpegReader) findBoundary() error {
	for read := 0; read < maxPreamble; {
		line, err := m.r.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
		read += len(line)
		if yes, final := m.isBoundary(line); final {
			return io.EOF
		} else if yes {
			return nil
		}
	}
	return errors.New("no boundary between frames")
}

// headers reads a part's headers and gives its length; -1 if that is not said.
func (m *mjpegReader) headers() (int, error) {
	length, bytesRead := -1, 0
	for range maxHeaders {
		line, err := m.r.ReadSlice('\n')
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return 0, fmt.Errorf("headers of a frame: %w", err)
		}
		if bytesRead += len(line); bytesRead > maxHeaderBytes {
			break
		}
		text := strings.TrimSpace(string(line))
		if text == "" {
			return length, nil
		}
		name, value, _ := strings.Cut(text, ":")
		value = strings.TrimSpace(value)
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "content-length":
			n, err := strconv.Atoi(value)
			if err != nil || n < 0 {
				return 0, fmt.Errorf("a frame's Content-Length is %.40q", value)
			}
			length = n
		case "content-type":
			if t, _, _ := strings.Cut(strings.ToLower(value), ";"); t != "image/jpeg" && t != "image/jpg" {
				return 0, fmt.Errorf("expected frames of image/jpeg, got %.40q", value)
			}
		}
	}
	return 0, errors.New("a frame's headers do not end")
}

// exactly reads length bytes; memory grows with what comes, not with what is
// announced.
func (m *mjpegReader) exactly(length int) ([]byte, error) {
	var b bytes.Buffer
	if length < 64<<10 {
		b.Grow(length)
	}
	n, err := io.CopyN(&b, m.r, int64(length))
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("frame ends after %d of %d bytes: %w", n, length, err)
	}
	return b.Bytes(), nil
}

// untilBoundary reads up to the next boundary.
func (m *mjpegReader) untilBoundary() ([]byte, error) {
	var b []byte
	for atLineStart := true; ; {
		line, err := m.r.ReadSlice('\n')
		full := errors.Is(err, bufio.ErrBufferFull)
		if err != nil && !full {
			return nil, err
		}
		if atLineStart && !full {
			if yes, final := m.isBoundary(line); yes {
				m.begun = !final
				b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
				return b, nil
			}
		}
		if len(b)+len(line) > m.max+2 {
			return nil, fmt.Errorf("a frame is over %d bytes", m.max)
		}
		b = append(b, line...)
		atLineStart = !full
	}
}
