package format

import "bytes"

// quotes follows the quotes of a csv record, so that line ends within them are
// told from its end. A quote opens a field only at the field's begin.
type quotes struct {
	inField  bool // behind the first byte of a field
	inQuotes bool
	ending   bool // behind a quote within quotes: the end, or the first of two
}

func (q *quotes) open() bool { return q.inQuotes && !q.ending }

// over moves over a part of a record.
func (q *quotes) over(part []byte) {
	for len(part) > 0 {
		switch {
		case q.inQuotes && !q.ending:
			n := bytes.IndexByte(part, '"')
			if n < 0 {
				return
			}
			q.ending, part = true, part[n+1:]
		case q.ending && part[0] == '"':
			q.ending, part = false, part[1:]
		case q.ending:
			q.inQuotes, q.ending, q.inField = false, false, true
		case !q.inField && part[0] == '"':
			q.inField, q.inQuotes, part = true, true, part[1:]
		default:
			n := bytes.IndexByte(part, ',')
			if n < 0 {
				q.inField = true
				return
			}
			q.inField, part = false, part[n+1:]
		}
	}
}

// split cuts a record into fields; those with quotes are unquoted into scratch.
// It is false when text follows a closing quote.
func split(raw []byte, fields [][]byte, scratch []byte) ([][]byte, []byte, bool) {
	if cap(scratch) < len(raw) {
		scratch = make([]byte, 0, 2*len(raw)) // never grown below, fields point into it
	}
	for {
		if len(raw) > 0 && raw[0] == '"' {
			from := len(scratch)
			rest := raw[1:]
			for {
				n := bytes.IndexByte(rest, '"')
				if n < 0 {
					return fields, scratch, false
				}
				scratch = append(scratch, rest[:n]...)
				rest = rest[n+1:]
				if len(rest) == 0 || rest[0] != '"' {
					break
				}
				scratch = append(scratch, '"')
				rest = rest[1:]
			}
			fields = append(fields, scratch[from:])
			if len(rest) == 0 {
				return fields, scratch, true
			}
			if rest[0] != ',' {
				return fields, scratch, false
			}
			raw = rest[1:]
			continue
		}
		n := bytes.IndexByte(raw, ',')
		if n < 0 {
			return append(fields, raw), scratch, true
		}
		fields = append(fields, raw[:n])
		raw = raw[n+1:]
	}
}
