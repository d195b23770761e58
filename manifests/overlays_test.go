package manifests_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"

	"github.com/edgetwin/sedna/cloud"
	"github.com/edgetwin/sedna/edge"
	"github.com/edgetwin/sedna/lib/daemon"
	"github.com/edgetwin/sedna/mapper"
	"github.com/edgetwin/sedna/models/wire"
)

// rule and ruleEndpoint are what KubeEdge's Router takes.
type rule struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Source         string            `json:"source"`
		SourceResource map[string]string `json:"sourceResource"`
		Target         string            `json:"target"`
		TargetResource map[string]string `json:"targetResource"`
	} `json:"spec"`
}

type ruleEndpoint struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		RuleEndpointType string            `json:"ruleEndpointType"`
		Properties       map[string]string `json:"properties"`
	} `json:"spec"`
}

// kinds are all that the overlays may hold.
var kinds = map[string]func() metav1.Object{
	"apiextensions.k8s.io/v1 CustomResourceDefinition": func() metav1.Object { return &apiextensionsv1.CustomResourceDefinition{} },
	"apps/v1 DaemonSet":                               func() metav1.Object { return &appsv1.DaemonSet{} },
	"apps/v1 Deployment":                              func() metav1.Object { return &appsv1.Deployment{} },
	"rbac.authorization.k8s.io/v1 ClusterRole":        func() metav1.Object { return &rbacv1.ClusterRole{} },
	"rbac.authorization.k8s.io/v1 ClusterRoleBinding": func() metav1.Object { return &rbacv1.ClusterRoleBinding{} },
	"rules.kubeedge.io/v1 Rule":                       func() metav1.Object { return &rule{} },
	"rules.kubeedge.io/v1 RuleEndpoint":               func() metav1.Object { return &ruleEndpoint{} },
	"v1 ConfigMap":                                    func() metav1.Object { return &corev1.ConfigMap{} },
	"v1 Namespace":                                    func() metav1.Object { return &corev1.Namespace{} },
	"v1 PersistentVolumeClaim":                        func() metav1.Object { return &corev1.PersistentVolumeClaim{} },
	"v1 Secret":                                       func() metav1.Object { return &corev1.Secret{} },
	"v1 Service":                                      func() metav1.Object { return &corev1.Service{} },
	"v1 ServiceAccount":                               func() metav1.Object { return &corev1.ServiceAccount{} },
}

// unscoped kinds have no namespace.
var unscoped = []string{"CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding", "Namespace"}

// render gives what `kubectl apply -k` would apply, by kind and name, each
// decoded strictly into its type.
func render(t *testing.T, dir string) map[string]metav1.Object {
	t.Helper()
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatalf("%s: %v", dir, err)
	}
	out := map[string]metav1.Object{}
	for _, r := range resources.Resources() {
		id := strings.TrimPrefix(r.GetApiVersion()+" "+r.GetKind(), "/")
		text, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		make, known := kinds[id]
		if !known {
			t.Errorf("%s: %s is not a kind that is expected", dir, id)
			continue
		}
		o := make()
		if err := yaml.UnmarshalStrict(text, o); err != nil {
			t.Errorf("%s: %s %s: %v", dir, id, r.GetName(), err)
		}
		if want := map[bool]string{false: "sedna"}[slices.Contains(unscoped, r.GetKind())]; o.GetNamespace() != want {
			t.Errorf("%s: %s %s is in namespace %q, want %q", dir, id, r.GetName(), o.GetNamespace(), want)
		}
		out[r.GetKind()+"/"+r.GetName()] = o
	}
	return out
}

// withBusSecret gives a directory with the cluster overlay and the component.
func withBusSecret(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, part := range []string{"base", "components", "crds", "overlays"} {
		if err := os.CopyFS(filepath.Join(dir, part), os.DirFS(part)); err != nil {
			t.Fatal(err)
		}
	}
	overlay := filepath.Join(dir, "overlays", "mine")
	if err := os.Mkdir(overlay, 0o700); err != nil {
		t.Fatal(err)
	}
	text := "kind: Kustomization\nresources: [../cluster]\ncomponents: [../../components/bus-secret]\n"
	if err := os.WriteFile(filepath.Join(overlay, "kustomization.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return overlay
}

// A cluster gets all of Sedna's definitions, and none of KubeEdge's.
func TestClusterGetsOurDefinitionsOnly(t *testing.T) {
	files, err := filepath.Glob("crds/sedna.io_*.yaml")
	if err != nil || len(files) < 3 {
		t.Fatal(files, err)
	}
	want := map[string]bool{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.Unmarshal(b, &crd); err != nil {
			t.Fatal(err)
		}
		want[crd.Name] = true
	}
	for _, dir := range []string{"crds", "overlays/cluster", "overlays/edge-only"} {
		got := 0
		for _, o := range render(t, dir) {
			crd, ok := o.(*apiextensionsv1.CustomResourceDefinition)
			if !ok {
				continue
			}
			got++
			if !want[crd.Name] || crd.Spec.Group != "sedna.io" {
				t.Errorf("%s brings %s", dir, crd.Name)
			}
		}
		if got != len(want) {
			t.Errorf("%s brings %d definitions, want %d", dir, got, len(want))
		}
	}
}

// workload is one kind of pod in an overlay.
type workload struct {
	name   string
	labels map[string]string
	pod    corev1.PodSpec
}

func workloads(objects map[string]metav1.Object) []workload {
	var out []workload
	for id, o := range objects {
		switch o := o.(type) {
		case *appsv1.Deployment:
			out = append(out, workload{id, o.Spec.Template.Labels, o.Spec.Template.Spec})
		case *appsv1.DaemonSet:
			out = append(out, workload{id, o.Spec.Template.Labels, o.Spec.Template.Spec})
		}
	}
	return out
}

// What every container is held to, on the edge as in the cloud.
func TestContainersAreConfined(t *testing.T) {
	all := workloads(render(t, "overlays/cluster"))
	if len(all) != 2 {
		t.Fatalf("%d workloads, want a Deployment and a DaemonSet", len(all))
	}
	for _, w := range all {
		if s := w.pod.SecurityContext; s == nil || s.SeccompProfile == nil || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
			t.Errorf("%s: seccomp is not RuntimeDefault", w.name)
		}
		if w.pod.HostPID || w.pod.HostIPC {
			t.Errorf("%s: shares the host's processes", w.name)
		}
		inCloud := strings.HasPrefix(w.name, "Deployment/")
		if w.pod.AutomountServiceAccountToken == nil || *w.pod.AutomountServiceAccountToken != inCloud {
			t.Errorf("%s: a service account's token is for the GlobalManager alone", w.name)
		}
		if s := w.pod.SecurityContext; inCloud && (s.RunAsNonRoot == nil || !*s.RunAsNonRoot || s.RunAsUser == nil || *s.RunAsUser == 0) {
			t.Errorf("%s: may run as root", w.name)
		}
		for _, c := range w.pod.Containers {
			s := c.SecurityContext
			switch {
			case s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem:
				t.Errorf("%s %s: its root can be written", w.name, c.Name)
			case s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation:
				t.Errorf("%s %s: may gain privileges", w.name, c.Name)
			case s.Capabilities == nil || len(s.Capabilities.Add) > 0 || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}):
				t.Errorf("%s %s: has capabilities", w.name, c.Name)
			case s.Privileged != nil && *s.Privileged:
				t.Errorf("%s %s: is privileged", w.name, c.Name)
			}
			if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() {
				t.Errorf("%s %s: resources %+v", w.name, c.Name, c.Resources)
			}
			if c.LivenessProbe == nil || c.ReadinessProbe == nil || c.StartupProbe == nil {
				t.Errorf("%s %s: a probe is missing", w.name, c.Name)
			}
		}
	}
}

// environment gives what a container finds in its environment.
func environment(t *testing.T, objects map[string]metav1.Object, c corev1.Container) []string {
	t.Helper()
	values := map[string]string{}
	var out []string
	for _, e := range c.Env {
		v := e.Value
		switch from := e.ValueFrom; {
		case from == nil:
			v = os.Expand(strings.NewReplacer("$(", "${", ")", "}").Replace(v), func(name string) string { return values[name] })
		case from.FieldRef != nil && from.FieldRef.FieldPath == "spec.nodeName":
			v = "edge1"
		case from.ConfigMapKeyRef != nil:
			m, ok := objects["ConfigMap/"+from.ConfigMapKeyRef.Name].(*corev1.ConfigMap)
			if !ok || m.Data[from.ConfigMapKeyRef.Key] == "" {
				t.Errorf("%s: %s is not in ConfigMap %s", c.Name, from.ConfigMapKeyRef.Key, from.ConfigMapKeyRef.Name)
				continue
			}
			v = m.Data[from.ConfigMapKeyRef.Key]
		case from.SecretKeyRef != nil && from.SecretKeyRef.Name == "sedna-bus":
			v = map[string]string{"url": "tls://127.0.0.1:8883", "username": "edge", "password": "secret"}[from.SecretKeyRef.Key]
		default:
			t.Errorf("%s: where does %s come from?", c.Name, e.Name)
		}
		values[e.Name] = v
		out = append(out, e.Name+"="+v)
	}
	return out
}

// mounted gives the text of a file of a ConfigMap that the container mounts.
func mounted(objects map[string]metav1.Object, pod corev1.PodSpec, c corev1.Container, path string) (string, error) {
	for _, m := range c.VolumeMounts {
		if m.MountPath != filepath.Dir(path) {
			continue
		}
		for _, v := range pod.Volumes {
			if v.Name != m.Name || v.ConfigMap == nil {
				continue
			}
			if cm, ok := objects["ConfigMap/"+v.ConfigMap.Name].(*corev1.ConfigMap); ok && cm.Data[filepath.Base(path)] != "" {
				return cm.Data[filepath.Base(path)], nil
			}
		}
	}
	return "", fmt.Errorf("%s: no ConfigMap is mounted that holds %s", c.Name, path)
}

// checkConfig runs the program of a container with --check-config, as the
// container would be started, and gives the settings it prints.
func checkConfig(t *testing.T, objects map[string]metav1.Object, pod corev1.PodSpec, c corev1.Container) map[string]any {
	t.Helper()
	args := slices.Clone(c.Args)
	at := slices.Index(args, "--config")
	if at < 0 || at+1 == len(args) {
		t.Fatalf("%s: arguments %q name no configuration", c.Name, args)
	}
	text, err := mounted(objects, pod, c, args[at+1])
	if err != nil {
		t.Fatal(err)
	}
	args[at+1] = filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(args[at+1], []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	args = append(args, "--check-config")
	environ := environment(t, objects, c)
	var out, errs bytes.Buffer
	var code int
	switch c.Name {
	case "globalmanager": // the image starts sedna, which starts its part
		if args[0] != "globalmanager" {
			t.Fatalf("arguments %q", args)
		}
		code = daemon.Run(t.Context(), cloud.Program(), args[1:], environ, &out, &errs)
	case "localcontroller":
		code = daemon.Run(t.Context(), edge.Program(), args, environ, &out, &errs)
	case "mapper":
		code = daemon.Run(t.Context(), mapper.Program(), args, environ, &out, &errs)
	default:
		t.Fatalf("container %q", c.Name)
	}
	if code != daemon.ExitDone {
		t.Fatalf("%s: exit code %d: %s", c.Name, code, errs.String())
	}
	settings := map[string]any{}
	if err := yaml.Unmarshal(out.Bytes(), &settings); err != nil {
		t.Fatal(err)
	}
	return settings
}

// Each daemon takes the configuration that its container is given, and the
// pod's ports, probes and mounts are what the configuration says.
func TestContainersFitTheirConfigurations(t *testing.T) {
	for name, dir := range map[string]string{"cluster": "overlays/cluster", "edge-only": "overlays/edge-only", "bus-secret": withBusSecret(t)} {
		t.Run(name, func(t *testing.T) {
			objects := render(t, dir)
			checked := map[string]map[string]any{}
			for _, w := range workloads(objects) {
				for _, c := range w.pod.Containers {
					settings := checkConfig(t, objects, w.pod, c)
					checked[c.Name] = settings
					if port := fmt.Sprintf(":%d", c.Ports[0].ContainerPort); !strings.HasSuffix(settings["http"].(string), port) {
						t.Errorf("%s listens on %v, its port is %s", c.Name, settings["http"], port)
					}
					for _, p := range []*corev1.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
						if p.HTTPGet.Port.String() != c.Ports[0].Name {
							t.Errorf("%s is probed at port %s", c.Name, p.HTTPGet.Port.String())
						}
					}
					for _, key := range []string{"dataDir", "identity", "identityDir", "dmiSocket", "socket", "enrolTokenFile"} {
						if path, ok := settings[key].(string); ok && !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool {
							return strings.HasPrefix(path+"/", m.MountPath+"/")
						}) {
							t.Errorf("%s: %s %s is not on a volume", c.Name, key, path)
						}
					}
				}
			}
			local, mapper := checked["localcontroller"], checked["mapper"]
			if local["node"] != "edge1" || mapper["node"] != "edge1" || local["enrolTokenFile"] != "/etc/sedna/tokens/edge1" {
				t.Errorf("node %v and %v, token %v", local["node"], mapper["node"], local["enrolTokenFile"])
			}
			if !strings.HasPrefix(local["cloudURL"].(string), "https://") {
				t.Errorf("cloudURL %v", local["cloudURL"])
			}
			if local["identityDir"] != mapper["identity"] {
				t.Errorf("identity in %v and in %v", local["identityDir"], mapper["identity"])
			}
			if got := mapper["devices"].(map[string]any)["localController"]; got != fmt.Sprintf("unix://%v", local["socket"]) {
				t.Errorf("the mapper asks %v, the LocalController listens on %v", got, local["socket"])
			}
			bus := local["bus"].(map[string]any)
			if want := map[bool]string{true: "tls://127.0.0.1:8883", false: "tcp://127.0.0.1:1883"}[name == "bus-secret"]; bus["url"] != want || mapper["bus"].(map[string]any)["url"] != want {
				t.Errorf("bus %v and %v", bus, mapper["bus"])
			}
			manager, inCloud := checked["globalmanager"]
			if inCloud != (name != "edge-only") {
				t.Fatalf("the overlay has a GlobalManager: %v", inCloud)
			}
			if inCloud && (manager["edgelink"] != false || manager["kubernetes"].(map[string]any)["embedded"] != false || len(manager["hosts"].([]any)) == 0) {
				t.Errorf("%v", manager)
			}
		})
	}
}

// edgecore calls back on the mapper's sockets and both share files with the
// LocalController, so what is on the host has the same path in the pod.
func TestHostPathsAreTheSameInside(t *testing.T) {
	for _, w := range workloads(render(t, "overlays/edge-only")) {
		host := map[string]string{}
		for _, v := range w.pod.Volumes {
			if v.HostPath != nil {
				host[v.Name] = v.HostPath.Path
			}
		}
		if len(host) != 3 {
			t.Errorf("host paths %v", host)
		}
		for _, c := range w.pod.Containers {
			for _, m := range c.VolumeMounts {
				if path, ok := host[m.Name]; ok && path != m.MountPath {
					t.Errorf("%s: %s is %s on the host", c.Name, m.MountPath, path)
				}
				if m.Name == "dmi" && (c.Name != "mapper" || !m.ReadOnly) {
					t.Errorf("%s can write edgecore's directory, or needs none of it", c.Name)
				}
			}
		}
	}
}

// The Service finds the GlobalManager's pods, the URL for nodes names its port,
// and the binding the account that the pods run as.
func TestPartsOfTheCloudFitTogether(t *testing.T) {
	objects := render(t, "overlays/cluster")
	d := objects["Deployment/globalmanager"].(*appsv1.Deployment)
	s := objects["Service/globalmanager"].(*corev1.Service)
	for k, v := range s.Spec.Selector {
		if d.Spec.Template.Labels[k] != v {
			t.Errorf("selector %s=%s", k, v)
		}
	}
	if p := s.Spec.Ports[0]; p.Port != 9000 || p.TargetPort.String() != d.Spec.Template.Spec.Containers[0].Ports[0].Name {
		t.Errorf("%+v", p)
	}
	if *d.Spec.Replicas != 1 || d.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType {
		t.Errorf("%d replicas, %s", *d.Spec.Replicas, d.Spec.Strategy.Type)
	}
	if b := objects["ClusterRoleBinding/sedna-globalmanager"].(*rbacv1.ClusterRoleBinding); b.Subjects[0].Name != d.Spec.Template.Spec.ServiceAccountName || b.Subjects[0].Namespace != d.Namespace {
		t.Errorf("%+v", b.Subjects)
	}
	c := d.Spec.Template.Spec.Containers[0]
	if !slices.Contains(c.Env, corev1.EnvVar{Name: "SEDNA_WORKERS_STORAGEIMAGE", Value: c.Image}) {
		t.Errorf("workers in pods do not fetch with %s: %v", c.Image, c.Env)
	}
	for name, o := range objects {
		if m, ok := o.(*corev1.ConfigMap); ok && m.Data["url"] != "" && !strings.HasSuffix(m.Data["url"], fmt.Sprintf(":%d", s.Spec.Ports[0].NodePort)) {
			t.Errorf("%s: url %s", name, m.Data["url"])
		}
	}
}

// A Rule from the bus stands for the topic that its namespace and its own topic
// make, which has to be the one on which the LocalController publishes. A Rule
// to the bus puts the rest of the URL's path behind its topic.
func TestRouterRulesNameOurTopics(t *testing.T) {
	const node = "edge7"
	nudge := strings.ReplaceAll("http://cloudcore:9443/{node}/sedna/nudge/{node}/nudge", "{node}", node)
	objects := render(t, "overlays/router")
	events, nudges := 0, 0
	for name, o := range objects {
		r, ok := o.(*rule)
		if !ok {
			continue
		}
		source, _ := objects["RuleEndpoint/"+r.Spec.Source].(*ruleEndpoint)
		target, _ := objects["RuleEndpoint/"+r.Spec.Target].(*ruleEndpoint)
		switch {
		case source == nil || target == nil:
			t.Errorf("%s: endpoints %s and %s", name, r.Spec.Source, r.Spec.Target)
		case source.Spec.RuleEndpointType == "eventbus" && target.Spec.RuleEndpointType == "rest":
			events++
			if topic := r.Namespace + "/" + r.Spec.SourceResource["topic"]; !strings.HasPrefix(topic, "sedna/"+r.Spec.SourceResource["node_name"]+"/event/") {
				t.Errorf("%s: topic %s", name, topic)
			}
			if !strings.HasPrefix(r.Spec.TargetResource["resource"], "http") {
				t.Errorf("%s: %v", name, r.Spec.TargetResource)
			}
		case source.Spec.RuleEndpointType == "rest" && target.Spec.RuleEndpointType == "eventbus":
			nudges++
			_, rest, ok := strings.Cut(nudge, "/"+node+"/"+r.Namespace+"/"+r.Spec.SourceResource["path"])
			if topic := r.Spec.TargetResource["topic"] + rest; !ok || topic != wire.Nudge(node) {
				t.Errorf("%s: topic %s", name, topic)
			}
		default:
			t.Errorf("%s: from %s to %s", name, source.Spec.RuleEndpointType, target.Spec.RuleEndpointType)
		}
	}
	if events == 0 || nudges != 1 {
		t.Errorf("%d rules for events, %d for nudges", events, nudges)
	}
}
