package admin

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/edgetwin/sedna/lib/blob"
	sedna "github.com/edgetwin/sedna/models/sedna/v1alpha1"
	"github.com/edgetwin/sedna/models/task"
)

// fieldOwner is who the fields belong to that `model push` writes.
const fieldOwner = "sedna-cli"

func modelCommand(p *place) *cobra.Command {
	cmd := &cobra.Command{Use: "model", Short: "Models"}
	m := &sedna.Model{TypeMeta: metav1.TypeMeta{APIVersion: sedna.GroupVersion.String(), Kind: "Model"}}
	var labels string
	push := &cobra.Command{
		Use:   "push FILE --name NAME",
		Short: "Store a model's file in the cloud and make a Model of it",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if labels != "" {
				m.Spec.Labels = strings.Split(labels, ",")
			}
			if m.Spec.Format == "" {
				m.Spec.Format = strings.TrimPrefix(filepath.Ext(args[0]), ".")
			}
			if m.Spec.Format == "" {
				return fmt.Errorf("the format of %s cannot be told from its name; give --format", args[0])
			}
			return push(cmd, p, args[0], m)
		},
	}
	f := push.Flags()
	f.StringVar(&m.Name, "name", "", "`name` of the Model")
	f.StringVar(&m.Namespace, "namespace", "default", "`namespace` of the Model")
	f.StringVar(&m.Spec.Format, "format", "", "format of the file (default: its extension)")
	f.StringVar(&m.Spec.Version, "version", "", "version of the model (default: the start of its digest)")
	f.StringVar(&labels, "labels", "", "class names in the order of the output, `a,b,c`")
	f.StringVar(&m.Spec.Postprocess, "postprocess", "", "what the output is: softmax, argmax, detections or none")
	_ = push.MarkFlagRequired("name")
	cmd.AddCommand(push)
	return cmd
}

// push uploads the file first, so that a Model never names what is not there.
func push(cmd *cobra.Command, p *place, file string, m *sedna.Model) error {
	url, hc, err := p.globalManager()
	if err != nil {
		return err
	}
	kube, err := p.kubernetes()
	if err != nil {
		return err
	}
	info, err := blob.NewClient(url, blob.Options{HTTP: hc}).UploadFile(cmd.Context(), file)
	if err != nil {
		return fmt.Errorf("upload %s: %w", file, err)
	}
	m.Spec.URL = task.BlobURLPrefix + info.SHA256
	ctx, cancel := withTimeout(cmd)
	defer cancel()
	if err := apply(ctx, kube, m); err != nil {
		return fmt.Errorf("apply Model %s/%s: %w", m.Namespace, m.Name, err)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "model %s/%s: %d bytes, %s\n", m.Namespace, m.Name, info.Size, m.Spec.URL)
	return nil
}

// apply writes the Model by server-side apply: fields that others set stay.
func apply(ctx context.Context, kube client.Client, m *sedna.Model) error {
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(m)
	if err != nil {
		return err
	}
	delete(fields, "status")
	delete(fields["metadata"].(map[string]any), "creationTimestamp")
	return kube.Apply(ctx, client.ApplyConfigurationFromUnstructured(&unstructured.Unstructured{Object: fields}),
		client.FieldOwner(fieldOwner), client.ForceOwnership)
}
