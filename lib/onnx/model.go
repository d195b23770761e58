package onnx

import (
	"errors"
	"fmt"
)

var (
	// ErrMalformed: the bytes are no valid ONNX protobuf, or the model
	// contradicts itself.
	ErrMalformed = errors.New("malformed model")
	// ErrLimit: the model, or a run of it, exceeds one of the Limits.
	ErrLimit = errors.New("limit exceeded")
	// ErrUnsupported: the model may be valid but uses an operator, opset,
	// element type or storage that this package does not have.
	ErrUnsupported = errors.New("unsupported")
	// ErrShape: types or shapes of a node's or the model's inputs do not go
	// together.
	ErrShape = errors.New("type or shape mismatch")
	// ErrInput: Run was called without an input, or with one of a name, type
	// or shape that the model does not take.
	ErrInput = errors.New("bad input")
)

// Versions that Encode writes where a Model leaves them open.
const (
	DefaultIRVersion = 8
	DefaultOpset     = 17
)

// Model is an ONNX ModelProto.
type Model struct {
	IRVersion       int64 // 0 is written as DefaultIRVersion
	Producer        string
	ProducerVersion string
	Domain          string
	ModelVersion    int64
	Doc             string
	Opsets          []Opset // empty is written as DefaultOpset of the default domain
	Metadata        map[string]string
	Graph           Graph
}

// Opset imports the operators of a domain; "" is ONNX's own.
type Opset struct {
	Domain  string
	Version int64
}

// Graph is a list of nodes, each after those whose outputs it uses.
type Graph struct {
	Name         string
	Doc          string
	Nodes        []Node
	Initializers []Tensor
	Inputs       []ValueInfo
	Outputs      []ValueInfo
	Values       []ValueInfo // optional types of intermediate values
}

// Node is one operator call. An empty input name is an omitted optional input.
type Node struct {
	Name       string
	Op         string
	Domain     string
	Inputs     []string
	Outputs    []string
	Attributes []Attribute
}

// AttributeType tells which field of an Attribute counts.
type AttributeType int32

// The attribute types that are interpreted. Others are kept in Attribute.Raw.
const (
	AttrFloat   AttributeType = 1
	AttrInt     AttributeType = 2
	AttrString  AttributeType = 3
	AttrTensor  AttributeType = 4
	AttrFloats  AttributeType = 6
	AttrInts    AttributeType = 7
	AttrStrings AttributeType = 8
)

// Attribute is a constant parameter of a node.
type Attribute struct {
	Name    string
	Type    AttributeType
	F       float32
	I       int64
	S       []byte
	T       *Tensor
	Floats  []float32
	Ints    []int64
	Strings [][]byte
	// Raw is the whole AttributeProto when its type is none of the above
	// (subgraphs, sparse tensors). It is written back unread.
	Raw []byte
}

// ValueInfo names and types an input, output or intermediate value.
type ValueInfo struct {
	Name string
	Type DType // Undefined for what is no dense tensor
	Dims []Dim // nil when the rank is unknown
}

// Dim is one dimension: a size, or -1 with an optional symbol. Dimensions
// with the same symbol have the same size in one run.
type Dim struct {
	Size  int64
	Param string
}

// Fixed makes dimensions of known sizes.
func Fixed(sizes ...int64) []Dim {
	dims := make([]Dim, len(sizes))
	for i, s := range sizes {
		dims[i] = Dim{Size: s}
	}
	return dims
}

// Batched makes dimensions that start with the dynamic "batch".
func Batched(sizes ...int64) []Dim {
	return append([]Dim{{Size: -1, Param: "batch"}}, Fixed(sizes...)...)
}

// Shape is the dimensions' sizes, -1 where dynamic, nil for unknown rank.
func (v ValueInfo) Shape() []int64 {
	if v.Dims == nil {
		return nil
	}
	s := make([]int64, len(v.Dims))
	for i, d := range v.Dims {
		s[i] = d.Size
	}
	return s
}

// Limits bound decoding, compiling and running. Zero fields mean the defaults.
// The nesting of messages needs no limit: subgraphs are not descended into.
type Limits struct {
	MaxBytes        int   // encoded model; default 256 MiB
	MaxNodes        int   // default 10,000
	MaxInitializers int   // default 10,000
	MaxValues       int   // graph inputs, outputs and value infos together; default 50,000
	MaxNodeItems    int   // inputs, outputs or attributes of a node, attribute list entries; default 4,096
	MaxItems        int   // inputs, outputs and attributes of all nodes together; default 200,000
	MaxElements     int64 // of one tensor, in the file or while running; default 64 Mi
	MaxTotal        int64 // elements of all tensors in the file; default 128 Mi
	MaxRunElements  int64 // elements that one Run may produce; default 128 Mi
	MaxRank         int   // default 8
	MaxName         int   // bytes of a name; default 4 KiB
	MaxText         int   // bytes of a doc string or metadata value; default 1 MiB
	MaxMetadata     int   // entries; default 1,024
}

// WithDefaults replaces zero fields by the defaults.
func (l Limits) WithDefaults() Limits {
	set := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	set64 := func(p *int64, v int64) {
		if *p == 0 {
			*p = v
		}
	}
	set(&l.MaxBytes, 256<<20)
	set(&l.MaxNodes, 10_000)
	set(&l.MaxInitializers, 10_000)
	set(&l.MaxValues, 50_000)
	set(&l.MaxNodeItems, 4096)
	set(&l.MaxItems, 200_000)
	set64(&l.MaxElements, 64<<20)
	set64(&l.MaxTotal, 128<<20)
	set64(&l.MaxRunElements, 128<<20)
	set(&l.MaxRank, 8)
	set(&l.MaxName, 4<<10)
	set(&l.MaxText, 1<<20)
	set(&l.MaxMetadata, 1024)
	return l
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

func overLimit(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrLimit, fmt.Sprintf(format, args...))
}

func unsupported(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrUnsupported, fmt.Sprintf(format, args...))
}

func mismatch(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrShape, fmt.Sprintf(format, args...))
}
