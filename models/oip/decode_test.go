package oip

import (
	"bytes"
	"encoding/json"
	"flag"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgetwin/sedna/models/wire"
)

var update = flag.Bool("update", false, "write the golden files")

// tight are limits that the cases below reach with short bodies.
var tight = Limits{MaxBody: 400, MaxTensors: 2, MaxRank: 3, MaxElements: 12, MaxParameters: 2}

func input(rest string) string { return `{"inputs":[{"name":"x",` + rest + `}]}` }

var bad = []struct{ name, body string }{
	{"empty", ``},
	{"not an object", `[]`},
	{"cut", `{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1`},
	{"trailing text", input(`"shape":[1],"datatype":"FP32","data":[1]`) + ` x`},
	{"no colon", `{"inputs" []}`},
	{"key no string", `{inputs:[]}`},
	{"comma missing", `{"id":"a" "inputs":[]}`},
	{"trailing comma", input(`"shape":[1],"datatype":"FP32","data":[1,]`)},
	{"string cut", `{"id":"abc`},
	{"control character", "{\"id\":\"a\tb\"}"},
	{"bad escape", `{"id":"\x"}`},
	{"lone surrogate", `{"id":"\ud800"}`},
	{"not UTF-8", "{\"id\":\"\xff\"}"},
	{"deep nesting", `{"x":` + strings.Repeat("[", 64) + strings.Repeat("]", 64) + `}`},
	{"body over limit", `{"x":"` + strings.Repeat("a", 400) + `"}`},
	{"id no string", `{"id":7,"inputs":[]}`},
	{"id with slash", `{"id":"a/b","inputs":[]}`},
	{"id too long", `{"id":"` + strings.Repeat("a", 129) + `"}`},
	{"no inputs", `{"id":"a"}`},
	{"inputs empty", `{"inputs":[]}`},
	{"inputs null", `{"inputs":null}`},
	{"inputs no array", `{"inputs":{}}`},
	{"input no object", `{"inputs":[3]}`},
	{"too many inputs", `{"inputs":[` + strings.Repeat(`{"name":"x","shape":[1],"datatype":"INT8","data":[1]},`, 2) + `{}]}`},
	{"name missing", `{"inputs":[{"shape":[1],"datatype":"FP32","data":[1]}]}`},
	{"name no string", `{"inputs":[{"name":1}]}`},
	{"datatype missing", input(`"shape":[1],"data":[1]`)},
	{"datatype unknown", input(`"shape":[1],"datatype":"BF16","data":[1]`)},
	{"datatype lower case", input(`"shape":[1],"datatype":"fp32","data":[1]`)},
	{"shape missing", input(`"datatype":"FP32","data":[1]`)},
	{"shape no array", input(`"shape":4,"datatype":"FP32","data":[1]`)},
	{"shape negative", input(`"shape":[-1,2],"datatype":"FP32","data":[1,2]`)},
	{"shape fraction", input(`"shape":[1.5],"datatype":"FP32","data":[1,2]`)},
	{"shape string", input(`"shape":["1"],"datatype":"FP32","data":[1,2]`)},
	{"rank over limit", input(`"shape":[1,1,1,1],"datatype":"FP32","data":[1]`)},
	{"elements over limit", input(`"shape":[4,4],"datatype":"FP32","data":[1]`)},
	{"elements overflow", input(`"shape":[9223372036854775807,9223372036854775807],"datatype":"FP32","data":[1]`)},
	{"elements hidden by zero", input(`"shape":[0,12,12],"datatype":"FP32","data":[]`)},
	{"data missing", input(`"shape":[1],"datatype":"FP32"`)},
	{"data no array", input(`"shape":[1],"datatype":"FP32","data":1`)},
	{"data too short", input(`"shape":[1,3],"datatype":"FP32","data":[1,2]`)},
	{"data too long", input(`"shape":[1,3],"datatype":"FP32","data":[1,2,3,4]`)},
	{"data before shape", input(`"data":[1,2],"shape":[3],"datatype":"FP32"`)},
	{"shape given twice", input(`"shape":[2],"datatype":"FP32","data":[1,2],"shape":[3]`)},
	{"nested short row", input(`"shape":[2,2],"datatype":"FP32","data":[[1,2],[3]]`)},
	{"nested long row", input(`"shape":[2,2],"datatype":"FP32","data":[[1,2],[3,4,5]]`)},
	{"nested too few rows", input(`"shape":[2,2],"datatype":"FP32","data":[[1,2]]`)},
	{"nested too many rows", input(`"shape":[1,2],"datatype":"FP32","data":[[1,2],[3,4]]`)},
	{"nested too deep", input(`"shape":[2],"datatype":"FP32","data":[[1],[2]]`)},
	{"nested not deep enough", input(`"shape":[2,1,2],"datatype":"FP32","data":[[1,2],[3,4]]`)},
	{"NaN", input(`"shape":[1,2],"datatype":"FP32","data":[0,NaN]`)},
	{"Infinity", input(`"shape":[1],"datatype":"FP64","data":[Infinity]`)},
	{"minus Infinity", input(`"shape":[1],"datatype":"FP32","data":[-Infinity]`)},
	{"null element", input(`"shape":[1],"datatype":"FP32","data":[null]`)},
	{"string element", input(`"shape":[1],"datatype":"FP32","data":["1"]`)},
	{"leading zero", input(`"shape":[1],"datatype":"FP32","data":[01]`)},
	{"bare fraction", input(`"shape":[1],"datatype":"FP32","data":[.5]`)},
	{"FP16 out of range", input(`"shape":[1],"datatype":"FP16","data":[65520]`)},
	{"FP32 out of range", input(`"shape":[1],"datatype":"FP32","data":[3.5e38]`)},
	{"FP64 out of range", input(`"shape":[1],"datatype":"FP64","data":[1e309]`)},
	{"UINT8 out of range", input(`"shape":[1],"datatype":"UINT8","data":[256]`)},
	{"UINT8 negative", input(`"shape":[1],"datatype":"UINT8","data":[-1]`)},
	{"INT8 out of range", input(`"shape":[1],"datatype":"INT8","data":[-129]`)},
	{"INT64 out of range", input(`"shape":[1],"datatype":"INT64","data":[9223372036854775808]`)},
	{"UINT64 out of range", input(`"shape":[1],"datatype":"UINT64","data":[18446744073709551616]`)},
	{"INT32 fraction", input(`"shape":[1],"datatype":"INT32","data":[1.5]`)},
	{"BOOL number", input(`"shape":[1],"datatype":"BOOL","data":[1]`)},
	{"BYTES number", input(`"shape":[1],"datatype":"BYTES","data":[1]`)},
	{"parameters no object", `{"parameters":[],"inputs":[]}`},
	{"too many parameters", `{"parameters":{"a":1,"b":2,"c":3},"inputs":[]}`},
	{"outputs no array", `{"outputs":{},"inputs":[]}`},
	{"output without name", `{"outputs":[{}]}`},
	{"too many outputs", `{"outputs":[{"name":"a"},{"name":"b"},{"name":"c"}]}`},
}

func TestBadRequests(t *testing.T) {
	const path = "testdata/bad_requests.json"
	golden := map[string]json.RawMessage{}
	if !*update {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, &golden); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range bad {
		r, err := DecodeRequest([]byte(c.body), tight)
		if err == nil {
			t.Errorf("%s: taken as %+v", c.name, r)
			continue
		}
		got := wire.AsError(err).OIP()
		if *update {
			golden[c.name] = got
			continue
		}
		var want bytes.Buffer
		if err := json.Compact(&want, golden[c.name]); err != nil {
			t.Errorf("%s: no golden answer: %v", c.name, err)
		} else if diff := cmp.Diff(want.String(), string(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
	if *update {
		b, err := json.MarshalIndent(golden, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAtTheLimits(t *testing.T) {
	body := `{"parameters":{"a":1,"b":2},"inputs":[{"name":"x","shape":[1,3,4],"datatype":"INT8","data":[1,2,3,4,5,6,7,8,9,10,11,12]},` +
		`{"name":"y","shape":[],"datatype":"BOOL","data":[true]}],"outputs":[{"name":"a"},{"name":"b"}]}`
	body += strings.Repeat(" ", int(tight.MaxBody)-len(body))
	if _, err := DecodeRequest([]byte(body), tight); err != nil {
		t.Fatal(err)
	}
	if _, err := DecodeRequest([]byte(body+" "), tight); !wire.IsCode(err, wire.TooLarge) {
		t.Errorf("one byte over the limit: %v", err)
	}
}

func TestDatatypes(t *testing.T) {
	for _, c := range []struct {
		datatype, data string
		want           any
	}{
		{Bool, `[true,false]`, []bool{true, false}},
		{Uint8, `[0,255]`, []uint8{0, 255}},
		{Uint16, `[0,65535]`, []uint16{0, 65535}},
		{Uint32, `[0,4294967295]`, []uint32{0, 4294967295}},
		{Uint64, `[0,18446744073709551615]`, []uint64{0, 18446744073709551615}},
		{Int8, `[-128,127]`, []int8{-128, 127}},
		{Int16, `[-32768,32767]`, []int16{-32768, 32767}},
		{Int32, `[-2147483648,2147483647]`, []int32{-2147483648, 2147483647}},
		{Int64, `[-9223372036854775808,9223372036854775807]`, []int64{-9223372036854775808, 9223372036854775807}},
		{FP16, `[1,-0.333251953125]`, []uint16{0x3c00, 0xb555}},
		{FP32, `[0.1,-1.5e-3]`, []float32{0.1, -1.5e-3}},
		{FP64, `[0.1,1e+300]`, []float64{0.1, 1e300}},
		{Bytes, `["","a\u00e9\n\ud83d\ude00/"]`, [][]byte{{}, []byte("aé\n😀/")}},
	} {
		for _, form := range []string{
			`"shape":[2],"datatype":"` + c.datatype + `","data":` + c.data,
			`"data":` + c.data + `,"datatype":"` + c.datatype + `","shape":[2]`,
			`"shape":[1,2],"datatype":"` + c.datatype + `","data":[` + c.data + `]`,
		} {
			r, err := DecodeRequest([]byte(input(form)), Limits{})
			if err != nil {
				t.Errorf("%s: %v", form, err)
				continue
			}
			if diff := cmp.Diff(c.want, r.Inputs[0].Data); diff != "" {
				t.Errorf("%s (-want +got):\n%s", form, diff)
			}
			again := roundTrip(t, r)
			if diff := cmp.Diff(r, again); diff != "" {
				t.Errorf("%s: second reading (-first +second):\n%s", form, diff)
			}
		}
	}
}

func roundTrip(t *testing.T, r *InferRequest) *InferRequest {
	t.Helper()
	b, err := r.AppendJSON(nil)
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(b) {
		t.Fatalf("not JSON: %s", b)
	}
	again, err := DecodeRequest(b, Limits{})
	if err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	return again
}

func TestRequestFields(t *testing.T) {
	body := ` { "id" : "a-1.b_2" , "unknown" : { "x" : [ null , 1e3 , "\"" ] } , "parameters" : {"s":"x","b":true,"i":-3,"f":0.5,"n":null,"o":{"k":[1]}} ,
	"inputs":[{"parameters":{"k":"v"},"name":"x","shape":[],"datatype":"INT64","data":[7]}], "outputs":[{"name":"y","parameters":{"classification":3}}]}`
	got, err := DecodeRequest([]byte(body), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	want := &InferRequest{
		ID:         "a-1.b_2",
		Parameters: Parameters{"s": "x", "b": true, "i": int64(-3), "f": 0.5, "o": json.RawMessage(`{"k":[1]}`)},
		Inputs:     []Tensor{{Name: "x", Shape: []int64{}, Datatype: Int64, Parameters: Parameters{"k": "v"}, Data: []int64{7}}},
		Outputs:    []RequestedOutput{{Name: "y", Parameters: Parameters{"classification": int64(3)}}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if diff := cmp.Diff(got, roundTrip(t, got)); diff != "" {
		t.Errorf("second reading (-first +second):\n%s", diff)
	}
}

func TestResponse(t *testing.T) {
	r := &InferResponse{
		ModelName: "m", ModelVersion: "3", ID: "q", Parameters: Parameters{"b": "2", "a": true},
		Outputs: []Tensor{{Name: "y", Shape: []int64{1, 2}, Datatype: FP32, Data: []float32{1e-9, 123456789}}},
	}
	b, err := r.AppendJSON(nil)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"model_name":"m","model_version":"3","id":"q","parameters":{"a":true,"b":"2"},` +
		`"outputs":[{"name":"y","shape":[1,2],"datatype":"FP32","data":[1e-09,123456790]}]}`
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
	got, err := DecodeResponse(b, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	r.Outputs[0].Data = []float32{0, float32(math.NaN())}
	if _, err := r.AppendJSON(nil); !wire.IsCode(err, wire.BadModel) || wire.AsError(err).Field != "outputs[0].data[1]" {
		t.Errorf("NaN output: %v", err)
	}
	r.Outputs[0] = Tensor{Name: "y", Shape: []int64{1}, Datatype: Bytes, Data: [][]byte{{0xff}}}
	if _, err := r.AppendJSON(nil); !wire.IsCode(err, wire.FailedPrecondition) {
		t.Errorf("BYTES that are not UTF-8: %v", err)
	}
}

func TestPeekID(t *testing.T) {
	for _, c := range []struct{ body, want string }{
		{`{"id":"a"}`, "a"},
		{`{"inputs":[{"data":[NaN,"}"]}],"id":"late"}`, "late"},
		{`{"inputs":[nonsense],"id":"a" cut`, "a"},
		{`{"x":{"id":"inner"}}`, ""},
		{`{"id":"a/b"}`, ""},
		{`{"id":5}`, ""},
		{`[{"id":"a"}]`, ""},
		{`{"inputs":[`, ""},
		{``, ""},
	} {
		if got := PeekID([]byte(c.body)); got != c.want {
			t.Errorf("%s: got %q, want %q", c.body, got, c.want)
		}
	}
}

func TestFloat32IsNearest(t *testing.T) {
	texts := []string{"0", "-0", "16", "0.1", "1e-45", "3.4028235e38", "1e22", "1e23", "123456789012345678901234567890",
		"1.000000059604644775390625", "1.00000005960464477539062500000001", "16777217", "16777219", "0.30000001192092896"}
	for i := range 200_000 {
		bits := uint32(i) * 2654435761
		f := math.Float32frombits(bits)
		if f-f == 0 {
			texts = append(texts, strconv.FormatFloat(float64(f), 'g', -1, 32), strconv.FormatFloat(float64(f), 'f', i%14, 64))
		}
	}
	for _, text := range texts {
		n, end := scanNumber([]byte(text), 0)
		if end != len(text) {
			t.Fatalf("%s: read up to %d", text, end)
		}
		got, ok := n.float32([]byte(text))
		want, err := strconv.ParseFloat(text, 32)
		if ok != (err == nil) || math.Float32bits(got) != math.Float32bits(float32(want)) {
			t.Fatalf("%s: got %v, want %v", text, got, want)
		}
		quick, end := quickFloat32([]byte(text+","), 0)
		if end > 0 && (end != len(text) || math.Float32bits(quick) != math.Float32bits(float32(want))) {
			t.Fatalf("%s: quickly got %v up to %d, want %v", text, quick, end, want)
		}
	}
}

func TestHalf(t *testing.T) {
	for h := range 1 << 16 {
		f := HalfFloat(uint16(h))
		if f != f {
			continue
		}
		if back := HalfBits(float64(f)); back != uint16(h) {
			t.Fatalf("%#04x is %v, which becomes %#04x", h, f, back)
		}
	}
	for _, c := range []struct {
		f    float64
		want uint16
	}{{65519, 0x7bff}, {65520, 0x7c00}, {1 + 1.0/2048, 0x3c00}, {1 + 3.0/2048, 0x3c02}, {math.Ldexp(1, -25), 0}, {math.Ldexp(1.5, -25), 1}} {
		if got := HalfBits(c.f); got != c.want {
			t.Errorf("%v: got %#04x, want %#04x", c.f, got, c.want)
		}
	}
}

func TestModelMetadata(t *testing.T) {
	m, err := DecodeModelMetadata([]byte(`{"name":"m","platform":"p","inputs":[{"name":"x","datatype":"FP32","shape":[-1,4]}],"outputs":[{"name":"y","datatype":"FP32","shape":[-1,2]}]}`), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		t    Tensor
		want bool
	}{
		{Tensor{Name: "y", Datatype: FP32, Shape: []int64{7, 2}}, true},
		{Tensor{Name: "y", Datatype: FP32, Shape: []int64{7, 3}}, false},
		{Tensor{Name: "y", Datatype: FP32, Shape: []int64{2}}, false},
		{Tensor{Name: "y", Datatype: FP64, Shape: []int64{7, 2}}, false},
		{Tensor{Name: "z", Datatype: FP32, Shape: []int64{7, 2}}, false},
	} {
		if got := m.Outputs[0].Fits(&c.t); got != c.want {
			t.Errorf("%+v: got %v", c.t, got)
		}
	}
	for _, body := range []string{`{`, `{}`, `{"inputs":[{"name":"x","datatype":"F","shape":[1]}],"outputs":[{}]}`} {
		if _, err := DecodeModelMetadata([]byte(body), Limits{}); !wire.IsCode(err, wire.InvalidArgument) {
			t.Errorf("%s: %v", body, err)
		}
	}
}
