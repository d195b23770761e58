package controlplane

import (
	"net/http"
	"slices"
	"strings"

	apihelpers "k8s.io/apiextensions-apiserver/pkg/apihelpers"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver"
	listers "k8s.io/apiextensions-apiserver/pkg/client/listers/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/endpoints/discovery/aggregated"
	"k8s.io/apiserver/pkg/endpoints/handlers/negotiation"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
)

// installRootDiscovery serves /api and /apis, which a CRD server leaves to the aggregator in front of it, both in the
// plain form and in the aggregated form that newer clients ask for.
func installRootDiscovery(s *apiserver.CustomResourceDefinitions) {
	server := s.GenericAPIServer
	lister := s.Informers.Apiextensions().V1().CustomResourceDefinitions().Lister()
	apis := aggregated.WrapAggregatedDiscoveryToHandler(groupsHandler(lister), server.AggregatedDiscoveryGroupManager, nil)
	core := aggregated.WrapAggregatedDiscoveryToHandler(http.HandlerFunc(noCoreVersions), server.AggregatedLegacyDiscoveryGroupManager, nil)

	mux := server.Handler.NonGoRestfulMux
	mux.Unregister("/apis") // the CRD handler, which has no answer there
	mux.Handle("/apis", apis)
	mux.Handle("/api", core)
}

// groupsHandler lists the groups of the established CRDs and the group of CRDs themselves.
func groupsHandler(crds listers.CustomResourceDefinitionLister) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		all, err := crds.List(labels.Everything())
		if err != nil {
			responsewriters.InternalError(w, r, err)
			return
		}
		writeDiscovery(w, r, &metav1.APIGroupList{Groups: groupsOf(all)})
	}
}

func groupsOf(crds []*apiextensionsv1.CustomResourceDefinition) []metav1.APIGroup {
	versions := map[string][]string{
		apiextensionsv1.GroupName: {apiextensionsv1.SchemeGroupVersion.Version},
	}
	for _, crd := range crds {
		if !apihelpers.IsCRDConditionTrue(crd, apiextensionsv1.Established) {
			continue
		}
		group := crd.Spec.Group
		for _, v := range crd.Spec.Versions {
			if v.Served && !slices.Contains(versions[group], v.Name) {
				versions[group] = append(versions[group], v.Name)
			}
		}
	}
	groups := make([]metav1.APIGroup, 0, len(versions))
	for name, names := range versions {
		slices.SortFunc(names, func(a, b string) int { return version.CompareKubeAwareVersionStrings(b, a) })
		group := metav1.APIGroup{Name: name}
		for _, v := range names {
			gv := schema.GroupVersion{Group: name, Version: v}
			group.Versions = append(group.Versions, metav1.GroupVersionForDiscovery{GroupVersion: gv.String(), Version: v})
		}
		group.PreferredVersion = group.Versions[0]
		groups = append(groups, group)
	}
	slices.SortFunc(groups, func(a, b metav1.APIGroup) int { return strings.Compare(a.Name, b.Name) })
	return groups
}

func noCoreVersions(w http.ResponseWriter, r *http.Request) {
	writeDiscovery(w, r, &metav1.APIVersions{Versions: []string{}})
}

func writeDiscovery(w http.ResponseWriter, r *http.Request, list runtime.Object) {
	responsewriters.WriteObjectNegotiated(apiserver.Codecs, negotiation.DefaultEndpointRestrictions,
		schema.GroupVersion{Version: "v1"}, w, r, http.StatusOK, list, false)
}
