package onnx

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestOfficialCases runs ONNX's published per-operator cases. ONNX_TESTDATA
// names the directory that holds them, one folder per case with model.onnx and
// test_data_set_*/{input,output}_*.pb: Debian's libonnx-testdata has it as
// /usr/share/libonnx-testdata/data/node.
func TestOfficialCases(t *testing.T) {
	root := os.Getenv("ONNX_TESTDATA")
	if root == "" {
		t.Skip("ONNX_TESTDATA is not set; it names data/node of Debian's libonnx-testdata")
	}
	cases, err := filepath.Glob(filepath.Join(root, "test_*", "model.onnx"))
	if err != nil || len(cases) == 0 {
		t.Fatalf("no cases in %s: %v", root, err)
	}
	passed, other := 0, 0
	var refused []string
	for _, path := range cases {
		dir := filepath.Dir(path)
		name := strings.TrimPrefix(filepath.Base(dir), "test_")
		err := officialCase(dir)
		switch {
		case err == nil:
			passed++
		case errors.Is(err, ErrUnsupported) && !onlyOurs(path):
			other++
		case errors.Is(err, ErrUnsupported):
			refused = append(refused, fmt.Sprintf("%s: %v", name, err))
		default:
			t.Errorf("%s: %v", name, err)
		}
	}
	t.Logf("%d cases: %d passed, %d of other operators", len(cases), passed, other)
	t.Logf("%d of our operators refused:\n%s", len(refused), strings.Join(refused, "\n"))
	for _, r := range refused {
		// What is left out on purpose: element types that are not dense
		// numbers, and training.
		if !slices.ContainsFunc([]string{"string", "bfloat16", "element type bool", "element type float16", "undefined", "dtype(", "training", "STRING"}, func(s string) bool {
			return strings.Contains(r, s)
		}) {
			t.Errorf("refused without a stated reason: %s", r)
		}
	}
}

// onlyOurs says whether all operators of a model are ones we have. A model
// that does not even decode is judged by its folder's name.
func onlyOurs(path string) bool {
	b, err := os.ReadFile(path)
	if err != nil {
		return true
	}
	m, err := Decode(b, Limits{})
	if err != nil {
		return true
	}
	for _, n := range m.Graph.Nodes {
		if _, ok := operators[n.Op]; !ok || !defaultDomain(n.Domain) {
			return false
		}
	}
	return true
}

func officialCase(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, "model.onnx"))
	if err != nil {
		return err
	}
	m, err := Decode(b, Limits{})
	if err != nil {
		return err
	}
	again, err := Encode(m)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	if m, err = Decode(again, Limits{}); err != nil {
		return fmt.Errorf("decode what was encoded: %w", err)
	}
	p, err := Compile(m, Limits{})
	if err != nil {
		return err
	}
	sets, err := filepath.Glob(filepath.Join(dir, "test_data_set_*"))
	if err != nil || len(sets) == 0 {
		return fmt.Errorf("no data: %v", err)
	}
	for _, set := range sets {
		var in []Tensor
		for i, info := range p.Inputs() {
			t, err := readTensor(filepath.Join(set, fmt.Sprintf("input_%d.pb", i)))
			if err != nil {
				return err
			}
			t.Name = info.Name
			in = append(in, t)
		}
		out, err := p.Run(context.Background(), in)
		if err != nil {
			return err
		}
		for i := range out {
			want, err := readTensor(filepath.Join(set, fmt.Sprintf("output_%d.pb", i)))
			if err != nil {
				return err
			}
			if err := compare(out[i], want); err != nil {
				return fmt.Errorf("output %d: %w", i, err)
			}
		}
	}
	return nil
}

func readTensor(path string) (Tensor, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Tensor{}, err
	}
	return DecodeTensor(b, Limits{})
}

// compare uses the tolerances of ONNX's own backend tests.
func compare(got, want Tensor) error {
	if got.Type != want.Type || !slices.Equal(got.Shape, want.Shape) {
		return fmt.Errorf("%v %v, want %v %v", got.Type, got.Shape, want.Type, want.Shape)
	}
	a, b := toFloat64s(valueOf(&got), got.Type), toFloat64s(valueOf(&want), want.Type)
	for i := range b {
		if math.IsNaN(a[i]) && math.IsNaN(b[i]) || a[i] == b[i] {
			continue
		}
		if diff := math.Abs(a[i] - b[i]); !(diff <= 1e-7+1e-3*math.Abs(b[i])) {
			return fmt.Errorf("element %d is %v, want %v", i, a[i], b[i])
		}
	}
	return nil
}
