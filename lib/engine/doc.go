// Package engine is the seam between Sedna and whatever executes a model.
//
// Tensors named and typed as in the Open Inference Protocol v2 flow in and
// out of a Session; an Engine makes Sessions from model files. Engines
// register by name, callers pick one by name or by model format, and Check
// turns a bad request into an InputError that names the offending field.
package engine
