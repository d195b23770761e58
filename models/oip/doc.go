// Package oip holds the Open Inference Protocol v2: its types and its REST
// form in JSON.
//
// Bodies flow in through DecodeRequest and DecodeResponse, bounded by Limits,
// and become tensors with typed slices; AppendJSON writes them back. What does
// not fit is refused with a wire.Error that names the field, as in
// inputs[0].shape, and says what was expected.
package oip
