package controllers

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	sedna "github.com/edgetwin/sedna/models/sedna/v1alpha1"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// maxVersions is how many versions a Model's status keeps.
const maxVersions = 32

// Model keeps the status of Models.
type Model struct {
	Client client.Client
	// Size of a stored blob in bytes; wire.NotFound if it is not stored.
	Size func(ctx context.Context, sha256 string) (int64, error)
	// Stored gets the digest of each blob that arrives.
	Stored <-chan event.TypedGenericEvent[string]
	// Used is called with each digest that a Model names.
	Used func(sha256 string)
	// Gone is called when a Model is gone or names another blob, and the one
	// that it named may be of no use.
	Gone func()
}

// SetupWithManager registers the controller.
func (r *Model) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).Named("model").For(&sedna.Model{}).
		WatchesRawSource(source.TypedChannel(r.Stored, handler.TypedEnqueueRequestsFromMapFunc(r.modelsOf))).
		Complete(r)
}

// modelsOf finds the Models whose file is the blob that has arrived.
func (r *Model) modelsOf(ctx context.Context, sha256 string) []reconcile.Request {
	var list sedna.ModelList
	if r.Client.List(ctx, &list) != nil {
		return nil // the Models are looked at again with the next resync
	}
	var out []reconcile.Request
	for _, m := range list.Items {
		if DigestOf(&m) == sha256 {
			out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&m)})
		}
	}
	return out
}

// Reconcile says whether the Model's file can be fetched, and keeps the list
// of its versions.
func (r *Model) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	m := &sedna.Model{}
	if err := r.Client.Get(ctx, req.NamespacedName, m); err != nil {
		if apierrors.IsNotFound(err) {
			r.Gone()
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if d := DigestOf(m); d != "" {
		r.Used(d)
	}
	before := m.DeepCopy()
	if err := r.observe(ctx, m); err != nil {
		return ctrl.Result{}, err
	}
	if before.Status.Digest != "" && before.Status.Digest != m.Status.Digest {
		r.Gone()
	}
	if equality.Semantic.DeepEqual(before.Status, m.Status) {
		return ctrl.Result{}, nil
	}
	return ctrl.Result{}, client.IgnoreNotFound(r.Client.Status().Patch(ctx, m, client.MergeFrom(before)))
}

func (r *Model) observe(ctx context.Context, m *sedna.Model) error {
	st := &m.Status
	st.Digest, st.Size = DigestOf(m), 0
	if _, err := TaskModel(m); err != nil {
		var p *problem
		if !errors.As(err, &p) {
			return err
		}
		setReady(&st.Conditions, m.Generation, metav1.ConditionFalse, p.reason, p.message)
		return nil
	}
	if !strings.HasPrefix(m.Spec.URL, task.BlobURLPrefix) {
		setReady(&st.Conditions, m.Generation, metav1.ConditionUnknown, sedna.ReasonReadByNodes, "the nodes read "+m.Spec.URL+" themselves")
	} else {
		size, err := r.Size(ctx, st.Digest)
		switch {
		case wire.IsCode(err, wire.NotFound):
			setReady(&st.Conditions, m.Generation, metav1.ConditionFalse, sedna.ReasonNotStored,
				"the blob store does not hold sha256 "+st.Digest+"; `sedna model push` puts a file there")
			return nil
		case err != nil:
			return fmt.Errorf("blob of Model %s/%s: %w", m.Namespace, m.Name, err)
		}
		st.Size = size
		setReady(&st.Conditions, m.Generation, metav1.ConditionTrue, sedna.ReasonAvailable, strconv.FormatInt(size, 10)+" bytes can be fetched")
	}
	addVersion(st, m)
	return nil
}

// addVersion appends the version that the spec names, unless it is the last.
func addVersion(st *sedna.ModelStatus, m *sedna.Model) {
	if n := len(st.Versions); n > 0 && st.Versions[n-1].Version == versionOf(m) && st.Versions[n-1].Digest == st.Digest {
		return
	}
	created := m.CreationTimestamp
	if len(st.Versions) > 0 {
		created = metav1.Now().Rfc3339Copy()
	}
	st.Versions = append(st.Versions, sedna.ModelVersion{Version: versionOf(m), Digest: st.Digest, CreatedAt: created, From: "spec"})
	if len(st.Versions) > maxVersions {
		st.Versions = st.Versions[len(st.Versions)-maxVersions:]
	}
}

// DigestOf is the digest that the spec gives, in either place; else empty.
func DigestOf(m *sedna.Model) string {
	if hex, ok := strings.CutPrefix(m.Spec.URL, task.BlobURLPrefix); ok {
		return hex
	}
	return m.Spec.SHA256
}

// versionOf is the spec's version, else the start of the digest, else "1".
func versionOf(m *sedna.Model) string {
	if m.Spec.Version != "" {
		return m.Spec.Version
	}
	const shown = 12
	if d := DigestOf(m); len(d) >= shown {
		return d[:shown]
	}
	return "1"
}

// TaskModel is the Model as task documents carry it. What the schema cannot
// check is a problem of reason Invalid.
func TaskModel(m *sedna.Model) (task.Model, error) {
	t := task.Model{
		Name: m.Name, Version: versionOf(m), URL: m.Spec.URL, SHA256: DigestOf(m),
		Format: m.Spec.Format, Runtime: m.Spec.Runtime, Labels: m.Spec.Labels, Postprocess: m.Spec.Postprocess,
	}
	if strings.HasPrefix(m.Spec.URL, task.BlobURLPrefix) && m.Spec.SHA256 != "" && m.Spec.SHA256 != DigestOf(m) {
		return t, &problem{sedna.ReasonInvalid, "spec.sha256 differs from the digest in spec.url"}
	}
	p := m.Spec.Preprocess
	if p == nil {
		return t, nil
	}
	t.Preprocess = &task.Preprocess{Width: p.Width, Height: p.Height, Resize: p.Resize, Channels: p.Channels, Layout: p.Layout, Scale: 1}
	var err error
	if p.Scale != "" {
		if t.Preprocess.Scale, err = strconv.ParseFloat(p.Scale, 64); err != nil {
			return t, &problem{sedna.ReasonInvalid, "spec.preprocess.scale: expected a decimal number"}
		}
	}
	for _, list := range []struct {
		field string
		in    []string
		out   *[]float64
	}{{"mean", p.Mean, &t.Preprocess.Mean}, {"std", p.Std, &t.Preprocess.Std}} {
		for i, text := range list.in {
			v, err := strconv.ParseFloat(text, 64)
			if err != nil || (list.field == "std" && v <= 0) {
				return t, &problem{sedna.ReasonInvalid, fmt.Sprintf("spec.preprocess.%s[%d]: expected a decimal number (std above 0)", list.field, i)}
			}
			*list.out = append(*list.out, v)
		}
	}
	return t, nil
}
