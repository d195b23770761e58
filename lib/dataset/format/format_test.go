package format_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/edgetwin/sedna/lib/dataset/format"
)

// row is a Record that can be kept.
type row struct {
	Line   int64
	Raw    string
	Fields []string
	Bad    string
}

// readAll reads until the end.
func readAll(t testing.TB, s *format.Scanner) (out []row) {
	t.Helper()
	for {
		rec, err := s.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		r := row{Line: rec.Line, Raw: string(rec.Raw), Bad: rec.Bad}
		for _, f := range rec.Fields {
			r.Fields = append(r.Fields, string(f))
		}
		out = append(out, r)
	}
}

// inPieces reads text in pieces that end at cuts, each with a scanner of its own.
func inPieces(t testing.TB, text string, cuts []int, o format.Options) (out []row, st format.State) {
	t.Helper()
	var took bytes.Buffer
	o.Took = func(b []byte) { took.Write(b) }
	for _, end := range append(cuts, len(text)) {
		s := format.NewScanner(iotest.HalfReader(strings.NewReader(text[st.Offset:max(int64(end), st.Offset)])), st, o)
		out = append(out, readAll(t, s)...)
		st = s.State()
	}
	if took.String() != text[:st.Offset] {
		t.Errorf("took %q, expected %q", took.String(), text[:st.Offset])
	}
	return out, st
}

const bom = "\xef\xbb\xbf"

func TestScanner(t *testing.T) {
	long := strings.Repeat("x", 21)
	for _, c := range []struct {
		name, format, text string
		final              bool
		want               []row
		left               int // bytes that wait
		mid                format.Mid
	}{
		{name: "txt", format: "txt", text: "a 1\nb 2\n", want: []row{{1, "a 1", nil, ""}, {2, "b 2", nil, ""}}},
		{name: "half a line waits", format: "txt", text: "a\nb", want: []row{{1, "a", nil, ""}}, left: 1},
		{name: "a final half line", format: "txt", text: "a\nb", final: true, want: []row{{1, "a", nil, ""}, {2, "b", nil, ""}}, mid: format.Taken},
		{name: "crlf, blank lines and a byte order mark", format: "txt", text: bom + "a\r\n\r\n  \nb\r\n", want: []row{{1, "a", nil, ""}, {4, "b", nil, ""}}},
		{name: "half a byte order mark waits", format: "txt", text: bom[:2], left: 2},
		{name: "a long line", format: "txt", text: "a\n" + long + "\nb\n", want: []row{{1, "a", nil, ""}, {2, "", nil, "longer than 20 bytes"}, {3, "b", nil, ""}}},
		{name: "a line of the limit", format: "txt", text: long[1:] + "\n", want: []row{{1, long[1:], nil, ""}}},
		{name: "a long line without end", format: "txt", text: long, want: []row{{1, "", nil, "longer than 20 bytes"}}, mid: format.Refused},
		{name: "csv", format: "csv", text: "a,b\n1,2\n3,4\n", want: []row{{2, "1,2", []string{"1", "2"}, ""}, {3, "3,4", []string{"3", "4"}, ""}}},
		{name: "half a header", format: "csv", text: "a,b", left: 3},
		{name: "quotes", format: "csv", text: "a,b\n\"1,\n2\"\"\",x\"y\r\n,\"\"\n", want: []row{
			{2, "\"1,\n2\"\"\",x\"y", []string{"1,\n2\"", "x\"y"}, ""}, {4, ",\"\"", []string{"", ""}, ""},
		}},
		{name: "fields", format: "csv", text: "a,b\n1\n1,2,3\n1,2\n", want: []row{
			{2, "", nil, "1 fields, the header has 2"}, {3, "", nil, "3 fields, the header has 2"}, {4, "1,2", []string{"1", "2"}, ""},
		}},
		{name: "text after a quote", format: "csv", text: "a\n\"b\"c\nd\n", want: []row{{2, "", nil, "text after a closing quote"}, {3, "d", []string{"d"}, ""}}},
		{name: "an open quote hides nothing", format: "csv", text: "a\n\"b\nccccccccccc\nddddddddd\ne\n", want: []row{
			{2, "", nil, "longer than 20 bytes"}, {3, "ccccccccccc", []string{"ccccccccccc"}, ""}, {4, "ddddddddd", []string{"ddddddddd"}, ""}, {5, "e", []string{"e"}, ""},
		}},
		{name: "an open quote waits", format: "csv", text: "a\n\"b\nc\n", left: 5},
		{name: "a final open quote", format: "csv", text: "a\n\"b\nc\n", final: true, want: []row{{2, "", nil, "a quote is not closed"}, {3, "c", []string{"c"}, ""}}},
		{name: "jsonl", format: "jsonl", text: "{\"a\":1}\n{\"a\":\n[2]\n", want: []row{{1, `{"a":1}`, nil, ""}, {2, "", nil, "not a JSON value"}, {3, "[2]", nil, ""}}},
		{name: "a final half value", format: "jsonl", text: "{\"a\":1", final: true, want: []row{{1, "", nil, "not a JSON value"}}, mid: format.Refused},
		{name: "empty", format: "csv", text: ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := format.Options{Format: c.format, MaxRecord: 20, Final: c.final}
			got, st := inPieces(t, c.text, nil, o)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			if left := len(c.text) - int(st.Offset); left != c.left || st.Mid != c.mid {
				t.Errorf("%d bytes left, mid %q", left, st.Mid)
			}
			if c.final {
				return
			}
			for cut := range len(c.text) {
				pieces, end := inPieces(t, c.text, []int{cut}, o)
				if diff := cmp.Diff(c.want, pieces); diff != "" {
					t.Errorf("cut at %d: %s", cut, diff)
				}
				if diff := cmp.Diff(st, end); diff != "" {
					t.Errorf("cut at %d: %s", cut, diff)
				}
			}
		})
	}
}

// TestTakenLine has a line go on that was taken without its end.
func TestTakenLine(t *testing.T) {
	for _, c := range []struct {
		rest string
		want []row
	}{
		{"\nb\n", []row{{2, "b", nil, ""}}},
		{"\r\nb\n", []row{{2, "b", nil, ""}}},
		{"more\nb\n", []row{{1, "", nil, "the line went on after it was taken"}, {2, "b", nil, ""}}},
		{strings.Repeat("m", 50) + "\nb\n", []row{{1, "", nil, "the line went on after it was taken"}, {2, "b", nil, ""}}},
	} {
		first := format.NewScanner(strings.NewReader("a"), format.State{}, format.Options{Format: "txt", Final: true})
		readAll(t, first)
		for _, read := range []func(io.Reader) io.Reader{func(r io.Reader) io.Reader { return r }, iotest.OneByteReader} {
			got := readAll(t, format.NewScanner(read(strings.NewReader(c.rest)), first.State(), format.Options{Format: "txt", MaxRecord: 20}))
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("%q: %s", c.rest, diff)
			}
		}
	}
}

// endless gives the same byte over and over.
type endless struct{ left int }

func (e *endless) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n := min(len(p), e.left)
	e.left -= n
	for i := range p[:n] {
		p[i] = 'x'
	}
	return n, nil
}

// TestLongLineMemory reads a line of 64 MiB in a few hundred kilobytes.
func TestLongLineMemory(t *testing.T) {
	per := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s := format.NewScanner(&endless{64 << 20}, format.State{}, format.Options{Format: "csv", MaxRecord: 1 << 16})
			if _, err := s.Next(); err != nil {
				b.Fatal(err)
			}
			if _, err := s.Next(); err != io.EOF || s.Offset() != 64<<20 {
				b.Fatal(err, s.Offset())
			}
		}
	})
	if got := per.AllocedBytesPerOp(); got > 1<<20 {
		t.Errorf("%d bytes for a line of 64 MiB", got)
	}
}

func TestStats(t *testing.T) {
	var s format.Stats
	text := "id,v,ok,label\n1,2.5,true,cat\n2,NA,false,dog\n3,-1,true,cat\n4,x,,\n5,1e300,true,cat\n"
	sc := format.NewScanner(strings.NewReader(text), format.State{}, format.Options{Format: "csv"})
	for {
		rec, err := sc.Next()
		if err == io.EOF {
			break
		}
		s.Add("csv", sc.Columns(), rec, "")
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		s = format.Stats{} // as after a restart
		if err := json.Unmarshal(b, &s); err != nil {
			t.Fatal(err)
		}
	}
	if s.Samples != 5 || s.Columns[0].Type() != format.Number || s.Columns[1].Type() != format.Text || s.Columns[2].Type() != format.Boolean {
		t.Errorf("%+v", s)
	}
	id := s.Columns[0]
	if id.Mean != 3 || id.Variance() != 2.5 || id.Min != 1 || id.Max != 5 || s.Missing(&id) != 0 || s.Missing(&s.Columns[1]) != 1 || s.Missing(&s.Columns[2]) != 1 {
		t.Errorf("%+v", id)
	}
	if diff := cmp.Diff([]format.Class{{"cat", 3}, {"dog", 1}}, s.TopClasses()); diff != "" {
		t.Error(diff)
	}
	s.RemoveClass("dog")
	s.RemoveClass("cat")
	if diff := cmp.Diff([]format.Class{{"cat", 2}}, s.TopClasses()); diff != "" {
		t.Error(diff)
	}
}

func TestStatsOfOtherFormats(t *testing.T) {
	var s format.Stats
	for _, line := range []string{
		`{"a":1,"label":"x\"y","n":{"a":[2,"}"]},"t":true}`, ` { "a" : 3 , "a" : 100, "label":null } `, `[1,{"a":5}]`, `{}`, `7`,
	} {
		s.Add("jsonl", nil, format.Record{Raw: []byte(line)}, "")
	}
	a := s.Columns[0]
	if s.Samples != 5 || a.Name != "a" || a.Mean != 2 || s.Missing(&a) != 3 || s.Classes[`x"y`] != 1 || len(s.Columns) != 4 || s.Columns[2].Type() != format.Text {
		t.Errorf("%+v", s)
	}
	s = format.Stats{}
	for i := range 1000 {
		s.Add("txt", nil, format.Record{Raw: fmt.Appendf(nil, "p.jpg class%d", i)}, "")
		s.AddBad(int64(i), "bad")
	}
	if len(s.Classes) != format.MaxClasses || s.Others != 1000-format.MaxClasses || len(s.BadRows) != format.MaxBadRows || s.Bad != 1000 || s.BadRows[0].Line != 1000-format.MaxBadRows {
		t.Errorf("%d classes, %d others, %d located", len(s.Classes), s.Others, len(s.BadRows))
	}
	s = format.Stats{}
	var wide []string
	for i := range 400 {
		wide = append(wide, fmt.Sprintf(`"c%d":%d`, i, i))
	}
	s.Add("jsonl", nil, format.Record{Raw: []byte("{" + strings.Join(wide, ",") + "}")}, "")
	if len(s.Columns) != format.MaxColumns {
		t.Error(len(s.Columns))
	}
}

// TestWelford compares with two passes over the values.
func TestWelford(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var s format.Stats
	var values []float64
	sum := 0.0
	for range 10000 {
		v := 1e6 + rng.NormFloat64()
		values, sum = append(values, v), sum+v
		s.Add("jsonl", nil, format.Record{Raw: fmt.Appendf(nil, `{"v":%.17g}`, v)}, "")
	}
	mean, m2 := sum/10000, 0.0
	for _, v := range values {
		m2 += (v - mean) * (v - mean)
	}
	if c := s.Columns[0]; math.Abs(c.Mean-mean) > 1e-6 || math.Abs(c.Variance()-m2/9999) > 1e-6 {
		t.Error(c.Mean-mean, c.Variance()-m2/9999)
	}
}

func TestSplit(t *testing.T) {
	n := 0
	for i := range 10000 {
		sample := fmt.Appendf(nil, "sample %d", i)
		in := format.InTrain(7, sample, 0.8)
		if in {
			n++
		}
		if in != format.InTrain(7, sample, 0.8) || !format.InTrain(7, sample, 1) || format.InTrain(7, sample, 0) {
			t.Fatal(i)
		}
		if in && !format.InTrain(7, sample, 0.9) {
			t.Fatal("a larger share leaves out a sample of a smaller one")
		}
	}
	if n < 7840 || n > 8160 { // four standard deviations
		t.Error(n)
	}
	// These are for ever: jobs rely on the same side after an update.
	var sides []bool
	for _, s := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		sides = append(sides, format.InTrain(1, []byte(s), 0.5))
	}
	if diff := cmp.Diff(golden, sides); diff != "" {
		t.Error(diff)
	}
	for _, c := range []struct {
		n    int64
		prob float64
		want int64
	}{{10, 0.8, 8}, {3, 0.5, 1}, {1, 0.8, 0}, {100, 1, 100}, {100, 0, 0}, {0, 0.8, 0}} {
		if got := format.FirstInTrain(c.n, c.prob); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

var golden = []bool{true, true, true, false, true, true, true, false}

// FuzzScanner holds: a file gives the same records however it is cut into
// pieces, all bytes are accounted for, and JSON survives its statistics.
func FuzzScanner(f *testing.F) {
	for _, text := range []string{"a,b\n1,2\n", bom + "a\r\n\"x\ny\",\n", "{\"a\":[1,\"}\"]}\n{\n", "\"\"\"\n\"", strings.Repeat("y", 40) + "\nz", "a\n\"b\"c\nd\n"} {
		for kind := range byte(3) {
			f.Add([]byte(text), kind, uint16(3), uint16(9))
		}
	}
	f.Fuzz(func(t *testing.T, text []byte, kind byte, a, b uint16) {
		o := format.Options{Format: []string{format.CSV, format.TXT, format.JSONL}[kind%3], MaxRecord: 24}
		want, st := inPieces(t, string(text), nil, o)
		x, y := int(a)%(len(text)+1), int(b)%(len(text)+1)
		got, end := inPieces(t, string(text), []int{min(x, y), max(x, y)}, o)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
		if diff := cmp.Diff(st, end); diff != "" {
			t.Fatal(diff)
		}
		var s format.Stats
		for _, r := range want {
			if r.Bad != "" {
				s.AddBad(r.Line, r.Bad)
				continue
			}
			var fields [][]byte
			for _, f := range r.Fields {
				fields = append(fields, []byte(f))
			}
			s.Add(o.Format, st.Columns, format.Record{Raw: []byte(r.Raw), Fields: fields}, "")
		}
		if _, err := json.Marshal(s); err != nil {
			t.Fatal(err)
		}
		if int(s.Samples+s.Bad) != len(want) {
			t.Fatalf("%d samples and %d bad of %d", s.Samples, s.Bad, len(want))
		}
	})
}

// FuzzCSV holds: what encoding/csv writes is read as it was.
func FuzzCSV(f *testing.F) {
	f.Add("a", "b\n\"", "\"")
	f.Add("", ",", "x\r\ny")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		if strings.Contains(a+b+c, "\r") {
			return // encoding/csv normalises line ends
		}
		var buf bytes.Buffer
		w := csv.NewWriter(&buf)
		_ = w.WriteAll([][]string{{"h1", "h2", "h3"}, {a, b, c}})
		got := readAll(t, format.NewScanner(&buf, format.State{}, format.Options{Format: "csv"}))
		if strings.TrimSpace(a+b+c) == "" && len(got) == 0 {
			return
		}
		if len(got) != 1 || got[0].Bad != "" || cmp.Diff([]string{a, b, c}, got[0].Fields) != "" {
			t.Fatalf("%q %q %q: %+v", a, b, c, got)
		}
	})
}

func BenchmarkScan(b *testing.B) {
	var csvText, jsonText, txtText bytes.Buffer
	csvText.WriteString("id,time,temperature,humidity,label\n")
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 100_000 {
		fmt.Fprintf(&csvText, "%d,2026-01-02T03:04:05Z,%.3f,%.2f,class%d\n", i, 20+rng.NormFloat64(), rng.Float64(), i%7)
		fmt.Fprintf(&jsonText, `{"id":%d,"temperature":%.3f,"humidity":%.2f,"label":"class%d"}`+"\n", i, 20+rng.NormFloat64(), rng.Float64(), i%7)
		fmt.Fprintf(&txtText, "images/class%d/%08d.jpg class%d\n", i%7, i, i%7)
	}
	for name, text := range map[string][]byte{format.CSV: csvText.Bytes(), format.JSONL: jsonText.Bytes(), format.TXT: txtText.Bytes()} {
		for _, with := range []string{"scan", "stats"} {
			b.Run(name+"/"+with, func(b *testing.B) {
				b.SetBytes(int64(len(text)))
				b.ReportAllocs()
				for b.Loop() {
					var s format.Stats
					sc := format.NewScanner(bytes.NewReader(text), format.State{}, format.Options{Format: name})
					for {
						rec, err := sc.Next()
						if err != nil {
							break
						}
						if with == "stats" {
							s.Add(name, sc.Columns(), rec, "")
						}
					}
					if with == "stats" && s.Samples != 100_000 {
						b.Fatal(s.Samples)
					}
				}
			})
		}
	}
}
