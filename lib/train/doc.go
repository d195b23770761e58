// Package train trains small dense networks on the CPU: softmax regression and
// multi-layer perceptrons with ReLU, by mini-batch gradient descent with
// momentum.
//
// A Network comes from New, from an ONNX model (warm start) or from flat
// weights (federated rounds); Train improves it on a Data; Export gives an
// ONNX model that computes the same. Everything is repeatable from the seed.
package train
