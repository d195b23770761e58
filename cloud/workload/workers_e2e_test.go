//go:build e2e

package workload_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/edgetwin/sedna/cloud"
	"github.com/edgetwin/sedna/cloud/twin"
	"github.com/edgetwin/sedna/cloud/workload"
	"github.com/edgetwin/sedna/lib/identity"
	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
	sedna "github.com/edgetwin/sedna/models/sedna/v1alpha1"
	"github.com/edgetwin/sedna/models/task"
)

// cluster is a namespace of one test.
type cluster struct {
	*kubernetes
	ns string
	at cloud.Endpoints
}

// TestWorkersInPods runs the GlobalManager against a real Kubernetes API.
func TestWorkersInPods(t *testing.T) {
	k := startKubernetes(t)
	at := k.manager()
	k.kubelet()
	t.Run("Kinds", func(t *testing.T) {
		for name, test := range map[string]func(*cluster){
			"joint-inference": jointInferencePods, "joint-inference-mixed": jointInferenceMixed, "service-heals": serviceHeals,
			"job-ends": jobEnds, "job-fails": jobFails, "federated": federatedPods, "search": searchPods, "tracking": trackingPods,
			"secrets": secretsByReference, "name-taken": nameTaken, "invalid": invalidTemplate,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				own := *k
				own.t = t
				c := &cluster{kubernetes: &own, ns: name, at: at}
				c.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
				test(c)
			})
		}
	})
	k.rightsAreUsed()
}

// rightsAreUsed holds what the GlobalManager asked against its roles.
func (k *kubernetes) rightsAreUsed() {
	k.t.Helper()
	asked, refused := k.asked()
	for _, line := range refused {
		k.t.Errorf("refused: %s", line)
	}
	for _, o := range k.roles() {
		role, ok := o.(*rbacv1.ClusterRole)
		if !ok || role.Name != "sedna-globalmanager-pods" {
			continue // the other role is held against what is done without pods
		}
		for _, rule := range role.Rules {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					what := rule.APIGroups[0] + "/" + resource
					// Creating by apply is asked for as a patch, but needs both rights.
					if !asked[what+" "+verb] && !(verb == "create" && asked[what+" patch"]) && !(verb == "list" && asked[what+" watch"]) {
						k.t.Errorf("the role allows %s %s, which nothing needs", what, verb)
					}
				}
			}
		}
	}
}

// apply creates an object of ours from its spec in YAML.
func (c *cluster) apply(o client.Object, name, text string) {
	c.t.Helper()
	if err := yaml.UnmarshalStrict([]byte("{metadata: {name: "+name+", namespace: "+c.ns+"}, "+text+"}"), o); err != nil {
		c.t.Fatal(err)
	}
	c.create(o)
}

func (c *cluster) model(name, url string) {
	c.t.Helper()
	c.apply(&sedna.Model{}, name, fmt.Sprintf("spec: {url: %q, format: pt}", url))
}

// change changes a spec.
func (c *cluster) change(o client.Object, change func()) {
	c.t.Helper()
	c.get(o, o.GetName())
	before := o.DeepCopyObject().(client.Object)
	change()
	if err := c.c.Patch(c.t.Context(), o, client.MergeFrom(before)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) get(o client.Object, name string) {
	c.t.Helper()
	if err := c.c.Get(c.t.Context(), client.ObjectKey{Namespace: c.ns, Name: name}, o); err != nil {
		c.t.Fatal(err)
	}
}

// exists waits for an object in a state.
func exists[T client.Object](c *cluster, o T, name string, ok func(T) bool) T {
	c.t.Helper()
	last := ""
	defer func() {
		if c.t.Failed() {
			c.t.Log(last)
		}
	}()
	c.eventually(fmt.Sprintf("%T %s as it should be", o, name), func() bool {
		err := c.c.Get(c.t.Context(), client.ObjectKey{Namespace: c.ns, Name: name}, o)
		b, _ := json.Marshal(o)
		last = string(b)
		return err == nil && ok(o)
	})
	return o
}

// present is the state of what just has to be there.
func present[T any](T) bool { return true }

// until waits for the Ready condition of an object, for the current generation.
func (c *cluster) until(o client.Object, conditions *[]metav1.Condition, status, reason string, words ...string) {
	c.t.Helper()
	var last *metav1.Condition
	defer func() {
		if c.t.Failed() {
			c.t.Logf("%+v", last)
		}
	}()
	c.eventually(fmt.Sprintf("%s %s %s %q", o.GetName(), status, reason, words), func() bool {
		*conditions = nil
		c.get(o, o.GetName())
		last = meta.FindStatusCondition(*conditions, sedna.ConditionReady)
		return last != nil && string(last.Status) == status && last.Reason == reason && last.ObservedGeneration == o.GetGeneration() &&
			!slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(last.Message, w) })
	})
}

// pods waits until a type of worker has n pods that are not on their way out.
func (c *cluster) pods(o client.Object, kind, workerType string, n int) []corev1.Pod {
	c.t.Helper()
	var out []corev1.Pod
	c.eventually(fmt.Sprintf("%d pods %s", n, workerType), func() bool {
		var l corev1.PodList
		if err := c.c.List(c.t.Context(), &l, client.InNamespace(c.ns), client.MatchingLabels(workload.Labels(workload.Owner{Kind: kind, Name: o.GetName(), UID: o.GetUID()}, workerType))); err != nil {
			c.t.Fatal(err)
		}
		out = slices.DeleteFunc(l.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil })
		return len(out) == n
	})
	return out
}

// empty waits until nothing of what the GlobalManager makes is left.
func (c *cluster) empty() {
	c.t.Helper()
	c.eventually("an empty namespace", func() bool {
		n := 0
		for _, l := range []client.ObjectList{&corev1.PodList{}, &corev1.ServiceList{}, &appsv1.DeploymentList{}, &autoscalingv2.HorizontalPodAutoscalerList{}} {
			if err := c.c.List(c.t.Context(), l, client.InNamespace(c.ns)); err != nil {
				c.t.Fatal(err)
			}
			n += meta.LenList(l)
		}
		return n == 0
	})
}

func (c *cluster) delete(o client.Object) {
	c.t.Helper()
	if err := c.c.Delete(c.t.Context(), o); err != nil {
		c.t.Fatal(err)
	}
	c.gone(o)
}

func variable(c *corev1.Container, name string) string {
	for _, e := range c.Env {
		if e.Name == name {
			return e.Value
		}
	}
	return ""
}

const jointInference = `spec: {
  edgeWorker: {model: {name: small}, hardExampleMining: {name: IBT}, template: {spec: {nodeName: edge-a, containers: [{name: w, image: i/edge}]}}},
  cloudWorker: {model: {name: big}, hpa: {maxReplicas: 4}, template: {spec: {containers: [{name: w, image: i/cloud}]}}}}`

func jointInferencePods(c *cluster) {
	j := &sedna.JointInferenceService{}
	c.apply(j, "digits", jointInference)
	c.until(j, &j.Status.Conditions, "False", sedna.ReasonModelNotFound, "big")
	c.model("small", "/srv/models/small.pt")
	c.model("big", "https://models.example.com/big.pt")
	c.until(j, &j.Status.Conditions, "True", sedna.ReasonServing, "2 of 2 workers")
	if j.Status.Active != 2 || j.Status.Failed != 0 || j.Status.Phase != sedna.PhaseRunning {
		c.t.Errorf("status %+v", j.Status)
	}
	edge := exists(c, &appsv1.Deployment{}, "digits-deployment-edge", present)
	if w := &edge.Spec.Template.Spec.Containers[0]; variable(w, "BIG_MODEL_IP") != "digits-cloud."+c.ns || variable(w, "MODEL_URL") != "/home/data/srv/models/small.pt" {
		c.t.Errorf("edge worker's environment %+v", w.Env)
	}
	exists(c, &corev1.Service{}, "digits-cloud", func(s *corev1.Service) bool { return s.Spec.Ports[0].Name == "tcp-0" && s.Spec.Ports[0].Port == 5000 })
	hpa := exists(c, &autoscalingv2.HorizontalPodAutoscaler{}, "hpa-digits-deployment-cloud", present)

	// What fails is not the end, and what is deleted comes back.
	if err := c.status(c.t.Context(), edge, `{"status":{"conditions":[{"type":"ReplicaFailure","status":"True","reason":"FailedCreate","message":"quota"}]}}`); err != nil {
		c.t.Fatal(err)
	}
	c.until(j, &j.Status.Conditions, "False", sedna.ReasonFailed, "quota")
	if err := c.status(c.t.Context(), edge, `{"status":{"conditions":null}}`); err != nil {
		c.t.Fatal(err)
	}
	c.until(j, &j.Status.Conditions, "True", sedna.ReasonServing)
	uid := edge.UID
	for _, o := range []client.Object{edge, hpa, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns, Name: "digits-cloud"}}} {
		if err := c.c.Delete(c.t.Context(), o); err != nil {
			c.t.Fatal(err)
		}
	}
	exists(c, edge, "digits-deployment-edge", func(d *appsv1.Deployment) bool { return d.UID != uid })
	exists(c, &corev1.Service{}, "digits-cloud", present)
	exists(c, hpa, hpa.Name, present)
	c.until(j, &j.Status.Conditions, "True", sedna.ReasonServing)

	// One whose owner was taken away is adopted.
	if err := c.c.Patch(c.t.Context(), edge, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"ownerReferences":null}}`))); err != nil {
		c.t.Fatal(err)
	}
	exists(c, edge, edge.Name, func(d *appsv1.Deployment) bool { return metav1.IsControlledBy(d, j) })

	// A new image rolls; the number that the autoscaler chose stays.
	big := exists(c, &appsv1.Deployment{}, "digits-deployment-cloud", present)
	if err := c.c.Patch(c.t.Context(), big, client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"replicas":3}}`))); err != nil {
		c.t.Fatal(err)
	}
	c.change(j, func() {
		j.Spec.CloudWorker.Template.Raw = []byte(`{"spec":{"containers":[{"name":"w","image":"i/cloud:2"}]}}`)
	})
	exists(c, big, big.Name, func(d *appsv1.Deployment) bool { return d.Spec.Template.Spec.Containers[0].Image == "i/cloud:2" })
	if *big.Spec.Replicas != 3 {
		c.t.Errorf("%d replicas, want those of the autoscaler", *big.Spec.Replicas)
	}
	// Without the autoscaler there is one again.
	c.change(j, func() { j.Spec.CloudWorker.HPA = nil })
	c.gone(hpa)
	exists(c, big, big.Name, func(d *appsv1.Deployment) bool { return *d.Spec.Replicas == 1 })
	c.until(j, &j.Status.Conditions, "True", sedna.ReasonServing)

	// A Model that moves rolls, too.
	m := &sedna.Model{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns, Name: "small"}}
	c.change(m, func() { m.Spec.URL = "/srv/models/better.pt" })
	exists(c, edge, edge.Name, func(d *appsv1.Deployment) bool {
		return variable(&d.Spec.Template.Spec.Containers[0], "MODEL_URL") == "/home/data/srv/models/better.pt"
	})

	c.delete(j)
	c.empty()
	again := &sedna.JointInferenceService{}
	c.apply(again, "digits", jointInference)
	c.until(again, &again.Status.Conditions, "True", sedna.ReasonServing, "2 of 2 workers")
	c.delete(again)
	c.empty()
}

// A LocalController serves at the edge, a template in the cloud; and the other
// way round with an endpoint.
func jointInferenceMixed(c *cluster) {
	c.model("small", "https://models.example.com/small.onnx")
	c.model("big", "/srv/models/big.pt")
	dir := filepath.Join(filepath.Dir(c.audit), "manager")
	token, err := cloud.CreateToken(dir, "mixed-edge", 0)
	if err != nil {
		c.t.Fatal(err)
	}
	node, err := identity.Enrol(c.t.Context(), c.at.GlobalManager, token, "mixed-edge", filepath.Join(c.t.TempDir(), "identity"))
	if err != nil {
		c.t.Fatal(err)
	}
	node.HTTPClient().CloseIdleConnections()
	j := &sedna.JointInferenceService{}
	c.apply(j, "served", `spec: {edgeWorker: {nodeName: mixed-edge, model: {name: small}, hardExampleMining: {name: EdgeOnly}},
	  cloudWorker: {model: {name: big}, template: {spec: {containers: [{name: w, image: i/cloud}]}}}}`)
	c.until(j, &j.Status.Conditions, "False", sedna.ReasonProgressing, "1 of 2 workers")
	d := exists(c, &devices.Device{}, task.DeviceName(task.KindJointInference, c.ns, "served", task.RoleEdge, "mixed-edge"), present)
	doc, err := twin.Document(d)
	if err != nil {
		c.t.Fatal(err)
	}
	if want := `"http://served-cloud.` + c.ns + `:5000"`; !strings.Contains(string(doc.Spec), want) {
		c.t.Errorf("the task does not name %s: %s", want, doc.Spec)
	}
	exists(c, &appsv1.Deployment{}, "served-deployment-cloud", present)
	// The template goes over to the edge: the task ends, the Deployment moves.
	c.change(j, func() {
		j.Spec.EdgeWorker.NodeName = ""
		j.Spec.EdgeWorker.Template = &sedna.PodTemplate{Object: sedna.Object{Raw: []byte(`{"spec":{"nodeName":"mixed-edge","containers":[{"name":"w","image":"i/edge"}]}}`)}}
		j.Spec.CloudWorker.Template, j.Spec.CloudWorker.Endpoint = nil, "http://triton.example.com:8000"
	})
	edge := exists(c, &appsv1.Deployment{}, "served-deployment-edge", present)
	if w := &edge.Spec.Template.Spec.Containers[0]; variable(w, "BIG_MODEL_IP") != "triton.example.com" || variable(w, "BIG_MODEL_PORT") != "8000" {
		c.t.Errorf("edge worker's environment %+v", w.Env)
	}
	c.gone(&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns, Name: "served-deployment-cloud"}})
	exists(c, d, d.Name, func(d *devices.Device) bool {
		doc, err := twin.Document(d)
		return err == nil && doc.State == task.Deleted
	})
	// A program in a pod cannot ask the GlobalManager.
	c.change(j, func() { j.Spec.CloudWorker.Endpoint = "" })
	c.until(j, &j.Status.Conditions, "False", sedna.ReasonInvalid, "cloudWorker: expected a template or an endpoint")
	c.get(edge, edge.Name) // and goes on meanwhile
	c.change(j, func() { j.Annotations = map[string]string{twin.AnnotationForceDelete: "true"} })
	c.delete(j)
	c.empty()
}

func serviceHeals(c *cluster) {
	c.model("features", "s3://models/features.pt")
	s := &sedna.FeatureExtractionService{}
	c.apply(s, "fe", `spec: {model: {name: features}, kafkaSupport: true, replicas: 2, selector: {matchLabels: {app: x}},
	  template: {metadata: {labels: {app: x}}, spec: {containers: [{name: w, image: i/fe}]}}}`)
	c.until(s, &s.Status.Conditions, "True", sedna.ReasonServing)
	if s.Status.Active != 1 || s.Status.Phase != sedna.PhaseRunning {
		c.t.Errorf("status %+v", s.Status)
	}
	d := exists(c, &appsv1.Deployment{}, "fe-deployment-fe", func(d *appsv1.Deployment) bool { return *d.Spec.Replicas == 2 })
	if d.Generation != 1 {
		c.t.Errorf("generation %d of a Deployment that nobody changed", d.Generation)
	}
	if w := &d.Spec.Template.Spec.Containers[0]; variable(w, "KAFKA_ENABLED") != "true" || d.Spec.Template.Labels["app"] != "x" {
		c.t.Errorf("template %+v", d.Spec.Template)
	}
	exists(c, &corev1.Service{}, "fe-fe", func(s *corev1.Service) bool { return s.Spec.Ports[0].Port == 6000 })
	c.change(s, func() {
		s.Spec.Template.Raw = []byte(`{"spec":{"containers":[{"name":"w","image":"i/fe:2","resources":{"limits":{"cpu":"fast"}}}]}}`)
	})
	c.until(s, &s.Status.Conditions, "False", sedna.ReasonInvalid, "containers[0].resources.limits")
	c.get(d, d.Name) // what ran goes on
	if s.Status.Active != 1 {
		c.t.Errorf("status %+v", s.Status)
	}
	c.delete(s)
	c.empty()
}

func jobEnds(c *cluster) {
	c.model("detector", "/srv/models/detector.pt")
	v := &sedna.VideoAnalyticsJob{}
	c.apply(v, "va", `spec: {model: {name: detector}, template: {spec: {containers: [{name: w, image: i/va}]}}}`)
	c.until(v, &v.Status.Conditions, "True", "Running")
	pod := c.pods(v, "VideoAnalyticsJob", "videoanalytics", 1)[0]
	if pod.Spec.RestartPolicy != corev1.RestartPolicyOnFailure || !strings.HasPrefix(pod.Name, "va-videoanalytics-") || !metav1.IsControlledBy(&pod, v) {
		c.t.Errorf("pod %+v", pod.ObjectMeta)
	}
	exists(c, &corev1.Service{}, "va-videoanalytics", present)
	// Deleted, it is made again.
	if err := c.c.Delete(c.t.Context(), &pod); err != nil {
		c.t.Fatal(err)
	}
	uid := pod.UID
	c.eventually("another pod", func() bool {
		pod = c.pods(v, "VideoAnalyticsJob", "videoanalytics", 1)[0]
		return pod.UID != uid && pod.Status.Phase == corev1.PodRunning
	})
	c.end(&pod, corev1.PodSucceeded)
	c.until(v, &v.Status.Conditions, "True", "Completed")
	if v.Status.Phase != sedna.PhaseSucceeded || v.Status.Succeeded != 1 || v.Status.CompletionTime == nil {
		c.t.Errorf("status %+v", v.Status)
	}
	// What is done is not done again when its pod is cleaned up, but when the
	// manifest changes.
	if err := c.c.Delete(c.t.Context(), &pod); err != nil {
		c.t.Fatal(err)
	}
	c.gone(&pod)
	c.change(v, func() { v.Labels = map[string]string{"touched": "yes"} })
	c.pods(v, "VideoAnalyticsJob", "videoanalytics", 0)
	c.change(v, func() { v.Spec.Template.Raw = []byte(`{"spec":{"containers":[{"name":"w","image":"i/va:2"}]}}`) })
	c.until(v, &v.Status.Conditions, "True", "Running")
	if pod = c.pods(v, "VideoAnalyticsJob", "videoanalytics", 1)[0]; pod.Spec.Containers[0].Image != "i/va:2" || v.Status.CompletionTime != nil {
		c.t.Errorf("pod %+v, status %+v", pod.Spec.Containers, v.Status)
	}
	c.delete(v)
	c.empty()
}

func jobFails(c *cluster) {
	r := &sedna.ReidJob{}
	c.apply(r, "reid", `spec: {backoffLimit: 1, template: {spec: {restartPolicy: Never, containers: [{name: w, image: i/reid}]}}}`)
	c.until(r, &r.Status.Conditions, "True", "Running")
	first := c.pods(r, "ReidJob", "reid", 1)[0]
	c.end(&first, corev1.PodFailed)
	var second corev1.Pod
	c.eventually("the second attempt", func() bool {
		second = c.pods(r, "ReidJob", "reid", 1)[0]
		return second.Annotations[workload.AnnotationAttempt] == "1" && second.Status.Phase == corev1.PodRunning
	})
	c.until(r, &r.Status.Conditions, "True", "Running")
	c.end(&second, corev1.PodFailed)
	c.until(r, &r.Status.Conditions, "False", sedna.ReasonFailed, "container w ended with code 3")
	if r.Status.Phase != sedna.PhaseFailed || r.Status.Failed != 1 {
		c.t.Errorf("status %+v", r.Status)
	}
	c.delete(r)
	c.empty()
}

func federatedPods(c *cluster) {
	c.model("net", "/srv/models/net")
	c.apply(&sedna.Dataset{}, "d1", `spec: {url: /srv/data/1/train.txt, format: txt, nodeName: edge-a}`)
	f := &sedna.FederatedLearningJob{}
	c.apply(f, "fl", `spec: {aggregationWorker: {model: {name: net}, template: {spec: {containers: [{name: w, image: i/agg}]}}}, trainingWorkers: [
	  {dataset: {name: d1}, template: {spec: {nodeName: edge-a, containers: [{name: w, image: i/train}]}}},
	  {dataset: {name: d2}, template: {spec: {nodeName: edge-b, containers: [{name: w, image: i/train}]}}}]}`)
	c.until(f, &f.Status.Conditions, "False", "DatasetNotFound", "d2")
	c.apply(&sedna.Dataset{}, "d2", `spec: {url: /srv/data/2/train.txt, format: txt, nodeName: edge-b}`)
	c.until(f, &f.Status.Conditions, "True", "Running")
	exists(c, &corev1.Service{}, "fl-aggregation", func(s *corev1.Service) bool { return s.Spec.Ports[0].Port == 7363 })
	agg := c.pods(f, "FederatedLearningJob", "aggregation", 1)[0]
	clients := c.pods(f, "FederatedLearningJob", "train", 2)
	names := map[string]bool{}
	for _, p := range clients {
		w := &p.Spec.Containers[0]
		names[variable(w, "WORKER_NAME")] = true
		if !p.Spec.HostNetwork || variable(w, "AGG_IP") != "fl-aggregation."+c.ns || variable(w, "PARTICIPANTS_COUNT") != "2" || variable(w, "TRAIN_DATASET_URL") == "" {
			c.t.Errorf("client %+v", p.Spec)
		}
	}
	if len(names) != 2 {
		c.t.Errorf("workers' names %v", names)
	}
	// A client that fails is made again, alone.
	c.end(&clients[0], corev1.PodFailed)
	c.eventually("the client's second attempt", func() bool {
		return slices.ContainsFunc(c.pods(f, "FederatedLearningJob", "train", 2), func(p corev1.Pod) bool { return p.Annotations[workload.AnnotationAttempt] == "1" })
	})
	if now := c.pods(f, "FederatedLearningJob", "aggregation", 1)[0]; now.UID != agg.UID {
		c.t.Error("the aggregator was made again, too")
	}
	c.until(f, &f.Status.Conditions, "True", "Running")
	for _, p := range append(c.pods(f, "FederatedLearningJob", "train", 2), agg) {
		c.end(&p, corev1.PodSucceeded)
	}
	c.until(f, &f.Status.Conditions, "True", "Completed")
	if f.Status.Phase != sedna.PhaseSucceeded || f.Status.Succeeded != 3 {
		c.t.Errorf("status %+v", f.Status)
	}
	// A job that Sedna itself carries out has no pods.
	c.change(f, func() {
		f.Spec.AggregationWorker.Template = nil
		for i := range f.Spec.TrainingWorkers {
			w := &f.Spec.TrainingWorkers[i]
			w.Template, w.Trainer, w.NodeName = nil, &sedna.Algorithm{Name: "mlp"}, "edge-a"
		}
	})
	c.empty()
	c.delete(f)
}

func searchPods(c *cluster) {
	s := &sedna.ObjectSearchService{}
	c.apply(s, "search", `spec: {userWorker: {template: {spec: {containers: [{name: w, image: i/ask}]}}},
	  trackingWorkers: [{template: {spec: {containers: [{name: w, image: i/t1}]}}}, {template: {spec: {containers: [{name: w, image: i/t2}]}}}],
	  reidWorkers: {selector: {matchLabels: {app: r}}, template: {metadata: {labels: {app: r}}, spec: {containers: [{name: w, image: i/r}]}}}}`)
	c.until(s, &s.Status.Conditions, "True", sedna.ReasonServing, "4 of 4")
	exists(c, &corev1.Service{}, "search-userworker", func(s *corev1.Service) bool { return s.Spec.Ports[0].Port == 9379 })
	exists(c, &corev1.Service{}, "search-reidworker", func(s *corev1.Service) bool { return s.Spec.Ports[0].Port == 9378 })
	exists(c, &appsv1.Deployment{}, "search-deployment-userworker", present)
	exists(c, &appsv1.Deployment{}, "search-deployment-reidworker", present)
	trackers := c.pods(s, "ObjectSearchService", "trackingworker", 2)
	if w := &trackers[0].Spec.Containers[0]; variable(w, "USERWORKER_URL") != "search-userworker."+c.ns+":9379" || variable(w, "EDGEMESH_URL") != "search-reidworker."+c.ns+":9378" {
		c.t.Errorf("tracker %+v", w.Env)
	}
	c.end(&trackers[1], corev1.PodFailed)
	c.eventually("another tracker", func() bool {
		now := c.pods(s, "ObjectSearchService", "trackingworker", 2)
		return slices.ContainsFunc(now, func(p corev1.Pod) bool { return p.Annotations[workload.AnnotationAttempt] == "1" }) &&
			slices.ContainsFunc(now, func(p corev1.Pod) bool { return p.UID == trackers[0].UID })
	})
	c.until(s, &s.Status.Conditions, "True", sedna.ReasonServing, "4 of 4")
	c.change(s, func() { s.Spec.TrackingWorkers = s.Spec.TrackingWorkers[:1] })
	c.pods(s, "ObjectSearchService", "trackingworker", 1)
	c.until(s, &s.Status.Conditions, "True", sedna.ReasonServing, "3 of 3")
	c.delete(s)
	c.empty()
}

func trackingPods(c *cluster) {
	s := &sedna.ObjectTrackingService{}
	c.apply(s, "track", `spec: {trackingWorkers: [{template: {spec: {containers: [{name: w, image: i/t1}]}}}],
	  reidWorkers: {replicas: 2, selector: {matchLabels: {app: r}}, template: {metadata: {labels: {app: r}}, spec: {containers: [{name: w, image: i/r}]}}}}`)
	c.until(s, &s.Status.Conditions, "True", sedna.ReasonServing, "2 of 2")
	old := c.pods(s, "ObjectTrackingService", "trackingworker", 1)[0]
	c.change(s, func() {
		s.Spec.TrackingWorkers[0].Template.Raw = []byte(`{"spec":{"containers":[{"name":"w","image":"i/t2"}]}}`)
	})
	c.gone(&old)
	c.eventually("the new tracker", func() bool {
		return c.pods(s, "ObjectTrackingService", "trackingworker", 1)[0].Spec.Containers[0].Image == "i/t2"
	})
	c.until(s, &s.Status.Conditions, "True", sedna.ReasonServing, "2 of 2")
	c.delete(s)
	c.empty()
}

func secretsByReference(c *cluster) {
	const secret = "very-secret-key"
	c.apply(&sedna.Model{}, "features", `spec: {url: "s3://models/features.pt", format: pt, credentialName: minio}`)
	s := &sedna.FeatureExtractionService{}
	c.apply(s, "fe", `spec: {model: {name: features}, template: {spec: {containers: [{name: w, image: i/fe}]}}}`)
	c.until(s, &s.Status.Conditions, "False", "CredentialNotFound", "minio")
	c.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns, Name: "minio", Annotations: map[string]string{"s3-endpoint": "minio.example.com:9000", "s3-usehttps": "0"}},
		StringData: map[string]string{"ACCESS_KEY_ID": "someone", "SECRET_ACCESS_KEY": secret}})
	c.until(s, &s.Status.Conditions, "True", sedna.ReasonServing)
	d := exists(c, &appsv1.Deployment{}, "fe-deployment-fe", present)
	b, _ := json.Marshal(d)
	init := d.Spec.Template.Spec.InitContainers[0]
	if strings.Contains(string(b), secret) || variable(&init, "S3_ENDPOINT_URL") != "http://minio.example.com:9000" {
		c.t.Errorf("init container %+v", init)
	}
	if i := slices.IndexFunc(init.Env, func(e corev1.EnvVar) bool { return e.Name == "SECRET_ACCESS_KEY" }); i < 0 || init.Env[i].ValueFrom.SecretKeyRef.Name != "minio" {
		c.t.Errorf("init container %+v", init)
	}
	c.delete(s)
	c.empty()
}

func nameTaken(c *cluster) {
	theirs := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns, Name: "track-reidworker"},
		Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(80)}}}}
	c.create(theirs)
	version := theirs.ResourceVersion
	s := &sedna.ObjectTrackingService{}
	c.apply(s, "track", `spec: {trackingWorkers: [], reidWorkers: {template: {spec: {containers: [{name: w, image: i/r}]}}}}`)
	c.until(s, &s.Status.Conditions, "False", sedna.ReasonInvalid, "Service track-reidworker", "not Sedna's")
	if c.get(theirs, theirs.Name); theirs.ResourceVersion != version {
		c.t.Errorf("somebody else's Service was written: %+v", theirs)
	}
	if err := c.c.Delete(c.t.Context(), theirs); err != nil {
		c.t.Fatal(err)
	}
	c.until(s, &s.Status.Conditions, "True", sedna.ReasonServing)
	c.delete(s)
	c.empty()
}

// What only the cluster's API can refuse is told as well.
func invalidTemplate(c *cluster) {
	for name, test := range map[string]struct{ container, reason, words string }{
		"image":   {`{name: w, image: " "}`, sedna.ReasonInvalid, "image"},
		"process": {`{name: w, image: i}`, sedna.ReasonNeedsPodRuntime, "process"},
	} {
		r := &sedna.ReidJob{}
		annotation := map[string]string{"process": "process", "image": "pod"}[name]
		c.apply(r, name, `spec: {template: {metadata: {annotations: {sedna.io/runtime: `+annotation+`}}, spec: {restartPolicy: Never, containers: [`+test.container+`]}}}`)
		c.until(r, &r.Status.Conditions, "False", test.reason, test.words)
		c.delete(r)
	}
	c.empty()
}
