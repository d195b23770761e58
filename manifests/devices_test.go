package manifests_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/edgetwin/sedna/cloud/controlplane/controlplanetest"
	"github.com/edgetwin/sedna/manifests"
)

// The sample devices are taken by a real API server with our copies of
// KubeEdge's definitions, no field unknown.
func TestDevicesAreValid(t *testing.T) {
	crds, err := manifests.CRDs()
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(controlplanetest.Start(t, crds...), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("devices/*.yaml")
	if err != nil || len(files) < 5 {
		t.Fatal(files, err)
	}
	kinds := map[string]int{}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		dec := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(b), 4096)
		for {
			u := &unstructured.Unstructured{}
			if err := dec.Decode(&u.Object); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if err := c.Create(t.Context(), u, client.FieldValidation("Strict")); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			kinds[u.GetKind()]++
		}
	}
	if kinds["Device"] < 5 || kinds["DeviceModel"] < 5 || len(kinds) != 2 {
		t.Errorf("%v", kinds)
	}
}
