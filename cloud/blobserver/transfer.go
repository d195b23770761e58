package blobserver

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"github.com/edgetwin/sedna/models/wire"
)

var (
	rangeRE        = regexp.MustCompile(`^bytes=(\d{0,18})-(\d{0,18})$`)
	contentRangeRE = regexp.MustCompile(`^bytes (\d{1,18})-(\d{1,18})/(\d{1,18})$`)
)

// goodRange tells whether header is one range that begins within size bytes.
// Several ranges are refused: they make a small request a large answer.
func goodRange(header string, size int64) bool {
	m := rangeRE.FindStringSubmatch(header)
	if m == nil || m[1] == "" && m[2] == "" {
		return false
	}
	first, err1 := strconv.ParseInt("0"+m[1], 10, 64)
	last, err2 := strconv.ParseInt("0"+m[2], 10, 64)
	switch {
	case err1 != nil || err2 != nil:
		return false
	case m[1] == "":
		return last > 0 && size > 0
	case m[2] == "":
		return first < size
	}
	return first < size && first <= last
}

// parseContentRange reads bytes FIRST-LAST/TOTAL.
func parseContentRange(header string) (first, last, total int64, ok bool) {
	m := contentRangeRE.FindStringSubmatch(header)
	if m == nil {
		return 0, 0, 0, false
	}
	first, err1 := strconv.ParseInt(m[1], 10, 64)
	last, err2 := strconv.ParseInt(m[2], 10, 64)
	total, err3 := strconv.ParseInt(m[3], 10, 64)
	return first, last, total, errors.Join(err1, err2, err3) == nil && first <= last && last < total
}

// patient is a ResponseWriter whose client has the time limit for each piece,
// not for the whole. Where the connection has no deadlines the server's own
// must do.
type patient struct {
	http.ResponseWriter
	control *http.ResponseController
	limit   time.Duration
}

func (p *patient) Unwrap() http.ResponseWriter { return p.ResponseWriter }

func (p *patient) Write(b []byte) (int, error) {
	_ = p.control.SetWriteDeadline(time.Now().Add(p.limit))
	return p.ResponseWriter.Write(b)
}

// settle sends what is buffered while the limit holds, and lifts it for the
// next request on the connection.
func (p *patient) settle() {
	_ = p.control.Flush()
	_ = p.control.SetWriteDeadline(time.Time{})
}

// touchRead gives the client the limit for the next piece; after the last one
// there is none, for the connection is still watched while the blob is stored.
func (p *patient) touchRead(ended bool) {
	var deadline time.Time
	if !ended {
		deadline = time.Now().Add(p.limit)
	}
	_ = p.control.SetReadDeadline(deadline)
}

// source is the body of an upload; it remembers how it failed.
type source struct {
	r     io.Reader
	touch func(ended bool)
	err   error
}

func (s *source) Read(b []byte) (int, error) {
	s.touch(false)
	n, err := s.r.Read(b)
	if err == io.EOF {
		s.touch(true)
	} else if err != nil {
		s.err = err
	}
	return n, err
}

// explain tells the client's failures from ours.
func (s *source) explain(err error) error {
	var large *http.MaxBytesError
	switch {
	case s.err == nil:
		return err
	case errors.As(s.err, &large):
		return wire.E(wire.TooLarge, "", fmt.Sprintf("at most %d bytes are taken", large.Limit), "")
	}
	return wire.E(wire.InvalidArgument, "", "the body ended early: "+s.err.Error(), "resume the upload")
}
