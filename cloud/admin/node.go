package admin

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/edgetwin/sedna/cloud"
	"github.com/edgetwin/sedna/cloud/twin"
	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
	"github.com/edgetwin/sedna/models/task"
)

func nodeCommand(p *place) *cobra.Command {
	cmd := &cobra.Command{Use: "node", Short: "Edge nodes"}
	cmd.AddCommand(nodeListCommand(p), &cobra.Command{
		Use:   "revoke NAME",
		Short: "Withdraw a node's credentials; it can join again with a new token",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return onNode(cmd, p, args[0], func(c client.Client, d *devices.Device) error {
				before := d.DeepCopy()
				if d.Annotations == nil {
					d.Annotations = map[string]string{}
				}
				d.Annotations[twin.AnnotationRevoked] = time.Now().UTC().Format(time.RFC3339)
				if p.kubeconfig == "" && p.admin == "" { // tokens are where the GlobalManager's data is
					if err := cloud.DropTokens(p.dataDir, args[0]); err != nil {
						return err
					}
				}
				return c.Patch(cmd.Context(), d, client.MergeFrom(before))
			})
		},
	}, &cobra.Command{
		Use:   "forget NAME",
		Short: "Remove a node that never returns; its tasks end without its word",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return onNode(cmd, p, args[0], func(c client.Client, d *devices.Device) error {
				return c.Delete(cmd.Context(), d)
			})
		},
	})
	return cmd
}

// onNode does f to the Device of a node.
func onNode(cmd *cobra.Command, p *place, name string, f func(client.Client, *devices.Device) error) error {
	c, err := p.kubernetes()
	if err != nil {
		return err
	}
	list, err := nodeDevices(cmd, c)
	if err != nil {
		return err
	}
	for i := range list {
		if list[i].Labels[task.LabelNode] == name {
			return f(c, &list[i])
		}
	}
	return fmt.Errorf("node %q is not enrolled", name)
}

// nodeDevices gives the node Devices of all namespaces.
func nodeDevices(cmd *cobra.Command, c client.Client) ([]devices.Device, error) {
	ctx, cancel := withTimeout(cmd)
	defer cancel()
	var list devices.DeviceList
	if err := c.List(ctx, &list, client.HasLabels{task.LabelNode}); err != nil {
		return nil, err
	}
	nodes := list.Items[:0]
	for _, d := range list.Items {
		if twin.IsNode(&d) {
			nodes = append(nodes, d)
		}
	}
	return nodes, nil
}

func nodeListCommand(p *place) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "The enrolled nodes and their last beats",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := p.kubernetes()
			if err != nil {
				return err
			}
			nodes, err := nodeDevices(cmd, c)
			if err != nil {
				return err
			}
			ctx, cancel := withTimeout(cmd)
			defer cancel()
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 2, ' ', 0)
			fmt.Fprintln(w, "NODE\tSTATE\tVERSION\tENGINES\tMEMORY\tDISK FREE\tLAST BEAT")
			for i := range nodes {
				row, err := nodeRow(twin.LastBeat(ctx, c, &nodes[i]))
				if err != nil {
					return err
				}
				fmt.Fprintf(w, "%s\t%s\n", nodes[i].Labels[task.LabelNode], row)
			}
			return w.Flush()
		},
	}
}

// nodeRow shows a node's last beat, which counts only when the node signed it.
func nodeRow(b *task.Beat, at time.Time, err error) (string, error) {
	if err != nil {
		return "", err
	}
	if b == nil {
		return "unknown\t\t\t\t\tnever", nil
	}
	const mib = 1 << 20
	state := "online"
	ago := time.Since(at).Truncate(time.Second)
	if ago > twin.AliveFor {
		state = "silent"
	}
	return fmt.Sprintf("%s\t%s\t%v\t%d MiB\t%d MiB\t%s ago", state, b.Version, b.Engines, b.MemoryBytes/mib, b.DiskFreeBytes/mib, ago), nil
}
