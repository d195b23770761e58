package twin

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// Annotations of a node Device.
const (
	AnnotationNodeKey = "sedna.io/node-key" // base64url of the node's Ed25519 public key
	AnnotationRevoked = "sedna.io/revoked"  // non-empty: the node's credentials are withdrawn
)

// Nodes is the registry of enrolled nodes: one node Device each, in the
// GlobalManager's namespace, which holds the node's public key.
type Nodes struct {
	Client    client.Client
	Namespace string // of the node Devices

	mu       sync.Mutex
	heard    map[string]time.Time // by node; when its latest beat came, by our clock
	doubtful map[string]bool      // by node; see doubt
}

// Enrolled records the node and its public key. A node that enrols again with
// another key replaces the old one, and is no longer revoked.
func (n *Nodes) Enrolled(ctx context.Context, node string, pub ed25519.PublicKey) error {
	if !task.ValidName(node) {
		return wire.E(wire.InvalidArgument, "node", fmt.Sprintf("expected a node name, got %.80q", node), "")
	}
	if err := EnsureModel(ctx, n.Client, NodeModel(n.Namespace)); err != nil {
		return err
	}
	key := base64.RawURLEncoding.EncodeToString(pub)
	d := &devices.Device{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: n.Namespace, Name: task.NodeDeviceName(node),
			Labels:      map[string]string{task.LabelNode: node},
			Annotations: map[string]string{AnnotationNodeKey: key},
		},
		Spec: devices.DeviceSpec{
			DeviceModelRef: &corev1.LocalObjectReference{Name: task.NodeDeviceModel},
			Protocol:       devices.ProtocolConfig{ProtocolName: task.Protocol},
			NodeName:       node,
			Properties:     nodeProperties(task.Nonce{}),
		},
	}
	err := n.Client.Create(ctx, d)
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	if err := n.Client.Get(ctx, client.ObjectKeyFromObject(d), d); err != nil {
		return err
	}
	before := d.DeepCopy()
	if d.Annotations == nil {
		d.Annotations = map[string]string{}
	}
	d.Annotations[AnnotationNodeKey] = key
	delete(d.Annotations, AnnotationRevoked)
	return n.Client.Patch(ctx, d, client.MergeFrom(before))
}

// Revoked tells whether a certificate of node for pub is no longer good: the
// node was revoked or forgotten, or has enrolled with another key.
func (n *Nodes) Revoked(ctx context.Context, node string, pub ed25519.PublicKey) (bool, error) {
	key, err := n.Key(ctx, node)
	switch {
	case apierrors.IsNotFound(err) || wire.IsCode(err, wire.Unauthenticated):
		return true, nil
	case err != nil:
		return false, err
	}
	return !key.Equal(pub), nil
}

// Key gives the public key with which the node signs its reports.
func (n *Nodes) Key(ctx context.Context, node string) (ed25519.PublicKey, error) {
	d, err := n.device(ctx, node)
	if err != nil {
		return nil, err
	}
	return keyOf(d)
}

func keyOf(d *devices.Device) (ed25519.PublicKey, error) {
	b, err := base64.RawURLEncoding.DecodeString(d.Annotations[AnnotationNodeKey])
	if err != nil || len(b) != ed25519.PublicKeySize || d.Annotations[AnnotationRevoked] != "" {
		return nil, wire.E(wire.Unauthenticated, "", "node "+d.Labels[task.LabelNode]+" has no valid key", "enrol it again")
	}
	return ed25519.PublicKey(b), nil
}

// Exists tells whether the node is enrolled.
func (n *Nodes) Exists(ctx context.Context, node string) (bool, error) {
	_, err := n.device(ctx, node)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// Matching gives the names of the nodes whose node Devices carry the labels.
func (n *Nodes) Matching(ctx context.Context, selector map[string]string) ([]string, error) {
	var list devices.DeviceList
	err := n.Client.List(ctx, &list, client.InNamespace(n.Namespace), client.MatchingLabelsSelector{Selector: labels.SelectorFromSet(selector)})
	if err != nil {
		return nil, err
	}
	var names []string
	for i := range list.Items {
		if IsNode(&list.Items[i]) {
			names = append(names, list.Items[i].Labels[task.LabelNode])
		}
	}
	return names, nil
}

func (n *Nodes) device(ctx context.Context, node string) (*devices.Device, error) {
	d := &devices.Device{}
	err := n.Client.Get(ctx, client.ObjectKey{Namespace: n.Namespace, Name: task.NodeDeviceName(node)}, d)
	return d, err
}

// AliveFor is how long after its last beat a node still counts as there.
const AliveFor = 5 * task.BeatSeconds / 2 * time.Second

// silence between two beats says that the link was down in between, and that
// KubeEdge may have lost what was on its way.
const silence = 3 * task.BeatSeconds / 2 * time.Second

// Alive tells whether a beat of the node came lately. The time written in a
// beat is no help: it is the node's, whose clock may be wrong.
func (n *Nodes) Alive(node string, now time.Time) bool { return n.heardWithin(node, now, AliveFor) }

func (n *Nodes) heardWithin(node string, now time.Time, d time.Duration) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	at, ok := n.heard[node]
	return ok && now.Sub(at) < d
}

// hear notes that a new beat of the node has come, and tells whether it came
// after a silence.
func (n *Nodes) hear(node string, now time.Time) (returned bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	before, ok := n.heard[node]
	if n.heard == nil {
		n.heard = map[string]time.Time{}
	}
	n.heard[node] = now
	return !ok || now.Sub(before) > silence
}

// doubt notes that the node, which beats, does not take a document: it may take
// its task for dead.
func (n *Nodes) doubt(node string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.doubtful == nil {
		n.doubtful = map[string]bool{}
	}
	n.doubtful[node] = true
}

func (n *Nodes) doubted(node string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.doubtful[node]
}

// believe ends a doubt.
func (n *Nodes) believe(node string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.doubtful, node)
}

// IsNode tells whether d is a node Device.
func IsNode(d *devices.Device) bool {
	return d.Spec.DeviceModelRef != nil && d.Spec.DeviceModelRef.Name == task.NodeDeviceModel
}

// IsTask tells whether d is a task Device.
func IsTask(d *devices.Device) bool {
	return d.Spec.DeviceModelRef != nil && d.Spec.DeviceModelRef.Name == task.DeviceModel
}

// LastBeat gives the latest beat that the node of Device d has signed, and when
// the cloud wrote it; nil if there is none.
func LastBeat(ctx context.Context, c client.Client, d *devices.Device) (*task.Beat, time.Time, error) {
	props, at, err := reported(ctx, c, d, task.BeatKeys())
	if err != nil || props == nil {
		return nil, at, err
	}
	key, err := keyOf(d)
	if err != nil || task.VerifyProperties(key, d.Labels[task.LabelNode], props) != nil {
		return nil, at, nil
	}
	b, err := task.ParseBeat(props)
	if err != nil {
		return nil, at, nil
	}
	return &b, at, nil
}
