package oip

// Datatypes of the protocol and the Go slice that Tensor.Data holds for each.
const (
	Bool   = "BOOL"   // []bool
	Uint8  = "UINT8"  // []uint8
	Uint16 = "UINT16" // []uint16
	Uint32 = "UINT32" // []uint32
	Uint64 = "UINT64" // []uint64
	Int8   = "INT8"   // []int8
	Int16  = "INT16"  // []int16
	Int32  = "INT32"  // []int32
	Int64  = "INT64"  // []int64
	FP16   = "FP16"   // []uint16, IEEE 754 binary16 bits
	FP32   = "FP32"   // []float32
	FP64   = "FP64"   // []float64
	Bytes  = "BYTES"  // [][]byte
)

// Parameters are the protocol's free settings. A value is a string, a bool, an
// int64, a float64, or a json.RawMessage for what peers nest in them.
type Parameters map[string]any

// Tensor is one named value, row-major.
type Tensor struct {
	Name       string
	Shape      []int64 // every dimension 0 or more; empty for a scalar
	Datatype   string  // one of the constants above
	Parameters Parameters
	Data       any // the slice type that the constants above list
}

// RequestedOutput names one output that the caller wants.
type RequestedOutput struct {
	Name       string
	Parameters Parameters
}

// InferRequest asks a model for one inference.
type InferRequest struct {
	ID         string // matches wire.RequestID, or empty
	Parameters Parameters
	Inputs     []Tensor
	Outputs    []RequestedOutput // empty: all outputs
}

// InferResponse is the answer to an InferRequest.
type InferResponse struct {
	ModelName    string
	ModelVersion string
	ID           string
	Parameters   Parameters
	Outputs      []Tensor
}

// Output finds an output by name; nil when there is none.
func (r *InferResponse) Output(name string) *Tensor {
	for i := range r.Outputs {
		if r.Outputs[i].Name == name {
			return &r.Outputs[i]
		}
	}
	return nil
}

// Limits bound what is decoded. Zero fields mean the defaults.
type Limits struct {
	// MaxBody is the most bytes of one body. Default 16 MiB.
	MaxBody int64
	// MaxTensors is the most inputs, and the most outputs. Default 64.
	MaxTensors int
	// MaxRank is the most dimensions of one tensor. Default 8.
	MaxRank int
	// MaxElements is the most elements of one tensor. Default 4 Mi.
	MaxElements int64
	// MaxParameters is the most parameters in one place. Default 64.
	MaxParameters int
}

// WithDefaults replaces zero fields by the defaults.
func (l Limits) WithDefaults() Limits {
	if l.MaxBody == 0 {
		l.MaxBody = 16 << 20
	}
	if l.MaxTensors == 0 {
		l.MaxTensors = 64
	}
	if l.MaxRank == 0 {
		l.MaxRank = 8
	}
	if l.MaxElements == 0 {
		l.MaxElements = 4 << 20
	}
	if l.MaxParameters == 0 {
		l.MaxParameters = 64
	}
	return l
}
