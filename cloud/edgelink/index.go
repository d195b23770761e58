package edgelink

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"

	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
)

// key names a Device or a DeviceModel.
type key = types.NamespacedName

// binding is what has to be known of a Device at hand.
type binding struct {
	node  string
	model key
}

// index knows which Device is bound to which node. It follows the watch, as
// the cache does, just after it.
type index struct {
	mu       sync.RWMutex
	bindings map[key]binding
	byNode   map[string]map[key]struct{}
}

func newIndex() *index {
	return &index{bindings: map[key]binding{}, byNode: map[string]map[key]struct{}{}}
}

// put notes the Device and gives the node it was bound to before.
func (x *index) put(d *devices.Device) (before string) {
	k := key{Namespace: d.Namespace, Name: d.Name}
	x.mu.Lock()
	defer x.mu.Unlock()
	before = x.drop(k)
	x.bindings[k] = binding{d.Spec.NodeName, modelKey(d)}
	of := x.byNode[d.Spec.NodeName]
	if of == nil {
		of = map[key]struct{}{}
		x.byNode[d.Spec.NodeName] = of
	}
	of[k] = struct{}{}
	return before
}

// remove forgets the Device and gives the node it was bound to.
func (x *index) remove(k key) (before string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.drop(k)
}

func (x *index) drop(k key) (node string) {
	b, ok := x.bindings[k]
	if !ok {
		return ""
	}
	delete(x.bindings, k)
	delete(x.byNode[b.node], k)
	if len(x.byNode[b.node]) == 0 {
		delete(x.byNode, b.node)
	}
	return b.node
}

// nodeOf gives the node that the Device is bound to; empty for none.
func (x *index) nodeOf(k key) string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.bindings[k].node
}

// of lists the Devices that are bound to the node.
func (x *index) of(node string) []key {
	x.mu.RLock()
	defer x.mu.RUnlock()
	out := make([]key, 0, len(x.byNode[node]))
	for k := range x.byNode[node] {
		out = append(out, k)
	}
	return out
}

// withModel lists the bound Devices of a model, with their nodes.
func (x *index) withModel(model key) map[key]string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	out := map[key]string{}
	for k, b := range x.bindings {
		if b.node != "" && b.model == model {
			out[k] = b.node
		}
	}
	return out
}

func modelKey(d *devices.Device) key {
	k := key{Namespace: d.Namespace}
	if d.Spec.DeviceModelRef != nil {
		k.Name = d.Spec.DeviceModelRef.Name
	}
	return k
}
