package controlplane

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	apihelpers "k8s.io/apiextensions-apiserver/pkg/apihelpers"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver"
	clientset "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	crdclient "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset/typed/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"
)

// crdPoll is how often a CRD that is on its way is looked at.
const crdPoll = 20 * time.Millisecond

// haGrace is how long the API server holds back the first create after a CRD was established, so that other replicas may
// learn of it. We have none, so settle sets the time of establishment back by as much.
const haGrace = 2 * time.Second

// crdInstaller brings the server's CRDs to what is wanted.
type crdInstaller struct {
	client clientset.Interface
	crds   crdclient.CustomResourceDefinitionInterface
	server *apiserver.CustomResourceDefinitions
}

func newCRDInstaller(server *apiserver.CustomResourceDefinitions, cfg *rest.Config) (*crdInstaller, error) {
	client, err := clientset.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	return &crdInstaller{client: client, crds: client.ApiextensionsV1().CustomResourceDefinitions(), server: server}, nil
}

// install returns when every CRD is stored and established, its resource answers, and clients can find it.
func (in *crdInstaller) install(ctx context.Context, wanted []*apiextensionsv1.CustomResourceDefinition) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for _, crd := range wanted {
		g.Go(func() error {
			if err := in.apply(gctx, crd); err != nil {
				return fmt.Errorf("crd %s: %w", crd.Name, err)
			}
			if err := in.settle(gctx, crd.Name); err != nil {
				return fmt.Errorf("crd %s: %w", crd.Name, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return in.awaitServing(ctx, wanted)
}

// apply creates the CRD, or updates it where its spec, labels or annotations differ from what is wanted.
func (in *crdInstaller) apply(ctx context.Context, wanted *apiextensionsv1.CustomResourceDefinition) error {
	wanted = &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: wanted.Name, Labels: wanted.Labels, Annotations: wanted.Annotations},
		Spec:       *wanted.Spec.DeepCopy(),
	}
	apiserver.Scheme.Default(wanted)
	return retry.OnError(retry.DefaultBackoff, retriable, func() error {
		have, err := in.crds.Get(ctx, wanted.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			_, err = in.crds.Create(ctx, wanted, metav1.CreateOptions{FieldManager: "sedna"})
			return err
		}
		if err != nil {
			return err
		}
		next := have.DeepCopy()
		next.Spec = wanted.Spec
		next.Labels = merged(have.Labels, wanted.Labels)
		next.Annotations = merged(have.Annotations, wanted.Annotations)
		if equality.Semantic.DeepEqual(have, next) {
			return nil
		}
		_, err = in.crds.Update(ctx, next, metav1.UpdateOptions{FieldManager: "sedna"})
		return err
	})
}

// settle waits until the CRD is established and takes creates without haGrace.
func (in *crdInstaller) settle(ctx context.Context, name string) error {
	lister := in.server.Informers.Apiextensions().V1().CustomResourceDefinitions().Lister()
	var last error
	err := wait.PollUntilContextCancel(ctx, crdPoll, true, func(ctx context.Context) (bool, error) {
		crd, err := lister.Get(name)
		if err != nil || !apihelpers.IsCRDConditionTrue(crd, apiextensionsv1.Established) {
			last = notEstablished(crd)
			return false, nil
		}
		since := apihelpers.FindCRDCondition(crd, apiextensionsv1.Established).LastTransitionTime
		if time.Since(since.Time) >= haGrace {
			return true, nil
		}
		crd = crd.DeepCopy()
		established := *apihelpers.FindCRDCondition(crd, apiextensionsv1.Established)
		established.LastTransitionTime = metav1.NewTime(since.Add(-haGrace - time.Second))
		setCondition(crd, established)
		if _, err := in.crds.UpdateStatus(ctx, crd, metav1.UpdateOptions{}); err != nil && !retriable(err) {
			return false, err
		}
		return false, nil
	})
	if err != nil && last != nil {
		return fmt.Errorf("%w (%w)", last, err)
	}
	return err
}

// awaitServing waits until the resources answer and clients can find them: they ask once, when they start, and keep what
// they got.
func (in *crdInstaller) awaitServing(ctx context.Context, wanted []*apiextensionsv1.CustomResourceDefinition) error {
	resources := map[schema.GroupVersion][]string{}
	for _, crd := range wanted {
		for _, v := range crd.Spec.Versions {
			if v.Served {
				gv := schema.GroupVersion{Group: crd.Spec.Group, Version: v.Name}
				resources[gv] = append(resources[gv], crd.Spec.Names.Plural)
			}
		}
	}
	for gv, names := range resources {
		for _, name := range names {
			if err := in.warm(ctx, gv, name); err != nil {
				return err
			}
		}
		err := wait.PollUntilContextCancel(ctx, crdPoll, true, func(ctx context.Context) (bool, error) {
			return in.discoverable(gv, names), nil
		})
		if err != nil {
			return fmt.Errorf("discovery of %s: %w", gv, err)
		}
	}
	return nil
}

// warm lists the resource until its watch cache is filled, which begins with the first request and turns others away.
func (in *crdInstaller) warm(ctx context.Context, gv schema.GroupVersion, resource string) error {
	var last error
	err := wait.PollUntilContextCancel(ctx, crdPoll, true, func(ctx context.Context) (bool, error) {
		list := in.client.Discovery().RESTClient().Get().AbsPath("/apis", gv.Group, gv.Version, resource)
		last = list.Param("limit", "1").MaxRetries(0).Do(ctx).Error()
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("first list of %s in %s: %w (%w)", resource, gv, last, err)
	}
	return nil
}

func (in *crdInstaller) discoverable(gv schema.GroupVersion, names []string) bool {
	list, err := in.client.Discovery().ServerResourcesForGroupVersion(gv.String())
	if err != nil {
		return false
	}
	for _, name := range names {
		if !slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == name }) {
			return false
		}
	}
	paths, err := in.client.Discovery().OpenAPIV3().Paths()
	return err == nil && paths["apis/"+gv.String()] != nil
}

func retriable(err error) bool {
	return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || apierrors.IsServiceUnavailable(err) ||
		apierrors.IsTooManyRequests(err) || apierrors.IsServerTimeout(err)
}

// notEstablished says what holds the CRD back, or nil where nothing is known yet.
func notEstablished(crd *apiextensionsv1.CustomResourceDefinition) error {
	if crd == nil {
		return nil
	}
	for _, kind := range []apiextensionsv1.CustomResourceDefinitionConditionType{apiextensionsv1.NamesAccepted, apiextensionsv1.Established} {
		if c := apihelpers.FindCRDCondition(crd, kind); c != nil && c.Status == apiextensionsv1.ConditionFalse && c.Message != "" {
			return fmt.Errorf("not %s: %s", c.Type, c.Message)
		}
	}
	return nil
}

// setCondition replaces the condition, time included, which the library's helper would keep.
func setCondition(crd *apiextensionsv1.CustomResourceDefinition, c apiextensionsv1.CustomResourceDefinitionCondition) {
	for i := range crd.Status.Conditions {
		if crd.Status.Conditions[i].Type == c.Type {
			crd.Status.Conditions[i] = c
		}
	}
}

func merged(have, wanted map[string]string) map[string]string {
	if len(wanted) == 0 {
		return have
	}
	out := maps.Clone(have)
	if out == nil {
		out = map[string]string{}
	}
	maps.Copy(out, wanted)
	return out
}
