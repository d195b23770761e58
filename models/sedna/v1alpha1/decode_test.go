package v1alpha1_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	sedna "github.com/edgetwin/sedna/models/sedna/v1alpha1"
	"github.com/edgetwin/sedna/models/wire"
)

const much = `{"metadata":{"labels":{"a":"b"},"annotations":{"sedna.io/runtime":"process"},"creationTimestamp":null},
"spec":{"nodeName":"edge1","hostNetwork":true,"terminationGracePeriodSeconds":5,"tolerations":[{"operator":"Exists"}],
"containers":[{"name":"w","image":"i","command":["a"],"env":[{"name":"A","valueFrom":{"fieldRef":{"fieldPath":"spec.nodeName"}}}],
"ports":[{"containerPort":80}],"livenessProbe":{"httpGet":{"port":"web","path":"/"},"periodSeconds":3},
"resources":{"limits":{"cpu":6,"memory":"2Gi"}},"volumeMounts":[{"name":"v","mountPath":"/v"}]}],
"volumes":[{"name":"v","emptyDir":{"sizeLimit":"1Gi"}},{"name":"h","hostPath":{"path":"/h","type":"Directory"}}]}}`

func TestDecode(t *testing.T) {
	for what, c := range map[string]struct {
		text, field, words string
	}{
		"much":                  {text: much},
		"null":                  {text: `null`},
		"empty":                 {text: ``},
		"null field":            {text: `{"spec":{"containers":null,"affinity":null}}`},
		"not an object":         {text: `[]`, words: "expected an object, not a list"},
		"no JSON":               {text: `{"spec":`, words: "end of JSON"},
		"unknown field":         {text: `{"spec":{"nodeNames":"a"}}`, field: "spec.nodeNames", words: "unknown field"},
		"other case":            {text: `{"spec":{"nodename":"a"}}`, field: "spec.nodename", words: "unknown field"},
		"the first of several":  {text: `{"spec":{"b":1,"a":1}}`, field: "spec.a", words: "unknown field"},
		"text for a number":     {text: `{"spec":{"containers":[{"ports":[{"containerPort":"80"}]}]}}`, field: "spec.containers[0].ports[0].containerPort", words: `expected a whole number of 32 bits, not "80"`},
		"more than 32 bits":     {text: `{"spec":{"containers":[{},{"ports":[{"containerPort":3000000000}]}]}}`, field: "spec.containers[1].ports[0].containerPort", words: "not 3000000000"},
		"fraction":              {text: `{"spec":{"terminationGracePeriodSeconds":1.5}}`, field: "spec.terminationGracePeriodSeconds", words: "a whole number of 64 bits, not 1.5"},
		"number for text":       {text: `{"spec":{"containers":[{"env":[{"name":"a","value":1}]}]}}`, field: "spec.containers[0].env[0].value", words: "expected text, not 1"},
		"text for a boolean":    {text: `{"spec":{"hostNetwork":"true"}}`, field: "spec.hostNetwork", words: "true or false"},
		"text for a list":       {text: `{"spec":{"containers":"w"}}`, field: "spec.containers", words: "expected a list"},
		"list for a map":        {text: `{"spec":{"nodeSelector":[]}}`, field: "spec.nodeSelector", words: "expected a map, not a list"},
		"number in a map":       {text: `{"spec":{"nodeSelector":{"a":1}}}`, field: "spec.nodeSelector[a]", words: "expected text"},
		"quantity":              {text: `{"spec":{"containers":[{"resources":{"limits":{"memory":"lots"}}}]}}`, field: "spec.containers[0].resources.limits[memory]", words: `a quantity such as "500m"`},
		"quantity, all forms":   {text: `{"spec":{"containers":[{"resources":{"limits":{"a":"1e-3","b":"2E6","c":1.5,"d":"100m","e":"1Ei","f":-1}}}]}}`},
		"quantity, far from 1":  {text: `{"spec":{"containers":[{"resources":{"limits":{"a":"1e-99999999"}}}]}}`, field: "spec.containers[0].resources.limits[a]", words: "a quantity"},
		"quantity, as a number": {text: `{"spec":{"containers":[{"resources":{"limits":{"a":1e-99999999}}}]}}`, field: "spec.containers[0].resources.limits[a]", words: "a quantity"},
		"quantity, long":        {text: `{"spec":{"containers":[{"resources":{"limits":{"a":"0.` + strings.Repeat("1", 100) + `"}}}]}}`, field: "spec.containers[0].resources.limits[a]", words: "a quantity"},
		"quantity, deep inside": {text: `{"spec":{"volumes":[{"name":"v","emptyDir":{"sizeLimit":{}}}]}}`, field: "spec.volumes[0].emptyDir.sizeLimit", words: "not an object"},
		"number or text":        {text: `{"spec":{"containers":[{"livenessProbe":{"tcpSocket":{"port":true}}}]}}`, field: "spec.containers[0].livenessProbe.tcpSocket.port", words: "a number or text"},
		"a volume's kind":       {text: `{"spec":{"volumes":[{"name":"v","hostpath":{}}]}}`, field: "spec.volumes[0].hostpath", words: "unknown field"},
		"time":                  {text: `{"metadata":{"creationTimestamp":"yesterday"}}`, field: "metadata.creationTimestamp", words: "a time such as"},
		"a long value":          {text: `{"spec":{"hostNetwork":"` + strings.Repeat("x", 10_000) + `"}}`, field: "spec.hostNetwork", words: "…"},
	} {
		got, err := (&sedna.PodTemplate{Object: sedna.Object{Raw: []byte(c.text)}}).Decode()
		if c.words == "" {
			if err != nil {
				t.Errorf("%s: %v", what, err)
				continue
			}
			var want corev1.PodTemplateSpec
			if c.text != "" {
				if err := json.Unmarshal([]byte(c.text), &want); err != nil {
					t.Fatal(err)
				}
			}
			if !reflect.DeepEqual(got, &want) {
				t.Errorf("%s: got %+v, want %+v", what, got, &want)
			}
			continue
		}
		e := wire.AsError(err)
		if err == nil || e.Code != wire.InvalidArgument || e.Field != c.field || !strings.Contains(e.Message, c.words) || len(e.Message) > 200 {
			t.Errorf("%s: %v, want one at %q with %q", what, err, c.field, c.words)
		}
	}
}

// What is written is what is read and what is kept, and nothing else.
func TestTemplateIsKept(t *testing.T) {
	const text = `{"nodeName":"e","model":{"name":"m"},"hardExampleMining":{"name":"x"},"template":{"spec":{"containers":"nonsense","of":["any",{"kind":1.50}]}}}`
	var w sedna.EdgeWorker
	if err := json.Unmarshal([]byte(text), &w); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(w.DeepCopy())
	if err != nil {
		t.Fatal(err)
	}
	var have, want any
	if err := json.Unmarshal(b, &have); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(text), &want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(have, want) {
		t.Errorf("have %s, want %s", b, text)
	}
	in := corev1.PodTemplateSpec{Spec: corev1.PodSpec{NodeName: "e", Containers: []corev1.Container{{Name: "w"}}}}
	p, err := sedna.NewPodTemplate(in)
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.Decode()
	if err != nil || !equality.Semantic.DeepEqual(&in, out) {
		t.Errorf("out %+v, %v; in %+v", out, err, in)
	}
}

func TestDecodeOfInlinedSpecs(t *testing.T) {
	var fe sedna.FeatureExtractionServiceSpec
	var va sedna.VideoAnalyticsJobSpec
	var hpa sedna.HPA
	for text, into := range map[string]any{
		`{"model":{"name":"m"},"kafkaSupport":true,"replicas":2,"selector":{"matchLabels":{"a":"b"}},"strategy":{"type":"Recreate"},"template":` + much + `}`:               &fe,
		`{"model":{"name":"m"},"backoffLimit":5,"completionMode":"Indexed","successPolicy":{"rules":[{"succeededCount":1}]},"template":` + much + `}`:                       &va,
		`{"minReplicas":1,"maxReplicas":3,"metrics":[{"type":"Resource","resource":{"name":"cpu","target":{"type":"Utilization","averageUtilization":50}}}],"behavior":{}}`: &hpa,
	} {
		if err := json.Unmarshal([]byte(text), into); err != nil {
			t.Fatal(err)
		}
	}
	d, err := fe.DeploymentFields.Decode()
	if err != nil || *d.Replicas != 2 || d.Selector.MatchLabels["a"] != "b" || d.Strategy.Type != "Recreate" || d.Template.Spec.Containers[0].Name != "w" {
		t.Errorf("%+v, %v", d, err)
	}
	j, err := va.JobFields.Decode()
	if err != nil || *j.BackoffLimit != 5 || *j.CompletionMode != "Indexed" || *j.SuccessPolicy.Rules[0].SucceededCount != 1 || j.Template.Spec.NodeName != "edge1" {
		t.Errorf("%+v, %v", j, err)
	}
	h, err := hpa.Decode()
	if err != nil || *h.MinReplicas != 1 || h.MaxReplicas != 3 || *h.Metrics[0].Resource.Target.AverageUtilization != 50 {
		t.Errorf("%+v, %v", h, err)
	}
	hpa.Metrics[0].Raw = []byte(`{"type":"Resource","resource":{"name":"cpu","target":{"averageUtilization":"50"}}}`)
	if _, err := hpa.Decode(); wire.AsError(err).Field != "metrics[0].resource.target.averageUtilization" {
		t.Error(err)
	}
}

// Whatever a manifest has: either Decode says what is wrong, or what it gives
// is what encoding/json reads.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{much, `null`, `[]`, `{"spec":{"containers":[{"resources":{"limits":{"a":"1e-9","b":1e9}}}]}}`, `{"metadata":{"managedFields":[{"fieldsV1":{"f:a":{}}}]}}`, `{"Spec":{}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := (&sedna.PodTemplate{Object: sedna.Object{Raw: b}}).Decode()
		if err != nil {
			if !wire.IsCode(err, wire.InvalidArgument) {
				t.Fatal(err)
			}
			return
		}
		if len(b) == 0 {
			return
		}
		var want corev1.PodTemplateSpec
		if err := json.Unmarshal(b, &want); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, &want) {
			t.Fatalf("got %+v, want %+v", got, &want)
		}
	})
}
