package demo

import (
	_ "embed"

	"github.com/edgetwin/sedna/examples/internal/standalone"
)

// DigitsManifest is the demo's JointInferenceService.
//
//go:embed manifests/digits.yaml
var DigitsManifest []byte

//go:embed manifests/baselines.yaml
var baselinesManifest []byte

// Kube is the Kubernetes API as a user reaches it: with the kubeconfig.
type Kube = standalone.Kube

// OpenKube connects with a kubeconfig file.
func OpenKube(kubeconfig string) (Kube, error) { return standalone.OpenKube(kubeconfig) }
