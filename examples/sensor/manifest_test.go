package main

import (
	"slices"
	"testing"

	"sigs.k8s.io/yaml"

	sedna "github.com/edgetwin/sedna/models/sedna/v1alpha1"
)

// TestManifestFitsTheModel holds the service's input to what the model is
// trained on.
func TestManifestFitsTheModel(t *testing.T) {
	var s sedna.JointInferenceService
	if err := yaml.UnmarshalStrict(serviceManifest, &s); err != nil {
		t.Fatal(err)
	}
	if len(s.Spec.EdgeWorker.Inputs) != 1 {
		t.Fatalf("inputs %+v", s.Spec.EdgeWorker.Inputs)
	}
	in := s.Spec.EdgeWorker.Inputs[0]
	var order []string
	for _, source := range in.Sources {
		order = append(order, source.Property)
	}
	if in.Window != window || in.Stride != stride || !slices.Equal(order, []string{"vibration", "temperature", "pressure"}) {
		t.Errorf("window %d, stride %d, sources %v", in.Window, in.Stride, order)
	}
}
