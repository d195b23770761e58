// Package jsonpath finds a value in a JSON document by a path such as
// $.sensors[0].value: in a decoded document, or in its bytes, which costs
// little where one value is wanted of each of many documents.
package jsonpath

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Limits of a path.
const (
	maxPath  = 512 // bytes
	maxSteps = 32
)

// Path leads to one value in a JSON document.
type Path []step

type step struct {
	name    string
	index   int // from the end where negative; used when isIndex
	isIndex bool
}

// Compile reads a path: $.a.b[0]['x y'], where $ may be left out. An empty
// path means the whole document.
func Compile(text string) (Path, error) {
	if len(text) > maxPath {
		return nil, fmt.Errorf("path of %d characters, at most %d are taken", len(text), maxPath)
	}
	rest := strings.TrimPrefix(strings.TrimSpace(text), "$")
	if rest != "" && rest[0] != '.' && rest[0] != '[' {
		rest = "." + rest
	}
	var p Path
	for rest != "" {
		if len(p) == maxSteps {
			return nil, fmt.Errorf("more than %d steps", maxSteps)
		}
		var s step
		var err error
		if rest[0] == '.' {
			end := strings.IndexAny(rest[1:], ".[")
			if end < 0 {
				end = len(rest) - 1
			}
			s.name, rest = rest[1:1+end], rest[1+end:]
			if s.name == "" || strings.ContainsAny(s.name, "*]'\" ") {
				return nil, fmt.Errorf("expected a name after a dot, got %.40q", s.name)
			}
		} else if rest[0] != '[' {
			return nil, fmt.Errorf("expected a dot or a bracket at %.40q", rest)
		} else if s, rest, err = bracket(rest); err != nil {
			return nil, err
		}
		p = append(p, s)
	}
	return p, nil
}

// bracket reads ['name'], ["name"] or [index]; rest begins with a bracket.
func bracket(rest string) (step, string, error) {
	if len(rest) > 1 && (rest[1] == '\'' || rest[1] == '"') {
		end := strings.IndexByte(rest[2:], rest[1])
		if end < 0 || !strings.HasPrefix(rest[2+end+1:], "]") {
			return step{}, "", errors.New("a quote in brackets does not end")
		}
		return step{name: rest[2 : 2+end]}, rest[2+end+2:], nil
	}
	end := strings.IndexByte(rest, ']')
	if end < 0 {
		return step{}, "", errors.New("a bracket does not end")
	}
	n, err := strconv.Atoi(rest[1:end])
	if err != nil {
		return step{}, "", fmt.Errorf("expected an index or a quoted name in brackets, got %.40q", rest[1:end])
	}
	return step{index: n, isIndex: true}, rest[end+1:], nil
}

// Find follows the path in a document of Decode.
func (p Path) Find(doc any) (any, error) {
	for i, s := range p {
		switch at := doc.(type) {
		case map[string]any:
			v, ok := at[s.name]
			if s.isIndex || !ok {
				return nil, fmt.Errorf("the document has nothing at %s", p[:i+1])
			}
			doc = v
		case []any:
			n := s.index
			if n < 0 {
				n += len(at)
			}
			if !s.isIndex || n < 0 || n >= len(at) {
				return nil, fmt.Errorf("the document has nothing at %s", p[:i+1])
			}
			doc = at[n]
		default:
			return nil, fmt.Errorf("the document has nothing at %s", p[:i+1])
		}
	}
	return scalar(doc)
}

// scalar gives objects and lists as JSON text.
func scalar(v any) (any, error) {
	switch v := v.(type) {
	case nil:
		return nil, errors.New("the value is null")
	case map[string]any, []any:
		b, err := json.Marshal(v)
		return string(b), err
	}
	return v, nil
}

func (p Path) String() string {
	var b strings.Builder
	b.WriteByte('$')
	for _, s := range p {
		if s.isIndex {
			fmt.Fprintf(&b, "[%d]", s.index)
		} else {
			fmt.Fprintf(&b, "[%.40q]", s.name)
		}
	}
	return b.String()
}

// Decode reads one JSON document; its numbers stay as they are written.
func Decode(payload []byte) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(payload))
	dec.UseNumber()
	var doc any
	if err := dec.Decode(&doc); err != nil {
		return nil, fmt.Errorf("expected JSON: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("expected one JSON document, more follows")
	}
	return doc, nil
}
