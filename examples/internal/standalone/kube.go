package standalone

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
	sedna "github.com/edgetwin/sedna/models/sedna/v1alpha1"
	"github.com/edgetwin/sedna/models/task"
)

// Kube is the Kubernetes API as a user reaches it: with the kubeconfig.
type Kube struct{ client.WithWatch }

// OpenKube connects with a kubeconfig file.
func OpenKube(kubeconfig string) (Kube, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return Kube{}, err
	}
	cfg.QPS = -1
	log.SetLogger(logr.Discard()) // or the library complains of having none, after half a minute
	scheme := runtime.NewScheme()
	if err := errors.Join(sedna.AddToScheme(scheme), devices.AddToScheme(scheme)); err != nil {
		return Kube{}, err
	}
	c, err := client.NewWithWatch(cfg, client.Options{Scheme: scheme})
	return Kube{c}, err
}

// objects reads the objects of a manifest.
func objects(manifest []byte) ([]*unstructured.Unstructured, error) {
	dec := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifest), 4096)
	var out []*unstructured.Unstructured
	for {
		o := &unstructured.Unstructured{}
		if err := dec.Decode(o); errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return nil, err
		}
		out = append(out, o)
	}
}

// ApplyManifest does what `kubectl apply --server-side` does.
func (k Kube) ApplyManifest(ctx context.Context, manifest []byte) error {
	objs, err := objects(manifest)
	if err != nil {
		return err
	}
	for _, o := range objs {
		if err := k.Apply(ctx, client.ApplyConfigurationFromUnstructured(o), client.FieldOwner("examples"), client.ForceOwnership); err != nil {
			return fmt.Errorf("apply %s %s: %w", o.GetKind(), o.GetName(), err)
		}
	}
	return nil
}

// Remove deletes the objects of a manifest and waits until they are gone.
func (k Kube) Remove(ctx context.Context, manifest []byte) error {
	objs, err := objects(manifest)
	if err != nil {
		return err
	}
	for _, o := range objs {
		if err := client.IgnoreNotFound(k.Delete(ctx, o)); err != nil {
			return fmt.Errorf("delete %s %s: %w", o.GetKind(), o.GetName(), err)
		}
	}
	for _, o := range objs {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(o.GroupVersionKind())
		err := k.Await(ctx, list, "the end of "+o.GetName(), func() (bool, error) {
			err := k.Get(ctx, client.ObjectKeyFromObject(o), o)
			return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// AwaitReady waits until a service says Ready.
func (k Kube) AwaitReady(ctx context.Context, name string) error {
	return k.Await(ctx, &sedna.JointInferenceServiceList{}, name+" to be Ready", func() (bool, error) {
		s := &sedna.JointInferenceService{}
		if err := k.Get(ctx, client.ObjectKey{Namespace: "default", Name: name}, s); err != nil {
			return false, err
		}
		for _, c := range s.Status.Conditions {
			if c.Type == sedna.ConditionReady {
				return c.Status == "True" && c.ObservedGeneration == s.Generation, nil
			}
		}
		return false, nil
	})
}

// NodeHeard waits until the cloud has written a beat of the node after since.
func (k Kube) NodeHeard(ctx context.Context, node string, since time.Time) error {
	return k.Await(ctx, &devices.DeviceStatusList{}, "a beat of "+node, func() (bool, error) {
		s := &devices.DeviceStatus{}
		if err := k.Get(ctx, client.ObjectKey{Namespace: "sedna", Name: task.NodeDeviceName(node)}, s); err != nil {
			return false, client.IgnoreNotFound(err)
		}
		for _, t := range s.Status.Twins {
			if t.PropertyName == task.PropSeq {
				at, err := strconv.ParseInt(t.Reported.Metadata["timestamp"], 10, 64)
				return err == nil && at >= since.UnixMilli(), nil
			}
		}
		return false, nil
	})
}

// Await watches objects of list's kind until ok holds.
func (k Kube) Await(ctx context.Context, list client.ObjectList, what string, ok func() (bool, error)) error {
	const longest = 60 * time.Second
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	for {
		w, err := k.Watch(ctx, list)
		if err != nil {
			return fmt.Errorf("wait for %s: %w", what, err)
		}
		for {
			done, err := ok()
			if err != nil || done {
				w.Stop()
				return err
			}
			if _, open := <-w.ResultChan(); !open {
				break
			}
		}
		if ctx.Err() != nil {
			return fmt.Errorf("wait for %s: not within %s", what, longest)
		}
	}
}
