// Package purego is the engine that needs no native library: ONNX models of
// the size that sensors need, run by lib/onnx. Importing it registers the
// engine "purego" with rank 0, so that a native engine, if present, is
// preferred by engine.Open.
package purego
