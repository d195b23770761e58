package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/edgetwin/sedna/examples/internal/standalone"
	"github.com/edgetwin/sedna/lib/bus"
	devices "github.com/edgetwin/sedna/models/devices/v1beta1"
	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// The benchmarks of the whole system, with each part a process of its own.
// `make bench` gives them enough iterations for a p99.

// patience is how long a benchmark waits for what takes milliseconds.
const patience = 30 * time.Second

// BenchmarkManifestToServing measures from applying a JointInferenceService to
// its first right answer over HTTP. Each one finds a node without the model,
// which the deletion of the one before has taken from it.
func BenchmarkManifestToServing(b *testing.B) {
	r := ready(b)
	var took []time.Duration
	for b.Loop() {
		applied := time.Now()
		if err := r.kube.ApplyManifest(b.Context(), DigitsManifest); err != nil {
			b.Fatal(err)
		}
		if err := r.firstAnswer(b.Context(), applied.Add(time.Minute)); err != nil {
			b.Fatal(err)
		}
		took = append(took, r.answeredAt.Sub(applied))
		b.StopTimer()
		if err := r.kube.Remove(b.Context(), DigitsManifest); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	quantiles(b, "", took)
}

// BenchmarkTaskAccepted measures from the change of a task's Device in the
// Kubernetes API, as a watch shows it, to the event by which the
// LocalController says on the bus that the new document is on disk. What
// changes is the threshold in the manifest; the time from applying that is
// given too. The next change comes when the cloud knows that the last one is
// served.
func BenchmarkTaskAccepted(b *testing.B) {
	r := ready(b)
	if err := r.serve(b.Context()); err != nil {
		b.Fatal(err)
	}
	changes, acceptances := deviceChanges(b, r), acceptances(b, r)
	var fromDevice, fromManifest []time.Duration
	generation := int64(1)
	for b.Loop() {
		generation++
		threshold := strconv.FormatFloat(0.4+float64(generation%100)/1000, 'f', -1, 64)
		manifest := bytes.Replace(DigitsManifest, []byte(`"0.5"`), []byte(strconv.Quote(threshold)), 1)
		applied := time.Now()
		if err := r.kube.ApplyManifest(b.Context(), manifest); err != nil {
			b.Fatal(err)
		}
		accepted := reached(b, "an acceptance", acceptances, generation)
		b.StopTimer()
		changed := reached(b, "a change of the Device", changes, generation)
		fromDevice = append(fromDevice, accepted.Sub(changed))
		fromManifest = append(fromManifest, accepted.Sub(applied))
		if err := r.kube.AwaitReady(b.Context(), "digits"); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	quantiles(b, "", fromDevice)
	quantiles(b, "manifest-", fromManifest)
}

// sighting is when a generation of the only task was seen.
type sighting struct {
	generation int64
	at         time.Time
}

// reached gives when the generation was first seen.
func reached(b *testing.B, what string, seen <-chan sighting, generation int64) time.Time {
	b.Helper()
	timeout := time.After(patience)
	for {
		select {
		case s := <-seen:
			if s.generation == generation {
				return s.at
			}
		case <-timeout:
			b.Fatalf("%s of generation %d was not seen within %s", what, generation, patience)
		}
	}
}

// deviceChanges tells of the documents in the task's Device.
func deviceChanges(b *testing.B, r *run) <-chan sighting {
	w, err := r.kube.Watch(b.Context(), &devices.DeviceList{}, client.InNamespace("default"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(w.Stop)
	seen := make(chan sighting, 4096)
	go func() {
		for e := range w.ResultChan() {
			at := time.Now()
			d, ok := e.Object.(*devices.Device)
			if !ok {
				continue
			}
			for _, p := range d.Spec.Properties {
				var doc struct{ Generation int64 }
				if p.Name == task.PropTask && json.Unmarshal([]byte(p.Desired.Value), &doc) == nil {
					seen <- sighting{doc.Generation, at}
				}
			}
		}
	}()
	return seen
}

// acceptances tells of the documents that the LocalController has accepted.
func acceptances(b *testing.B, r *run) <-chan sighting {
	seen := make(chan sighting, 4096)
	listen(b, r, wire.Event(nodeName, "task"), func(m bus.Message) {
		at := time.Now()
		var e struct {
			Reason     string
			Generation int64
		}
		if json.Unmarshal(m.Payload, &e) == nil && e.Reason == "Accepted" {
			seen <- sighting{e.Generation, at}
		}
	})
	return seen
}

// listen subscribes on the bus, and returns when the broker knows it.
func listen(b *testing.B, r *run, filter string, heard func(bus.Message)) {
	c, err := bus.New(bus.Options{URL: "tcp://" + r.mqtt, ClientID: "bench", CleanSession: true})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	const marker = "bench/marker"
	subscribed := make(chan struct{})
	c.Subscribe(filter, 1, heard)
	c.Subscribe(marker, 1, func(bus.Message) { close(subscribed) })
	c.OnConnect(func() { _ = c.Publish(context.WithoutCancel(b.Context()), marker, 1, false, []byte("x")) })
	c.Start(b.Context())
	select {
	case <-subscribed:
	case <-time.After(patience):
		b.Fatal("no connection to the bus")
	}
}

// BenchmarkIdleMemory gives the resident memory of each part while nothing is
// asked of it: with no service, and with the digits served and a hundred of
// them answered before. It is the most that is seen in three seconds.
func BenchmarkIdleMemory(b *testing.B) {
	r := ready(b)
	linked := make(chan struct{}, 16)
	listen(b, r, wire.TaskDesired(nodeName, "sedna", task.NodeDeviceName(nodeName)), func(bus.Message) { linked <- struct{}{} })
	select {
	case <-linked: // the node's Device came down
	case <-time.After(patience):
		b.Fatal("the node is not linked to the cloud")
	}
	b.Run("no-service", r.resident)
	if err := r.serve(b.Context()); err != nil {
		b.Fatal(err)
	}
	if _, err := r.ask(b.Context(), phaseHTTP, r.samples[:100]); err != nil {
		b.Fatal(err)
	}
	b.Run("digits", r.resident)
}

// resident reports the resident memory of each part, in units of 10^6 bytes.
func (r *run) resident(b *testing.B) {
	parts := []*standalone.Process{r.local, r.mapper, r.cloud}
	most := map[*standalone.Process]float64{}
	for b.Loop() {
		if len(most) > 0 {
			continue // once is enough, however many iterations are asked for
		}
		tick := time.NewTicker(100 * time.Millisecond)
		for range 30 {
			for _, p := range parts {
				mb, err := residentMB(p.PID)
				if err != nil {
					b.Fatal(err)
				}
				most[p] = max(most[p], mb)
			}
			<-tick.C
		}
		tick.Stop()
	}
	for p, mb := range most {
		b.ReportMetric(mb, p.Name+"-MB")
	}
	b.ReportMetric(0, "ns/op") // would say how long we looked
}

// residentMB reads VmRSS of a process, in units of 10^6 bytes.
func residentMB(pid int) (float64, error) {
	file := fmt.Sprintf("/proc/%d/status", pid)
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64)
			return kb * 1024 / 1e6, err
		}
	}
	return 0, fmt.Errorf("%s: no VmRSS", file)
}

// BenchmarkBinarySize gives the sizes of the binaries, in units of 10^6 bytes.
func BenchmarkBinarySize(b *testing.B) {
	sizes := map[string]int64{}
	for b.Loop() {
		for _, name := range []string{"sedna", "globalmanager", "localcontroller", "mapper"} {
			st, err := os.Stat(filepath.Join(binDir(), name))
			if err != nil {
				b.Skipf("run make build or set SEDNA_BIN: %v", err)
			}
			sizes[name] = st.Size()
		}
	}
	for name, n := range sizes {
		b.ReportMetric(float64(n)/1e6, name+"-MB")
	}
	b.ReportMetric(0, "ns/op")
}

// ready gives the whole system with both models pushed and nothing served.
func ready(b *testing.B) *run {
	b.Helper()
	r := newSystem(b)
	for _, step := range []func(context.Context) error{r.bringUp, r.trainAndPush} {
		if err := step(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	return r
}

// quantiles reports the median and the 99th percentile, in milliseconds.
func quantiles(b *testing.B, prefix string, took []time.Duration) {
	slices.Sort(took)
	at := func(q float64) float64 { return ms(took[max(0, int(math.Ceil(q*float64(len(took))))-1)]) }
	b.ReportMetric(at(0.50), prefix+"p50-ms")
	b.ReportMetric(at(0.99), prefix+"p99-ms")
}
