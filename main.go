// Command sedna is Sedna in one binary: everything in one process (up), an
// edge node without KubeEdge (join), the demo, the administrator's commands,
// and each part alone.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/edgetwin/sedna/cloud"
	"github.com/edgetwin/sedna/cloud/admin"
	"github.com/edgetwin/sedna/edge"
	"github.com/edgetwin/sedna/edge/client"
	"github.com/edgetwin/sedna/edge/model"
	"github.com/edgetwin/sedna/examples/demo"
	"github.com/edgetwin/sedna/lib/bus/broker"
	"github.com/edgetwin/sedna/lib/daemon"
	"github.com/edgetwin/sedna/lib/history"
	"github.com/edgetwin/sedna/lib/identity"
	"github.com/edgetwin/sedna/lib/losses"
	storageinit "github.com/edgetwin/sedna/lib/storage/command"
	"github.com/edgetwin/sedna/mapper"
	"github.com/edgetwin/sedna/mapper/drivers"
	"github.com/edgetwin/sedna/models/wire"
)

func main() {
	if handled, code := model.LoadTestMain(os.Args[1:]); handled {
		os.Exit(code)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// errUsage marks errors in what the user typed.
var errUsage = errors.New("usage")

// run runs one command and gives its exit code.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	if len(args) > 0 {
		switch args[0] {
		case "globalmanager":
			return daemon.Run(ctx, cloud.Program(), args[1:], environ, stdout, stderr)
		case "localcontroller":
			return daemon.Run(ctx, edge.Program(), args[1:], environ, stdout, stderr)
		case "mapper":
			return daemon.Run(ctx, mapper.Program(), args[1:], environ, stdout, stderr)
		}
	}
	root := &cobra.Command{
		Use:           "sedna",
		Short:         "Edge-cloud synergy AI on KubeEdge's device twins and MQTT",
		Version:       wire.Version,
		SilenceErrors: true,
		// A command that has begun to work explains its own errors; only those
		// before are usage.
		PersistentPreRun: func(cmd *cobra.Command, _ []string) { cmd.SilenceUsage = true },
	}
	root.AddCommand(upCommand(), joinCommand(), demoCommand(), sensorCommand(), checkHistoryCommand(), client.Command())
	root.AddCommand(admin.Commands()...)
	root.AddCommand(storageinit.New(environ))
	for _, part := range []string{"globalmanager", "localcontroller", "mapper"} {
		root.AddCommand(&cobra.Command{Use: part + " --config FILE", Short: "Run this part alone", DisableFlagParsing: true, Run: func(*cobra.Command, []string) {}})
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return errors.Join(errUsage, err) })
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil || (errors.Is(err, context.Canceled) && ctx.Err() != nil) {
		return daemon.ExitDone
	}
	fmt.Fprintf(stderr, "%s: %v\n", cmd.CommandPath(), err)
	if !cmd.SilenceUsage || errors.Is(err, errUsage) {
		return daemon.ExitUsage
	}
	return daemon.ExitFailed
}

// nodeEnds is one node in endpoints.json.
type nodeEnds struct {
	Name  string `json:"name"`
	HTTP  string `json:"http"`
	GRPC  string `json:"grpc"`
	Token string `json:"token"`
	PID   int    `json:"pid"`
}

// ends is endpoints.json.
type ends struct {
	API           string     `json:"api"`
	GlobalManager string     `json:"globalmanager"`
	MQTT          string     `json:"mqtt"`
	Nodes         []nodeEnds `json:"nodes"`
	PIDs          []int      `json:"pids"`
}

func (e ends) write(dir string) error {
	e.PIDs = []int{os.Getpid()}
	b, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "endpoints.json"), append(b, '\n'), 0o600)
}

type upOptions struct {
	dataDir, http, edgeHTTP, mqtt, api string
	edges                              int
	devices                            deviceOptions
	lose                               []string
	seed                               int64
}

// deviceOptions are what sensors and cameras of a node may use.
type deviceOptions struct{ drivers, dataRoots []string }

func (o *deviceOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringSliceVar(&o.drivers, "drivers", drivers.Names(), "`protocols` of sensors, actuators and cameras that each node drives; none: no devices")
	f.StringArrayVar(&o.dataRoots, "data-root", nil, "`directory` that recordings (sedna-file) and files named in tasks may lie in; may be repeated")
}

// check makes o what a mapper's configuration has.
func (o *deviceOptions) check() error {
	if slices.Equal(o.drivers, []string{"none"}) {
		o.drivers = nil
	}
	for _, d := range o.drivers {
		if !slices.Contains(drivers.Names(), d) {
			return fmt.Errorf("--drivers: expected none or some of %s, got %q: %w", strings.Join(drivers.Names(), ","), d, errUsage)
		}
	}
	for i, r := range o.dataRoots {
		dir, err := filepath.Abs(r)
		if err != nil {
			return err
		}
		if st, err := os.Stat(dir); err != nil || !st.IsDir() {
			return fmt.Errorf("--data-root: expected a directory, got %q: %w", r, errUsage)
		}
		o.dataRoots[i] = dir
	}
	return nil
}

func upCommand() *cobra.Command {
	var o upOptions
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run everything in one process until Ctrl-C: Kubernetes API, GlobalManager, MQTT bus and edge nodes",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return up(cmd.Context(), o, cmd.OutOrStdout(), daemon.Logger(cmd.ErrOrStderr()))
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.dataDir, "data-dir", "./.sedna", "`directory` for all state; it survives a restart")
	f.IntVar(&o.edges, "edges", 1, "`number` of edge nodes, edge1 and so on")
	f.StringVar(&o.http, "http", "127.0.0.1:9000", "`address` of the GlobalManager (TLS); port 0 takes a free one")
	f.StringVar(&o.edgeHTTP, "edge-http", "127.0.0.1:9100", "`address` of the first node's LocalController; the next ones 10 higher each")
	f.StringVar(&o.mqtt, "mqtt", "127.0.0.1:1883", "`address` of the MQTT bus")
	f.StringVar(&o.api, "api", "127.0.0.1:16443", "`address` of the Kubernetes API")
	o.devices.flags(cmd)
	loseFlags(cmd, &o.lose, &o.seed)
	return cmd
}

// loseFlags are for tests of what has to survive KubeEdge.
func loseFlags(cmd *cobra.Command, lose *[]string, seed *int64) {
	f := cmd.Flags()
	f.StringSliceVar(lose, "lose", nil, "`losses` that edgelink has like KubeEdge, for tests: "+strings.Join(losses.Names(), ", "))
	f.Int64Var(seed, "seed", 1, "makes losses by chance repeatable")
}

// maxEdges bounds the nodes of one `up`: each has its sockets and databases.
const maxEdges = 100

// up runs cloud, bus and nodes in this process.
func up(ctx context.Context, o upOptions, stdout io.Writer, log *slog.Logger) error {
	if o.edges < 0 || o.edges > maxEdges {
		return fmt.Errorf("--edges: expected 0 to %d, got %d: %w", maxEdges, o.edges, errUsage)
	}
	if _, err := losses.Parse("--lose", o.lose); err != nil {
		return fmt.Errorf("%w: %w", err, errUsage)
	}
	if err := o.devices.check(); err != nil {
		return err
	}
	dir, err := filepath.Abs(o.dataDir)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	cfg := cloud.DefaultConfig()
	cfg.DataDir, cfg.HTTP, cfg.Kubernetes.Addr, cfg.Lose = dir, o.http, o.api, o.lose
	started := make(chan cloud.Endpoints, 1)
	g.Go(func() error {
		return cloud.Run(ctx, cfg, log.With("part", "globalmanager"), func(e cloud.Endpoints) { started <- e })
	})
	g.Go(func() error {
		var cloudEnds cloud.Endpoints
		select {
		case cloudEnds = <-started:
		case <-ctx.Done():
			return ctx.Err()
		}
		b, err := broker.Start(broker.Options{Addr: o.mqtt, Log: log.With("part", "bus")})
		if err != nil {
			return fmt.Errorf("MQTT bus: %w", err)
		}
		context.AfterFunc(ctx, func() { _ = b.Close() })
		e := ends{API: cloudEnds.API, GlobalManager: cloudEnds.GlobalManager, MQTT: b.Addr()}
		for i := range o.edges {
			n := node{name: fmt.Sprintf("edge%d", i+1), dir: filepath.Join(dir, "edges", fmt.Sprintf("edge%d", i+1)), bus: "tcp://" + b.Addr(), shared: true, devices: o.devices, lose: o.lose, seed: o.seed + int64(i)}
			if n.http, err = stepPort(o.edgeHTTP, 10*i); err != nil {
				return err
			}
			if err := n.enrol(ctx, cloudEnds.GlobalManager, func() (string, error) { return cloud.CreateToken(dir, n.name, 0) }); err != nil {
				return fmt.Errorf("node %s: %w", n.name, err)
			}
			ends, err := n.start(ctx, g, log)
			if err != nil {
				return fmt.Errorf("node %s: %w", n.name, err)
			}
			e.Nodes = append(e.Nodes, ends)
		}
		if err := e.write(dir); err != nil {
			return err
		}
		fmt.Fprintf(stdout, "Kubernetes API   %s  (export KUBECONFIG=%s)\nGlobalManager    %s\nMQTT bus         %s\n", e.API, cloudEnds.Kubeconfig, e.GlobalManager, e.MQTT)
		for _, n := range e.Nodes {
			fmt.Fprintf(stdout, "%-16s %s\n", n.Name, n.HTTP)
		}
		fmt.Fprintln(stdout, "ready")
		return nil
	})
	return g.Wait()
}

// stepPort adds step to the port of addr; port 0 stays 0.
func stepPort(addr string, step int) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", fmt.Errorf("--edge-http: expected host:port: %w", err)
	}
	n, err := strconv.Atoi(port)
	if err != nil || n < 0 || n+step > 65535 {
		return "", fmt.Errorf("--edge-http: no port %s+%d", port, step)
	}
	if n > 0 {
		n += step
	}
	return net.JoinHostPort(host, strconv.Itoa(n)), nil
}

// node is an edge node without KubeEdge: edgelink, mapper and LocalController
// in this process.
type node struct {
	name   string
	dir    string
	http   string // address of its LocalController
	bus    string // URL of a broker that is there; empty: listen has its own
	listen string // address of its own broker
	shared bool   // other nodes use the broker too

	devices deviceOptions

	lose    []string // see losses
	seed    int64
	control string // address of edgelink's link commands; empty: none
}

// enrol gives the node its identity, unless it has one.
func (n node) enrol(ctx context.Context, cloudURL string, token func() (string, error)) error {
	dir := filepath.Join(n.dir, "identity")
	id, err := identity.LoadNode(dir)
	if err == nil {
		return id.SetCloudURL(cloudURL)
	}
	if !wire.IsCode(err, wire.NotFound) {
		return err
	}
	text, err := token()
	if err != nil {
		return err
	}
	_, err = identity.Enrol(ctx, cloudURL, text, n.name, dir)
	return err
}

// start runs the node in g and waits until it listens.
func (n node) start(ctx context.Context, g *errgroup.Group, log *slog.Logger) (nodeEnds, error) {
	sockets, err := socketDir(n.dir)
	if err != nil {
		return nodeEnds{}, err
	}
	m := mapper.Default()
	m.Node, m.Identity, m.HTTP = n.name, filepath.Join(n.dir, "identity"), ""
	m.DMISocket, m.Socket = filepath.Join(sockets, "dmi.sock"), filepath.Join(sockets, "mapper.sock")
	m.Bus.URL, m.Broker.Enabled, m.Broker.Listen = n.bus, n.bus == "", n.listen
	m.Edgelink.Enabled, m.Edgelink.SharedBroker = true, n.shared
	m.Edgelink.Database = filepath.Join(n.dir, "edgelink.db")
	m.Edgelink.Lose, m.Edgelink.Seed, m.Edgelink.Control = n.lose, n.seed, n.control
	local := filepath.Join(sockets, "localcontroller.sock")
	m.Drivers, m.Devices.DataRoots, m.Devices.LocalController = n.devices.drivers, n.devices.dataRoots, "unix://"+local
	onBus := make(chan mapper.Endpoints, 1)
	failed := make(chan error, 2)
	work := func(f func() error) {
		g.Go(func() error {
			err := f()
			failed <- err
			return err
		})
	}
	work(func() error {
		return mapper.Run(ctx, m, log.With("part", "mapper", "node", n.name), func(e mapper.Endpoints) { onBus <- e })
	})
	var mapperEnds mapper.Endpoints
	select {
	case mapperEnds = <-onBus:
	case err := <-failed:
		return nodeEnds{}, err
	}
	c := edge.DefaultConfig()
	c.Node, c.DataDir, c.IdentityDir, c.HTTP, c.Bus.URL = n.name, filepath.Join(n.dir, "localcontroller"), m.Identity, n.http, mapperEnds.MQTT
	c.Socket, c.DataRoots = local, n.devices.dataRoots
	listening := make(chan edge.Endpoints, 1)
	work(func() error {
		return edge.Run(ctx, c, edge.Deps{Log: log.With("part", "localcontroller"), Ready: func(e edge.Endpoints) { listening <- e }})
	})
	select {
	case e := <-listening:
		return nodeEnds{Name: n.name, HTTP: "http://" + e.HTTP, PID: os.Getpid()}, nil
	case err := <-failed:
		return nodeEnds{}, err
	}
}

// socketDir is where the node's unix sockets go: its own directory, or where
// that path is too long for a socket, one under the system's temporary
// directory that is named after it.
func socketDir(dir string) (string, error) {
	const longest = 80 // bytes; Linux allows 107 with the file's name
	if len(dir) <= longest {
		return dir, nil
	}
	sum := sha256.Sum256([]byte(dir))
	short := filepath.Join(os.TempDir(), "sedna-"+strconv.Itoa(os.Getuid())+"-"+hex.EncodeToString(sum[:6]))
	if err := os.MkdirAll(short, 0o700); err != nil {
		return "", err
	}
	st, err := os.Lstat(short)
	if err != nil {
		return "", err
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); !ok || !st.IsDir() || int(sys.Uid) != os.Getuid() || st.Mode().Perm() != 0o700 {
		return "", fmt.Errorf("%s is not a directory of ours alone", short)
	}
	return short, nil
}

func joinCommand() *cobra.Command {
	var cloudURL, token, dataDir, name, http, mqtt, control string
	var devices deviceOptions
	var lose []string
	var seed int64
	cmd := &cobra.Command{
		Use:   "join --cloud URL --token TOKEN",
		Short: "Make this machine an edge node without KubeEdge, until Ctrl-C: edgelink, mapper, LocalController, MQTT bus",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := filepath.Abs(dataDir)
			if err != nil {
				return err
			}
			if _, err := losses.Parse("--lose", lose); err != nil {
				return fmt.Errorf("%w: %w", err, errUsage)
			}
			if err := devices.check(); err != nil {
				return err
			}
			n := node{name: name, dir: filepath.Join(dir, "edges", name), http: http, listen: mqtt, devices: devices, lose: lose, seed: seed, control: control}
			ctx, cancel := context.WithTimeout(cmd.Context(), time.Minute)
			defer cancel()
			if err := n.enrol(ctx, cloudURL, func() (string, error) {
				if token == "" {
					return "", fmt.Errorf("--token: missing, and this machine has not joined yet: %w", errUsage)
				}
				return token, nil
			}); err != nil {
				return err
			}
			g, ctx := errgroup.WithContext(cmd.Context())
			e, err := n.start(ctx, g, daemon.Logger(cmd.ErrOrStderr()))
			if err != nil {
				return err
			}
			if err := (ends{GlobalManager: cloudURL, MQTT: mqtt, Nodes: []nodeEnds{e}}).write(dir); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "node %s of %s\nHTTP  %s\nMQTT  %s\nready\n", name, cloudURL, e.HTTP, mqtt)
			return g.Wait()
		},
	}
	host, err := os.Hostname()
	if err != nil {
		host = ""
	}
	f := cmd.Flags()
	f.StringVar(&cloudURL, "cloud", "", "`URL` of the GlobalManager, https://host:9000")
	f.StringVar(&token, "token", "", "one-time token that `sedna token create` has made; not needed once joined")
	f.StringVar(&name, "node", host, "`name` of this node, as the token was made for")
	f.StringVar(&dataDir, "data-dir", "./.sedna", "`directory` for all state; it survives a restart")
	f.StringVar(&http, "http", "127.0.0.1:9100", "`address` of the LocalController; port 0 takes a free one")
	f.StringVar(&mqtt, "mqtt", "127.0.0.1:1883", "`address` of the MQTT bus")
	devices.flags(cmd)
	f.StringVar(&control, "control", "", "loopback `address` that takes POST /link {\"up\":false}, for tests")
	loseFlags(cmd, &lose, &seed)
	_ = cmd.MarkFlagRequired("cloud")
	return cmd
}

func demoCommand() *cobra.Command {
	var o demo.Options
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the main job end to end on real data, with every part as a process of its own",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return demo.Run(cmd.Context(), o, cmd.OutOrStdout()) },
	}
	f := cmd.Flags()
	f.StringVar(&o.JSON, "json", "", "write the figures to `FILE`")
	f.StringVar(&o.Answers, "answers", "", "write one JSON line per request to `FILE`")
	f.StringSliceVar(&o.Only, "only", nil, "run only these `parts`")
	f.BoolVar(&o.Keep, "keep", false, "leave everything running until Ctrl-C")
	f.Int64Var(&o.Seed, "seed", 1, "makes what uses chance repeatable")
	f.StringVar(&o.Dir, "data-dir", "", "`directory` for all state (default: a temporary one, removed at the end)")
	return cmd
}

// sensorCommand is the demo's sensor: a process that knows the bus and nothing else.
func sensorCommand() *cobra.Command {
	var s demo.Sensor
	var input, output string
	cmd := &cobra.Command{
		Use:    "sensor",
		Short:  "Send samples to a service over MQTT and collect the results",
		Args:   cobra.NoArgs,
		Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			took, err := s.RunFiles(cmd.Context(), input, output)
			if err == nil {
				daemon.PrintReady(cmd.OutOrStdout(), map[string]float64{"seconds": took.Seconds()})
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&s.URL, "mqtt", "tcp://127.0.0.1:1883", "`URL` of the MQTT bus")
	f.StringVar(&s.Node, "node", "edge1", "`name` of the node")
	f.StringVar(&s.Service, "service", "", "`name` of the service")
	f.StringVar(&s.Phase, "phase", "sensor", "what the answers are marked with")
	f.IntVar(&s.Window, "window", 1, "requests under way at once")
	f.DurationVar(&s.Timeout, "timeout", 10*time.Second, "when a request without a result is lost")
	f.StringVar(&input, "input", "", "`FILE` of samples, JSON lines")
	f.StringVar(&output, "output", "", "`FILE` for the answers, JSON lines")
	return cmd
}

// checkHistoryCommand judges what the observers of a robustness run have seen.
func checkHistoryCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check-history FILE",
		Short: "Judge a recorded history of tasks: did anything get lost, run twice or come back?",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			v, err := history.Check(f)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			fmt.Fprintln(cmd.OutOrStdout(), v)
			if !v.OK() {
				return fmt.Errorf("%s: %d violations", args[0], len(v.Violations))
			}
			return nil
		},
	}
}
