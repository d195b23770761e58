package demo

import (
	"context"
	"strings"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/edgetwin/sedna/examples/internal/standalone"
	sedna "github.com/edgetwin/sedna/models/sedna/v1alpha1"
)

// cleanUp deletes services and models, stops the parts and counts what is left.
func (r *run) cleanUp(ctx context.Context) error {
	for _, m := range [][]byte{DigitsManifest, baselinesManifest} {
		if err := r.kube.Remove(ctx, m); err != nil {
			return err
		}
	}
	if err := r.kube.DeleteAllOf(ctx, &sedna.Model{}, client.InNamespace("default")); err != nil {
		return err
	}
	left, err := standalone.Traces{Kube: r.kube, MQTT: r.mqtt, Node: nodeName, LocalDir: r.localDir(), CloudDir: r.cloudDir()}.Left(ctx)
	if err != nil {
		return err
	}
	if err := r.stop(); err != nil {
		return err
	}
	for _, p := range []*standalone.Process{r.cloud, r.mapper, r.local} {
		if p.Running() {
			left = append(left, "process "+p.Name)
		}
	}
	r.report.Cleanup.LeftBehind = len(left)
	r.say("services and models deleted: %d things left behind %s", len(left), strings.Join(left, ", "))
	return nil
}
