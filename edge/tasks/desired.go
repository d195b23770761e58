package tasks

import (
	"encoding/json"
	"fmt"

	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// MaxDesired bounds a desired message in bytes: a document whose every byte
// is escaped once, and room for the rest.
const MaxDesired = 2*task.MaxDocument + 16<<10

// Input is one desired message that has passed every check that needs no
// memory of what came before.
type Input struct {
	Namespace, Device string
	Document          *task.Document
	Spec              *task.JointInference // nil when the document's state is Deleted
	Bytes             []byte               // the exact signed bytes
	Signature         string
	Nonce             task.Nonce
	Keys              task.Keys // that verified Signature
}

// decodeMessage reads the JSON form that all desired messages share.
func decodeMessage(payload []byte) (task.Desired, error) {
	var d task.Desired
	if len(payload) > MaxDesired {
		return d, wire.E(wire.TooLarge, "", fmt.Sprintf("message of %d bytes, at most %d are taken", len(payload), MaxDesired), "")
	}
	if err := json.Unmarshal(payload, &d); err != nil {
		return d, wire.E(wire.InvalidArgument, "", "not a desired message: "+err.Error(), "")
	}
	return d, nil
}

// Decode checks a desired message for ns/device in this order: form and size,
// signature over the exact bytes, content, node, the topic's device, nonce.
// Only what the cloud has signed is parsed beyond its JSON form.
func Decode(node string, keys task.Keys, ns, device string, payload []byte) (*Input, error) {
	d, err := decodeMessage(payload)
	if err != nil {
		return nil, err
	}
	text := []byte(d.Task)
	switch {
	case len(text) == 0:
		return nil, wire.E(wire.InvalidArgument, task.PropTask, "missing", "")
	case len(text) > task.MaxDocument:
		return nil, wire.E(wire.TooLarge, task.PropTask, fmt.Sprintf("document of %d bytes, at most %d are taken", len(text), task.MaxDocument), "")
	}
	if err := keys.Verify(text, d.Signature); err != nil {
		return nil, err
	}
	doc, err := task.Parse(text)
	if err != nil {
		return nil, err
	}
	if doc.Node != node {
		return nil, wire.E(wire.WrongNode, "node", fmt.Sprintf("the document is for node %.80q, this is %q", doc.Node, node), "")
	}
	if want := task.DeviceName(doc.Kind, doc.Namespace, doc.Name, doc.Role, doc.Node); doc.Namespace != ns || want != device {
		return nil, wire.E(wire.InvalidArgument, "name", fmt.Sprintf("the document is of device %s/%s, it came for %.80s/%.80s", doc.Namespace, want, ns, device), "")
	}
	nonce, err := task.ParseNonce(d.Nonce)
	if err != nil {
		return nil, err
	}
	in := &Input{Namespace: ns, Device: device, Document: doc, Bytes: text, Signature: d.Signature, Nonce: nonce, Keys: keys}
	if doc.State == task.Active {
		if in.Spec, err = doc.JointInference(); err != nil {
			return nil, err
		}
	}
	return in, nil
}
