package manifests_test

import (
	"context"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	sedna "github.com/edgetwin/sedna/models/sedna/v1alpha1"
	"github.com/edgetwin/sedna/models/wire"
)

// testNonsense puts objects into the API server whose templates cannot be read
// as what they are meant to be. An informer lists them and those beside them
// all the same, and Decode says what is wrong.
func testNonsense(t *testing.T, cfg *rest.Config) {
	scheme := runtime.NewScheme()
	if err := sedna.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(cfg, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	const namespace = "nonsense"
	strict := client.WithFieldValidation(c, metav1.FieldValidationStrict)
	want := map[string]string{}
	create := func(name, field, text string) {
		t.Helper()
		o := parse(t, "FeatureExtractionService", name, text)
		o.SetNamespace(namespace)
		if err := strict.Create(t.Context(), o); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want[name] = field
	}
	container := func(c string) string {
		return `spec: {model: {name: m}, template: {spec: {containers: [{name: w, image: i, ` + c + `}]}}}`
	}
	create("good", "", container(`ports: [{containerPort: 80}]`))
	create("probe", "template.spec.containers[0].livenessProbe.httpGet", container(`livenessProbe: {httpGet: 5}`))
	create("quantity", "template.spec.containers[0].resources.limits[memory]", container(`resources: {limits: {memory: much}}`))
	create("priority", "template.spec.priority", `spec: {model: {name: m}, template: {spec: {priority: 99999999999, containers: [{name: w, image: i}]}}}`)
	create("unknown", "template.spec.containers[0].securityContext.root", container(`securityContext: {root: true}`))
	create("strategy", "strategy.rollingUpdate", `spec: {model: {name: m}, strategy: {rollingUpdate: soon}, `+worker+`}`)

	informers, err := cache.New(cfg, cache.Options{Scheme: scheme, DefaultNamespaces: map[string]cache.Config{namespace: {}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	done := make(chan error, 1)
	go func() { done <- informers.Start(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	if !informers.WaitForCacheSync(ctx) {
		t.Fatal("the informers do not start")
	}
	var list sedna.FeatureExtractionServiceList
	if err := informers.List(ctx, &list); err != nil {
		t.Fatal(err)
	}
	if len(list.Items) != len(want) {
		t.Errorf("%d objects are listed, want %d", len(list.Items), len(want))
	}
	for _, o := range list.Items {
		_, err := o.Spec.DeploymentFields.Decode()
		if field := want[o.Name]; field == "" {
			if err != nil {
				t.Errorf("%s: %v", o.Name, err)
			}
		} else if err == nil || wire.AsError(err).Field != field || !strings.HasPrefix(err.Error(), string(wire.InvalidArgument)) {
			t.Errorf("%s: %v, want one at %s", o.Name, err, field)
		}
	}
}
