package controllers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/edgetwin/sedna/cloud/twin"
	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
	sedna "github.com/edgetwin/sedna/models/sedna/v1alpha1"
	"github.com/edgetwin/sedna/models/task"
)

// phaseUnknown is the phase of a node that has not reported yet.
const phaseUnknown = "Unknown"

// Jobs is what the controllers of all job kinds share.
type Jobs struct {
	Client client.Client
	Tasks  *twin.Tasks
	Nodes  *twin.Nodes
	Obs    *twin.Observer
}

// problem is why a manifest cannot be carried out now: the reason and message
// of the Ready condition.
type problem struct{ reason, message string }

func (p *problem) Error() string { return p.reason + ": " + p.message }

// errNoMatch says that a selector picks no node.
var errNoMatch = &problem{sedna.ReasonNodeNotFound, "no enrolled node's Device carries the labels of nodeSelector"}

// nodes gives the nodes that a worker is to run on: the named one, or all that
// match the selector.
func (j *Jobs) nodes(ctx context.Context, name string, selector map[string]string) ([]string, error) {
	if name != "" {
		ok, err := j.Nodes.Exists(ctx, name)
		if err == nil && !ok {
			err = &problem{sedna.ReasonNodeNotFound, fmt.Sprintf("node %q is not enrolled; `sedna token create --node %s` makes a token for it", name, name)}
		}
		return []string{name}, err
	}
	names, err := j.Nodes.Matching(ctx, selector)
	if err == nil && len(names) == 0 {
		err = errNoMatch
	}
	slices.Sort(names)
	return names, err
}

// model gives the Model of a name, as tasks carry it.
func (j *Jobs) model(ctx context.Context, namespace, name string) (*sedna.Model, task.Model, error) {
	m := &sedna.Model{}
	err := j.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, m)
	if client.IgnoreNotFound(err) != nil {
		return nil, task.Model{}, err
	}
	if err != nil {
		return nil, task.Model{}, &problem{sedna.ReasonModelNotFound, fmt.Sprintf("Model %s/%s does not exist", namespace, name)}
	}
	t, err := TaskModel(m)
	var p *problem
	if errors.As(err, &p) {
		err = &problem{p.reason, fmt.Sprintf("Model %s/%s: %s", namespace, name, p.message)}
	}
	return m, t, err
}

// nodeStatuses says what each node last reported of its task.
func (j *Jobs) nodeStatuses(ctx context.Context, tasks []devices.Device) ([]sedna.NodeStatus, error) {
	var out []sedna.NodeStatus
	for i := range tasks {
		d := &tasks[i]
		s, err := j.Obs.State(ctx, d)
		if err != nil {
			return nil, err
		}
		n := sedna.NodeStatus{Name: d.Labels[task.LabelNode], Device: d.Name, Phase: phaseUnknown}
		if s.Document != nil {
			n.DesiredGeneration = s.Document.Generation
		}
		if r := s.Report; r != nil {
			n.Phase, n.Generation, n.Model, n.Reason, n.Message = r.Phase, r.Generation, r.Model, r.Reason, r.Detail
			if !s.ReportedAt.IsZero() {
				n.LastReport = &metav1.Time{Time: s.ReportedAt.Truncate(time.Second)}
			}
		}
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b sedna.NodeStatus) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// setReady writes the Ready condition, keeping its time when nothing changed.
func setReady(conditions *[]metav1.Condition, generation int64, status metav1.ConditionStatus, reason, message string) {
	const room = 32 << 10
	if len(message) > room {
		message = message[:room]
	}
	meta.SetStatusCondition(conditions, metav1.Condition{
		Type: sedna.ConditionReady, Status: status, Reason: reason, Message: message, ObservedGeneration: generation,
	})
}

// DocumentModels gives the digests of the model files that a task document
// needs, so that its node may read them and they are kept.
func DocumentModels(doc *task.Document) []string {
	if doc == nil || doc.State != task.Active {
		return nil
	}
	var spec struct {
		Model task.Model `json:"model"`
	}
	if json.Unmarshal(doc.Spec, &spec) != nil || spec.Model.SHA256 == "" {
		return nil
	}
	return []string{spec.Model.SHA256}
}
