package manifests_test

import (
	"encoding/json"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/edgetwin/sedna/manifests"
	sedna "github.com/edgetwin/sedna/models/sedna/v1alpha1"
)

// Limits of the definitions: the API server holds each of them several times
// over, and etcd takes at most 1.5 MiB.
const (
	maxDefinition  = 64 << 10
	maxDefinitions = 320 << 10
)

func TestDefinitions(t *testing.T) {
	crds, err := manifests.CRDs()
	if err != nil {
		t.Fatal(err)
	}
	scheme := runtime.NewScheme()
	if err := sedna.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	shortNames := map[string]string{
		"JointInferenceService": "ji", "IncrementalLearningJob": "il", "FederatedLearningJob": "fl", "LifelongLearningJob": "ll",
		"ObjectSearchService": "objs", "ObjectTrackingService": "objt", "FeatureExtractionService": "fe", "VideoAnalyticsJob": "va", "ReidJob": "reid",
		"Dataset": "", "Model": "",
	}
	seen, total := 0, 0
	for _, crd := range crds {
		if crd.Spec.Group != "sedna.io" {
			continue
		}
		seen++
		kind, v := crd.Spec.Names.Kind, crd.Spec.Versions[0]
		short, known := shortNames[kind]
		if !known || short == "" && len(crd.Spec.Names.ShortNames) != 0 || short != "" && !slices.Equal(crd.Spec.Names.ShortNames, []string{short}) {
			t.Errorf("%s: short names %v, want %q", kind, crd.Spec.Names.ShortNames, short)
		}
		if !slices.Contains(crd.Spec.Names.Categories, "sedna") || crd.Spec.Scope != "Namespaced" || v.Subresources == nil || v.Subresources.Status == nil {
			t.Errorf("%s: category, scope or status subresource", kind)
		}
		var columns []string
		for _, c := range v.AdditionalPrinterColumns {
			columns = append(columns, c.Name)
		}
		for _, name := range []string{"Ready", "Reason", "Age"} {
			if !slices.Contains(columns, name) {
				t.Errorf("%s: no column %s in %v", kind, name, columns)
			}
		}
		for _, k := range []string{kind, crd.Spec.Names.ListKind} {
			if !scheme.Recognizes(sedna.GroupVersion.WithKind(k)) {
				t.Errorf("the scheme does not know %s", k)
			}
		}
		b, err := json.Marshal(crd)
		if err != nil {
			t.Fatal(err)
		}
		if total += len(b); len(b) > maxDefinition {
			t.Errorf("%s: %d bytes, at most %d", kind, len(b), maxDefinition)
		}
	}
	if seen != len(shortNames) || total > maxDefinitions {
		t.Errorf("%d kinds with %d bytes, want %d with at most %d", seen, total, len(shortNames), maxDefinitions)
	}
	t.Logf("%d kinds with %d bytes", seen, total)
}
