package format

import (
	"bytes"
	"cmp"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Bounds of Stats.
const (
	MaxColumns = 256 // of which statistics are kept; the first ones
	MaxClasses = 256 // that are counted apart; the first ones
	MaxBadRows = 16  // that are located; the newest
	maxName    = 128 // bytes of the name of a column or class
	maxNumber  = 1e140
)

// Types of columns.
const (
	Number  = "number"
	Boolean = "boolean"
	Text    = "text"
)

// Stats sums up samples. It is kept as JSON and goes on from there.
type Stats struct {
	Samples int64            `json:"samples"`
	Bad     int64            `json:"bad,omitempty"`     // refused rows
	BadRows []BadRow         `json:"badRows,omitempty"` // the newest of them
	Columns []Column         `json:"columns,omitempty"`
	Classes map[string]int64 `json:"classes,omitempty"` // samples of each label
	Others  int64            `json:"others,omitempty"`  // samples of labels beyond MaxClasses

	index  map[string]int // of Columns by name
	header []string       // that labels is of
	labels []int          // columns of a csv file that hold the label
}

// BadRow is where a row was refused, and why.
type BadRow struct {
	Line   int64  `json:"line"`
	Reason string `json:"reason"`
}

// Column sums up the values of a column.
type Column struct {
	Name     string  `json:"name"`
	Numbers  int64   `json:"numbers,omitempty"`
	Booleans int64   `json:"booleans,omitempty"`
	Texts    int64   `json:"texts,omitempty"`
	Min      float64 `json:"min"` // of the numbers, as the rest
	Max      float64 `json:"max"`
	Mean     float64 `json:"mean"`
	M2       float64 `json:"m2"` // sum of squared differences from the mean
}

// Count is how many values there are.
func (c *Column) Count() int64 { return c.Numbers + c.Booleans + c.Texts }

// Type is what all values are; empty without a value.
func (c *Column) Type() string {
	switch c.Count() {
	case 0:
		return ""
	case c.Numbers:
		return Number
	case c.Booleans:
		return Boolean
	}
	return Text
}

// Variance of the numbers, with n-1; 0 of fewer than two.
func (c *Column) Variance() float64 {
	if c.Numbers < 2 {
		return 0
	}
	return c.M2 / float64(c.Numbers-1)
}

// Missing is how many samples have no value in c.
func (s *Stats) Missing(c *Column) int64 { return s.Samples - c.Count() }

// AddBad counts a refused row.
func (s *Stats) AddBad(line int64, reason string) {
	s.Bad++
	s.BadRows = append(s.BadRows, BadRow{line, reason})
	if n := len(s.BadRows) - MaxBadRows; n > 0 {
		s.BadRows = slices.Delete(s.BadRows, 0, n)
	}
}

// labelNames are columns that hold the label unless one is named.
var labelNames = []string{"label", "class", "target", "y"}

func isLabel(name, label string) bool {
	if label != "" {
		return name == label
	}
	return slices.ContainsFunc(labelNames, func(l string) bool { return strings.EqualFold(l, name) })
}

// Add counts a record that was not refused. columns are those of csv; label
// names the column with the label: when it is empty, one that is called label,
// class, target or y. In txt the second of two words is the label.
func (s *Stats) Add(format string, columns []string, rec Record, label string) {
	s.Samples++
	switch format {
	case CSV:
		for i, field := range rec.Fields {
			if i < MaxColumns {
				if i == len(s.Columns) {
					s.Columns = append(s.Columns, Column{Name: cut(columns[i])})
				}
				s.Columns[i].addText(field)
			}
		}
		for _, i := range s.labelled(columns, label) {
			s.AddClass(string(bytes.TrimSpace(rec.Fields[i])))
		}
	case TXT:
		if words := bytes.Fields(rec.Raw); len(words) == 2 {
			s.AddClass(string(words[1]))
		}
	case JSONL:
		s.addJSON(rec.Raw, label)
	}
}

// labelled gives the columns that hold the label. A scan hands out the same
// slice for all records of a file.
func (s *Stats) labelled(columns []string, label string) []int {
	if len(columns) == 0 || len(s.header) == len(columns) && &s.header[0] == &columns[0] {
		return s.labels
	}
	s.header, s.labels = columns, nil
	for i, name := range columns {
		if isLabel(name, label) {
			s.labels = append(s.labels, i)
		}
	}
	return s.labels
}

// AddClass counts a sample of a label.
func (s *Stats) AddClass(name string) {
	if name == "" {
		return
	}
	name = cut(name)
	if _, known := s.Classes[name]; !known && len(s.Classes) >= MaxClasses {
		s.Others++
		return
	}
	if s.Classes == nil {
		s.Classes = map[string]int64{}
	}
	s.Classes[name]++
}

// RemoveClass takes back an AddClass.
func (s *Stats) RemoveClass(name string) {
	name = cut(name)
	switch n, known := s.Classes[name]; {
	case known && n > 1:
		s.Classes[name]--
	case known:
		delete(s.Classes, name)
	default:
		s.Others--
	}
}

func cut(name string) string {
	name = strings.ToValidUTF8(name, "�")
	if len(name) <= maxName {
		return name
	}
	n := maxName
	for !utf8.RuneStart(name[n]) {
		n--
	}
	return name[:n]
}

func (c *Column) addText(v []byte) {
	v = bytes.TrimSpace(v)
	switch string(v) {
	case "", "NA", "N/A", "null", "NULL", "NaN", "nan":
		return
	case "true", "false", "True", "False", "TRUE", "FALSE":
		c.Booleans++
		return
	}
	// Most text is told from numbers by its first byte.
	if b := v[0]; b >= '0' && b <= '9' || b == '-' || b == '+' || b == '.' {
		if f, err := strconv.ParseFloat(string(v), 64); err == nil {
			c.addNumber(f)
			return
		}
	}
	c.Texts++
}

// addNumber goes on with mean and variance as Welford does. What squared would
// not be a number any more is counted as text.
func (c *Column) addNumber(f float64) {
	if math.IsNaN(f) || math.Abs(f) > maxNumber {
		c.Texts++
		return
	}
	if c.Numbers++; c.Numbers == 1 {
		c.Min, c.Max = f, f
	}
	c.Min, c.Max = min(c.Min, f), max(c.Max, f)
	d := f - c.Mean
	c.Mean += d / float64(c.Numbers)
	c.M2 += d * (f - c.Mean)
}

// addJSON counts the members of an object.
func (s *Stats) addJSON(raw []byte, label string) {
	if s.index == nil {
		s.index = make(map[string]int, len(s.Columns))
		for i := range s.Columns {
			s.index[s.Columns[i].Name] = i
		}
	}
	var seen [MaxColumns]bool // a member that comes twice counts once
	members(raw, func(key, value []byte) {
		i, known := s.index[string(key)]
		if !known {
			if len(s.Columns) >= MaxColumns || len(key) > maxName || !utf8.Valid(key) {
				return
			}
			i = len(s.Columns)
			s.Columns = append(s.Columns, Column{Name: string(key)})
			s.index[s.Columns[i].Name] = i
		}
		if seen[i] {
			return
		}
		seen[i] = true
		c := &s.Columns[i]
		text := value
		switch value[0] {
		case 'n':
			return
		case 't', 'f':
			c.Booleans++
		case '"':
			c.Texts++
			if text = value[1 : len(value)-1]; bytes.IndexByte(text, '\\') >= 0 {
				var plain string
				if json.Unmarshal(value, &plain) == nil {
					text = []byte(plain)
				}
			}
		case '{', '[':
			c.Texts++
			return
		default:
			f, err := strconv.ParseFloat(string(value), 64)
			if err != nil {
				f = math.NaN()
			}
			c.addNumber(f)
		}
		if isLabel(c.Name, label) {
			s.AddClass(string(text))
		}
	})
}

// members walks over the members of a JSON object, which is valid; of another
// value it gives none. Keys come as they are written.
func members(raw []byte, f func(key, value []byte)) {
	raw = bytes.TrimLeft(raw, " \t\r\n")
	if len(raw) == 0 || raw[0] != '{' {
		return
	}
	i := 1
	for {
		i = space(raw, i, ',')
		if raw[i] == '}' {
			return
		}
		end := value(raw, i)
		key := raw[i+1 : end-1]
		i = space(raw, end, ':')
		end = value(raw, i)
		f(key, raw[i:end])
		i = end
	}
}

// space gives the index behind blanks and separators.
func space(raw []byte, i int, separator byte) int {
	for raw[i] == ' ' || raw[i] == '\t' || raw[i] == '\r' || raw[i] == '\n' || raw[i] == separator {
		i++
	}
	return i
}

// value gives the index behind the value that begins at i.
func value(raw []byte, i int) int {
	depth := 0
	for i < len(raw) {
		switch raw[i] {
		case '"':
			for i++; raw[i] != '"'; i++ {
				if raw[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			depth++
		case '}', ']':
			depth--
			if depth < 0 {
				return i
			}
		case ',', ':', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return i
			}
			i++
			continue
		default:
			i++
			continue
		}
		i++
		if depth == 0 {
			return i
		}
	}
	return i
}

// TopClasses gives the labels, those of most samples first.
func (s *Stats) TopClasses() []Class {
	out := make([]Class, 0, len(s.Classes))
	for name, n := range s.Classes {
		out = append(out, Class{name, n})
	}
	slices.SortFunc(out, func(a, b Class) int { return cmp.Or(cmp.Compare(b.Samples, a.Samples), cmp.Compare(a.Name, b.Name)) })
	return out
}

// Class is how many samples have a label.
type Class struct {
	Name    string `json:"name"`
	Samples int64  `json:"samples"`
}
