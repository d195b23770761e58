package twin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/edgetwin/sedna/lib/faults"
	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// AnnotationHash holds the hash of what the document says, without generation
// and time; a document is issued anew when it changes.
const AnnotationHash = "sedna.io/task-hash"

// AnnotationForceDelete on a Device or a job lets it go without the node's
// word, for nodes that never return.
const AnnotationForceDelete = "sedna.io/force-delete"

// ErrStopping says that a Device of the wanted name is still on its way out.
var ErrStopping = errors.New("the task's predecessor is still stopping")

// Signer signs documents with the GlobalManager's active key.
type Signer interface {
	Sign(document []byte) string
}

// Owner is the job that tasks belong to.
type Owner struct {
	Kind, Namespace, Name string
	UID                   types.UID
}

// Want is one task that an owner wants a node to carry out.
type Want struct {
	Role string
	Node string
	Spec any // the kind's spec, encoded as JSON
}

// Tasks writes task Devices. It holds no state of its own.
type Tasks struct {
	Client client.Client // cached reads
	Signer Signer
	Epoch  int64            // rises when the cloud was restored from a backup
	Now    func() time.Time // time.Now outside tests
}

// Sync makes the owner's Devices what want says: it creates and issues what is
// new or changed, and stops what is not wanted. It returns all Devices of the
// owner, those still stopping included. Sync is idempotent: killed between any
// two writes, it goes on when called again.
func (t *Tasks) Sync(ctx context.Context, owner Owner, want []Want) ([]devices.Device, error) {
	have, err := t.List(ctx, owner)
	if err != nil {
		return nil, err
	}
	if len(want) > 0 {
		if err := EnsureModel(ctx, t.Client, TaskModel(owner.Namespace)); err != nil {
			return nil, err
		}
	}
	byName := make(map[string]*devices.Device, len(have))
	for i := range have {
		byName[have[i].Name] = &have[i]
	}
	var out []devices.Device
	var errs []error
	for _, w := range want {
		name := task.DeviceName(owner.Kind, owner.Namespace, owner.Name, w.Role, w.Node)
		d := byName[name]
		delete(byName, name)
		d, err := t.ensure(ctx, owner, w, name, d)
		if err != nil {
			errs = append(errs, fmt.Errorf("task device %s/%s: %w", owner.Namespace, name, err))
		}
		if d != nil {
			out = append(out, *d)
		}
	}
	for _, d := range byName {
		if err := t.Stop(ctx, d); err != nil {
			errs = append(errs, fmt.Errorf("stop task device %s/%s: %w", d.Namespace, d.Name, err))
		}
		out = append(out, *d)
	}
	return out, errors.Join(errs...)
}

// List gives the owner's Devices by its labels.
func (t *Tasks) List(ctx context.Context, owner Owner) ([]devices.Device, error) {
	var list devices.DeviceList
	err := t.Client.List(ctx, &list, client.InNamespace(owner.Namespace), client.MatchingLabels{
		task.LabelKind: owner.Kind, task.LabelName: owner.Name,
	})
	return list.Items, err
}

// ensure creates the Device if need be, and issues its document if what it is
// to say has changed. A Device is made unbound and without a document, because
// the document names the Device's uid; binding and document come in one patch.
func (t *Tasks) ensure(ctx context.Context, owner Owner, w Want, name string, d *devices.Device) (*devices.Device, error) {
	if d != nil && (!d.DeletionTimestamp.IsZero() || d.Labels[task.LabelUID] != string(owner.UID)) {
		return d, errors.Join(ErrStopping, t.Stop(ctx, d))
	}
	if d == nil {
		d = &devices.Device{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: owner.Namespace,
				Name:      name,
				Labels: map[string]string{
					task.LabelKind: owner.Kind, task.LabelName: owner.Name, task.LabelUID: string(owner.UID),
					task.LabelRole: w.Role, task.LabelNode: w.Node,
				},
				Finalizers: []string{task.Finalizer},
			},
			Spec: devices.DeviceSpec{
				DeviceModelRef: &corev1.LocalObjectReference{Name: task.DeviceModel},
				Protocol:       devices.ProtocolConfig{ProtocolName: task.Protocol},
			},
		}
		if err := t.Client.Create(ctx, d); err != nil {
			// A Device that the cache does not show yet is found on the next call.
			return nil, err
		}
	}
	spec, err := json.Marshal(w.Spec)
	if err != nil {
		return d, fmt.Errorf("spec of the task: %w", err)
	}
	doc := task.Document{
		Schema: task.Schema, State: task.Active, UID: string(d.UID), Epoch: t.Epoch,
		Kind: owner.Kind, Namespace: owner.Namespace, Name: owner.Name, Role: w.Role, Node: w.Node, Spec: spec,
	}
	return d, t.issue(ctx, d, doc)
}

// Stop issues the deletion document and asks for the Device's deletion, which
// the finalizer holds up until the node has confirmed.
func (t *Tasks) Stop(ctx context.Context, d *devices.Device) error {
	last, err := Document(d)
	if err == nil && last != nil && last.State != task.Deleted {
		last.State, last.Spec, last.Epoch = task.Deleted, nil, t.Epoch
		if err := t.issue(ctx, d, *last); err != nil {
			return err
		}
	}
	if last == nil || d.Annotations[AnnotationForceDelete] != "" {
		// Never issued, so there is nothing at any node; or told to let go.
		if err := t.Release(ctx, d); err != nil {
			return err
		}
	}
	if !d.DeletionTimestamp.IsZero() {
		return nil
	}
	return client.IgnoreNotFound(t.Client.Delete(ctx, d, client.Preconditions{UID: &d.UID}))
}

// issue signs and writes doc with the next generation, unless the Device
// already holds one that says the same.
func (t *Tasks) issue(ctx context.Context, d *devices.Device, doc task.Document) error {
	hash, err := contentHash(doc)
	if err != nil {
		return err
	}
	last, err := Document(d)
	if err != nil {
		return err
	}
	if last != nil && d.Annotations[AnnotationHash] == hash {
		return nil
	}
	doc.Generation = 1
	if last != nil {
		doc.Generation = last.Generation + 1
	}
	doc.IssuedAt = faults.Clock(t.Now()).UTC().Truncate(time.Millisecond)
	text, err := doc.Encode()
	if err != nil {
		return err
	}
	nonce, err := NonceOf(d)
	if err != nil {
		return err
	}
	before := d.DeepCopy()
	if d.Annotations == nil {
		d.Annotations = map[string]string{}
	}
	d.Annotations[AnnotationHash] = hash
	if last == nil {
		d.Spec.NodeName = doc.Node // later on it is the Controller's, see Unbind
	}
	d.Spec.Properties = taskProperties(string(text), t.Signer.Sign(text), nonce)
	return t.patch(ctx, d, before)
}

// SetNonce writes the nonce, which carries acknowledgements and asks for
// delivery and report once more.
func (t *Tasks) SetNonce(ctx context.Context, d *devices.Device, n task.Nonce) error {
	before := d.DeepCopy()
	setDesired(d, task.PropNonce, n.String())
	return t.patch(ctx, d, before)
}

// SetRoll writes the roll into the configuration of the node Device d, with a
// generation above the one that the node has. Whatever else the configuration
// says stays.
func (t *Tasks) SetRoll(ctx context.Context, d *devices.Device, roll task.Roll, generation int64) error {
	config := map[string]json.RawMessage{}
	if text := desired(d, task.PropConfig); text != "" {
		var last struct{ Generation int64 }
		if err := errors.Join(json.Unmarshal([]byte(text), &config), json.Unmarshal([]byte(text), &last)); err != nil {
			return fmt.Errorf("configuration of %s/%s: %w", d.Namespace, d.Name, err)
		}
		generation = max(generation, last.Generation)
	}
	for name, v := range map[string]any{"generation": generation + 1, "node": d.Labels[task.LabelNode], "roll": roll} {
		b, err := json.Marshal(v)
		if err != nil {
			return err
		}
		config[name] = b
	}
	text, err := json.Marshal(config)
	if err != nil {
		return err
	}
	if len(text) > task.MaxConfig {
		return wire.E(wire.TooLarge, task.PropConfig, fmt.Sprintf("roll of %d tasks is %d bytes, at most %d fit a twin", len(roll.Tasks), len(text), task.MaxConfig), "")
	}
	before := d.DeepCopy()
	setDesired(d, task.PropConfig, string(text))
	setDesired(d, task.PropSignature, t.Signer.Sign(text))
	return t.patch(ctx, d, before)
}

// Unbind takes the Device off its node; after some time Bind binds it again,
// and KubeEdge registers it anew. Bound again at once it would be lost: when
// the node acknowledges the removal, cloudcore forgets all that it has queued
// for the Device.
func (t *Tasks) Unbind(ctx context.Context, d *devices.Device) error {
	before := d.DeepCopy()
	d.Spec.NodeName = ""
	return t.patch(ctx, d, before)
}

// Bind binds a Device that Unbind has left without a node.
func (t *Tasks) Bind(ctx context.Context, d *devices.Device) error {
	before := d.DeepCopy()
	d.Spec.NodeName = d.Labels[task.LabelNode]
	return t.patch(ctx, d, before)
}

// Release takes the finalizer off, so that the Device can go.
func (t *Tasks) Release(ctx context.Context, d *devices.Device) error {
	before := d.DeepCopy()
	if !controllerutil.RemoveFinalizer(d, task.Finalizer) {
		return nil
	}
	return client.IgnoreNotFound(t.patch(ctx, d, before))
}

// patch writes the difference between before and d. The resource version goes
// along: generation and nonce are counters, two writers must not cross.
func (t *Tasks) patch(ctx context.Context, d, before *devices.Device) error {
	return t.Client.Patch(ctx, d, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
}

// contentHash sums up what a document says, without generation and time.
func contentHash(doc task.Document) (string, error) {
	doc.Generation, doc.IssuedAt = 0, time.Time{}
	b, err := json.Marshal(doc)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// Document reads the document that the Device holds; nil if none was issued.
func Document(d *devices.Device) (*task.Document, error) {
	text := desired(d, task.PropTask)
	if text == "" {
		return nil, nil
	}
	doc, err := task.Parse([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("document of %s/%s: %w", d.Namespace, d.Name, err)
	}
	return doc, nil
}

// NonceOf reads the Device's nonce.
func NonceOf(d *devices.Device) (task.Nonce, error) {
	return task.ParseNonce(desired(d, task.PropNonce))
}

func desired(d *devices.Device, property string) string {
	for _, p := range d.Spec.Properties {
		if p.Name == property && p.Desired != nil {
			return p.Desired.Value
		}
	}
	return ""
}

func setDesired(d *devices.Device, property, value string) {
	for i := range d.Spec.Properties {
		if d.Spec.Properties[i].Name == property {
			d.Spec.Properties[i].Desired = &devices.TwinProperty{Value: value}
			return
		}
	}
	d.Spec.Properties = append(d.Spec.Properties, devices.DeviceProperty{Name: property, Desired: &devices.TwinProperty{Value: value}})
}

// EnsureModel creates a DeviceModel that is missing: cloudcore stalls all
// delivery when a Device's model is not there.
func EnsureModel(ctx context.Context, c client.Client, m *devices.DeviceModel) error {
	err := c.Get(ctx, client.ObjectKeyFromObject(m), &devices.DeviceModel{})
	if !apierrors.IsNotFound(err) {
		return err
	}
	if err := c.Create(ctx, m); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create DeviceModel %s/%s: %w", m.Namespace, m.Name, err)
	}
	return nil
}
