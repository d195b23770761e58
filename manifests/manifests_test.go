package manifests_test

import (
	"fmt"
	"maps"
	"os"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/edgetwin/sedna/cloud/controlplane/controlplanetest"
	"github.com/edgetwin/sedna/manifests"
)

// parse reads a manifest; spec alone gets a header.
func parse(t *testing.T, kind, name, text string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{Object: map[string]any{}}
	if err := yaml.Unmarshal([]byte(text), &o.Object); err != nil {
		t.Fatal(err)
	}
	if o.GetKind() == "" {
		o.SetAPIVersion("sedna.io/v1alpha1")
		o.SetKind(kind)
		o.SetName(name)
	}
	if o.GetNamespace() == "" {
		o.SetNamespace("default")
	}
	return o
}

const hex64 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// The minimal documents of the reference system, to the letter.
const (
	referenceDataset = `spec: {url: /srv/a/list.txt, format: txt, nodeName: edge-a}`
	referenceModel   = `spec: {url: /srv/m/a.pt, format: pt}`
	referenceJI      = `
  spec:
    edgeWorker: {model: {name: small}, hardExampleMining: {name: IBT}, template: {spec: {nodeName: edge-a, containers: [{name: w, image: i/a}]}}}
    cloudWorker: {model: {name: big}, template: {spec: {containers: [{name: w, image: i/b}]}}}
`
)

// fullReferenceJI has what the reference system's examples use besides.
const fullReferenceJI = `
spec:
  edgeWorker:
    model: {name: small}
    hardExampleMining:
      name: MyOwnRule
      parameters:
        - {key: threshold_img, value: "0.9"}
        - {key: any, value: "not a number"}
    hpa:
      maxReplicas: 2
      metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]
    template:
      metadata: {labels: {a: b}}
      spec:
        nodeSelector: {kubernetes.io/hostname: edge-a}
        dnsPolicy: ClusterFirstWithHostNet
        containers:
          - name: infer
            image: i/a
            imagePullPolicy: IfNotPresent
            env: [{name: input_shape, value: "416,736"}]
            ports: [{containerPort: 5000, protocol: TCP}]
            resources: {requests: {memory: 64M, cpu: 100m}, limits: {memory: 2Gi}}
            volumeMounts: [{name: out, mountPath: /data/}]
        volumes: [{name: out, hostPath: {path: /joint, type: Directory}}]
  cloudWorker:
    model: {name: big}
    hpa: {minReplicas: 1, maxReplicas: 3}
    template: {spec: {nodeName: master, dnsPolicy: ClusterFirstWithHostNet, containers: [{name: w, image: i/b}]}}
`

// ji gives a service whose workers are as named; the rest is good.
func ji(edge, cloud string) string {
	if !strings.Contains(edge, "model:") {
		edge += ", model: {name: small}"
	}
	if !strings.Contains(edge, "hardExampleMining:") {
		edge += ", hardExampleMining: {name: EdgeOnly}"
	}
	if !strings.Contains(cloud, "model:") {
		cloud = strings.TrimPrefix(cloud+", model: {name: big}", ", ")
	}
	return fmt.Sprintf("spec: {edgeWorker: {%s}, cloudWorker: {%s}}", edge, cloud)
}

func model(more string) string {
	return "spec: {url: /m.onnx, format: onnx, " + more + "}"
}

func preprocess(more string) string {
	return model("preprocess: {width: 8, height: 8, " + more + "}")
}

type document struct {
	kind, name, text string
	words            []string // in the refusal; none: it is taken
}

func documents(t *testing.T) map[string]document {
	read := func(path string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	const (
		jiKind = "JointInferenceService"
		at     = "nodeName: edge1"
	)
	threshold := func(value string) string {
		return ji(at+", hardExampleMining: {name: Threshold, parameters: [{key: threshold, value: "+value+"}]}", "")
	}
	input := func(rest string) string { return ji(at+", inputs: [{tensor: x, "+rest+"}]", "") }
	long := func(n int) string { return strings.Repeat("a", n) }
	docs := map[string]document{
		"reference Dataset":                {kind: "Dataset", text: referenceDataset},
		"reference Model":                  {kind: "Model", text: referenceModel},
		"reference JointInferenceService":  {kind: jiKind, text: referenceJI},
		"full reference document":          {kind: jiKind, text: fullReferenceJI},
		"reference Dataset and credential": {kind: "Dataset", text: `spec: {url: s3://b/list.csv, format: csv, nodeName: edge-a, credentialName: mysecret}`},
		"reference Model and SoC":          {kind: "Model", text: `spec: {url: s3://b/m, format: ckpt, device_soc_versions: [Ascend310], credentialName: x}`},
		"demo":                             {text: read("../examples/demo/manifests/digits.yaml")},

		"Dataset, no url":        {kind: "Dataset", text: `spec: {format: txt, nodeName: e}`, words: []string{"spec.url", "Required"}},
		"Dataset, empty url":     {kind: "Dataset", text: `spec: {url: "", format: txt, nodeName: e}`, words: []string{"spec.url"}},
		"Dataset, no node":       {kind: "Dataset", text: `spec: {url: /a, format: txt}`, words: []string{"spec.nodeName", "Required"}},
		"Dataset, no format":     {kind: "Dataset", text: `spec: {url: /a, nodeName: e}`, words: []string{"spec.format", "Required"}},
		"Dataset, unknown field": {kind: "Dataset", text: `spec: {url: /a, format: txt, nodeName: e, nodename: e}`, words: []string{"spec.nodename"}},
		"Dataset, no spec":       {kind: "Dataset", text: `{}`, words: []string{"spec", "Required"}},

		"Model, blob":                    {kind: "Model", text: `spec: {url: "blob://sha256/` + hex64 + `", format: onnx, version: v1.2_3-x, sha256: "` + hex64 + `"}`},
		"Model, all":                     {kind: "Model", text: `spec: {url: /m, format: onnx, runtime: onnx, labels: [a, "ü"], postprocess: softmax, preprocess: {width: 8192, height: 1, resize: letterbox, channels: GRAY, layout: FLAT, scale: "-0.5", mean: ["1", "-2.5"], std: ["0.25"]}}`},
		"Model, blob of other length":    {kind: "Model", text: `spec: {url: "blob://sha256/abc", format: onnx}`, words: []string{"spec.url", "64 lower-case hex digits"}},
		"Model, blob in upper case":      {kind: "Model", text: `spec: {url: "blob://sha256/` + strings.ToUpper(hex64) + `", format: onnx}`, words: []string{"spec.url", "64 lower-case hex digits"}},
		"Model, blob and more":           {kind: "Model", text: `spec: {url: "blob://sha256/` + hex64 + `/x", format: onnx}`, words: []string{"spec.url"}},
		"Model, blob of another hash":    {kind: "Model", text: `spec: {url: "blob://md5/` + hex64 + `", format: onnx}`, words: []string{"spec.url"}},
		"Model, no url":                  {kind: "Model", text: `spec: {format: onnx}`, words: []string{"spec.url", "Required"}},
		"Model, long url":                {kind: "Model", text: `spec: {url: /` + long(2048) + `, format: onnx}`, words: []string{"spec.url", "2048"}},
		"Model, longest url":             {kind: "Model", text: `spec: {url: /` + long(2047) + `, format: onnx}`},
		"Model, no format":               {kind: "Model", text: `spec: {url: /m}`, words: []string{"spec.format", "Required"}},
		"Model, format is a number":      {kind: "Model", text: `spec: {url: /m, format: 5}`, words: []string{"spec.format", "string"}},
		"Model, version with a colon":    {kind: "Model", text: model(`version: "a:b"`), words: []string{"spec.version"}},
		"Model, long version":            {kind: "Model", text: model(`version: ` + long(64)), words: []string{"spec.version"}},
		"Model, sha256":                  {kind: "Model", text: model(`sha256: abc`), words: []string{"spec.sha256"}},
		"Model, runtime":                 {kind: "Model", text: model(`runtime: tensorrt`), words: []string{"spec.runtime", `"onnx"`, `"worker"`}},
		"Model, postprocess":             {kind: "Model", text: model(`postprocess: sigmoid`), words: []string{"spec.postprocess", `"softmax"`}},
		"Model, label":                   {kind: "Model", text: model(`labels: [ok, ` + long(257) + `]`), words: []string{"spec.labels[1]"}},
		"Model, labels":                  {kind: "Model", text: model(`labels: [` + strings.Repeat("a,", 10_001) + `]`), words: []string{"spec.labels", "10000"}},
		"Model, labels is text":          {kind: "Model", text: model(`labels: "a,b"`), words: []string{"spec.labels"}},
		"Model, width missing":           {kind: "Model", text: model(`preprocess: {height: 3}`), words: []string{"spec.preprocess.width", "Required"}},
		"Model, width 0":                 {kind: "Model", text: model(`preprocess: {width: 0, height: 3}`), words: []string{"spec.preprocess.width"}},
		"Model, height":                  {kind: "Model", text: model(`preprocess: {width: 1, height: 8193}`), words: []string{"spec.preprocess.height", "8192"}},
		"Model, resize":                  {kind: "Model", text: preprocess(`resize: crop`), words: []string{"spec.preprocess.resize"}},
		"Model, channels":                {kind: "Model", text: preprocess(`channels: rgb`), words: []string{"spec.preprocess.channels"}},
		"Model, layout":                  {kind: "Model", text: preprocess(`layout: CHW`), words: []string{"spec.preprocess.layout"}},
		"Model, scale":                   {kind: "Model", text: preprocess(`scale: "1e-3"`), words: []string{"spec.preprocess.scale"}},
		"Model, scale is no text":        {kind: "Model", text: preprocess(`scale: 0.5`), words: []string{"spec.preprocess.scale", "string"}},
		"Model, mean":                    {kind: "Model", text: preprocess(`mean: ["1", "x"]`), words: []string{"spec.preprocess.mean[1]"}},
		"Model, five means":              {kind: "Model", text: preprocess(`mean: ["1","1","1","1","1"]`), words: []string{"spec.preprocess.mean", "4"}},
		"Model, std":                     {kind: "Model", text: preprocess(`std: ["-1"]`), words: []string{"spec.preprocess.std[0]"}},
		"Model, unknown field":           {kind: "Model", text: model(`formatt: x`), words: []string{"spec.formatt"}},
		"Model, unknown field, deep":     {kind: "Model", text: preprocess(`with: 8`), words: []string{"spec.preprocess.with"}},
		"Model, name with a dot":         {kind: "Model", name: "a.b", text: referenceModel, words: []string{"metadata.name", "DNS label"}},
		"Model, long name":               {kind: "Model", name: long(64), text: referenceModel, words: []string{"metadata.name", "63"}},
		"Model, longest name":            {kind: "Model", name: long(63), text: referenceModel},
		"Model, name in upper case":      {kind: "Model", name: "Digits", text: referenceModel, words: []string{"metadata.name"}},
		"Model, too many SoCs":           {kind: "Model", text: model(`device_soc_versions: [` + strings.Repeat("a,", 33) + `]`), words: []string{"spec.device_soc_versions", "32"}},
		"service, nodeName":              {kind: jiKind, text: ji(at, "")},
		"service, nodeSelector":          {kind: jiKind, text: ji("nodeSelector: {a: b}", "")},
		"service, template's selector":   {kind: jiKind, text: ji("template: {spec: {nodeSelector: {a: b}, containers: [{name: w, image: i}]}}", "")},
		"service, endpoint":              {kind: jiKind, text: ji(at, "endpoint: 'https://triton:8000/base', timeoutMilliseconds: 600000, maxConcurrent: 1024")},
		"service, onCloudError":          {kind: jiKind, text: ji(at+", onCloudError: error", "")},
		"service, CrossEntropy":          {kind: jiKind, text: threshold(`"0.9"`)},
		"service, whole threshold":       {kind: jiKind, text: threshold(`"1"`)},
		"service, no node":               {kind: jiKind, text: ji("onCloudError: local", ""), words: []string{"spec.edgeWorker", "nodeName", "exactly one of"}},
		"service, name and selector":     {kind: jiKind, text: ji(at+", nodeSelector: {a: b}", ""), words: []string{"spec.edgeWorker", "nodeName", "exactly one of"}},
		"service, name and template":     {kind: jiKind, text: ji(at+", template: {spec: {nodeName: e, containers: [{name: w, image: i}]}}", ""), words: []string{"exactly one of"}},
		"service, template has no node":  {kind: jiKind, text: ji("template: {spec: {containers: [{name: w, image: i}]}}", ""), words: []string{"nodeName", "exactly one of"}},
		"service, empty selector":        {kind: jiKind, text: ji("nodeSelector: {}", ""), words: []string{"spec.edgeWorker.nodeSelector"}},
		"service, empty nodeName":        {kind: jiKind, text: ji(`nodeName: ""`, ""), words: []string{"spec.edgeWorker.nodeName"}},
		"service, unknown rule":          {kind: jiKind, text: ji(at+", hardExampleMining: {name: Cascade}", ""), words: []string{"spec.edgeWorker", "hardExampleMining.name", "CrossEntropy"}},
		"service, rule without a name":   {kind: jiKind, text: ji(at+", hardExampleMining: {}", ""), words: []string{"spec.edgeWorker.hardExampleMining.name", "Required"}},
		"service, parameter is a number": {kind: jiKind, text: threshold(`0.9`), words: []string{"spec.edgeWorker.hardExampleMining.parameters[0].value", "string"}},
		"service, parameter is a word":   {kind: jiKind, text: threshold(`high`), words: []string{"hardExampleMining.parameters", "numbers"}},
		"service, parameter below 0":     {kind: jiKind, text: threshold(`"-0.5"`), words: []string{"hardExampleMining.parameters", "numbers"}},
		"service, parameter NaN":         {kind: jiKind, text: threshold(`"NaN"`), words: []string{"hardExampleMining.parameters", "numbers"}},
		"service, parameter, newline":    {kind: jiKind, text: threshold(`"0.5\n"`), words: []string{"hardExampleMining.parameters", "numbers"}},
		"service, parameter has no key":  {kind: jiKind, text: ji(at+", hardExampleMining: {name: IBT, parameters: [{value: '1'}]}", ""), words: []string{"parameters[0].key", "Required"}},
		"service, onCloudError, other":   {kind: jiKind, text: ji(at+", onCloudError: retry", ""), words: []string{"spec.edgeWorker.onCloudError", `"local"`, `"error"`}},
		"service, no edge model":         {kind: jiKind, text: `spec: {edgeWorker: {nodeName: e, hardExampleMining: {name: IBT}}, cloudWorker: {model: {name: b}}}`, words: []string{"spec.edgeWorker.model", "Required"}},
		"service, no cloud worker":       {kind: jiKind, text: `spec: {edgeWorker: {nodeName: e, hardExampleMining: {name: IBT}, model: {name: a}}}`, words: []string{"spec.cloudWorker", "Required"}},
		"service, no edge worker":        {kind: jiKind, text: `spec: {cloudWorker: {model: {name: a}}}`, words: []string{"spec.edgeWorker", "Required"}},
		"service, empty model name":      {kind: jiKind, text: ji(at+`, model: {name: ""}`, ""), words: []string{"spec.edgeWorker.model.name"}},
		"service, endpoint's scheme":     {kind: jiKind, text: ji(at, "endpoint: 'grpc://x:8001'"), words: []string{"spec.cloudWorker.endpoint"}},
		"service, endpoint with a space": {kind: jiKind, text: ji(at, "endpoint: 'http://a b'"), words: []string{"spec.cloudWorker.endpoint"}},
		"service, endpoint and template": {kind: jiKind, text: ji(at, "endpoint: 'http://a', template: {spec: {containers: [{name: w, image: i}]}}"), words: []string{"spec.cloudWorker", "endpoint", "template"}},
		"service, timeout 0":             {kind: jiKind, text: ji(at, "timeoutMilliseconds: 0"), words: []string{"spec.cloudWorker.timeoutMilliseconds"}},
		"service, timeout too long":      {kind: jiKind, text: ji(at, "timeoutMilliseconds: 600001"), words: []string{"spec.cloudWorker.timeoutMilliseconds", "600000"}},
		"service, timeout is text":       {kind: jiKind, text: ji(at, "timeoutMilliseconds: 2s"), words: []string{"spec.cloudWorker.timeoutMilliseconds", "integer"}},
		"service, maxConcurrent":         {kind: jiKind, text: ji(at, "maxConcurrent: 1025"), words: []string{"spec.cloudWorker.maxConcurrent", "1024"}},
		"service, unknown field":         {kind: jiKind, text: ji(at+", hardExampleMinning: {name: IBT}", ""), words: []string{"spec.edgeWorker.hardExampleMinning"}},
		"service, containers missing":    {kind: jiKind, text: ji("template: {spec: {nodeName: e}}", ""), words: []string{"spec.edgeWorker.template.spec.containers"}},
		"service, container's port":      {kind: jiKind, text: ji("template: {spec: {nodeName: e, containers: [{name: w, image: i, ports: [{containerPort: x}]}]}}", ""), words: []string{"containers[0].ports[0].containerPort", "integer"}},
		"service, inputs":                {kind: jiKind, text: ji(at+`, inputs: [{tensor: x, window: 16, stride: 4, maxAge: 5s, onMissing: last, sources: [{device: "pump-{node}", property: vibration}, {topic: "plant/{node}/t", jsonPath: "$.v"}, {topic: a/b}]}], resultProperty: {device: pump, property: alarm, value: class}`, "")},
		"service, inputs twice":          {kind: jiKind, text: input("sources: [{topic: a}]}, {tensor: x, sources: [{topic: b}]"), words: []string{"inputs[1]", "Duplicate"}},
		"service, no sources":            {kind: jiKind, text: input("sources: []"), words: []string{"inputs[0].sources"}},
		"service, empty inputs":          {kind: jiKind, text: ji(at+", inputs: []", ""), words: []string{"spec.edgeWorker.inputs"}},
		"service, window 0":              {kind: jiKind, text: input("window: 0, sources: [{topic: a}]"), words: []string{"inputs[0].window"}},
		"service, stride over window":    {kind: jiKind, text: input("window: 4, stride: 5, sources: [{topic: a}]"), words: []string{"inputs[0]", "stride"}},
		"service, stride without window": {kind: jiKind, text: input("stride: 2, sources: [{topic: a}]"), words: []string{"inputs[0]", "stride"}},
		"service, maxAge":                {kind: jiKind, text: input("maxAge: 25h, sources: [{topic: a}]"), words: []string{"inputs[0].maxAge", "24h"}},
		"service, maxAge is no duration": {kind: jiKind, text: input("maxAge: soon, sources: [{topic: a}]"), words: []string{"inputs[0].maxAge"}},
		"service, onMissing":             {kind: jiKind, text: input("onMissing: zero, sources: [{topic: a}]"), words: []string{"inputs[0].onMissing", `"skip"`}},
		"service, topic and device":      {kind: jiKind, text: input("sources: [{topic: a, device: b, property: c}]"), words: []string{"sources[0]", "either device and property, or topic"}},
		"service, empty source":          {kind: jiKind, text: input("sources: [{}]"), words: []string{"sources[0]", "either device and property, or topic"}},
		"service, device alone":          {kind: jiKind, text: input("sources: [{device: b}]"), words: []string{"sources[0]", "property"}},
		"service, jsonPath, no topic":    {kind: jiKind, text: input("sources: [{device: b, property: c, jsonPath: '$.a'}]"), words: []string{"sources[0]", "jsonPath"}},
		"service, wildcard":              {kind: jiKind, text: input("sources: [{topic: a/+}]"), words: []string{"sources[0].topic"}},
		"service, topic below $":         {kind: jiKind, text: input("sources: [{topic: $hw/a}]"), words: []string{"sources[0].topic"}},
		"service, device in upper case":  {kind: jiKind, text: input("sources: [{device: Pump, property: c}]"), words: []string{"sources[0].device"}},
		"service, property with a space": {kind: jiKind, text: input("sources: [{device: pump, property: 'a b'}]"), words: []string{"sources[0].property"}},
		"service, result's value":        {kind: jiKind, text: ji(at+", resultProperty: {device: a, property: b, value: all}", ""), words: []string{"resultProperty.value", `"label"`}},
		"service, result's property":     {kind: jiKind, text: ji(at+", resultProperty: {device: a}", ""), words: []string{"resultProperty.property", "Required"}},
		"service, inputs and template":   {kind: jiKind, text: ji("resultProperty: {device: a, property: b}, template: {spec: {nodeName: e, containers: [{name: w, image: i}]}}", ""), words: []string{"spec.edgeWorker", "without a template"}},
		"service, name with a dot":       {kind: jiKind, name: "a.b", text: referenceJI, words: []string{"metadata.name", "DNS label"}},
		"service, long name":             {kind: jiKind, name: long(64), text: referenceJI, words: []string{"metadata.name"}},
	}
	for i, text := range strings.Split(read("../examples/demo/manifests/baselines.yaml"), "\n---\n") {
		docs[fmt.Sprint("demo's baseline ", i)] = document{text: text}
	}
	maps.Copy(docs, jobDocuments())
	maps.Copy(docs, templateDocuments())
	return docs
}

func TestManifests(t *testing.T) {
	crds, err := manifests.CRDs()
	if err != nil {
		t.Fatal(err)
	}
	cfg := controlplanetest.Start(t, crds...)
	c, err := client.New(cfg, client.Options{Scheme: runtime.NewScheme()})
	if err != nil {
		t.Fatal(err)
	}
	t.Run("documents", func(t *testing.T) { testDocuments(t, c) })
	t.Run("defaults", func(t *testing.T) { testDefaults(t, c) })
	t.Run("samples", func(t *testing.T) { testSamples(t, c) })
	t.Run("nonsense", func(t *testing.T) { testNonsense(t, cfg) })
}

// testDocuments applies each document as `kubectl apply` does, with strict
// validation of fields. What is refused leaves nothing behind.
func testDocuments(t *testing.T, c client.Client) {
	strict := client.WithFieldValidation(c, metav1.FieldValidationStrict)
	n := 0
	for what, d := range documents(t) {
		if d.name == "" {
			n++
			d.name = fmt.Sprint("x", n)
		}
		o := parse(t, d.kind, d.name, d.text)
		err := strict.Create(t.Context(), o.DeepCopy())
		if len(d.words) == 0 {
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
			continue
		}
		if !apierrors.IsInvalid(err) && !apierrors.IsBadRequest(err) {
			t.Errorf("%s: not refused as invalid: %v", what, err)
			continue
		}
		for _, word := range d.words {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %q is not in: %v", what, word, err)
			}
		}
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(o), o); !apierrors.IsNotFound(err) {
			t.Errorf("%s: after the refusal: %v", what, err)
		}
	}
}

// testDefaults looks at those that the reference system's users do not write.
func testDefaults(t *testing.T, c client.Client) {
	for _, d := range []struct {
		kind, text string
		path       []string
		want       any
	}{
		{"JointInferenceService", ji("nodeName: e", ""), []string{"edgeWorker", "onCloudError"}, "local"},
		{"JointInferenceService", ji("nodeName: e", ""), []string{"cloudWorker", "timeoutMilliseconds"}, int64(2000)},
		{"JointInferenceService", ji("nodeName: e", ""), []string{"cloudWorker", "maxConcurrent"}, int64(16)},
		{"IncrementalLearningJob", il(""), []string{"deploySpec", "strategy"}, "replace"},
		{"IncrementalLearningJob", il(""), []string{"trainSpec", "trigger", "checkPeriodSeconds"}, int64(60)},
		{"IncrementalLearningJob", il(""), []string{"deploySpec", "model", "pollPeriodSeconds"}, int64(60)},
		{"FederatedLearningJob", fl("clients: {}"), []string{"clients", "chooser"}, "all"},
		{"FederatedLearningJob", fl("clients: {}"), []string{"clients", "min"}, int64(1)},
		{"FederatedLearningJob", fl(""), []string{"roundTimeoutSeconds"}, int64(600)},
		{"Model", model("preprocess: {width: 1, height: 1}"), []string{"preprocess", "resize"}, "stretch"},
		{"Model", model("preprocess: {width: 1, height: 1}"), []string{"preprocess", "channels"}, "RGB"},
		{"Model", model("preprocess: {width: 1, height: 1}"), []string{"preprocess", "layout"}, "NCHW"},
	} {
		o := parse(t, d.kind, "defaults", d.text)
		if err := c.Create(t.Context(), o, client.DryRunAll); err != nil {
			t.Fatal(err)
		}
		got, _, err := unstructured.NestedFieldNoCopy(o.Object, append([]string{"spec"}, d.path...)...)
		if err != nil || got != d.want {
			t.Errorf("%v is %v, %v; want %v", d.path, got, err, d.want)
		}
	}
}
