package demo

import (
	"fmt"

	"github.com/edgetwin/sedna/examples/internal/digitmodels"
	"github.com/edgetwin/sedna/lib/dataset/digits"
	"github.com/edgetwin/sedna/lib/onnx"
)

// BuildModels trains the two models of the demo, see digitmodels.Build.
func BuildModels(seed int64) (edge, cloud *onnx.Model, report digitmodels.Report, err error) {
	return digitmodels.Build(seed)
}

// SamplePNG gives the i-th held-out digit as a picture, and its label.
func SamplePNG(i int) (png []byte, label string, err error) {
	set, err := digits.Load()
	if err != nil {
		return nil, "", err
	}
	_, held := set.Split()
	png, err = set.PNG(held[i])
	return png, fmt.Sprint(set.Y[held[i]]), err
}
