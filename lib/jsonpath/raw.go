package jsonpath

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// Raw finds the value in the bytes of a document, and gives it as it is
// written there. It allocates nothing when it finds one.
func (p Path) Raw(doc []byte) ([]byte, error) {
	if !json.Valid(doc) {
		return nil, errors.New("expected one JSON document")
	}
	at := bytes.TrimSpace(doc)
	for i, s := range p {
		if at = s.in(at); at == nil {
			return nil, fmt.Errorf("the document has nothing at %s", p[:i+1])
		}
	}
	if at[0] == 'n' {
		return nil, errors.New("the value is null")
	}
	return at, nil
}

// in is the value that the step leads to in an object or a list, nil if there
// is none. Of members of one name the last counts, as in encoding/json.
func (s step) in(v []byte) (found []byte) {
	switch {
	case v[0] == '{' && !s.isIndex:
		each(v, func(name, value []byte) {
			if s.named(name) {
				found = value
			}
		})
	case v[0] == '[' && s.isIndex:
		n := s.index
		if n < 0 {
			each(v, func(_, _ []byte) { n++ })
		}
		each(v, func(_, value []byte) {
			if n == 0 {
				found = value
			}
			n--
		})
	}
	return found
}

// named compares a name with its quotes.
func (s step) named(quoted []byte) bool {
	inner := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return string(inner) == s.name
	}
	var name string
	return json.Unmarshal(quoted, &name) == nil && name == s.name
}

// each calls f for the members of an object, or for the elements of a list,
// which have no name. The text must be valid JSON.
func each(v []byte, f func(name, value []byte)) {
	object := v[0] == '{'
	for i := space(v, 1); v[i] != '}' && v[i] != ']'; {
		var name []byte
		if object {
			end := skip(v, i)
			name = v[i:end]
			i = space(v, space(v, end)+1) // over the colon
		}
		end := skip(v, i)
		f(name, v[i:end])
		if i = space(v, end); v[i] == ',' {
			i = space(v, i+1)
		}
	}
}

// Elements calls f for each element of a list that Raw gave; false when v is
// no list.
func Elements(v []byte, f func(element []byte)) bool {
	if len(v) == 0 || v[0] != '[' {
		return false
	}
	each(v, func(_, element []byte) { f(element) })
	return true
}

// space is the first place from i on that is no white space.
func space(v []byte, i int) int {
	for v[i] == ' ' || v[i] == '\t' || v[i] == '\n' || v[i] == '\r' {
		i++
	}
	return i
}

// skip is the end of the value that begins at i.
func skip(v []byte, i int) int {
	depth := 0
	for {
		switch v[i] {
		case '"':
			for i++; v[i] != '"'; i++ {
				if v[i] == '\\' {
					i++
				}
			}
			i++
		case '{', '[':
			depth++
			i++
		case '}', ']':
			depth--
			i++
		default:
			i++
			if depth > 0 {
				continue
			}
			for i < len(v) && !ends(v[i]) {
				i++
			}
		}
		if depth == 0 {
			return i
		}
	}
}

// ends tells whether c ends a number or a literal.
func ends(c byte) bool {
	switch c {
	case ',', '}', ']', ' ', '\t', '\n', '\r':
		return true
	}
	return false
}
