package oip

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"

	gojson "github.com/goccy/go-json"
)

// body makes a request with one FP32 input: whole numbers as the digits set
// has them, or fractions with all their digits.
func body(rows, columns int, whole bool) []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	v := make([]float32, rows*columns)
	for i := range v {
		v[i] = rng.Float32()
		if whole {
			v[i] = float32(rng.IntN(17))
		}
	}
	r := InferRequest{ID: "bench-1", Inputs: []Tensor{{Name: "input", Shape: []int64{int64(rows), int64(columns)}, Datatype: FP32, Data: v}}}
	b, err := r.AppendJSON(nil)
	if err != nil {
		panic(err)
	}
	return b
}

func BenchmarkDecodeRequest(b *testing.B) {
	for _, c := range []struct {
		rows, columns int
		whole         bool
	}{{1, 64, true}, {1, 64, false}, {32, 64, false}, {1, 27648, false}} {
		body := body(c.rows, c.columns, c.whole)
		b.Run(fmt.Sprintf("%dx%d/whole=%v", c.rows, c.columns, c.whole), func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := DecodeRequest(body, Limits{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkPeers decodes the same bodies with general decoders, into structs
// that hold FP32 only and without our checks.
func BenchmarkPeers(b *testing.B) {
	type request struct {
		ID     string `json:"id"`
		Inputs []struct {
			Name     string    `json:"name"`
			Shape    []int64   `json:"shape"`
			Datatype string    `json:"datatype"`
			Data     []float32 `json:"data"`
		} `json:"inputs"`
	}
	for _, columns := range []int{64, 27648} {
		body := body(1, columns, false)
		for name, decode := range map[string]func([]byte, any) error{
			"goccy": func(b []byte, v any) error { return gojson.Unmarshal(b, v) },
			"std":   json.Unmarshal,
		} {
			b.Run(fmt.Sprintf("%s/1x%d", name, columns), func(b *testing.B) {
				b.SetBytes(int64(len(body)))
				b.ReportAllocs()
				for b.Loop() {
					var r request
					if err := decode(body, &r); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkEncodeResponse(b *testing.B) {
	v := make([]float32, 10)
	for i := range v {
		v[i] = rand.Float32()
	}
	r := InferResponse{ModelName: "digits", ModelVersion: "1", ID: "bench-1",
		Parameters: Parameters{"sedna_source": "edge", "sedna_hard_example": false, "sedna_model_version": "1", "sedna_service": "digits"},
		Outputs:    []Tensor{{Name: "probabilities", Shape: []int64{1, 10}, Datatype: FP32, Data: v}}}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if buf, err = r.AppendJSON(buf[:0]); err != nil {
			b.Fatal(err)
		}
	}
}
