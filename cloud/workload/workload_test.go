package workload

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the golden files anew")

var owner = Owner{Kind: "IncrementalLearningJob", Namespace: "shop", Name: "helmets", UID: "0b8e0c5e-0000-4000-8000-000000000001"}

// What data does to a pod: volumes, mounts, variables and the init container.
func TestStorageGolden(t *testing.T) {
	minio := &Credential{Secret: "minio", Endpoint: "http://minio.example.com:9000"}
	template := corev1.PodTemplateSpec{Spec: corev1.PodSpec{NodeName: "edge-a", Containers: []corev1.Container{{
		Name: "w", Image: "i/w", Env: []corev1.EnvVar{{Name: "MODEL_URL", Value: "ours wins"}, {Name: "twice", Value: "1"}, {Name: "twice", Value: "2"}}}, {Name: "side", Image: "i/side"}}}}
	for name, mounts := range map[string][]Mount{
		"file":          {{Env: "MODEL_URL", URLs: []URL{{URL: "/srv/models/a.pt", Download: true}}}},
		"directory":     {{Env: "OUTPUT_URL", URLs: []URL{{URL: "/srv/out/", Dir: true}}}},
		"shared":        {{Env: "MODEL_URLS", URLs: []URL{{URL: "/srv/models/new.pt", Download: true}, {URL: "/srv/models/old.pt", Download: true}}}},
		"similar-names": {{Env: "A", URLs: []URL{{URL: "/srv/a-b/x", Download: true}}}, {Env: "B", URLs: []URL{{URL: "/srv/a/b/x", Download: true}}}},
		"http":          {{Env: "MODEL_URL", URLs: []URL{{URL: "https://models.example.com/v1/a.tar.gz#sha256=00", Download: true}}}},
		"s3":            {{Env: "MODEL_URL", URLs: []URL{{URL: "s3://models/a.pt", Download: true, Credential: minio}}}},
		"s3-output":     {{Env: "OUTPUT_URL", URLs: []URL{{URL: "s3://models/out", Credential: minio}}}},
		"index-file":    {{Env: "TRAIN_DATASET_URL", URLs: []URL{{URL: "/srv/data/index.txt", Download: true, Index: true, Credential: minio}}}},
		"index-s3":      {{Env: "TRAIN_DATASET_URL", URLs: []URL{{URL: "s3://data/index.txt", Download: true, Index: true, Credential: minio}}}},
		"host-only":     {{Env: "ORIGINAL_DATASET_URL", URLs: []URL{{URL: "s3://data/train.txt", HostOnly: true}}}},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := Renderer{Image: "sedna:v1"}.Pod(owner, Worker{Type: "train", Called: "trainworker", Template: template, Mounts: mounts, RestartPolicy: corev1.RestartPolicyOnFailure})
			if err != nil {
				t.Fatal(err)
			}
			have, err := yaml.Marshal(p.Spec)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", "storage", name+".yaml")
			if *update {
				if err := os.WriteFile(path, have, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(have)); diff != "" {
				t.Errorf("(-want +have):\n%s", diff)
			}
		})
	}
	if len(template.Spec.Volumes) > 0 || len(template.Spec.Containers[0].Env) != 3 {
		t.Errorf("the template was written to: %+v", template.Spec)
	}
}

func TestURLsThatPodsCannotReach(t *testing.T) {
	for name, u := range map[string]URL{
		"relative":       {URL: "models/a.pt"},
		"relative dir":   {URL: "models", Dir: true},
		"all of a node":  {URL: "/a.pt"},
		"root":           {URL: "/", Dir: true},
		"root by dots":   {URL: "/srv/..", Dir: true},
		"blob store":     {URL: "blob://sha256/00", Download: true},
		"no URL":         {URL: "http://[", Download: true},
		"nothing but //": {URL: "http://", Download: true},
	} {
		if p, err := locate(u); err == nil || !strings.Contains(err.Error(), "url") {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}

func FuzzLocate(f *testing.F) {
	for _, s := range []string{"/srv/a", "s3://b/../../k", "http://h/../../etc/passwd", "//h/x", "/..", "/a/../../b/c", "file:///etc", "HTTPS://h:1/%2e%2e/x", "?", "http://h"} {
		f.Add(s, true, false, false)
		f.Add(s, false, true, true)
	}
	below := func(dir, p string) bool { return strings.HasPrefix(p, dir+"/") && !strings.Contains(p+"/", "/../") }
	f.Fuzz(func(t *testing.T, s string, download, dir, index bool) {
		p, err := locate(URL{URL: s, Download: download, Dir: dir, Index: index})
		if err != nil || p == nil {
			return
		}
		if p.inside != s && !below(dataPrefix, p.inside) && !below(downloads, p.inside) {
			t.Errorf("%q is at %q", s, p.inside)
		}
		if p.hostDir != "" && (p.hostDir[0] != '/' || p.hostDir == "/" || !below(dataPrefix, p.mountPath)) {
			t.Errorf("%q mounts %q at %q", s, p.hostDir, p.mountPath)
		}
		if p.from != "" && p.to != downloads && !below(downloads, p.to) {
			t.Errorf("%q is fetched into %q", s, p.to)
		}
	})
}

func TestNamesThatAreTooLong(t *testing.T) {
	long := owner
	long.Name = strings.Repeat("n", 62) + "a"
	other := owner
	other.Name = strings.Repeat("n", 62) + "b"
	if a, b := serviceName(long, "userworker"), serviceName(other, "userworker"); len(a) > 63 || a == b || !strings.HasSuffix(a, "-userworker") {
		t.Errorf("Services %q and %q", a, b)
	}
	d, err := Renderer{}.Deployment(long, Worker{Type: "Edge"}, appsv1.DeploymentSpec{}, false)
	if err != nil || len(d.Labels[labelApp]) > 63 {
		t.Errorf("%v, %v", d, err)
	}
}

// A template whose labels pretend that the engine made the pod would have it
// removed as one that nobody wished.
func TestTemplatesDoNotPretend(t *testing.T) {
	w := Worker{Type: "Edge", Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{LabelManaged: Managed, LabelSlot: "edge-0", "app": "mine"}}}}
	d, err := Renderer{}.Deployment(owner, w, appsv1.DeploymentSpec{}, false)
	if err != nil {
		t.Fatal(err)
	}
	l := d.Spec.Template.Labels
	if l[LabelManaged] != "" || l[LabelSlot] != "" || l["app"] != "mine" || d.Labels[LabelManaged] != Managed {
		t.Errorf("pods' labels %v, the Deployment's %v", l, d.Labels)
	}
}

// A pod's name follows from what it is: the same again, another for another
// owner of the same name, another spec, slot or attempt.
func TestPodNames(t *testing.T) {
	seen := map[string]string{}
	pod := func(o Owner, w Worker) *corev1.Pod {
		p, err := Renderer{}.Pod(o, w)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	worker := Worker{Type: "train", Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Image: "1"}}}}}
	changed, second, reborn := worker, worker, owner
	changed.Env, second.Index, reborn.UID = map[string]string{"A": "b"}, 1, "another"
	again := pod(owner, worker)
	namePod(again, 1)
	for what, p := range map[string]*corev1.Pod{"first": pod(owner, worker), "changed": pod(owner, changed), "second": pod(owner, second), "reborn": pod(reborn, worker), "again": again} {
		if !strings.HasPrefix(p.Name, "helmets-train-") || seen[p.Name] != "" {
			t.Errorf("%s: %s, as %s", what, p.Name, seen[p.Name])
		}
		seen[p.Name] = what
	}
	if name := pod(owner, worker).Name; seen[name] != "first" {
		t.Errorf("the same pod has another name: %s", name)
	}
}

func TestBackoff(t *testing.T) {
	for attempt, want := range map[int]time.Duration{0: 10 * time.Second, 1: 20 * time.Second, 5: 320 * time.Second, 6: 360 * time.Second, 1 << 40: 360 * time.Second} {
		if have := backoff(attempt); have != want {
			t.Errorf("after attempt %d: %v, want %v", attempt, have, want)
		}
	}
}

func TestFailedPodsAreMadeAgain(t *testing.T) {
	now := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	pod := func(phase corev1.PodPhase, attempt string, ended time.Duration) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{AnnotationAttempt: attempt}, CreationTimestamp: metav1.NewTime(now.Add(-time.Hour))},
			Status: corev1.PodStatus{Phase: phase, ContainerStatuses: []corev1.ContainerStatus{
				{State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{FinishedAt: metav1.NewTime(now.Add(-ended))}}}}},
		}
	}
	evicted := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(now.Add(-time.Hour))}, Status: corev1.PodStatus{Phase: corev1.PodFailed,
		Conditions: []corev1.PodCondition{{LastTransitionTime: metav1.NewTime(now.Add(-4 * time.Second))}}}}
	for name, c := range map[string]struct {
		pod   *corev1.Pod
		wish  Wish
		again bool
		retry time.Duration
		lost  int
	}{
		"runs":              {pod(corev1.PodRunning, "0", 0), Wish{}, false, 0, 0},
		"too early":         {pod(corev1.PodFailed, "1", 5*time.Second), Wish{}, false, 15 * time.Second, 0},
		"due":               {pod(corev1.PodFailed, "1", 20*time.Second), Wish{}, true, 0, 0},
		"evicted":           {evicted, Wish{}, false, 6 * time.Second, 0},
		"a service's end":   {pod(corev1.PodSucceeded, "0", time.Minute), Wish{}, true, 0, 0},
		"a job's end":       {pod(corev1.PodSucceeded, "0", time.Minute), Wish{Ends: true}, false, 0, 0},
		"a job's last":      {pod(corev1.PodFailed, "2", time.Hour), Wish{Ends: true, Retries: 2}, false, 0, 1},
		"a job's next":      {pod(corev1.PodFailed, "1", time.Hour), Wish{Ends: true, Retries: 2}, true, 0, 0},
		"without a counter": {pod(corev1.PodFailed, "x", time.Hour), Wish{}, true, 0, 0},
	} {
		a := &application{Engine: &Engine{Now: func() time.Time { return now }}}
		if again := a.again(c.pod, &c.wish); again != c.again || a.state.Retry != c.retry || a.state.Lost != c.lost {
			t.Errorf("%s: again %v, retry in %v, lost %d", name, again, a.state.Retry, a.state.Lost)
		}
	}
}

func TestHealth(t *testing.T) {
	two := int32(2)
	deployment := func(status appsv1.DeploymentStatus) Report {
		return ofDeployment(&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "d", Generation: 3}, Spec: appsv1.DeploymentSpec{Replicas: &two}, Status: status})
	}
	pod := func(status corev1.PodStatus) Report {
		return ofPod(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Status: status})
	}
	condition := func(kind appsv1.DeploymentConditionType, status corev1.ConditionStatus) []appsv1.DeploymentCondition {
		return []appsv1.DeploymentCondition{{Type: kind, Status: status, Reason: "Why", Message: "words"}}
	}
	for name, c := range map[string]struct {
		have   Report
		health Health
		words  string
	}{
		"all there":      {deployment(appsv1.DeploymentStatus{ObservedGeneration: 3, AvailableReplicas: 2, UpdatedReplicas: 2}), Active, ""},
		"of an old spec": {deployment(appsv1.DeploymentStatus{ObservedGeneration: 2, AvailableReplicas: 2, UpdatedReplicas: 2}), Starting, "Deployment d"},
		"rolling":        {deployment(appsv1.DeploymentStatus{ObservedGeneration: 3, AvailableReplicas: 2, UpdatedReplicas: 1}), Starting, "1 of 2 pods"},
		"refused":        {deployment(appsv1.DeploymentStatus{ObservedGeneration: 3, Conditions: condition(appsv1.DeploymentReplicaFailure, corev1.ConditionTrue)}), Failed, "Why: words"},
		"too slow":       {deployment(appsv1.DeploymentStatus{ObservedGeneration: 3, Conditions: condition(appsv1.DeploymentProgressing, corev1.ConditionFalse)}), Failed, "Why: words"},
		"not written":    {ofDeployment(&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "d"}}), Starting, "0 of 1"},
		"pod runs":       {pod(corev1.PodStatus{Phase: corev1.PodRunning}), Active, ""},
		"pod is done":    {pod(corev1.PodStatus{Phase: corev1.PodSucceeded}), Succeeded, ""},
		"no node": {pod(corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "no node fits"}}}),
			Starting, "no node fits"},
		"no image": {pod(corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{{Name: "w", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull"}}}}}),
			Starting, "container w: ErrImagePull"},
		"restarts": {pod(corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{{Name: "w", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: "back-off"}}}}}),
			Starting, "back-off"},
		"pod failed": {pod(corev1.PodStatus{Phase: corev1.PodFailed, InitContainerStatuses: []corev1.ContainerStatus{{Name: "storage-initializer", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1, Message: "404"}}}}}),
			Failed, "storage-initializer ended with code 1: 404"},
	} {
		if c.have.Health != c.health || !strings.Contains(c.have.Message, c.words) || c.words == "" && c.have.Message != "" {
			t.Errorf("%s: %+v", name, c.have)
		}
	}
}
