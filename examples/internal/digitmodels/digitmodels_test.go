package digitmodels

import (
	"context"
	"testing"

	"github.com/edgetwin/sedna/lib/dataset/digits"
	"github.com/edgetwin/sedna/lib/onnx"
	"github.com/edgetwin/sedna/lib/train"
)

// TestBuild holds the models to their point: a weak edge model, a good cloud
// model, and a cascade that gains more than chance by what it sends.
func TestBuild(t *testing.T) {
	for seed := int64(1); seed <= 3; seed++ {
		edge, cloud, r, err := Build(seed)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("seed %d: %+v", seed, r)
		if r.Edge < .75 || r.Edge > .90 || r.Cloud < .965 || r.Offload < .20 || r.Offload > .35 || r.Cascade < r.Random+.03 {
			t.Errorf("seed %d: %+v", seed, r)
		}
		if got := onnxAccuracy(t, edge); got != r.Edge {
			t.Errorf("seed %d: the edge model as ONNX has accuracy %.3f, trained %.3f", seed, got, r.Edge)
		}
		if got := onnxAccuracy(t, cloud); got != r.Cloud {
			t.Errorf("seed %d: the cloud model as ONNX has accuracy %.3f, trained %.3f", seed, got, r.Cloud)
		}
	}
}

func onnxAccuracy(t *testing.T, m *onnx.Model) float64 {
	t.Helper()
	p, err := onnx.Compile(m, onnx.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	set, err := digits.Load()
	if err != nil {
		t.Fatal(err)
	}
	_, out := set.Split()
	held := digitsData(set, out)
	got, err := p.Run(context.Background(), []onnx.Tensor{onnx.New("input", []int64{int64(held.Len()), digits.Pixels}, held.X)})
	if err != nil {
		t.Fatal(err)
	}
	right := 0
	for i, label := range held.Y {
		right += oneIf(train.Best(got[0].Float32s()[i*digits.Classes:(i+1)*digits.Classes]) == label)
	}
	return float64(right) / float64(held.Len())
}
