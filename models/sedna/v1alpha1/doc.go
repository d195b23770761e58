// Package v1alpha1 is the API of Sedna, group sedna.io: the kinds that users
// write as manifests. Every field of KubeEdge Sedna's API keeps its name, type
// and meaning; ours are optional.
//
// +kubebuilder:object:generate=true
// +groupName=sedna.io
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion of these kinds.
var GroupVersion = schema.GroupVersion{Group: "sedna.io", Version: "v1alpha1"}

// AddToScheme registers these kinds with s.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion,
		&Dataset{}, &DatasetList{},
		&Model{}, &ModelList{},
		&JointInferenceService{}, &JointInferenceServiceList{},
		&IncrementalLearningJob{}, &IncrementalLearningJobList{},
		&FederatedLearningJob{}, &FederatedLearningJobList{},
		&LifelongLearningJob{}, &LifelongLearningJobList{},
		&ObjectSearchService{}, &ObjectSearchServiceList{},
		&ObjectTrackingService{}, &ObjectTrackingServiceList{},
		&FeatureExtractionService{}, &FeatureExtractionServiceList{},
		&VideoAnalyticsJob{}, &VideoAnalyticsJobList{},
		&ReidJob{}, &ReidJobList{},
	)
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
