package inference

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgetwin/sedna/lib/bus"
	"github.com/edgetwin/sedna/lib/engine"
	"github.com/edgetwin/sedna/lib/jsonpath"
	"github.com/edgetwin/sedna/models/oip"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

func TestLayout(t *testing.T) {
	for _, c := range []struct {
		model           []int64
		window, columns int
		want            []int64 // nil: does not fit
		bySource        bool
	}{
		{[]int64{-1, 4}, 1, 4, []int64{1, 4}, false},
		{[]int64{-1, 4}, 4, 1, []int64{1, 4}, true}, // the same with one column
		{[]int64{-1, 12}, 4, 3, []int64{1, 12}, false},
		{[]int64{-1, 4, 3}, 4, 3, []int64{1, 4, 3}, false},
		{[]int64{-1, 3, 4}, 4, 3, []int64{1, 3, 4}, true},
		{[]int64{-1, 3, 3}, 3, 3, []int64{1, 3, 3}, false},
		{[]int64{1, 1, 3, 4}, 4, 3, []int64{1, 1, 3, 4}, true},
		{[]int64{-1, 2, 3, 2}, 4, 3, []int64{1, 2, 3, 2}, false},
		{[]int64{3, 4}, 4, 3, []int64{3, 4}, true},
		{[]int64{4, 3}, 4, 3, []int64{4, 3}, false},
		{[]int64{12}, 4, 3, []int64{12}, false},
		{[]int64{-1}, 1, 1, []int64{1}, false},
		{[]int64{-1}, 2, 1, nil, false},
		{[]int64{}, 1, 1, []int64{}, false},
		{[]int64{}, 1, 2, nil, false},
		{[]int64{-1, -1}, 4, 3, []int64{1, 12}, false},
		{[]int64{-1, -1, 3}, 4, 3, []int64{1, 4, 3}, false},
		{[]int64{-1, 3, -1}, 4, 3, []int64{1, 3, 4}, true},
		{[]int64{-1, -1, 4}, 4, 3, []int64{1, 3, 4}, true},
		{[]int64{-1, -1, 5}, 4, 3, nil, false},
		{[]int64{-1, -1, -1}, 4, 3, []int64{1, 4, 3}, false},
		{nil, 4, 3, []int64{1, 4, 3}, false},
		{[]int64{-1, 11}, 4, 3, nil, false},
		{[]int64{2, 12}, 4, 3, nil, false},
	} {
		l, err := newLayout(engine.TensorInfo{Name: "x", Datatype: oip.FP32, Shape: c.model}, c.window)
		if err != nil {
			t.Errorf("%v: %v", c.model, err)
			continue
		}
		shape, bySource, ok := l.shape(c.columns)
		if ok != (c.want != nil) || !slices.Equal(shape, c.want) || bySource != c.bySource {
			t.Errorf("%v of %d rows of %d: %v %v %v, want %v %v", c.model, c.window, c.columns, shape, bySource, ok, c.want, c.bySource)
		}
	}
	for _, info := range []engine.TensorInfo{
		tensorInfo("x", oip.Bytes, -1, 4), tensorInfo("x", oip.FP32, -1, -1, -1, 4), tensorInfo("x", oip.FP32, -1, -1, 3, -1),
		tensorInfo("x", oip.FP32, -1, 0), tensorInfo("x", oip.FP32, math.MaxInt64, 4),
	} {
		if l, err := newLayout(info, 1); err == nil {
			t.Errorf("%v: %+v", info, l)
		}
	}
}

func TestReadings(t *testing.T) {
	many := []float64{1, 0, -2.5, 1e3}
	for _, c := range []struct {
		name string
		r    reader
		text string
		want []float64 // nil: refused
		says string    // in the refusal
	}{
		{"text", reader{datatype: oip.FP32}, " 21.5\r\n", []float64{21.5}, ""},
		{"plus", reader{datatype: oip.FP32}, "+.5", []float64{0.5}, ""},
		{"boolean", reader{datatype: oip.Bool}, "true", []float64{1}, ""},
		{"list", reader{datatype: oip.FP64}, "[1,false, -2.5 ,1e3]", many, ""},
		{"sample", reader{document: true, path: sampleValue, single: true, datatype: oip.FP32}, `{"device":"d","value":21.5,"type":"DOUBLE"}`, []float64{21.5}, ""},
		{"empty", reader{datatype: oip.FP32}, "", nil, `expected a number or a boolean or a list of them, got ""`},
		{"word", reader{datatype: oip.FP32}, "ON", nil, `got "ON"`},
		{"NaN", reader{datatype: oip.FP32}, "NaN", nil, `got "NaN"`},
		{"infinity", reader{datatype: oip.FP32}, "-Inf", nil, `got "-Inf"`},
		{"hexadecimal", reader{datatype: oip.FP32}, "0x1p4", nil, "0x1p4"},
		{"too large a number", reader{datatype: oip.FP64}, "1e999", nil, "1e999"},
		{"binary", reader{datatype: oip.FP32}, "\x00\xff", nil, `got "\x00\xff"`},
		{"empty list", reader{datatype: oip.FP32}, "[]", nil, "the list is empty"},
		{"text in a list", reader{datatype: oip.FP32}, `[1,"2"]`, nil, `element 1: expected a number`},
		{"null in a list", reader{datatype: oip.FP32}, `[null]`, nil, "element 0"},
		{"lists in a list", reader{datatype: oip.FP32}, `[[1]]`, nil, "element 0"},
		{"open list", reader{datatype: oip.FP32}, `[1,2`, nil, "expected one JSON document"},
		{"nothing at the path", reader{document: true, path: sampleValue, single: true, datatype: oip.FP32}, `{"v":1}`, nil, `the document has nothing at $["value"]`},
		{"null", reader{document: true, path: sampleValue, datatype: oip.FP32}, `{"value":null}`, nil, "null"},
		{"no JSON", reader{document: true, path: sampleValue, datatype: oip.FP32}, `21.5 C`, nil, "JSON"},
		{"text of a property", reader{document: true, path: sampleValue, single: true, datatype: oip.FP32}, `{"value":"21.5"}`, nil, `expected a number or a boolean, got "\"21.5\""`},
		{"list of a property", reader{document: true, path: sampleValue, single: true, datatype: oip.FP32}, `{"value":[1]}`, nil, `got "[1]"`},
		{"FP32", reader{datatype: oip.FP32}, "3.5e38", nil, "3.5e38 does not fit the model's FP32"},
		{"FP16", reader{datatype: oip.FP16}, "65505", nil, "FP16"},
		{"FP16 at its end", reader{datatype: oip.FP16}, "-65504", []float64{-65504}, ""},
		{"BOOL", reader{datatype: oip.Bool}, "2", nil, "BOOL"},
		{"whole", reader{datatype: oip.Int32}, "3e2", []float64{300}, ""},
		{"fraction", reader{datatype: oip.Int32}, "1.5", nil, "INT32"},
		{"INT8", reader{datatype: oip.Int8}, "-129", nil, "INT8"},
		{"UINT8", reader{datatype: oip.Uint8}, "255", []float64{255}, ""},
		{"UINT8 below", reader{datatype: oip.Uint8}, "-1", nil, "UINT8"},
		{"INT64", reader{datatype: oip.Int64}, "-9007199254740991", []float64{-9007199254740991}, ""},
		{"INT64 that float64 has not", reader{datatype: oip.Int64}, "9007199254740993", nil, "INT64"},
	} {
		got, err := c.r.read(nil, []byte(c.text))
		switch {
		case c.want != nil:
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("%s: %v, %v", c.name, got, err)
			}
		case !wire.IsCode(err, wire.InvalidArgument) || !strings.Contains(err.Error(), c.says):
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
	}
}

// TestTensorsOfAllDatatypes fills windows of each datatype.
func TestTensorsOfAllDatatypes(t *testing.T) {
	for datatype, want := range map[string]any{
		oip.Bool: []bool{true, false}, oip.Uint8: []uint8{1, 0}, oip.Uint16: []uint16{1, 0}, oip.Uint32: []uint32{1, 0}, oip.Uint64: []uint64{1, 0},
		oip.Int8: []int8{1, 0}, oip.Int16: []int16{1, 0}, oip.Int32: []int32{1, 0}, oip.Int64: []int64{1, 0},
		oip.FP16: []uint16{0x3c00, 0}, oip.FP32: []float32{1, 0}, oip.FP64: []float64{1, 0},
	} {
		in, err := newInput("n", "default", 0, task.Input{Tensor: "x", Sources: []task.InputSource{topicSource("a", "")}, Window: 2}, []engine.TensorInfo{tensorInfo("x", datatype, 2)})
		if err != nil {
			t.Fatal(datatype, err)
		}
		var scratch []float64
		for _, text := range []string{"1", "false"} {
			if scratch, err = in.take(0, []byte(text), scratch, time.Now()); err != nil {
				t.Fatal(datatype, err)
			}
			if in.columns == 0 {
				if err := in.begin(2); err != nil {
					t.Fatal(datatype, err)
				}
			}
			in.add(0)
		}
		in.fill(in.rows)
		if diff := cmp.Diff(want, in.tensor.Data); diff != "" || in.tensor.Datatype != datatype {
			t.Errorf("%s: %s", datatype, diff)
		}
	}
}

func TestInputsRefused(t *testing.T) {
	x := tensorInfo("x", oip.FP32, -1, 4, 3)
	device := task.InputSource{Device: "d", Property: "p"}
	three := []task.InputSource{device, {Device: "d", Property: "q"}, topicSource("t", "$.v")}
	good := func() ServiceSpec { return feedSpec("svc", task.Input{Tensor: "x", Sources: three, Window: 4}) }
	for _, c := range []struct {
		name  string
		infos []engine.TensorInfo
		edit  func(*ServiceSpec)
		code  wire.Code
		field string
	}{
		{"unknown tensor", []engine.TensorInfo{x}, func(s *ServiceSpec) { s.Inputs[0].Tensor = "z" }, wire.InvalidArgument, "inputs[0].tensor"},
		{"input that is not fed", []engine.TensorInfo{x, tensorInfo("y", oip.FP32, 1)}, func(*ServiceSpec) {}, wire.InvalidArgument, "inputs[1].tensor"},
		{"fed twice", []engine.TensorInfo{x}, func(s *ServiceSpec) { s.Inputs = append(s.Inputs, s.Inputs[0]) }, wire.InvalidArgument, "inputs[1].tensor"},
		{"texts", []engine.TensorInfo{tensorInfo("x", oip.Bytes, -1, 4, 3)}, func(*ServiceSpec) {}, wire.InvalidArgument, "inputs[0].tensor"},
		{"open shape", []engine.TensorInfo{tensorInfo("x", oip.FP32, -1, -1, -1, 3)}, func(*ServiceSpec) {}, wire.InvalidArgument, "inputs[0].tensor"},
		{"window", []engine.TensorInfo{x}, func(s *ServiceSpec) { s.Inputs[0].Window = 5 }, wire.InvalidArgument, "inputs[0].window"},
		{"fewer values than sources", []engine.TensorInfo{x}, func(s *ServiceSpec) { s.Inputs[0].Window = 6 }, wire.InvalidArgument, "inputs[0].window"},
		{"properties only", []engine.TensorInfo{x}, func(s *ServiceSpec) { s.Inputs[0].Sources = three[:2] }, wire.InvalidArgument, "inputs[0].window"},
		{"window of an open shape", []engine.TensorInfo{tensorInfo("x", oip.FP32, -1, -1, 4)}, func(s *ServiceSpec) { s.Inputs[0].Sources, s.Inputs[0].Window = three[:2], 3 }, wire.InvalidArgument, "inputs[0].window"},
		{"memory", []engine.TensorInfo{tensorInfo("x", oip.FP32, -1, 40, 30)}, func(s *ServiceSpec) { s.Inputs[0].Window = 40 }, wire.TooLarge, "inputs[0].window"},
		{"memory of the stride", []engine.TensorInfo{tensorInfo("x", oip.FP32, -1, 40, 15)}, func(s *ServiceSpec) { s.Inputs[0].Window, s.Inputs[0].Stride = 40, 40 }, wire.TooLarge, "inputs[0].window"},
		{"path", []engine.TensorInfo{x}, func(s *ServiceSpec) { s.Inputs[0].Sources[2].JSONPath = "$..v" }, wire.InvalidArgument, "inputs[0].sources[2].jsonPath"},
		{"own results", []engine.TensorInfo{x}, func(s *ServiceSpec) { s.Inputs[0].Sources[2].Topic = "sedna/edge-a/infer/svc/result" }, wire.InvalidArgument, "inputs[0].sources[2].topic"},
		{"own request", []engine.TensorInfo{x}, func(s *ServiceSpec) { s.Inputs[0].Sources[2].Topic = "sedna/edge-a/infer/svc/request" }, wire.InvalidArgument, "inputs[0].sources[2].topic"},
		{"own property", []engine.TensorInfo{x}, func(s *ServiceSpec) { s.Result = &task.ResultProperty{Device: "d", Property: "q"} }, wire.InvalidArgument, "inputs[0].sources[1].property"},
		{"own property as a topic", []engine.TensorInfo{x}, func(s *ServiceSpec) {
			s.Result = &task.ResultProperty{Device: "e", Property: "r"}
			s.Inputs[0].Sources[2].Topic = "sedna/edge-a/sensor/default/e/r"
		}, wire.InvalidArgument, "inputs[0].sources[2].topic"},
		{"label of what is no classes", []engine.TensorInfo{x}, func(s *ServiceSpec) { s.Result = &task.ResultProperty{Device: "e", Property: "r", Value: "label"} }, wire.InvalidArgument, "resultProperty.value"},
	} {
		e := &echo{inputs: c.infos}
		m := newManager(t, func(cfg *Config) { cfg.Open, cfg.Key, cfg.Limits.InputValues = e.open, nodeKey, 1000 })
		s := good()
		s.Inputs[0].Sources = slices.Clone(three)
		c.edit(&s)
		err := m.Activate(t.Context(), s)
		if w := wire.AsError(err); err == nil || w.Code != c.code || w.Field != c.field || w.Message == "" {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	e := &echo{inputs: []engine.TensorInfo{x}}
	m := newManager(t, func(cfg *Config) { cfg.Open = e.open })
	activate(t, m, good())
	other := good()
	other.Inputs[0].Sources = []task.InputSource{device, topicSource("sedna/edge-a/infer/other/result", "$.outputs[0].data")}
	activate(t, m, other)
	other.Result = &task.ResultProperty{Device: "e", Property: "r"}
	if err := m.Activate(t.Context(), other); !wire.IsCode(err, wire.FailedPrecondition) || wire.AsError(err).Field != "resultProperty" {
		t.Errorf("without a key: %v", err)
	}
}

// bench is a Manager on a fake bus, for tests of time in a synctest bubble.
type bench struct {
	*fakeBus
	*Manager
	t    *testing.T
	e    *echo
	stop func()
}

func newBench(t *testing.T, infos []engine.TensorInfo, specs ...ServiceSpec) *bench {
	t.Helper()
	b := &bench{fakeBus: &fakeBus{}, t: t, e: &echo{inputs: infos, seen: make(chan []engine.Tensor, 1000)}}
	m, err := New(Config{Node: "edge-a", Open: b.e.open, Key: nodeKey})
	if err != nil {
		t.Fatal(err)
	}
	b.Manager = m
	for _, s := range specs {
		activate(t, m, s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = m.ServeBus(ctx, b.fakeBus) })
	synctest.Wait()
	b.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		m.Close()
	})
	return b
}

// read delivers a reading and waits until all has been done that it causes.
func (b *bench) read(topic, payload string) {
	b.t.Helper()
	if b.send(bus.Message{Topic: topic, Payload: []byte(payload)}) != 1 {
		b.t.Fatalf("nobody follows %s", topic)
	}
	synctest.Wait()
}

// answers gives the values that the model got since the last time, and the
// sources that were missing.
func (b *bench) answers() (got []string) {
	b.t.Helper()
	for _, p := range b.take() {
		r := decodeResult(b.t, bus.Message{Topic: p.topic, Payload: p.payload})
		in := <-b.e.seen
		text := strings.Trim(fmt.Sprint(in[0].Data), "[]")
		if missing, ok := r.Parameters[ParamMissing]; ok {
			text += " without " + missing.(string)
		}
		got = append(got, text)
	}
	if len(b.e.seen) != 0 {
		b.t.Errorf("%d answers were not published", len(b.e.seen))
	}
	return got
}

func (b *bench) expect(want ...string) {
	b.t.Helper()
	if diff := cmp.Diff(want, b.answers()); diff != "" {
		b.t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestMaxAge: what is older than maxAge is missing.
func TestMaxAge(t *testing.T) {
	spec := func(onMissing string, window int) ServiceSpec {
		return feedSpec("svc", task.Input{
			Tensor: "x", Sources: []task.InputSource{topicSource("a", ""), {Device: "d", Property: "p"}}, Window: window,
			MaxAgeMilliseconds: 1000, OnMissing: onMissing,
		})
	}
	infos := []engine.TensorInfo{tensorInfo("x", oip.FP32, -1, -1)}
	const b = "sedna/edge-a/sensor/default/d/p"
	t.Run("skip", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newBench(t, infos, spec(task.MissingSkip, 1))
			defer s.stop()
			s.read("a", "1")
			s.expect() // the other never spoke
			s.read(b, `{"value":10}`)
			time.Sleep(time.Second)
			s.read("a", "2")
			s.expect("2 10") // just not older
			time.Sleep(time.Millisecond)
			s.read("a", "3")
			s.expect()
			if st := s.Models()[0].Inputs; st.Skipped != 2 || st.Answers != 1 || !slices.Equal(st.Tensors[0].Missing, []string{"d.p"}) || *st.LastAgeMS != 0 {
				t.Errorf("%+v", st)
			}
			s.read(b, `{"value":11}`)
			s.expect() // only the first source makes rows
			s.read("a", "4")
			s.expect("4 11")
			time.Sleep(time.Hour)
			synctest.Wait()
			s.expect()
			if st := s.Models()[0].Inputs; !slices.Equal(st.Tensors[0].Missing, []string{"a", "d.p"}) || *st.LastAgeMS != 3600_000 {
				t.Errorf("%+v", st)
			}
		})
	})
	t.Run("last", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newBench(t, infos, spec(task.MissingLast, 1))
			defer s.stop()
			s.read("a", "1")
			time.Sleep(5 * time.Second)
			synctest.Wait()
			s.expect() // the other never spoke
			s.read(b, `{"value":10}`)
			time.Sleep(999 * time.Millisecond) // six seconds after the first source
			s.expect()
			time.Sleep(time.Millisecond)
			synctest.Wait()
			s.expect("1 10 without a")
			time.Sleep(2 * time.Second)
			synctest.Wait()
			s.expect("1 10 without a,d.p", "1 10 without a,d.p")
			time.Sleep(500 * time.Millisecond)
			s.read("a", "2")
			s.expect("2 10 without d.p")
			time.Sleep(999 * time.Millisecond)
			s.read(b, `{"value":11}`)
			time.Sleep(time.Millisecond)
			synctest.Wait()
			s.expect("2 11 without a")
			s.Deactivate("default", "svc")
			time.Sleep(time.Hour)
			synctest.Wait()
			s.expect()
		})
	})
	t.Run("missing in an older row of the window", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newBench(t, infos, spec(task.MissingLast, 2))
			defer s.stop()
			s.read(b, `{"value":10}`)
			time.Sleep(1500 * time.Millisecond)
			s.read("a", "1")
			s.read(b, `{"value":11}`)
			s.read("a", "2")
			s.read("a", "3")
			s.expect("1 10 2 11 without d.p", "2 11 3 11")
		})
	})
	t.Run("a source that never speaks", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newBench(t, infos, spec(task.MissingLast, 1))
			defer s.stop()
			s.read(b, `{"value":10}`)
			time.Sleep(time.Hour)
			synctest.Wait()
			s.expect()
			if st := s.Models()[0].Inputs; !slices.Equal(st.Tensors[0].Missing, []string{"a", "d.p"}) || st.Tensors[0].Rows != 0 || st.LastError != "" {
				t.Errorf("%+v", st)
			}
		})
	})
}

// TestRetainedReadings: what the broker kept is a value where any age will do,
// and never a row.
func TestRetainedReadings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sources := []task.InputSource{topicSource("a", ""), topicSource("b", "")}
		young := feedSpec("young", task.Input{Tensor: "x", Sources: sources, MaxAgeMilliseconds: 1000})
		s := newBench(t, []engine.TensorInfo{tensorInfo("x", oip.FP32, -1, 2)}, feedSpec("any", task.Input{Tensor: "x", Sources: sources}), young)
		defer s.stop()
		for _, topic := range []string{"b", "a"} {
			s.send(bus.Message{Topic: topic, Payload: []byte("7"), Retained: true})
		}
		synctest.Wait()
		s.expect()
		s.read("a", "1")
		s.expect("1 7")
	})
}

// TestOverload: while the model is busy only the newest window that is due
// waits, whole; rows that are not due do not spoil it.
func TestOverload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newBench(t, []engine.TensorInfo{tensorInfo("x", oip.FP32, -1, 4)},
			feedSpec("svc", task.Input{Tensor: "x", Sources: []task.InputSource{topicSource("a", "")}, Window: 4, Stride: 3}))
		defer s.stop()
		s.e.hold = make(chan struct{})
		for i := 1; i <= 15; i++ { // due at 4, 7, 10, 13
			s.read("a", fmt.Sprint(i))
		}
		close(s.e.hold)
		synctest.Wait()
		s.expect("1 2 3 4", "10 11 12 13")
		if st := s.Models()[0].Inputs; st.Dropped != 2 || st.Answers != 2 || st.Tensors[0].Rows != 15 {
			t.Errorf("%+v", st)
		}
	})
}

// TestColumnsStay: lists that change their length would put values into the
// columns of others.
func TestColumnsStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newBench(t, []engine.TensorInfo{tensorInfo("x", oip.FP32, -1, 5)},
			feedSpec("svc", task.Input{Tensor: "x", Sources: []task.InputSource{topicSource("a", ""), topicSource("b", "")}}))
		defer s.stop()
		refused := func(want int64, says string) {
			t.Helper()
			if st := s.Models()[0].Inputs; st.Refused != want || !strings.Contains(st.LastError, says) {
				t.Errorf("%+v, want %q", st, says)
			}
		}
		s.read("a", "[1,2,3,4,5,6]")
		refused(1, "inputs[0].sources[0]: a: expected at most 4 values, got 6")
		s.read("b", "[1]")
		s.read("a", "[1,2,3]") // 4 in a row
		refused(2, "inputs[0]: x: 1 rows of 4 values do not make")
		s.read("b", "[4,5]")
		s.read("a", "[1,2,3]")
		s.expect("1 2 3 4 5")
		s.read("b", "[6,7,8]")
		refused(3, "inputs[0].sources[1]: b: expected 2 values as before, got 3")
		s.read("a", "[1,2]")
		refused(4, "expected 3 values as before, got 2")
		s.read("a", "[7,8,9]")
		s.expect("7 8 9 4 5")
	})
}

// TestMemoryOfLists: what lists take is only known when they come.
func TestMemoryOfLists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newBench(t, []engine.TensorInfo{tensorInfo("x", oip.FP32, -1, -1, -1), tensorInfo("y", oip.FP32, 1)})
		defer s.stop()
		s.cfg.Limits.InputValues = 41
		activate(t, s.Manager, feedSpec("svc",
			task.Input{Tensor: "x", Sources: []task.InputSource{topicSource("a", "")}, Window: 10},
			task.Input{Tensor: "y", Sources: []task.InputSource{topicSource("b", "")}}))
		s.read("a", "[1,2,3,4,5]")
		if st := s.Models()[0].Inputs; st.Refused != 1 || !strings.Contains(st.LastError, "too_large") {
			t.Errorf("%+v", st)
		}
		s.read("a", "[1,2,3,4]")
		if st := s.Models()[0].Inputs; st.Refused != 1 || st.Tensors[0].Rows != 1 {
			t.Errorf("%+v", st)
		}
	})
}

// FuzzReading: whatever comes is refused with a wire error, or is numbers that
// the model's datatype holds, as many as the sources give.
func FuzzReading(f *testing.F) {
	datatypes := []string{oip.Bool, oip.Uint8, oip.Uint64, oip.Int8, oip.Int64, oip.FP16, oip.FP32, oip.FP64}
	for _, s := range []string{"21.5", `{"value":1}`, `[1,true,-2e3]`, `{"value":[1,{"a":2}]}`, "NaN", "", "[", `{"value":"\u0031"}`, "9007199254740993"} {
		for i := range datatypes {
			f.Add([]byte(s), "$.value", i%2 == 0, byte(i))
		}
	}
	f.Fuzz(func(t *testing.T, payload []byte, path string, single bool, which byte) {
		r := reader{single: single, datatype: datatypes[int(which)%len(datatypes)], document: path != ""}
		var err error
		if r.path, err = jsonpath.Compile(path); err != nil {
			return
		}
		got, err := r.read(nil, payload)
		if err != nil {
			if !wire.IsCode(err, wire.InvalidArgument) || !json.Valid(wire.AsError(err).JSON()) {
				t.Fatal(err)
			}
			return
		}
		if len(got) == 0 || single && len(got) != 1 {
			t.Fatalf("%d values", len(got))
		}
		tensor, err := newTensor("x", r.datatype, []int64{int64(len(got))}, len(got))
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range got {
			if !finite(v) || !holds(r.datatype, v) {
				t.Fatalf("%v in %s", v, r.datatype)
			}
			tensor.set(i, v)
		}
		if _, err := (&oip.InferRequest{Inputs: []oip.Tensor{tensor.Tensor}}).AppendJSON(nil); err != nil {
			t.Fatal(err)
		}
	})
}

// TestCloseWithoutBus: windows that are due while no bus is served hold nothing
// back.
func TestCloseWithoutBus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &echo{inputs: []engine.TensorInfo{tensorInfo("x", oip.FP32, 1)}}
		m, err := New(Config{Node: "edge-a", Open: e.open})
		if err != nil {
			t.Fatal(err)
		}
		activate(t, m, feedSpec("svc", task.Input{Tensor: "x", Sources: []task.InputSource{topicSource("a", "")}}))
		m.router.deliver(bus.Message{Topic: "a", Payload: []byte("1")})
		synctest.Wait()
		m.Close() // returns, or the bubble is deadlocked
	})
}
