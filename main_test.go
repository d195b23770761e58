package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/edgetwin/sedna/edge/model"
	"github.com/edgetwin/sedna/examples/demo"
	"github.com/edgetwin/sedna/lib/dataset/digits"
	"github.com/edgetwin/sedna/lib/onnx"
)

// The test binary is sedna itself when this is set, so that the tests run real
// processes without building anything.
const asSedna = "SEDNA_TEST_AS_SEDNA"

func TestMain(m *testing.M) {
	if handled, code := model.LoadTestMain(os.Args[1:]); handled {
		os.Exit(code)
	}
	if os.Getenv(asSedna) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// layers says what each part may import of ours.
var layers = map[string][]string{
	"models":    {"models"},
	"lib":       {"lib", "models"},
	"cloud":     {"cloud", "lib", "models", "manifests"},
	"edge":      {"edge", "lib", "models"},
	"mapper":    {"mapper", "lib", "models"},
	"manifests": {"manifests"},
}

func TestDependencyDirection(t *testing.T) {
	const module = "github.com/edgetwin/sedna/"
	out := goList(t, "-f", "{{.ImportPath}} {{join .Imports \" \"}}", "./...")
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		from, ours := strings.CutPrefix(f[0], module)
		allowed, layered := layers[strings.Split(from, "/")[0]]
		if !ours || !layered {
			continue // main composes all; examples use what users use
		}
		for _, imported := range f[1:] {
			to, ours := strings.CutPrefix(imported, module)
			if !ours {
				continue
			}
			ok := false
			for _, a := range allowed {
				ok = ok || strings.Split(to, "/")[0] == a
			}
			if !ok {
				t.Errorf("%s imports %s", from, to)
			}
		}
	}
}

func TestEdgeBinariesLinkNoKubernetes(t *testing.T) {
	for _, bin := range []string{"./edge/cmd/localcontroller", "./mapper/cmd/mapper"} {
		for line := range strings.Lines(goList(t, "-deps", bin)) {
			if p := strings.TrimSpace(line); strings.HasPrefix(p, "k8s.io/") || strings.HasPrefix(p, "sigs.k8s.io/") {
				t.Errorf("%s links %s", bin, p)
			}
		}
	}
}

func goList(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	return string(out)
}

// sedna gives a command that runs this binary as sedna.
func sedna(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), asSedna+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// do runs a command to its end and gives what it printed.
func do(t testing.TB, args ...string) string {
	t.Helper()
	cmd := sedna(t.Context(), args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("sedna %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

// background runs a command until the test ends, and waits for its ready line.
// It ends by SIGINT with exit code 0.
func background(t testing.TB, args ...string) {
	t.Helper()
	cmd := sedna(context.Background(), args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if lines.Text() == "ready" {
				close(ready)
			}
		}
		ended <- cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("sedna %s: %v\n%s", args[0], err, stderr.String())
			}
		case <-time.After(30 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
			t.Errorf("sedna %s did not end within 30 s\n%s", args[0], stderr.String())
		}
	})
	select {
	case <-ready:
	case err := <-ended:
		ended <- err
		t.Fatalf("sedna %s ended: %v\n%s", args[0], err, stderr.String())
	case <-time.After(60 * time.Second):
		t.Fatalf("sedna %s was not ready within a minute\n%s", args[0], stderr.String())
	}
}

func readEnds(t testing.TB, dir string) ends {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "endpoints.json"))
	if err != nil {
		t.Fatal(err)
	}
	var e ends
	if err := json.Unmarshal(b, &e); err != nil {
		t.Fatal(err)
	}
	return e
}

// TestUpJoinPushInfer is a user's first hour: everything up, a model pushed, a
// second node joined on the same machine, a service on both, asked by file.
func TestUpJoinPushInfer(t *testing.T) {
	dir := t.TempDir()
	upDir, joinDir := filepath.Join(dir, "up"), filepath.Join(dir, "join")
	background(t, "up", "--data-dir", upDir, "--http", "127.0.0.1:0", "--edge-http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--api", "127.0.0.1:0")
	e := readEnds(t, upDir)

	token := strings.TrimSpace(do(t, "token", "create", "--node", "shed", "--data-dir", upDir))
	background(t, "join", "--cloud", e.GlobalManager, "--token", token, "--node", "shed", "--data-dir", joinDir, "--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0")

	t.Run("a token works once", func(t *testing.T) {
		cmd := sedna(t.Context(), "join", "--cloud", e.GlobalManager, "--token", token, "--node", "shed", "--data-dir", filepath.Join(dir, "thief"))
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "token_used") {
			t.Errorf("%v: %s", err, out)
		}
	})

	edgeModel, cloudModel, _, err := demo.BuildModels(1)
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range map[string]*onnx.Model{"digits-small": edgeModel, "digits-big": cloudModel} {
		b, err := onnx.Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		pushModel(t, upDir, name, b, "--labels", "0,1,2,3,4,5,6,7,8,9")
	}
	kube, err := demo.OpenKube(filepath.Join(upDir, "kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range []string{"edge1", "shed"} {
		manifest := bytes.ReplaceAll(demo.DigitsManifest, []byte("edge1"), []byte(node))
		manifest = bytes.ReplaceAll(manifest, []byte("name: digits\n"), []byte("name: on-"+node+"\n"))
		if err := kube.ApplyManifest(t.Context(), manifest); err != nil {
			t.Fatal(err)
		}
		if err := kube.AwaitReady(t.Context(), "on-"+node); err != nil {
			t.Fatal(err)
		}
	}
	png, label, err := demo.SamplePNG(0)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "digit.png")
	if err := os.WriteFile(file, png, 0o600); err != nil {
		t.Fatal(err)
	}
	for data, service := range map[string]string{upDir: "on-edge1", joinDir: "on-shed"} {
		var answer struct {
			Source      string
			Predictions []struct{ Label string }
		}
		out := do(t, "infer", service, file, "--data-dir", data)
		if err := json.Unmarshal([]byte(out), &answer); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if len(answer.Predictions) == 0 || answer.Predictions[0].Label != label {
			t.Errorf("%s: expected the digit %s, got %s", service, label, out)
		}
	}
	list := do(t, "node", "list", "--data-dir", upDir)
	for _, node := range []string{"edge1", "shed"} {
		if !strings.Contains(list, node) {
			t.Errorf("node list without %s:\n%s", node, list)
		}
	}

	t.Run("a revoked node is refused", func(t *testing.T) {
		do(t, "node", "revoke", "shed", "--data-dir", upDir)
		out := do(t, "infer", "on-shed", file, "--data-dir", joinDir) // answers on, from its own model
		if !strings.Contains(out, `"source":"edge"`) && !strings.Contains(out, `"source":"cloud"`) {
			t.Errorf("no answer: %s", out)
		}
	})
	t.Run("exit codes", func(t *testing.T) {
		for _, c := range []struct {
			want int
			args []string
		}{
			{2, []string{"up", "--edges", "many"}},
			{2, []string{"up", "--drivers", "sedna-mqtt,none"}},
			{2, []string{"join", "--cloud", e.GlobalManager, "--data-root", filepath.Join(dir, "nothing")}},
			{1, []string{"infer", "nothing", file, "--data-dir", upDir}},
		} {
			cmd := sedna(t.Context(), c.args...)
			out, _ := cmd.CombinedOutput()
			if got := cmd.ProcessState.ExitCode(); got != c.want {
				t.Errorf("sedna %v: exit code %d, expected %d: %s", c.args, got, c.want, out)
			}
		}
	})
	t.Run("metrics", func(t *testing.T) {
		resp, err := http.Get(e.Nodes[0].HTTP + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || !bytes.Contains(body, []byte("sedna_rejected_total")) {
			t.Errorf("%v: no sedna_rejected_total after a refused request in %s", err, fmt.Sprint(len(body)))
		}
	})
}

// TestDemoFiguresFollowFromAnswers runs the demo and works out from its answers
// file, with none of the demo's own code, what its figures say.
func TestDemoFiguresFollowFromAnswers(t *testing.T) {
	dir := t.TempDir()
	figures, answers := filepath.Join(dir, "figures.json"), filepath.Join(dir, "answers.jsonl")
	args := []string{"demo", "--json", figures, "--answers", answers}
	if bin := os.Getenv("SEDNA_BIN"); bin != "" { // the parts as binaries of their own
		out, err := exec.CommandContext(t.Context(), filepath.Join(bin, "sedna"), args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	} else {
		do(t, args...)
	}
	var report map[string]any
	b, err := os.ReadFile(figures)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &report); err != nil {
		t.Fatal(err)
	}
	phases := readAnswers(t, answers)

	cascade := phases["cascade"]
	samples := float64(len(cascade))
	edge, cloud := cascade.share(func(a answer) bool { return a.Edge == a.Label }), phases["cloud_only"].share(right)
	offload := cascade.share(func(a answer) bool { return a.Source == "cloud" })
	lost, twice := 0.0, 0.0
	for _, phase := range []string{"edge_only", "cloud_only", "cascade", "cascade_http"} {
		if got := len(phases[phase]); float64(got) != samples {
			t.Errorf("%d answers in phase %s, %v in cascade", got, phase, samples)
		}
		lost += phases[phase].count(unanswered)
		twice += phases[phase].count(func(a answer) bool { return a.Results > 1 })
	}
	down := phases["cloud_down"]
	for path, want := range map[string]float64{
		"dataset.test":                            samples,
		"joint_inference.samples":                 samples,
		"joint_inference.edge_accuracy":           edge,
		"joint_inference.cloud_accuracy":          cloud,
		"joint_inference.cascade_accuracy":        cascade.share(right),
		"joint_inference.offload_ratio":           offload,
		"joint_inference.random_offload_accuracy": edge + offload*(cloud-edge),
		"joint_inference.lost":                    lost,
		"joint_inference.duplicates":              twice,
		"cloud_down.sent":                         float64(len(down)),
		"cloud_down.lost":                         down.count(unanswered),
		"cloud_down.answered":                     float64(len(down)) - down.count(unanswered),
		"cloud_down.fallback":                     down.count(func(a answer) bool { return a.Fallback != "" }),
		"cleanup.left_behind":                     0,
	} {
		if got := figure(t, report, path); math.Abs(got-want) > 1e-9 {
			t.Errorf("%s is %v in the report, %v by the answers", path, got, want)
		}
	}
	if got, want := phases["edge_only"].share(right), edge; got != want {
		t.Errorf("edge accuracy is %v when asked alone, %v inside the cascade", got, want)
	}
	if got := phases["offline_restart"].count(unanswered); got != 0 || len(phases["offline_restart"]) == 0 {
		t.Errorf("%v requests lost of %d while cloud and bus were away", got, len(phases["offline_restart"]))
	}
	for _, path := range []string{"throughput.edge_only", "throughput.cascade", "throughput.cloud_only", "bytes_to_cloud.cascade",
		"latency_ms.manifest_to_serving", "latency_ms.infer_p50", "latency_ms.infer_p99", "restart.offline_ready_ms"} {
		if got := figure(t, report, path); got <= 0 {
			t.Errorf("%s is %v", path, got)
		}
	}
	if some, all := figure(t, report, "bytes_to_cloud.cascade"), figure(t, report, "bytes_to_cloud.cloud_only"); some >= all {
		t.Errorf("the cascade sent %v bytes to the cloud, all requests %v", some, all)
	}
}

// answer is a line of the answers file.
type answer struct {
	ID, Label, Phase, Transport, Edge, Cloud, Final, Source, Fallback string
	Index                                                             int
	Hard                                                              bool
	Results                                                           int
}

type answerList []answer

func right(a answer) bool      { return a.Final == a.Label }
func unanswered(a answer) bool { return a.Final == "" }

func (l answerList) count(f func(answer) bool) (n float64) {
	for _, a := range l {
		if f(a) {
			n++
		}
	}
	return n
}

func (l answerList) share(f func(answer) bool) float64 { return l.count(f) / float64(len(l)) }

// readAnswers reads the answers file by phase, and checks that no request is in
// it twice, that its label is the data set's, of a sample that is held out, and
// that each answer is one that its fields allow.
func readAnswers(t *testing.T, file string) map[string]answerList {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	set, err := digits.Load()
	if err != nil {
		t.Fatal(err)
	}
	_, heldOut := set.Split()
	phases, seen := map[string]answerList{}, map[string]bool{}
	for lines := json.NewDecoder(f); ; {
		var a answer
		if err := lines.Decode(&a); errors.Is(err, io.EOF) {
			return phases
		} else if err != nil {
			t.Fatal(err)
		}
		if key := a.Phase + " " + a.ID; seen[key] {
			t.Errorf("%s twice", key)
		} else {
			seen[key] = true
		}
		if !slices.Contains(heldOut, a.Index) || a.Label != fmt.Sprint(set.Y[a.Index]) {
			t.Errorf("%s %s: sample %d is not held out, or not a %s", a.Phase, a.ID, a.Index, a.Label)
		}
		switch a.Source {
		case "edge":
			if a.Final != a.Edge {
				t.Errorf("%s %s: from the edge, which said %q, final %q", a.Phase, a.ID, a.Edge, a.Final)
			}
		case "cloud":
			if a.Final != a.Cloud || a.Fallback != "" {
				t.Errorf("%s %s: from the cloud, which said %q, final %q, fallback %q", a.Phase, a.ID, a.Cloud, a.Final, a.Fallback)
			}
		default:
			t.Errorf("%s %s: source %q", a.Phase, a.ID, a.Source)
		}
		phases[a.Phase] = append(phases[a.Phase], a)
	}
}

// figure gives the number at a path of the report.
func figure(t *testing.T, report map[string]any, path string) float64 {
	t.Helper()
	var at any = report
	for name := range strings.SplitSeq(path, ".") {
		m, _ := at.(map[string]any)
		at = m[name]
	}
	v, ok := at.(float64)
	if !ok {
		t.Errorf("the report has no number %s", path)
	}
	return v
}
