// Package digitmodels trains the two models that read handwritten digits in the
// examples: one for the edge and one for the cloud.
package digitmodels

import (
	"context"
	"fmt"

	"github.com/edgetwin/sedna/lib/algorithms/hardexample"
	"github.com/edgetwin/sedna/lib/dataset/digits"
	"github.com/edgetwin/sedna/lib/onnx"
	"github.com/edgetwin/sedna/lib/train"
)

// Labels of the models' classes, in the order of their output.
const Labels = "0,1,2,3,4,5,6,7,8,9"

// Threshold is the CrossEntropy threshold that Build measures with: the
// algorithm's default, at which about a quarter of the digits are hard for the
// edge model.
const Threshold = 0.5

// Report is how the two models do on the held-out digits, as shares of
// them.
type Report struct {
	Samples int     // held out
	Edge    float64 // accuracy of the edge model alone
	Cloud   float64 // accuracy of the cloud model alone
	Cascade float64 // accuracy when hard examples go to the cloud
	Offload float64 // share of hard examples at Threshold
	Random  float64 // expected accuracy when as many examples go at random
}

// Build trains the two models, which take the same input:
// "input", FP32 [batch,64], pixels in [0,1]. The edge model sees them averaged
// to 4×4, inside its graph, and is a softmax regression of 170 weights; the
// cloud model is a network of 64-128-10. It takes about half a second.
func Build(seed int64) (edge, cloud *onnx.Model, report Report, err error) {
	set, err := digits.Load()
	if err != nil {
		return nil, nil, report, err
	}
	in, out := set.Split()
	data, held := digitsData(set, in), digitsData(set, out)

	small, err := train.New(seed, digits.PooledSide*digits.PooledSide, digits.Classes)
	if err != nil {
		return nil, nil, report, err
	}
	if err := small.SetFront(digits.PoolWeights()); err != nil {
		return nil, nil, report, err
	}
	if _, err := train.Train(context.Background(), small, data, train.Config{
		Epochs: 30, LearningRate: 0.1, Momentum: 0.9, Seed: seed,
	}); err != nil {
		return nil, nil, report, fmt.Errorf("edge model: %w", err)
	}
	large, err := train.New(seed, digits.Pixels, 128, digits.Classes)
	if err != nil {
		return nil, nil, report, err
	}
	if _, err := train.Train(context.Background(), large, data, train.Config{
		Epochs: 50, LearningRate: 0.1, Momentum: 0.9, WeightDecay: 1e-3, Seed: seed,
	}); err != nil {
		return nil, nil, report, fmt.Errorf("cloud model: %w", err)
	}
	if report, err = compareModels(small, large, held); err != nil {
		return nil, nil, report, err
	}
	labels := map[string]string{"labels": Labels}
	edge = small.Export(train.ExportOptions{Name: "digits-edge", Metadata: labels})
	cloud = large.Export(train.ExportOptions{Name: "digits-cloud", Metadata: labels})
	return edge, cloud, report, nil
}

func digitsData(set *digits.Dataset, indices []int) train.Data {
	x, y := set.Select(indices)
	return train.Data{X: x, Features: digits.Pixels, Y: y}
}

// compareModels runs the cascade over the held-out samples.
func compareModels(edge, cloud *train.Network, held train.Data) (Report, error) {
	miner, err := hardexample.New("CrossEntropy", map[string]string{"threshold_cross_entropy": fmt.Sprint(Threshold)})
	if err != nil {
		return Report{}, err
	}
	small, err := edge.Probabilities(held)
	if err != nil {
		return Report{}, err
	}
	large, err := cloud.Probabilities(held)
	if err != nil {
		return Report{}, err
	}
	var edgeRight, cloudRight, cascadeRight, hard int
	for i, label := range held.Y {
		at, to := i*digits.Classes, (i+1)*digits.Classes
		onEdge, inCloud := train.Best(small[at:to]) == label, train.Best(large[at:to]) == label
		answer := onEdge
		if miner.Decide(hardexample.Output{Probabilities: small[at:to]}).Hard {
			hard++
			answer = inCloud
		}
		edgeRight += oneIf(onEdge)
		cloudRight += oneIf(inCloud)
		cascadeRight += oneIf(answer)
	}
	n := float64(held.Len())
	r := Report{
		Samples: held.Len(),
		Edge:    float64(edgeRight) / n, Cloud: float64(cloudRight) / n,
		Cascade: float64(cascadeRight) / n, Offload: float64(hard) / n,
	}
	r.Random = r.Edge + r.Offload*(r.Cloud-r.Edge)
	return r, nil
}

func oneIf(b bool) int {
	if b {
		return 1
	}
	return 0
}
