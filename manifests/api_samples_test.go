package manifests_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/edgetwin/sedna/manifests"
)

// ownKinds are Sedna's own.
func ownKinds(t *testing.T) []string {
	t.Helper()
	crds, err := manifests.CRDs()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, crd := range crds {
		if crd.Spec.Group == "sedna.io" {
			out = append(out, crd.Spec.Names.Kind)
		}
	}
	return out
}

// testSamples applies the samples, of which there is one of each kind in either form.
func testSamples(t *testing.T, c client.Client) {
	for _, form := range []string{"sedna", "reference"} {
		files, err := filepath.Glob(filepath.Join("samples", form, "*.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		var have []string
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			o := parse(t, "", "", string(b))
			o.SetNamespace("samples")
			have = append(have, o.GetKind())
			if err := client.WithFieldValidation(c, metav1.FieldValidationStrict).Create(t.Context(), o, client.DryRunAll); err != nil {
				t.Errorf("%s: %v", f, err)
			}
		}
		want := ownKinds(t)
		slices.Sort(have)
		slices.Sort(want)
		if !slices.Equal(have, want) {
			t.Errorf("samples/%s: of the kinds %v, want %v", form, have, want)
		}
	}
}
