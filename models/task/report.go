package task

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"maps"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/edgetwin/sedna/models/wire"
)

// Phases of a task as reported.
const (
	Pending   = "Pending"
	Preparing = "Preparing"
	Running   = "Running"
	Succeeded = "Succeeded"
	Failed    = "Failed"
	Stopped   = "Stopped"
)

var phases = map[string]bool{Pending: true, Preparing: true, Running: true, Succeeded: true, Failed: true, Stopped: true}

// MaxMetrics bounds the metrics in one report.
const MaxMetrics = 12

// maxValue is KubeEdge's limit on one value.
const maxValue = 512

// Report is what a node says of one task. All its properties travel in every
// report, empty ones too: a twin keeps what a report leaves out, and the
// signature covers the whole.
type Report struct {
	Phase      string
	Generation int64 // of the document that this is about
	Stage      string
	Round      int64
	Samples    int64
	Reason     string // CamelCase, one word
	Progress   string // 3/10
	Metrics    map[string]float64
	Model      string // name:version:digest12
	Detail     string // free text, cut to fit
	Seq        int64  // grows with every report of this task's uid
}

// reportKeys are the properties of a task report besides sig.
var reportKeys = []string{"phase", "generation", "stage", "round", "samples", "reason", "progress", "metrics", "model", "detail", "seq"}

// ReportKeys are the names of the reported properties of a task Device.
func ReportKeys() []string { return append(slices.Clone(reportKeys), PropSig) }

// PropSig is the reported property that holds the node's signature.
const PropSig = "sig"

// PropSeq is the reported property that numbers reports.
const PropSeq = "seq"

// Properties gives the report as unsigned twin properties.
func (r Report) Properties() map[string]string {
	return map[string]string{
		"phase":      r.Phase,
		"generation": strconv.FormatInt(r.Generation, 10),
		"stage":      r.Stage,
		"round":      strconv.FormatInt(r.Round, 10),
		"samples":    strconv.FormatInt(r.Samples, 10),
		"reason":     r.Reason,
		"progress":   r.Progress,
		"metrics":    encodeMetrics(r.Metrics),
		"model":      r.Model,
		"detail":     EncodeText(r.Detail),
		PropSeq:      strconv.FormatInt(r.Seq, 10),
	}
}

// ParseReport reads properties back; it does not check the signature.
func ParseReport(p map[string]string) (Report, error) {
	var r Report
	var err error
	if !phases[p["phase"]] {
		return r, wire.E(wire.InvalidArgument, "phase", fmt.Sprintf("expected a phase, got %.40q", p["phase"]), "")
	}
	r.Phase, r.Stage, r.Reason, r.Progress, r.Model = p["phase"], p["stage"], p["reason"], p["progress"], p["model"]
	for _, n := range []struct {
		key string
		to  *int64
	}{{"generation", &r.Generation}, {"round", &r.Round}, {"samples", &r.Samples}, {PropSeq, &r.Seq}} {
		if *n.to, err = strconv.ParseInt(p[n.key], 10, 64); err != nil || *n.to < 0 {
			return r, wire.E(wire.InvalidArgument, n.key, fmt.Sprintf("expected a whole number, got %.40q", p[n.key]), "")
		}
	}
	if r.Metrics, err = parseMetrics(p["metrics"]); err != nil {
		return r, err
	}
	if r.Detail, err = DecodeText(p["detail"]); err != nil {
		return r, wire.E(wire.InvalidArgument, "detail", "expected unpadded base64url text", "")
	}
	return r, nil
}

// encodeMetrics writes name:value pairs in name order, numbers without an
// exponent, as many as fit.
func encodeMetrics(m map[string]float64) string {
	var out []string
	size := 0
	for _, k := range slices.Sorted(maps.Keys(m)) {
		v := m[k]
		if math.IsNaN(v) || math.IsInf(v, 0) || !wire.TwinKey.MatchString(k) || strings.ContainsAny(k, ":,") {
			continue
		}
		s := k + ":" + strconv.FormatFloat(v, 'f', -1, 64)
		if len(s) > 64 {
			s = k + ":" + strconv.FormatFloat(v, 'f', 6, 64)
		}
		if len(out) == MaxMetrics || size+len(s)+1 > maxValue {
			break
		}
		out = append(out, s)
		size += len(s) + 1
	}
	return strings.Join(out, ",")
}

func parseMetrics(s string) (map[string]float64, error) {
	if s == "" {
		return nil, nil
	}
	parts := strings.Split(s, ",")
	if len(parts) > MaxMetrics {
		return nil, wire.E(wire.InvalidArgument, "metrics", fmt.Sprintf("at most %d metrics, got %d", MaxMetrics, len(parts)), "")
	}
	m := make(map[string]float64, len(parts))
	for _, p := range parts {
		k, v, ok := strings.Cut(p, ":")
		f, err := strconv.ParseFloat(v, 64)
		if !ok || k == "" || err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			return nil, wire.E(wire.InvalidArgument, "metrics", fmt.Sprintf("expected name:number, got %.40q", p), "")
		}
		m[k] = f
	}
	return m, nil
}

// EncodeText makes free text fit a twin value: unpadded base64url, the text
// cut at a rune so that the result is at most 512 characters.
func EncodeText(s string) string {
	const room = maxValue / 4 * 3
	if len(s) > room {
		cut := room
		for cut > 0 && s[cut]&0xC0 == 0x80 {
			cut--
		}
		s = s[:cut]
	}
	return base64.RawURLEncoding.EncodeToString([]byte(s))
}

// DecodeText undoes EncodeText.
func DecodeText(s string) (string, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	return string(b), err
}

// signedBytes is what a report's signature covers: the uid and every property
// but sig, in name order. No property can hold a newline or an equals sign.
func signedBytes(uid string, p map[string]string) []byte {
	keys := make([]string, 0, len(p))
	for k := range p {
		if k != PropSig {
			keys = append(keys, k)
		}
	}
	sort.Strings(keys)
	var b strings.Builder
	b.WriteString("sedna.io/report/v1\n" + uid + "\n")
	for _, k := range keys {
		b.WriteString(k + "=" + p[k] + "\n")
	}
	return []byte(b.String())
}

// SignProperties adds the node's signature to the properties of a report about
// uid, the uid of the Device.
func SignProperties(key ed25519.PrivateKey, uid string, p map[string]string) {
	p[PropSig] = base64.RawURLEncoding.EncodeToString(ed25519.Sign(key, signedBytes(uid, p)))
}

// VerifyProperties checks the signature of a report about uid. Properties
// outside the twins' alphabet are refused: with a newline in them, one signature
// would be good for several sets.
func VerifyProperties(pub ed25519.PublicKey, uid string, p map[string]string) error {
	for k, v := range p {
		if !wire.TwinSafe(k, v) {
			return wire.E(wire.InvalidArgument, "", fmt.Sprintf("property %.40q cannot travel in a twin", k), "")
		}
	}
	sig, err := base64.RawURLEncoding.DecodeString(p[PropSig])
	if err != nil || len(sig) != ed25519.SignatureSize || !ed25519.Verify(pub, signedBytes(uid, p), sig) {
		return wire.E(wire.BadSignature, PropSig, "the report is not signed by its node", "")
	}
	return nil
}
