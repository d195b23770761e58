package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/edgetwin/sedna/examples/internal/digitmodels"
	"github.com/edgetwin/sedna/lib/dataset/digits"
	"github.com/edgetwin/sedna/lib/onnx"
)

// Parts of the demo that Options.Only can name.
var Parts = []string{"joint-inference"}

// Options of the demo.
type Options struct {
	JSON    string   // file for the figures; empty: none
	Answers string   // file for one line per request; empty: none
	Only    []string // parts to run; empty: all
	Keep    bool     // leave everything running at the end, until ctx ends
	Seed    int64    // makes training repeatable
	Dir     string   // data directory; empty: a temporary one, removed at the end
}

// Settings of the measurement.
const (
	window       = 8   // requests that the sensor has under way at once
	cloudDown    = 200 // requests sent while the cloud is away
	offlineProbe = 100 // requests sent while cloud and bus are away
	recovered    = 100 // requests sent after everything is back
)

// run is one run of the demo.
type run struct {
	*stack
	o       Options
	out     io.Writer
	report  Report
	samples []Sample
	answers []Answer
	kube    Kube
	began   time.Time

	answeredAt time.Time // when firstAnswer had its answer
}

// Run runs the demo and prints what happens as it happens.
func Run(ctx context.Context, o Options, stdout io.Writer) (err error) {
	for _, p := range o.Only {
		if p != Parts[0] {
			return fmt.Errorf("--only: unknown part %q, expected one of %s", p, strings.Join(Parts, ", "))
		}
	}
	dir := o.Dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "sedna-demo-"); err != nil {
			return err
		}
		defer func() {
			if err == nil {
				err = os.RemoveAll(dir)
			} else {
				fmt.Fprintln(stdout, "logs are kept in", dir)
			}
		}()
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	s, err := newStack(dir)
	if err != nil {
		return err
	}
	r := &run{stack: s, o: o, out: stdout, began: time.Now()}
	defer func() { err = errors.Join(err, s.stop()) }()

	for _, step := range []func(context.Context) error{
		r.bringUp, r.trainAndPush, r.serve, r.baselines, r.cascade, r.loseCloud, r.restartOffline, r.recover,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if o.Keep {
		return r.keep(ctx)
	}
	if err := r.cleanUp(ctx); err != nil {
		return err
	}
	fmt.Fprintln(stdout)
	if err := r.report.print(stdout); err != nil {
		return err
	}
	return errors.Join(r.save(), r.judge())
}

// say prints one line with the time since the start.
func (r *run) say(format string, args ...any) {
	fmt.Fprintf(r.out, "%5.1fs  %s\n", time.Since(r.began).Seconds(), fmt.Sprintf(format, args...))
}

// bringUp starts cloud, bus, mapper and LocalController.
func (r *run) bringUp(ctx context.Context) (err error) {
	r.say("starting the cloud: Kubernetes API, GlobalManager, cloud inference")
	if err := r.startCloud(ctx); err != nil {
		return err
	}
	if r.kube, err = OpenKube(r.cloudEnds.Kubeconfig); err != nil {
		return err
	}
	r.say("node %s joins with a one-time token", nodeName)
	if err := r.join(ctx); err != nil {
		return err
	}
	r.say("starting MQTT bus, edgelink and mapper; starting the LocalController")
	return errors.Join(r.startMapper(ctx), r.startLocal(ctx))
}

// trainAndPush trains both models and stores them with `sedna model push`.
func (r *run) trainAndPush(ctx context.Context) error {
	edge, cloudModel, _, err := BuildModels(r.o.Seed)
	if err != nil {
		return err
	}
	set, err := digits.Load()
	if err != nil {
		return err
	}
	in, held := set.Split()
	r.report.Dataset.Train, r.report.Dataset.Test = len(in), len(held)
	r.say("trained on %d handwritten digits: the edge model sees 4×4 pixels (170 weights), the cloud model 8×8 (64-128-10); %d held-out digits will be sent", len(in), len(held))
	for i, at := range held {
		x, y := set.Select([]int{at})
		r.samples = append(r.samples, Sample{ID: fmt.Sprintf("digit-%d", i), Index: at, Label: fmt.Sprint(y[0]), Data: x})
	}
	picture, _, err := SamplePNG(0)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(r.dir, "digit.png"), picture, 0o600); err != nil {
		return err
	}
	for name, m := range map[string]*onnx.Model{"digits-small": edge, "digits-big": cloudModel} {
		b, err := onnx.Encode(m)
		if err != nil {
			return err
		}
		file := filepath.Join(r.dir, name+".onnx")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			return err
		}
		cmd := exec.CommandContext(ctx, r.self, "model", "push", file, "--name", name, "--labels", digitmodels.Labels,
			"--kubeconfig", r.cloudEnds.Kubeconfig, "--cloud", r.cloudEnds.GlobalManager)
		text, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("sedna model push: %w: %s", err, text)
		}
		r.say("%s", strings.TrimSpace(string(text)))
	}
	return nil
}

// serve applies the manifest and waits for the first answer over HTTP.
func (r *run) serve(ctx context.Context) error {
	applied := time.Now()
	if err := r.kube.ApplyManifest(ctx, DigitsManifest); err != nil {
		return err
	}
	if err := r.firstAnswer(ctx, applied.Add(time.Minute)); err != nil {
		return err
	}
	r.report.LatencyMS.ManifestToServing = ms(time.Since(applied))
	r.say("manifest applied to first answer: %.0f ms", r.report.LatencyMS.ManifestToServing)
	return r.kube.AwaitReady(ctx, "digits")
}

// baselines measures the two ends: all from the edge, all from the cloud.
func (r *run) baselines(ctx context.Context) error {
	if err := r.kube.ApplyManifest(ctx, baselinesManifest); err != nil {
		return err
	}
	for _, b := range []struct {
		service, phase string
		accuracy, rate *float64
	}{
		{"digits-edge-only", phaseEdgeOnly, &r.report.JointInference.EdgeAccuracy, &r.report.Throughput.EdgeOnly},
		{"digits-cloud-only", phaseCloudOnly, &r.report.JointInference.CloudAccuracy, &r.report.Throughput.CloudOnly},
	} {
		if err := r.kube.AwaitReady(ctx, b.service); err != nil {
			return err
		}
		answers, took, err := r.sensor(ctx, b.service, b.phase, window, r.samples)
		if err != nil {
			return err
		}
		r.take(answers)
		*b.accuracy, *b.rate = accuracyOf(answers), float64(len(answers))/took.Seconds()
		r.say("%s over MQTT: accuracy %.1f%%, %.0f requests per second", b.service, 100**b.accuracy, *b.rate)
	}
	sent, err := r.bytesToCloud(ctx, "digits-cloud-only")
	r.report.BytesToCloud.CloudOnly = sent
	return err
}

// cascade measures the service itself, over MQTT and over HTTP.
func (r *run) cascade(ctx context.Context) error {
	before, err := r.bytesToCloud(ctx, "digits")
	if err != nil {
		return err
	}
	answers, took, err := r.sensor(ctx, "digits", phaseCascade, window, r.samples)
	if err != nil {
		return err
	}
	after, err := r.bytesToCloud(ctx, "digits")
	if err != nil {
		return err
	}
	j := &r.report.JointInference
	j.Samples = len(answers)
	j.CascadeAccuracy = accuracyOf(answers)
	j.OffloadRatio = float64(countIf(answers, fromCloud)) / float64(len(answers))
	j.RandomOffloadAccuracy = j.EdgeAccuracy + j.OffloadRatio*(j.CloudAccuracy-j.EdgeAccuracy)
	r.report.Throughput.Cascade = float64(len(answers)) / took.Seconds()
	r.report.BytesToCloud.Cascade = after - before
	r.take(answers)
	r.say("cascade over MQTT: accuracy %.1f%%, %.1f%% sent to the cloud (the same share at random: %.1f%%)",
		100*j.CascadeAccuracy, 100*j.OffloadRatio, 100*j.RandomOffloadAccuracy)

	overHTTP, err := r.ask(ctx, phaseHTTP, r.samples)
	if err != nil {
		return err
	}
	r.take(overHTTP)
	r.report.LatencyMS.InferP50, r.report.LatencyMS.InferP99 = quantile(overHTTP, 0.5), quantile(overHTTP, 0.99)
	r.say("cascade over HTTP: accuracy %.1f%%, p50 %.2f ms, p99 %.2f ms", 100*accuracyOf(overHTTP), r.report.LatencyMS.InferP50, r.report.LatencyMS.InferP99)
	j.Lost, j.Duplicates = countIf(r.answers, isLost), countIf(r.answers, isDuplicate)
	return nil
}

// loseCloud kills the cloud while the sensor goes on.
func (r *run) loseCloud(ctx context.Context) error {
	r.cloud.Kill()
	r.say("the cloud was killed (SIGKILL)")
	answers, _, err := r.sensor(ctx, "digits", phaseCloudDown, window, rename(r.samples[:cloudDown], "down"))
	if err != nil {
		return err
	}
	r.take(answers)
	d := &r.report.CloudDown
	d.Sent, d.Lost = len(answers), countIf(answers, isLost)
	d.Answered = d.Sent - d.Lost
	d.Fallback = countIf(answers, func(a Answer) bool { return a.Fallback != "" })
	why := ""
	for _, a := range answers {
		if a.Fallback != "" {
			why = a.Fallback
		}
	}
	r.say("%d of %d requests answered without the cloud, %d hard ones say why (%q), accuracy %.1f%%", d.Answered, d.Sent, d.Fallback, why, 100*accuracyOf(answers))
	return nil
}

// restartOffline kills LocalController and bus, and starts the LocalController
// alone: it has nothing but its disk.
func (r *run) restartOffline(ctx context.Context) error {
	r.local.Kill()
	r.mapper.Kill()
	r.say("LocalController, mapper and bus were killed; starting the LocalController alone")
	began := time.Now()
	answered := make(chan error, 1)
	go func() { answered <- r.firstAnswer(ctx, began.Add(time.Minute)) }()
	err := r.startLocal(ctx)
	if answer := <-answered; err != nil || answer != nil {
		return errors.Join(err, answer)
	}
	r.report.Restart.OfflineReadyMS = ms(r.answeredAt.Sub(began))
	r.say("first right answer %.0f ms after exec, from SQLite and local files", r.report.Restart.OfflineReadyMS)
	answers, err := r.ask(ctx, phaseOffline, rename(r.samples[:offlineProbe], "offline"))
	r.take(answers)
	return err
}

// recover brings cloud and bus back.
func (r *run) recover(ctx context.Context) error {
	since := time.Now()
	if err := errors.Join(r.startCloud(ctx), r.startMapper(ctx)); err != nil {
		return err
	}
	if err := r.kube.NodeHeard(ctx, nodeName, since); err != nil {
		return err
	}
	if err := r.kube.AwaitReady(ctx, "digits"); err != nil {
		return err
	}
	r.say("cloud and bus are back; the status converged %.1f s after the restart", time.Since(since).Seconds())
	if err := r.cloudBack(ctx); err != nil {
		return err
	}
	answers, _, err := r.sensor(ctx, "digits", phaseRecovered, window, rename(r.samples[:recovered], "recovered"))
	if err != nil {
		return err
	}
	r.take(answers)
	r.say("%d of %d requests answered by the cloud again, %d lost", countIf(answers, fromCloud), len(answers), countIf(answers, isLost))
	return nil
}

// take keeps answers for the answers file.
func (r *run) take(answers []Answer) { r.answers = append(r.answers, answers...) }

// save writes the files that were asked for.
func (r *run) save() error {
	var errs []error
	if r.o.JSON != "" {
		errs = append(errs, r.report.write(r.o.JSON))
	}
	if r.o.Answers != "" {
		errs = append(errs, writeLines(r.o.Answers, r.answers))
	}
	return errors.Join(errs...)
}

// judge fails the demo when it did not show what it is to show.
func (r *run) judge() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	j, d := &r.report.JointInference, &r.report.CloudDown
	lost := countIf(r.answers, isLost)
	check(lost == 0, "%d requests were lost", lost)
	check(j.Duplicates == 0, "%d requests were answered twice", j.Duplicates)
	check(j.EdgeAccuracy < j.CascadeAccuracy, "the cascade is not better than the edge alone")
	check(j.RandomOffloadAccuracy < j.CascadeAccuracy, "the cascade is not better than sending at random")
	check(d.Answered == d.Sent, "%d requests went unanswered while the cloud was away", d.Sent-d.Answered)
	check(d.Fallback > 0, "no answer said that the cloud is away")
	check(r.report.Cleanup.LeftBehind == 0, "%d things were left behind", r.report.Cleanup.LeftBehind)
	return errors.Join(errs...)
}

// keep leaves everything running until ctx ends.
func (r *run) keep(ctx context.Context) error {
	if err := errors.Join(r.endpointsFile(), r.save(), r.judge()); err != nil {
		return err
	}
	if err := r.report.print(r.out); err != nil {
		return err
	}
	fmt.Fprintf(r.out, "everything is left running; kubeconfig and endpoints.json are in %s\nready\n", r.dir)
	<-ctx.Done()
	return nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// rename gives the samples ids of their own, since an id names one request.
func rename(samples []Sample, suffix string) []Sample {
	out := append([]Sample(nil), samples...)
	for i := range out {
		out[i].ID += "-" + suffix
	}
	return out
}

// post sends one request over HTTP and reads the answer.
func post(ctx context.Context, c *http.Client, url string, s Sample, phase string) (Answer, error) {
	a := Answer{ID: s.ID, Index: s.Index, Label: s.Label, Phase: phase, Transport: "http"}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(s.request()))
	if err != nil {
		return a, err
	}
	req.Header.Set("Content-Type", "application/json")
	sent := time.Now()
	resp, err := c.Do(req)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return a, err
	}
	a.LatencyMS = ms(time.Since(sent))
	a.Results = 1
	a.read(body)
	return a, nil
}
