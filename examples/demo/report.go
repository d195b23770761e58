package demo

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/edgetwin/sedna/examples/internal/standalone"
)

// Report is what the demo measured, in the form of --json.
type Report struct {
	Dataset struct {
		Train int `json:"train"`
		Test  int `json:"test"`
	} `json:"dataset"`
	JointInference struct {
		Samples               int     `json:"samples"`
		EdgeAccuracy          float64 `json:"edge_accuracy"`
		CloudAccuracy         float64 `json:"cloud_accuracy"`
		CascadeAccuracy       float64 `json:"cascade_accuracy"`
		RandomOffloadAccuracy float64 `json:"random_offload_accuracy"` // expected when as many requests, drawn at random, went to the cloud
		OffloadRatio          float64 `json:"offload_ratio"`
		Lost                  int     `json:"lost"`
		Duplicates            int     `json:"duplicates"`
	} `json:"joint_inference"`
	Throughput struct { // requests per second over MQTT
		EdgeOnly  float64 `json:"edge_only"`
		Cascade   float64 `json:"cascade"`
		CloudOnly float64 `json:"cloud_only"`
	} `json:"throughput"`
	BytesToCloud struct {
		Cascade   int64 `json:"cascade"`
		CloudOnly int64 `json:"cloud_only"`
	} `json:"bytes_to_cloud"`
	LatencyMS struct {
		ManifestToServing float64 `json:"manifest_to_serving"`
		InferP50          float64 `json:"infer_p50"` // of the cascade over HTTP, one request at a time
		InferP99          float64 `json:"infer_p99"`
	} `json:"latency_ms"`
	CloudDown struct {
		Sent     int `json:"sent"`
		Answered int `json:"answered"`
		Fallback int `json:"fallback"`
		Lost     int `json:"lost"`
	} `json:"cloud_down"`
	Restart struct {
		OfflineReadyMS float64 `json:"offline_ready_ms"`
	} `json:"restart"`
	Cleanup struct {
		LeftBehind int `json:"left_behind"`
	} `json:"cleanup"`
}

// Phases of the demo, as in the answers file.
const (
	phaseEdgeOnly  = "edge_only"
	phaseCloudOnly = "cloud_only"
	phaseCascade   = "cascade"
	phaseHTTP      = "cascade_http"
	phaseCloudDown = "cloud_down"
	phaseOffline   = "offline_restart"
	phaseRecovered = "recovered"
)

// accuracyOf is the share of answers that are right; a lost one is wrong.
func accuracyOf(answers []Answer) float64 {
	right := 0
	for _, a := range answers {
		if a.Final == a.Label {
			right++
		}
	}
	return float64(right) / float64(len(answers))
}

// countIf gives how many answers are such as f says.
func countIf(answers []Answer, f func(Answer) bool) int {
	n := 0
	for _, a := range answers {
		if f(a) {
			n++
		}
	}
	return n
}

func isLost(a Answer) bool      { return a.Final == "" }
func isDuplicate(a Answer) bool { return a.Results > 1 }
func fromCloud(a Answer) bool   { return a.Source == "cloud" }

// quantile gives the q-quantile of the latencies, in milliseconds.
func quantile(answers []Answer, q float64) float64 {
	ms := make([]float64, len(answers))
	for i, a := range answers {
		ms[i] = a.LatencyMS
	}
	return standalone.Quantile(ms, q)
}

// write saves the report as JSON.
func (r *Report) write(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// print shows the closing table.
func (r *Report) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	j := &r.JointInference
	row := func(cells ...any) {
		for i, c := range cells {
			if i > 0 {
				fmt.Fprint(t, "\t")
			}
			fmt.Fprint(t, c)
		}
		fmt.Fprintln(t)
	}
	percent := func(v float64) string { return fmt.Sprintf("%.1f%%", 100*v) }
	row("", "edge only", "cascade", "cloud only")
	row("accuracy", percent(j.EdgeAccuracy), percent(j.CascadeAccuracy), percent(j.CloudAccuracy))
	row("sent to the cloud", "0%", percent(j.OffloadRatio), "100%")
	row("bytes to the cloud", 0, r.BytesToCloud.Cascade, r.BytesToCloud.CloudOnly)
	row("requests per second (MQTT)", int(r.Throughput.EdgeOnly), int(r.Throughput.Cascade), int(r.Throughput.CloudOnly))
	row()
	row("the same share sent at random", percent(j.RandomOffloadAccuracy)+" accuracy")
	row("lost, answered twice", fmt.Sprintf("%d, %d of %d", j.Lost, j.Duplicates, j.Samples))
	row("manifest applied to first answer", fmt.Sprintf("%.0f ms", r.LatencyMS.ManifestToServing))
	row("one answer over HTTP, p50 and p99", fmt.Sprintf("%.2f ms, %.2f ms", r.LatencyMS.InferP50, r.LatencyMS.InferP99))
	row("with the cloud killed", fmt.Sprintf("%d of %d answered, %d said why, %d lost", r.CloudDown.Answered, r.CloudDown.Sent, r.CloudDown.Fallback, r.CloudDown.Lost))
	row("LocalController killed, cloud and bus away", fmt.Sprintf("first right answer %.0f ms after exec", r.Restart.OfflineReadyMS))
	row("left behind after deletion", r.Cleanup.LeftBehind)
	return t.Flush()
}
