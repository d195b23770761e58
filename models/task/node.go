package task

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sort"
	"strconv"
	"strings"

	"github.com/edgetwin/sedna/models/wire"
)

// Beat is what a node says of itself every BeatSeconds, as the reported
// properties of its node Device.
type Beat struct {
	Version          string
	Engines          []string
	StateHash        string // of StateHash over all its tasks
	DiskFreeBytes    int64
	MemoryBytes      int64 // resident, of the LocalController
	ConfigGeneration int64
	Seq              int64
}

// BeatSeconds is the time between two beats, in seconds.
const BeatSeconds = 60

// BeatKeys are the names of the reported properties of a node Device.
func BeatKeys() []string {
	return []string{"version", "engines", "stateHash", "disk", "memory", "configGeneration", PropSeq, PropSig}
}

// Properties gives the beat as unsigned twin properties.
func (b Beat) Properties() map[string]string {
	return map[string]string{
		"version":          b.Version,
		"engines":          strings.Join(b.Engines, ","),
		"stateHash":        b.StateHash,
		"disk":             strconv.FormatInt(b.DiskFreeBytes, 10),
		"memory":           strconv.FormatInt(b.MemoryBytes, 10),
		"configGeneration": strconv.FormatInt(b.ConfigGeneration, 10),
		PropSeq:            strconv.FormatInt(b.Seq, 10),
	}
}

// ParseBeat reads properties back; it does not check the signature.
func ParseBeat(p map[string]string) (Beat, error) {
	b := Beat{Version: p["version"], StateHash: p["stateHash"]}
	if p["engines"] != "" {
		b.Engines = strings.Split(p["engines"], ",")
	}
	for _, n := range []struct {
		key string
		to  *int64
	}{{"disk", &b.DiskFreeBytes}, {"memory", &b.MemoryBytes}, {"configGeneration", &b.ConfigGeneration}, {PropSeq, &b.Seq}} {
		v, err := strconv.ParseInt(p[n.key], 10, 64)
		if err != nil || v < 0 {
			return b, wire.E(wire.InvalidArgument, n.key, fmt.Sprintf("expected a whole number, got %.40q", p[n.key]), "")
		}
		*n.to = v
	}
	return b, nil
}

// TaskState is one task in a StateHash.
type TaskState struct {
	UID        string
	Generation int64
	Phase      string
}

// StateHash sums up all tasks of a node, in 16 hex digits: equal on both sides
// when the cloud has seen what the node last reported of each task.
func StateHash(tasks []TaskState) string {
	lines := make([]string, len(tasks))
	for i, t := range tasks {
		lines[i] = fmt.Sprintf("%s %d %s\n", t.UID, t.Generation, t.Phase)
	}
	sort.Strings(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "")))
	return hex.EncodeToString(sum[:8])
}

// Nonce is the desired property that travels beside the document.
type Nonce struct {
	N     int64 // raised to have the document delivered and a report sent again
	Acked int64 // the highest seq that the cloud has seen
}

func (n Nonce) String() string { return fmt.Sprintf("%d:%d", n.N, n.Acked) }

// ParseNonce reads "<n>:<ackedSeq>"; an empty text is the zero Nonce.
func ParseNonce(s string) (Nonce, error) {
	if s == "" {
		return Nonce{}, nil
	}
	a, b, ok := strings.Cut(s, ":")
	n, err1 := strconv.ParseInt(a, 10, 64)
	acked, err2 := strconv.ParseInt(b, 10, 64)
	if !ok || err1 != nil || err2 != nil || n < 0 || acked < 0 {
		return Nonce{}, wire.E(wire.InvalidArgument, PropNonce, fmt.Sprintf("expected <n>:<ackedSeq>, got %.40q", s), "")
	}
	return Nonce{n, acked}, nil
}

// Desired is the retained message that a mapper puts on the bus for a device:
// its desired properties by name.
type Desired struct {
	Task      string `json:"task,omitempty"`
	Config    string `json:"config,omitempty"`
	Signature string `json:"signature"`
	Nonce     string `json:"nonce"`
}
