package workload

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"

	sedna "github.com/edgetwin/sedna/models/sedna/v1alpha1"
)

// Labels and annotations of our own, besides those of KubeEdge Sedna.
const (
	// LabelManaged is on every object that Engine makes, so that it watches no
	// other; the pods of Deployments do not carry it.
	LabelManaged = "app.kubernetes.io/managed-by"
	// Managed is its value.
	Managed = "sedna-globalmanager"
	// LabelSlot is on pods that stand alone: which of the owner's workers it is.
	LabelSlot = "sedna.io/slot"
	// AnnotationHash holds the hash of what was asked for.
	AnnotationHash = "sedna.io/spec-hash"
	// AnnotationAttempt counts the pods of a slot that failed before this one.
	AnnotationAttempt = "sedna.io/attempt"

	// labelApp names the Service of a Deployment's pods.
	labelApp = "app.sedna.io"
)

// portName makes EdgeMesh route the port: it asks for <protocol>-<suffix>.
const portName = "tcp-0"

// Owner is the object of Sedna that workers belong to.
type Owner struct {
	Kind, Namespace, Name string
	UID                   types.UID
}

// Worker is one worker of an owner.
type Worker struct {
	// Type is a part of names and, in lower case, a label; such as Edge or train.
	Type string
	// Index tells apart the pods of one type.
	Index int
	// Called is what WORKER_NAME begins with.
	Called string
	// Template of the pod, as the manifest has it.
	Template corev1.PodTemplateSpec
	// Env of every container; it wins over variables of the template.
	Env map[string]string
	// Mounts bring data into every container.
	Mounts []Mount
	// HostNetwork puts the pod into the node's network.
	HostNetwork bool
	// RestartPolicy where the template has none.
	RestartPolicy corev1.RestartPolicy
}

func (w *Worker) slot() string { return strings.ToLower(w.Type) + "-" + strconv.Itoa(w.Index) }

// Renderer makes objects. The same input makes the same objects.
type Renderer struct {
	// Image of the init container that fetches data: one with `sedna storage-init`.
	Image string
}

// Label gives the key of a kind's label: name, uid or worker-type.
func Label(kind, what string) string { return strings.ToLower(kind) + ".sedna.io/" + what }

// Labels of a worker's objects; those of all workers when the type is empty.
func Labels(o Owner, workerType string) map[string]string {
	l := map[string]string{Label(o.Kind, "name"): o.Name, Label(o.Kind, "uid"): string(o.UID)}
	if workerType != "" {
		l[Label(o.Kind, "worker-type")] = strings.ToLower(workerType)
	}
	return l
}

// Pod makes a pod that stands alone.
func (r Renderer) Pod(o Owner, w Worker) (*corev1.Pod, error) {
	t, err := r.template(o, w)
	if err != nil {
		return nil, err
	}
	maps.Copy(t.Labels, map[string]string{LabelManaged: Managed, LabelSlot: w.slot()})
	p := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Labels: t.Labels, Annotations: t.Annotations, OwnerReferences: owners(o)},
		Spec:       t.Spec,
	}
	if p.Spec.RestartPolicy == "" {
		p.Spec.RestartPolicy = w.RestartPolicy
	}
	if err := seal(p); err != nil {
		return nil, err
	}
	namePod(p, 0)
	return p, nil
}

// namePod names a pod for its attempt. The name follows from what the pod is,
// so that no second one is made for it however often that is tried.
func namePod(p *corev1.Pod, attempt int) {
	owner := p.OwnerReferences[0]
	p.Annotations[AnnotationAttempt] = strconv.Itoa(attempt)
	id := digest(string(owner.UID), p.Labels[LabelSlot], p.Annotations[AnnotationHash], strconv.Itoa(attempt))
	p.Name = fmt.Sprintf("%s-%s-%s", owner.Name, p.Labels[Label(owner.Kind, "worker-type")], id[:5])
}

// Deployment makes a Deployment; spec gives all but template and selector.
// With an autoscaler the number of replicas is left to it.
func (r Renderer) Deployment(o Owner, w Worker, spec appsv1.DeploymentSpec, scaled bool) (*appsv1.Deployment, error) {
	t, err := r.template(o, w)
	if err != nil {
		return nil, err
	}
	labels := Labels(o, w.Type)
	labels[labelApp] = fit(o.Name, "-"+w.Type+"-svc", validation.LabelValueMaxLength)
	maps.Copy(t.Labels, labels)
	spec.Template = *t
	spec.Selector = &metav1.LabelSelector{MatchLabels: maps.Clone(labels)}
	if scaled {
		spec.Replicas = nil
	} else if spec.Replicas == nil {
		one := int32(1)
		spec.Replicas = &one
	}
	labels[LabelManaged] = Managed
	d := &appsv1.Deployment{
		TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
		ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: DeploymentName(o, w.Type), Labels: labels,
			Annotations: map[string]string{}, OwnerReferences: owners(o)},
		Spec: spec,
	}
	return d, seal(d)
}

// DeploymentName is the name of the Deployment of a type of worker.
func DeploymentName(o Owner, workerType string) string {
	return o.Name + "-deployment-" + strings.ToLower(workerType)
}

// Service makes the Service before the workers of a type.
func (r Renderer) Service(o Owner, workerType string, port int32) (*corev1.Service, error) {
	labels := Labels(o, workerType)
	s := &corev1.Service{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: serviceName(o, workerType), Labels: maps.Clone(labels),
			Annotations: map[string]string{}, OwnerReferences: owners(o)},
		Spec: corev1.ServiceSpec{
			Type:     corev1.ServiceTypeClusterIP,
			Selector: labels,
			Ports:    []corev1.ServicePort{{Name: portName, Protocol: corev1.ProtocolTCP, Port: port, TargetPort: intstr.FromInt32(port)}},
		},
	}
	s.Labels[LabelManaged] = Managed
	return s, seal(s)
}

func serviceName(o Owner, workerType string) string {
	return fit(o.Name, "-"+strings.ToLower(workerType), validation.DNS1035LabelMaxLength)
}

// Host is the name under which other workers reach a Service.
func Host(o Owner, workerType string) string { return serviceName(o, workerType) + "." + o.Namespace }

// Autoscaler makes the autoscaler of a Deployment; spec gives all but the target.
func (r Renderer) Autoscaler(o Owner, workerType string, spec autoscalingv2.HorizontalPodAutoscalerSpec) (*autoscalingv2.HorizontalPodAutoscaler, error) {
	deployment := DeploymentName(o, workerType)
	spec.ScaleTargetRef = autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: deployment}
	h := &autoscalingv2.HorizontalPodAutoscaler{
		TypeMeta: metav1.TypeMeta{APIVersion: "autoscaling/v2", Kind: "HorizontalPodAutoscaler"},
		ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: "hpa-" + deployment, Labels: Labels(o, workerType),
			Annotations: map[string]string{}, OwnerReferences: owners(o)},
		Spec: spec,
	}
	h.Labels[LabelManaged] = Managed
	return h, seal(h)
}

// template makes the pod of a worker from its template.
func (r Renderer) template(o Owner, w Worker) (*corev1.PodTemplateSpec, error) {
	t := w.Template.DeepCopy()
	env := map[string]string{"NAMESPACE": o.Namespace, "WORKER_NAME": w.Called + "-" + digest(string(o.UID), w.slot())[:5]}
	if isService(o.Kind) {
		env["SERVICE_NAME"] = o.Name
	} else {
		env["JOB_NAME"] = o.Name
	}
	maps.Copy(env, w.Env)
	s, err := r.storage(w.Mounts, env)
	if err != nil {
		return nil, err
	}
	vars := make([]corev1.EnvVar, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		vars = append(vars, corev1.EnvVar{Name: name, Value: env[name]})
	}
	vars = append(vars, s.env...)
	for i := range t.Spec.Containers {
		c := &t.Spec.Containers[i]
		c.Env = mergeEnv(c.Env, vars)
		c.VolumeMounts = append(c.VolumeMounts, s.mounts...)
	}
	t.Spec.Volumes = append(t.Spec.Volumes, s.volumes...)
	if s.init != nil {
		t.Spec.InitContainers = append(t.Spec.InitContainers, *s.init)
	}
	t.ObjectMeta = metav1.ObjectMeta{Labels: maps.Clone(t.Labels), Annotations: maps.Clone(t.Annotations)}
	if t.Labels == nil {
		t.Labels = map[string]string{}
	}
	if t.Annotations == nil {
		t.Annotations = map[string]string{}
	}
	// By these the engine knows its own objects, which a Deployment's pods are not.
	delete(t.Labels, LabelManaged)
	delete(t.Labels, LabelSlot)
	maps.Copy(t.Labels, Labels(o, w.Type))
	t.Spec.HostNetwork = t.Spec.HostNetwork || w.HostNetwork
	if t.Spec.HostNetwork && t.Spec.DNSPolicy == "" {
		// In the node's network the default finds no Service.
		t.Spec.DNSPolicy = corev1.DNSClusterFirstWithHostNet
	}
	return t, nil
}

func isService(kind string) bool { return strings.HasSuffix(kind, "Service") }

// mergeEnv adds vars, which win. A name that the template has twice has its
// last value, as in a container.
func mergeEnv(have, vars []corev1.EnvVar) []corev1.EnvVar {
	var out []corev1.EnvVar
	for i, e := range have {
		same := func(o corev1.EnvVar) bool { return o.Name == e.Name }
		if !slices.ContainsFunc(have[i+1:], same) && !slices.ContainsFunc(vars, same) {
			out = append(out, e)
		}
	}
	return append(out, vars...)
}

// owners make the garbage collector remove what belongs to an owner that is gone.
func owners(o Owner) []metav1.OwnerReference {
	yes := true
	return []metav1.OwnerReference{{APIVersion: sedna.GroupVersion.String(), Kind: o.Kind, Name: o.Name, UID: o.UID, Controller: &yes}}
}

// seal notes the hash of an object in its annotations, which must be there.
func seal(o metav1.Object) error {
	b, err := json.Marshal(o)
	if err != nil {
		return err
	}
	a := o.GetAnnotations()
	a[AnnotationHash] = digest(string(b))[:16]
	o.SetAnnotations(a)
	return nil
}

func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// fit puts a suffix to a name; a name that is too long for it is cut, and told
// apart by a hash.
func fit(name, suffix string, limit int) string {
	if len(name)+len(suffix) <= limit {
		return name + suffix
	}
	return strings.TrimRight(name[:limit-len(suffix)-6], "-") + "-" + digest(name)[:5] + suffix
}

// First names the first container of a template, for messages.
func First(t *corev1.PodTemplateSpec) string {
	if len(t.Spec.Containers) == 0 {
		return "its container"
	}
	return fmt.Sprintf("container %q", cmp.Or(t.Spec.Containers[0].Name, t.Spec.Containers[0].Image))
}
