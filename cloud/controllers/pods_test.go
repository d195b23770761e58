package controllers_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/edgetwin/sedna/cloud/controllers"
	"github.com/edgetwin/sedna/cloud/workload"
	sedna "github.com/edgetwin/sedna/models/sedna/v1alpha1"
	"github.com/edgetwin/sedna/models/task"
)

// The manifests that users of KubeEdge Sedna write become the objects that they
// know, with every variable.
func testPodsGolden(t *testing.T, s *space) {
	pods := controllers.Pods{Engine: &workload.Engine{}, Client: s.c, Render: workload.Renderer{Image: "sedna-globalmanager:v1"}, LocalController: "http://localhost:9100"}
	for name, url := range map[string]string{"detector-small": "/srv/models/small.pb", "detector": "https://models.example.com/big.pb",
		"features": "/srv/models/features.pt", "people": "/srv/models/people.pt", "defects": "/srv/models/defects/net.h5", "start": "s3://models/start.h5"} {
		s.create(&sedna.Model{ObjectMeta: metav1.ObjectMeta{Namespace: s.ns, Name: name}, Spec: sedna.ModelSpec{URL: url, Format: "pb"}})
	}
	for name, url := range map[string]string{"defects-1": "/srv/data/1/train.txt", "defects-2": "https://data.example.com/2/train.txt"} {
		s.create(&sedna.Dataset{ObjectMeta: metav1.ObjectMeta{Namespace: s.ns, Name: name}, Spec: sedna.DatasetSpec{URL: url, Format: "txt", NodeName: "edge1"}})
	}
	ji := &controllers.JointInference{Jobs: s.ji.Jobs, Cloud: s.cloud, Workers: pods}
	wishes := map[string]func(client.Object) (workload.Wish, error){task.KindJointInference: func(o client.Object) (workload.Wish, error) {
		return ji.Wish(t.Context(), o.(*sedna.JointInferenceService))
	}}
	for _, w := range controllers.WorkersOfAll(pods) {
		wishes[w.Kind()] = func(o client.Object) (workload.Wish, error) { return w.Wish(t.Context(), o) }
	}
	for kind, o := range map[string]client.Object{
		"JointInferenceService": &sedna.JointInferenceService{}, "FeatureExtractionService": &sedna.FeatureExtractionService{},
		"VideoAnalyticsJob": &sedna.VideoAnalyticsJob{}, "ReidJob": &sedna.ReidJob{}, "ObjectSearchService": &sedna.ObjectSearchService{},
		"ObjectTrackingService": &sedna.ObjectTrackingService{}, "FederatedLearningJob": &sedna.FederatedLearningJob{},
	} {
		text, err := os.ReadFile(filepath.Join("..", "..", "manifests", "samples", "reference", strings.ToLower(kind)+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.UnmarshalStrict(text, o); err != nil {
			t.Fatal(err)
		}
		o.SetNamespace(s.ns)
		o.SetUID("0b8e0c5e-0000-4000-8000-000000000001")
		if f, ok := o.(*sedna.FederatedLearningJob); ok {
			f.Spec.PretrainedModel = &sedna.PretrainedModel{Name: "start"}
			f.Spec.Transmitter = &sedna.Transmitter{S3: &sedna.S3Transmitter{AggregationDataPath: "s3://updates/defects"}}
		}
		wish, err := wishes[kind](o)
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		golden(t, filepath.Join("testdata", "pods", strings.ToLower(kind)+".yaml"), objects(t, wish))
	}
}

// objects writes a wish as a manifest.
func objects(t *testing.T, w workload.Wish) []byte {
	t.Helper()
	var all []client.Object
	for _, o := range w.Services {
		all = append(all, o)
	}
	for _, o := range w.Deployments {
		all = append(all, o)
	}
	for _, o := range w.Autoscalers {
		all = append(all, o)
	}
	for _, o := range w.Pods {
		all = append(all, o)
	}
	var out [][]byte
	for _, o := range all {
		b, err := yaml.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b)
	}
	return bytes.Join(out, []byte("---\n"))
}

// golden holds text against a file, or writes it with -update.
func golden(t *testing.T, path string, have []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, have, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(have)); diff != "" {
		t.Errorf("%s (-want +have):\n%s", path, diff)
	}
}

// What a manifest of a kind cannot have is told before anything is made.
func testPodsRefused(t *testing.T, s *space) {
	here := controllers.Pods{Engine: &workload.Engine{}, Client: s.c}
	s.create(&sedna.Model{ObjectMeta: metav1.ObjectMeta{Namespace: s.ns, Name: "stored"}, Spec: sedna.ModelSpec{URL: task.BlobURLPrefix + digest("a"), Format: "onnx"}})
	s.create(&sedna.Model{ObjectMeta: metav1.ObjectMeta{Namespace: s.ns, Name: "path"}, Spec: sedna.ModelSpec{URL: "/srv/m.onnx", Format: "onnx"}})
	template := `template: {spec: {containers: [{name: w, image: i}]}}`
	for name, c := range map[string]struct {
		pods controllers.Pods
		kind string
		spec string
		want string
	}{
		"NoCluster":      {controllers.Pods{Client: s.c}, "ReidJob", template, `NeedsPodRuntime: spec.template: container "w" needs a cluster`},
		"Process":        {here, "ReidJob", `template: {metadata: {annotations: {sedna.io/runtime: process}}, spec: {containers: [{name: w, image: i}]}}`, "NeedsPodRuntime: spec.template: container \"w\" is marked"},
		"Runtime":        {here, "ReidJob", `template: {metadata: {annotations: {sedna.io/runtime: vm}}, spec: {containers: [{name: w, image: i}]}}`, "expected pod or process"},
		"NoContainer":    {here, "ReidJob", `template: {spec: {containers: []}}`, "spec.template.spec.containers"},
		"NoModel":        {here, "FeatureExtractionService", `model: {name: none}, ` + template, "ModelNotFound: Model podsrefused/none"},
		"StoredModel":    {here, "FeatureExtractionService", `model: {name: stored}, ` + template, "blob store"},
		"NoAggregator":   {here, "FederatedLearningJob", `aggregationWorker: {model: {name: path}}, trainingWorkers: [{dataset: {name: d}, ` + template + `}]`, "spec.aggregationWorker.template"},
		"BuiltInClient":  {here, "FederatedLearningJob", `aggregationWorker: {model: {name: path}, ` + template + `}, trainingWorkers: [{dataset: {name: d}, trainer: {name: mlp}}]`, "spec.trainingWorkers[0].template"},
		"NoDataset":      {here, "FederatedLearningJob", `aggregationWorker: {model: {name: path}, ` + template + `}, trainingWorkers: [{dataset: {name: d}, ` + template + `}]`, "DatasetNotFound: Dataset podsrefused/d"},
		"SecondTracker":  {here, "ObjectTrackingService", `reidWorkers: {` + template + `}, trackingWorkers: [{` + template + `}, {template: {spec: {containers: [{name: w, image: 5}]}}}]`, "spec.trackingWorkers[1].template: invalid_argument: spec.containers[0].image"},
		"DeploymentPart": {here, "FeatureExtractionService", `model: {name: path}, strategy: {type: 5}, ` + template, "spec: invalid_argument: strategy.type"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, w := range controllers.WorkersOfAll(c.pods) {
				if w.Kind() != c.kind {
					continue
				}
				o := map[string]client.Object{"ReidJob": &sedna.ReidJob{}, "FeatureExtractionService": &sedna.FeatureExtractionService{},
					"FederatedLearningJob": &sedna.FederatedLearningJob{}, "ObjectTrackingService": &sedna.ObjectTrackingService{}}[c.kind]
				if err := yaml.UnmarshalStrict([]byte("{metadata: {name: x, namespace: "+s.ns+"}, spec: {"+c.spec+"}}"), o); err != nil {
					t.Fatal(err)
				}
				if _, err := w.Wish(t.Context(), o); err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want %q", err, c.want)
				}
			}
		})
	}
}
