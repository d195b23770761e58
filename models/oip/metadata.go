package oip

import (
	"encoding/json"
	"fmt"

	"github.com/edgetwin/sedna/models/wire"
)

// ServerMetadata is the answer to GET /v2.
type ServerMetadata struct {
	Name       string   `json:"name"`
	Version    string   `json:"version"`
	Extensions []string `json:"extensions"`
}

// ModelMetadata is the answer to GET /v2/models/{name}.
type ModelMetadata struct {
	Name     string           `json:"name"`
	Versions []string         `json:"versions,omitempty"`
	Platform string           `json:"platform"`
	Inputs   []TensorMetadata `json:"inputs"`
	Outputs  []TensorMetadata `json:"outputs"`
}

// TensorMetadata describes an input or output of a model.
type TensorMetadata struct {
	Name     string  `json:"name"`
	Datatype string  `json:"datatype"`
	Shape    []int64 `json:"shape"` // -1 for a dynamic dimension; null when even the rank is unknown
}

// Fits tells whether a tensor is one that m announces: name, datatype, and
// shape up to the dynamic dimensions.
func (m *TensorMetadata) Fits(t *Tensor) bool {
	if t.Name != m.Name || t.Datatype != m.Datatype {
		return false
	}
	if m.Shape == nil {
		return true
	}
	if len(t.Shape) != len(m.Shape) {
		return false
	}
	for i, d := range m.Shape {
		if d >= 0 && d != t.Shape[i] {
			return false
		}
	}
	return true
}

// Rows is how many samples the inputs of a request hold: their first dimension
// where it is dynamic in all inputs and outputs of the model and the same in
// all of the request's. Else the request is one sample and ok is false.
func (m *ModelMetadata) Rows(inputs []Tensor) (rows int, ok bool) {
	if !batched(m.Inputs) || !batched(m.Outputs) || len(inputs) == 0 {
		return 1, false
	}
	for i := range inputs {
		shape := inputs[i].Shape
		if len(shape) == 0 || shape[0] < 1 || i > 0 && shape[0] != int64(rows) {
			return 1, false
		}
		rows = int(shape[0])
	}
	return rows, true
}

func batched(list []TensorMetadata) bool {
	for i := range list {
		if shape := list[i].Shape; len(shape) == 0 || shape[0] >= 0 {
			return false
		}
	}
	return len(list) > 0
}

// Live and Ready are the answers of the health routes, ModelReady that of one
// model's.
type (
	Live struct {
		Live bool `json:"live"`
	}
	Ready struct {
		Ready bool `json:"ready"`
	}
	ModelReady struct {
		Name  string `json:"name"`
		Ready bool   `json:"ready"`
	}
)

// DecodeModelMetadata reads a peer's description of one of its models.
func DecodeModelMetadata(body []byte, lim Limits) (*ModelMetadata, error) {
	lim = lim.WithDefaults()
	if int64(len(body)) > lim.MaxBody {
		return nil, TooLarge(int64(len(body)), lim)
	}
	var m ModelMetadata
	if err := json.Unmarshal(body, &m); err != nil {
		return nil, wire.E(wire.InvalidArgument, "", "not the JSON of a model's metadata: "+err.Error(), "")
	}
	for _, list := range []struct {
		name    string
		tensors []TensorMetadata
	}{{"inputs", m.Inputs}, {"outputs", m.Outputs}} {
		if n := len(list.tensors); n == 0 || n > lim.MaxTensors {
			return nil, invalid(list.name, "has %d tensors, expected 1 to %d", n, lim.MaxTensors)
		}
		for i, t := range list.tensors {
			if field := fmt.Sprintf("%s[%d]", list.name, i); len(t.Shape) > lim.MaxRank {
				return nil, invalid(field+".shape", "has more than %d dimensions", lim.MaxRank)
			} else if canonical([]byte(t.Datatype)) == "" {
				return nil, invalid(field+".datatype", "is %.40q, expected one of %s", t.Datatype, datatypes)
			}
		}
	}
	return &m, nil
}
