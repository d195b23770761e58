package format

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// Formats of the files that a Scanner reads.
const (
	CSV   = "csv"   // the first record is the header
	TXT   = "txt"   // a line is a sample: a path and a label, or any text
	JSONL = "jsonl" // a line is a JSON value
)

// Readable tells whether a Scanner reads a format.
func Readable(format string) bool { return format == CSV || format == TXT || format == JSONL }

// Mid says that a scan stands within a line whose sample is dealt with.
type Mid string

// Values of Mid.
const (
	Whole   Mid = ""        // a line begins here
	Refused Mid = "refused" // the rest of the line was refused with its begin
	Taken   Mid = "taken"   // the line was taken without its end; more of it is refused
)

// State is where a scan stands in a file.
type State struct {
	Offset  int64    `json:"offset"`            // bytes taken
	Line    int64    `json:"line"`              // line ends taken
	Columns []string `json:"columns,omitempty"` // of csv, once the header was read
	Mid     Mid      `json:"mid,omitempty"`
}

// Options of a Scanner.
type Options struct {
	Format string
	// MaxRecord is the length of a record in bytes. Default 1 MiB.
	MaxRecord int
	// Final takes a last line without a line end as it is. Default: it waits.
	Final bool
	// Took is told the file's bytes that were taken, in order; at the latest by
	// State. Default none.
	Took func([]byte)
}

// Record is one sample, or a refused one.
type Record struct {
	Line   int64    // in which it begins, from 1
	Raw    []byte   // without line end; valid until the next call
	Fields [][]byte // of csv, unquoted; valid until the next call
	Bad    string   // why it is refused; Raw and Fields are not set then
}

// maxColumns bounds the columns of a csv file.
const maxColumns = 16384

// Scanner reads records one by one.
type Scanner struct {
	r  io.Reader
	o  Options
	st State

	buf    []byte
	pos    int // where the next record begins in buf
	told   int // Took knows what is before it
	eof    bool
	looked int // bytes after pos in which the record's end was not found
	quotes quotes

	fields  [][]byte
	scratch []byte
}

// readSize is how much is read at a time at least, in bytes.
const readSize = 256 << 10

// NewScanner reads r, which begins at st.Offset of the file.
func NewScanner(r io.Reader, st State, o Options) *Scanner {
	if o.MaxRecord == 0 {
		o.MaxRecord = 1 << 20
	}
	st.Columns = slices.Clone(st.Columns)
	return &Scanner{r: r, o: o, st: st, buf: make([]byte, 0, readSize)}
}

// State is where the scan stands behind the last record.
func (s *Scanner) State() State {
	s.tell()
	return s.st
}

// Columns are those of the csv header, if it was read.
func (s *Scanner) Columns() []string { return s.st.Columns }

// Offset is State's.
func (s *Scanner) Offset() int64 { return s.st.Offset }

func (s *Scanner) tell() {
	if s.o.Took != nil && s.pos > s.told {
		s.o.Took(s.buf[s.told:s.pos])
	}
	s.told = s.pos
}

// fill reads more. It is false at the end of the file.
func (s *Scanner) fill() (bool, error) {
	if s.eof {
		return false, nil
	}
	s.tell()
	if s.pos > 0 {
		s.buf = s.buf[:copy(s.buf, s.buf[s.pos:])]
		s.pos, s.told = 0, 0
	}
	s.buf = slices.Grow(s.buf, readSize/2)
	for range 100 { // empty reads, as bufio has it
		n, err := s.r.Read(s.buf[len(s.buf):cap(s.buf)])
		s.buf = s.buf[:len(s.buf)+n]
		if err == io.EOF {
			s.eof = true
			return n > 0, nil
		}
		if err != nil || n > 0 {
			return n > 0, err
		}
	}
	return false, io.ErrNoProgress
}

// take moves behind the next n bytes.
func (s *Scanner) take(n int) []byte {
	taken := s.buf[s.pos : s.pos+n]
	s.pos += n
	s.st.Offset += int64(n)
	s.st.Line += int64(bytes.Count(taken, []byte{'\n'}))
	s.looked, s.quotes = 0, quotes{}
	return taken
}

// Next gives the next record. It is io.EOF when no whole one is left.
func (s *Scanner) Next() (Record, error) {
	for {
		rec, ok := s.next()
		if ok {
			return rec, nil
		}
		more, err := s.fill()
		if err != nil {
			return Record{}, err
		}
		if !more && (!s.o.Final || s.pos == len(s.buf)) {
			return Record{}, io.EOF
		}
		if !more {
			if rec, ok := s.last(); ok {
				return rec, nil
			}
		}
	}
}

const bom = "\xef\xbb\xbf"

// next gives the next record of those that are in buf.
func (s *Scanner) next() (Record, bool) {
	for s.pos < len(s.buf) {
		data := s.buf[s.pos:]
		if s.st.Offset == 0 && strings.HasPrefix(bom, string(data[:min(len(data), len(bom))])) {
			if len(data) < len(bom) && !s.eof {
				return Record{}, false
			}
			if len(data) >= len(bom) {
				s.take(len(bom))
				continue
			}
		}
		if s.st.Mid != Whole {
			if rec, ok := s.rest(data); ok {
				return rec, true
			}
			if s.st.Mid != Whole {
				return Record{}, false
			}
			continue
		}
		end := s.find(data)
		if end > s.o.MaxRecord || end < 0 && len(data) > s.o.MaxRecord {
			return s.refuse(fmt.Sprintf("longer than %d bytes", s.o.MaxRecord)), true
		}
		if end < 0 {
			return Record{}, false
		}
		if rec, ok := s.record(data[:end], end+1); ok {
			return rec, true
		}
	}
	return Record{}, false
}

// last takes what is left at the end of a final file.
func (s *Scanner) last() (Record, bool) {
	data := s.buf[s.pos:]
	if s.st.Mid != Whole {
		s.take(len(data))
		return Record{}, false
	}
	if s.o.Format == CSV && s.quotes.open() {
		return s.refuse("a quote is not closed"), true
	}
	blank := len(bytes.TrimSpace(data)) == 0
	rec, ok := s.record(data, len(data))
	switch {
	case blank: // a line may begin here
	case rec.Bad != "":
		s.st.Mid = Refused
	default:
		s.st.Mid = Taken
	}
	return rec, ok
}

// rest takes what is left of a line that is dealt with.
func (s *Scanner) rest(data []byte) (Record, bool) {
	n := bytes.IndexByte(data, '\n')
	text := data
	if n >= 0 {
		text = data[:n]
	}
	more := s.st.Mid == Taken && len(bytes.TrimSuffix(text, []byte{'\r'})) > 0
	if n < 0 && s.st.Mid == Taken && !more {
		return Record{}, false // a line end may be coming
	}
	rec := Record{Line: s.st.Line + 1, Bad: "the line went on after it was taken"}
	if n >= 0 {
		s.take(n + 1)
		s.st.Mid = Whole
	} else {
		s.take(len(data))
		s.st.Mid = Refused
	}
	return rec, more
}

// refuse refuses the line in which the next record begins; what follows is read
// as if a record began there, so that one open quote does not hide the file.
func (s *Scanner) refuse(why string) Record {
	rec := Record{Line: s.st.Line + 1, Bad: why}
	if n := bytes.IndexByte(s.buf[s.pos:], '\n'); n >= 0 {
		s.take(n + 1)
	} else {
		s.take(len(s.buf) - s.pos)
		s.st.Mid = Refused
	}
	return rec
}

// find gives the index of the line end that ends the next record, or -1.
func (s *Scanner) find(data []byte) int {
	for {
		n := bytes.IndexByte(data[s.looked:], '\n')
		line := data[s.looked:]
		if n >= 0 {
			line = line[:n]
		}
		if s.o.Format == CSV {
			s.quotes.over(line)
		}
		s.looked += len(line)
		if n < 0 {
			return -1
		}
		if s.o.Format != CSV || !s.quotes.open() {
			return s.looked
		}
		s.quotes.over(data[s.looked : s.looked+1])
		s.looked++
		if s.looked > s.o.MaxRecord {
			return -1
		}
	}
}

// record makes a sample of raw, for which n bytes are taken. It is none when it
// is blank or the header.
func (s *Scanner) record(raw []byte, n int) (Record, bool) {
	rec := Record{Line: s.st.Line + 1, Raw: bytes.TrimSuffix(raw, []byte{'\r'})}
	s.take(n)
	blank := len(bytes.TrimSpace(rec.Raw)) == 0
	switch {
	case blank:
		return Record{}, false
	case s.o.Format == JSONL && !json.Valid(rec.Raw):
		return Record{Line: rec.Line, Bad: "not a JSON value"}, true
	case s.o.Format != CSV:
		return rec, true
	}
	var ok bool
	if s.fields, s.scratch, ok = split(rec.Raw, s.fields[:0], s.scratch[:0]); !ok {
		return Record{Line: rec.Line, Bad: "text after a closing quote"}, true
	}
	if s.st.Columns == nil {
		return s.header(rec.Line)
	}
	if len(s.fields) != len(s.st.Columns) {
		return Record{Line: rec.Line, Bad: fmt.Sprintf("%d fields, the header has %d", len(s.fields), len(s.st.Columns))}, true
	}
	rec.Fields = s.fields
	return rec, true
}

// header takes the fields as the columns, unless they cannot be names.
func (s *Scanner) header(line int64) (Record, bool) {
	if len(s.fields) > maxColumns {
		return Record{Line: line, Bad: fmt.Sprintf("a header of more than %d columns", maxColumns)}, true
	}
	for i, f := range s.fields {
		if !utf8.Valid(f) || bytes.IndexByte(f, 0) >= 0 {
			return Record{Line: line, Bad: "the header is not UTF-8 text"}, true
		}
		name := strings.TrimSpace(string(f))
		if name == "" {
			name = fmt.Sprintf("column_%d", i+1)
		}
		s.st.Columns = append(s.st.Columns, name)
	}
	return Record{}, false
}
