package controlplane_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/edgetwin/sedna/cloud/controlplane/controlplanetest"
)

// TestServer runs what needs no server of its own against one.
func TestServer(t *testing.T) {
	t.Parallel()
	ca := controlplanetest.NewCA(t)
	s := controlplanetest.StartServer(t, ca, t.TempDir(), widgetCRD(t))
	admin := ca.ClientConfig(t, s.Addr(), "admin", "system:masters")

	t.Run("auth", func(t *testing.T) { testAuth(t, ca, s.Addr()) })
	t.Run("discovery", func(t *testing.T) { testDiscovery(t, admin) })
	t.Run("lifecycle", func(t *testing.T) { testLifecycle(t, admin) })
	t.Run("watch", func(t *testing.T) { testWatch(t, admin) })
	t.Run("validation", func(t *testing.T) { testValidation(t, admin) })
	t.Run("defaults", func(t *testing.T) { testDefaults(t, admin) })
	t.Run("status", func(t *testing.T) { testStatus(t, admin) })
	t.Run("apply", func(t *testing.T) { testApply(t, admin) })
	t.Run("finalizer", func(t *testing.T) { testFinalizer(t, admin) })
	t.Run("large", func(t *testing.T) { testLarge(t, admin) })
	t.Run("kubectl", func(t *testing.T) { testKubectl(t, ca, s.Addr()) })
}

func crdClient(t testing.TB, cfg *rest.Config) dynamic.ResourceInterface {
	t.Helper()
	client, err := dynamic.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return client.Resource(apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions"))
}

// testDiscovery adds a CRD while the server runs and finds it, in both forms of discovery and in OpenAPI, then removes it.
func testDiscovery(t *testing.T, cfg *rest.Config) {
	ctx := t.Context()
	aggregated, err := discovery.NewDiscoveryClientForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := discovery.NewDiscoveryClientForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	plain.UseLegacyDiscovery = true

	crd := widgetCRD(t)
	crd.TypeMeta = metav1.TypeMeta{APIVersion: "apiextensions.k8s.io/v1", Kind: "CustomResourceDefinition"}
	crd.Name = "gears.late.sedna.io"
	crd.Spec.Group = "late.sedna.io"
	crd.Spec.Names = apiextensionsv1.CustomResourceDefinitionNames{Plural: "gears", Singular: "gear", Kind: "Gear", ListKind: "GearList"}
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(crd)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := crdClient(t, cfg).Create(ctx, &unstructured.Unstructured{Object: object}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, client := range map[string]*discovery.DiscoveryClient{"aggregated": aggregated, "plain": plain} {
		eventually(t, name+" discovery of a CRD added later", func() bool {
			_, lists, err := client.ServerGroupsAndResources()
			return err == nil && hasResource(lists, "late.sedna.io/v1", "gears") && hasResource(lists, "test.sedna.io/v1", "widgets") &&
				hasResource(lists, "apiextensions.k8s.io/v1", "customresourcedefinitions")
		})
	}
	eventually(t, "OpenAPI v3 of a CRD added later", func() bool {
		paths, err := plain.OpenAPIV3().Paths()
		return err == nil && paths["apis/late.sedna.io/v1"] != nil
	})
	eventually(t, "OpenAPI v2 of a CRD added later", func() bool {
		doc, err := plain.OpenAPISchema()
		return err == nil && strings.Contains(doc.String(), "io.sedna.late.v1.Gear")
	})
	if err := crdClient(t, cfg).Delete(ctx, crd.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a deleted CRD to leave discovery", func() bool {
		groups, err := plain.ServerGroups()
		return err == nil && !slices.ContainsFunc(groups.Groups, func(g metav1.APIGroup) bool { return g.Name == "late.sedna.io" })
	})
}

func testLifecycle(t *testing.T, cfg *rest.Config) {
	ctx := t.Context()
	client := widgetsIn(t, cfg, "lifecycle")
	start := time.Now()
	obj, err := client.Create(ctx, newWidget("w", map[string]any{"size": int64(5)}), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 1500*time.Millisecond {
		t.Errorf("the first create took %v: it was held back for replicas that do not exist", took)
	}
	stale := obj.DeepCopy()
	obj.Object["spec"] = map[string]any{"size": int64(6)}
	if obj, err = client.Update(ctx, obj, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Update(ctx, stale, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Fatalf("stale update: %v, want a conflict", err)
	}
	if obj.GetGeneration() != 2 {
		t.Errorf("generation %d after a change of the spec, want 2", obj.GetGeneration())
	}
	if _, err := client.Patch(ctx, "w", types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	list, err := client.List(ctx, metav1.ListOptions{LabelSelector: "a=b"})
	if err != nil || len(list.Items) != 1 {
		t.Fatalf("list by label: %v, %v", list, err)
	}
	foreground := metav1.DeletePropagationForeground
	if err := client.Delete(ctx, "w", metav1.DeleteOptions{PropagationPolicy: &foreground}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Get(ctx, "w", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Fatalf("get after delete: %v, want not found", err)
	}
}

func testWatch(t *testing.T, cfg *rest.Config) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	client := widgetsIn(t, cfg, "watch")
	list, err := client.List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w, err := client.Watch(ctx, metav1.ListOptions{ResourceVersion: list.GetResourceVersion()})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if _, err := client.Create(ctx, newWidget("w", map[string]any{}), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Patch(ctx, "w", types.JSONPatchType, []byte(`[{"op":"replace","path":"/spec/size","value":9}]`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := client.Delete(ctx, "w", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []watch.EventType{watch.Added, watch.Modified, watch.Deleted} {
		select {
		case e := <-w.ResultChan():
			if e.Type != want {
				t.Fatalf("event %s, want %s", e.Type, want)
			}
		case <-ctx.Done():
			t.Fatalf("no event %s", want)
		}
	}
}

func testValidation(t *testing.T, cfg *rest.Config) {
	client := widgetsIn(t, cfg, "validation")
	for name, c := range map[string]struct {
		spec   map[string]any
		strict bool
		want   string
	}{
		"cel rule":      {spec: map[string]any{"size": int64(9), "max": int64(4)}, want: "spec.size: Invalid value: size must not exceed max"},
		"schema":        {spec: map[string]any{"size": int64(-1)}, want: "spec.size: Invalid value: -1"},
		"type":          {spec: map[string]any{"size": "big"}, want: "spec.size: Invalid value"},
		"duplicate key": {spec: map[string]any{"parts": []any{map[string]any{"name": "a"}, map[string]any{"name": "a"}}}, want: "spec.parts[1]: Duplicate value"},
		"unknown field": {spec: map[string]any{"colour": "blue"}, strict: true, want: `unknown field "spec.colour"`},
	} {
		t.Run(name, func(t *testing.T) {
			options := metav1.CreateOptions{}
			if c.strict {
				options.FieldValidation = metav1.FieldValidationStrict
			}
			_, err := client.Create(t.Context(), newWidget("w", c.spec), options)
			if err == nil {
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %q does not contain %q", err, c.want)
			}
		})
	}
}

func testDefaults(t *testing.T, cfg *rest.Config) {
	obj, err := widgetsIn(t, cfg, "defaults").Create(t.Context(), newWidget("w", map[string]any{
		"colour":   "blue",
		"template": map[string]any{"anything": "goes"},
	}), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if size := field(t, obj, "spec", "size"); size != int64(3) {
		t.Errorf("size %v, want the default 3", size)
	}
	if colour := field(t, obj, "spec", "colour"); colour != nil {
		t.Errorf("unknown field kept: %v", colour)
	}
	if kept := field(t, obj, "spec", "template", "anything"); kept != "goes" {
		t.Errorf("preserved unknown field lost: %v", kept)
	}
}

func testStatus(t *testing.T, cfg *rest.Config) {
	ctx := t.Context()
	client := widgetsIn(t, cfg, "status")
	w := newWidget("w", map[string]any{"size": int64(1)})
	w.Object["status"] = map[string]any{"phase": "Smuggled"}
	obj, err := client.Create(ctx, w, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if phase := field(t, obj, "status", "phase"); phase != nil {
		t.Errorf("create set the status: %v", phase)
	}
	obj.Object["status"] = map[string]any{"phase": "Running"}
	obj.Object["spec"] = map[string]any{"size": int64(2)}
	if obj, err = client.UpdateStatus(ctx, obj, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if phase, size := field(t, obj, "status", "phase"), field(t, obj, "spec", "size"); phase != "Running" || size != int64(1) || obj.GetGeneration() != 1 {
		t.Errorf("after a status update: phase %v, size %v, generation %d; want Running, 1, 1", phase, size, obj.GetGeneration())
	}
}

func testApply(t *testing.T, cfg *rest.Config) {
	ctx := t.Context()
	client := widgetsIn(t, cfg, "apply")
	part := func(name string, count int64) map[string]any { return map[string]any{"name": name, "count": count} }
	apply := func(manager string, force bool, parts ...any) (*unstructured.Unstructured, error) {
		return client.Apply(ctx, "w", newWidget("w", map[string]any{"parts": parts}), metav1.ApplyOptions{FieldManager: manager, Force: force})
	}
	if _, err := apply("one", false, part("a", 1)); err != nil {
		t.Fatal(err)
	}
	obj, err := apply("two", false, part("b", 2))
	if err != nil {
		t.Fatal(err)
	}
	if parts := field(t, obj, "spec", "parts").([]any); len(parts) != 2 {
		t.Fatalf("two managers' parts: %v, want both", parts)
	}
	if _, err := apply("two", false, part("a", 5), part("b", 2)); !apierrors.IsConflict(err) {
		t.Fatalf("applying over another manager: %v, want a conflict", err)
	}
	if obj, err = apply("two", true, part("a", 5)); err != nil {
		t.Fatal(err)
	}
	if parts := field(t, obj, "spec", "parts").([]any); len(parts) != 1 {
		t.Fatalf("parts %v, want b gone with its only manager's interest", parts)
	}
	version := obj.GetResourceVersion()
	if obj, err = apply("two", false, part("a", 5)); err != nil || obj.GetResourceVersion() != version {
		t.Fatalf("applying the same again wrote: %v", err)
	}
}

func testFinalizer(t *testing.T, cfg *rest.Config) {
	ctx := t.Context()
	client := widgetsIn(t, cfg, "finalizer")
	w := newWidget("w", map[string]any{})
	w.SetFinalizers([]string{"sedna.io/task-cleanup"})
	if _, err := client.Create(ctx, w, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := client.Delete(ctx, "w", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	obj, err := client.Get(ctx, "w", metav1.GetOptions{})
	if err != nil || obj.GetDeletionTimestamp() == nil {
		t.Fatalf("with a finalizer: %v, %v; want it there and marked", obj, err)
	}
	if _, err := client.Patch(ctx, "w", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Get(ctx, "w", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Fatalf("without the finalizer: %v, want not found", err)
	}
}

// testLarge stores what the largest task document needs, and is told when a document is too large.
func testLarge(t *testing.T, cfg *rest.Config) {
	client := widgetsIn(t, cfg, "large")
	create := func(name string, bytes int) error {
		spec := map[string]any{"template": map[string]any{"text": strings.Repeat("x", bytes)}}
		_, err := client.Create(t.Context(), newWidget(name, spec), metav1.CreateOptions{})
		return err
	}
	if err := create("mebibyte", 1<<20); err != nil {
		t.Error(err)
	}
	if err := create("too-large", 4<<20); !apierrors.IsRequestEntityTooLargeError(err) {
		t.Errorf("4 MiB: %v, want too large", err)
	}
}

func hasResource(lists []*metav1.APIResourceList, gv, name string) bool {
	return slices.ContainsFunc(lists, func(l *metav1.APIResourceList) bool {
		return l.GroupVersion == gv && slices.ContainsFunc(l.APIResources, func(r metav1.APIResource) bool { return r.Name == name })
	})
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) {
		return ok(), nil
	})
	if err != nil {
		t.Fatalf("waited in vain for %s", what)
	}
}
