package oip

import (
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/edgetwin/sedna/models/wire"
)

// maxDepth bounds nesting in values that are skipped or kept as text.
const maxDepth = 32

// scanner reads JSON text from left to right. Its methods leave i behind what
// they have read.
type scanner struct {
	b []byte
	i int
}

// syntax is the error for text that is not JSON.
func (s *scanner) syntax(want string) error {
	if s.i >= len(s.b) {
		return wire.E(wire.InvalidArgument, "", "not valid JSON: the text ends where "+want+" was expected", "")
	}
	return wire.E(wire.InvalidArgument, "", fmt.Sprintf("not valid JSON: expected %s at byte %d, got %s", want, s.i, s.token()), "")
}

// token is the text at i up to the next delimiter, cut short, for messages.
func (s *scanner) token() string {
	const shown = 24
	end := s.i
	for end < len(s.b) && end-s.i < shown {
		c := s.b[end]
		if end > s.i && (c == ',' || c == ']' || c == '}' || c <= ' ') {
			break
		}
		end++
	}
	t := s.b[s.i:end]
	if !utf8.Valid(t) {
		return strconv.Quote(string(t))
	}
	return string(t)
}

// peek skips white space and gives the next byte without taking it, 0 at the
// end of the text.
func (s *scanner) peek() byte {
	for s.i < len(s.b) {
		c := s.b[s.i]
		if c > ' ' {
			return c
		}
		if c != ' ' && c != '\n' && c != '\t' && c != '\r' {
			return c
		}
		s.i++
	}
	return 0
}

func (s *scanner) take(c byte) bool {
	if s.peek() != c {
		return false
	}
	s.i++
	return true
}

// null takes a null if one comes next.
func (s *scanner) null() bool { return s.peek() == 'n' && s.literal("null") }

func (s *scanner) literal(word string) bool {
	if end := s.i + len(word); end <= len(s.b) && string(s.b[s.i:end]) == word {
		s.i = end
		return true
	}
	return false
}

// object calls field for each key, which must read the value. The key is only
// valid during the call.
func (s *scanner) object(field func(key []byte) error) error {
	if !s.take('{') {
		return s.syntax("an object")
	}
	if s.take('}') {
		return nil
	}
	for {
		if s.peek() != '"' {
			return s.syntax("a key")
		}
		key, err := s.str()
		if err != nil {
			return err
		}
		if !s.take(':') {
			return s.syntax("':'")
		}
		if err := field(key); err != nil {
			return err
		}
		if s.take(',') {
			continue
		}
		if s.take('}') {
			return nil
		}
		return s.syntax("',' or '}'")
	}
}

// array calls element for each element, which must read it.
func (s *scanner) array(element func(i int) error) error {
	if !s.take('[') {
		return s.syntax("an array")
	}
	if s.take(']') {
		return nil
	}
	for i := 0; ; i++ {
		if err := element(i); err != nil {
			return err
		}
		if s.take(',') {
			continue
		}
		if s.take(']') {
			return nil
		}
		return s.syntax("',' or ']'")
	}
}

// str reads a string. The result may be part of the text.
func (s *scanner) str() ([]byte, error) {
	if !s.take('"') {
		return nil, s.syntax("a string")
	}
	start := s.i
	ascii := true
	for s.i < len(s.b) {
		switch c := s.b[s.i]; {
		case c == '"':
			raw := s.b[start:s.i]
			if !ascii && !utf8.Valid(raw) {
				s.i = start
				return nil, wire.E(wire.InvalidArgument, "", fmt.Sprintf("not valid JSON: the string at byte %d is not UTF-8", start), "")
			}
			s.i++
			return raw, nil
		case c == '\\':
			return s.escaped(start)
		case c < ' ':
			return nil, s.syntax("no control character in a string")
		case c >= utf8.RuneSelf:
			ascii = false
		}
		s.i++
	}
	return nil, s.syntax("the end of a string")
}

// escaped goes on reading a string from its first backslash.
func (s *scanner) escaped(start int) ([]byte, error) {
	out := append([]byte(nil), s.b[start:s.i]...)
	for s.i < len(s.b) {
		c := s.b[s.i]
		switch {
		case c == '"':
			if !utf8.Valid(out) {
				return nil, wire.E(wire.InvalidArgument, "", fmt.Sprintf("not valid JSON: the string at byte %d is not UTF-8", start), "")
			}
			s.i++
			return out, nil
		case c < ' ':
			return nil, s.syntax("no control character in a string")
		case c != '\\':
			out = append(out, c)
			s.i++
		default:
			var err error
			if out, err = s.escape(out); err != nil {
				return nil, err
			}
		}
	}
	return nil, s.syntax("the end of a string")
}

func (s *scanner) escape(out []byte) ([]byte, error) {
	const (
		escapes = `"\/bfnrt`
		meaning = "\"\\/\b\f\n\r\t"
	)
	if s.i+1 >= len(s.b) {
		s.i = len(s.b)
		return nil, s.syntax("an escape")
	}
	c := s.b[s.i+1]
	if c == 'u' {
		r, ok := s.hex4(s.i + 2)
		if !ok {
			return nil, s.syntax(`\u and four hex digits`)
		}
		s.i += 6
		if utf16.IsSurrogate(r) {
			low, ok := rune(0), false
			if s.i+1 < len(s.b) && s.b[s.i] == '\\' && s.b[s.i+1] == 'u' {
				low, ok = s.hex4(s.i + 2)
			}
			if r = utf16.DecodeRune(r, low); !ok || r == utf8.RuneError {
				return nil, s.syntax("a surrogate pair")
			}
			s.i += 6
		}
		return utf8.AppendRune(out, r), nil
	}
	for k := range len(escapes) {
		if escapes[k] == c {
			s.i += 2
			return append(out, meaning[k]), nil
		}
	}
	return nil, s.syntax("an escape")
}

func (s *scanner) hex4(at int) (rune, bool) {
	if at+4 > len(s.b) {
		return 0, false
	}
	v, err := strconv.ParseUint(string(s.b[at:at+4]), 16, 16)
	return rune(v), err == nil
}

// skip reads over one value of any kind.
func (s *scanner) skip(depth int) error {
	if depth > maxDepth {
		return wire.E(wire.InvalidArgument, "", fmt.Sprintf("nested deeper than %d levels", maxDepth), "")
	}
	switch c := s.peek(); {
	case c == '{':
		return s.object(func([]byte) error { return s.skip(depth + 1) })
	case c == '[':
		return s.array(func(int) error { return s.skip(depth + 1) })
	case c == '"':
		_, err := s.str()
		return err
	case c == 't' && s.literal("true"), c == 'f' && s.literal("false"), c == 'n' && s.literal("null"):
		return nil
	case c == '-' || '0' <= c && c <= '9':
		if _, end := scanNumber(s.b, s.i); end > 0 {
			s.i = end
			return nil
		}
	}
	return s.syntax("a value")
}

// PeekID finds the top-level id of a body that need not be valid, so that a
// refusal can name the request it answers; empty when there is none.
func PeekID(body []byte) string {
	s := scanner{b: body}
	if !s.take('{') {
		return ""
	}
	for s.peek() == '"' {
		key, err := s.str()
		if err != nil || !s.take(':') {
			return ""
		}
		if string(key) == "id" && s.peek() == '"' {
			id, err := s.str()
			if err != nil || !ValidID(string(id)) {
				return ""
			}
			return string(id)
		}
		if !s.skim() || !s.take(',') {
			return ""
		}
	}
	return ""
}

// skim goes over one value by its brackets and strings alone, so that tokens
// which are not JSON, such as NaN, do not stop it. It leaves i at the ',' or
// '}' behind the value.
func (s *scanner) skim() bool {
	for depth := 0; s.i < len(s.b); s.i++ {
		switch s.b[s.i] {
		case '"':
			if _, err := s.str(); err != nil {
				return false
			}
			s.i--
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return true
			}
			depth--
		case ',':
			if depth == 0 {
				return true
			}
		}
	}
	return false
}

// ValidID tells whether id matches wire.RequestID, without its cost.
func ValidID(id string) bool {
	const longest = 128
	if len(id) == 0 || len(id) > longest {
		return false
	}
	for i := range len(id) {
		c := id[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == '-') {
			return false
		}
	}
	return true
}
