// Package onnx reads, writes and runs ONNX models in pure Go.
//
// Decode turns the bytes of a file into a Model within Limits, Encode writes
// one back, and Compile checks a Model and makes a Program of it that any
// number of goroutines may Run. It is meant for the small dense networks that
// sensors need: about 40 operators of the default domain, opsets up to 28, no
// convolutions, no control flow, no external data.
//
// Format and operators: https://github.com/onnx/onnx, docs/IR.md and
// docs/Operators.md.
package onnx
