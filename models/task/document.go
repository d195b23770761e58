package task

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/edgetwin/sedna/models/wire"
)

// Schema is the version of the document that this package writes and reads.
const Schema = "sedna.io/task/v1"

// MaxDocument bounds a task document in bytes.
const MaxDocument = 256 << 10

// States of a document. Deletion is a document, not an absence.
const (
	Active  = "Active"
	Deleted = "Deleted"
)

// Kinds that have tasks, as in the document's kind.
const KindJointInference = "JointInferenceService"

// KindShort is the short name of each kind, used in Device names.
var KindShort = map[string]string{KindJointInference: "ji"}

// RoleEdge is the role of an edge worker.
const RoleEdge = "edge"

// Names of the models and properties of KubeEdge devices that carry tasks.
const (
	DeviceModel     = "sedna-task"
	NodeDeviceModel = "sedna-node"
	Protocol        = "sedna"
	Finalizer       = "sedna.io/task-cleanup"

	PropTask      = "task"      // desired: the document's text
	PropConfig    = "config"    // desired, node device: the configuration's text
	PropSignature = "signature" // desired: keyId:base64url over the exact bytes of task or config
	PropNonce     = "nonce"     // desired: <n>:<ackedSeq>
)

// Labels that hold a Device's identity.
const (
	LabelKind = "sedna.io/kind"
	LabelName = "sedna.io/name"
	LabelUID  = "sedna.io/uid"
	LabelRole = "sedna.io/role"
	LabelNode = "sedna.io/node"
)

// Document is what one node is to do for one job.
type Document struct {
	Schema     string          `json:"schema"`
	State      string          `json:"state"`
	UID        string          `json:"uid"`        // of the Device: one life of one task
	Epoch      int64           `json:"epoch"`      // rises when the cloud was restored from a backup
	Generation int64           `json:"generation"` // grows with every change, from 1
	Kind       string          `json:"kind"`
	Namespace  string          `json:"namespace"`
	Name       string          `json:"name"` // of the job
	Role       string          `json:"role"`
	Node       string          `json:"node"`
	IssuedAt   time.Time       `json:"issuedAt"`
	Spec       json.RawMessage `json:"spec,omitempty"` // by kind; absent when state is Deleted
}

var (
	nameRE = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$`)
	uidRE  = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)
)

// ValidName tells whether s can be a node, namespace, job or device name.
func ValidName(s string) bool { return nameRE.MatchString(s) }

// Parse reads and checks a document. It does not check the signature: that is
// over the bytes, and comes first.
func Parse(b []byte) (*Document, error) {
	if len(b) > MaxDocument {
		return nil, wire.E(wire.TooLarge, PropTask, fmt.Sprintf("document of %d bytes, at most %d are taken", len(b), MaxDocument), "")
	}
	var d Document
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(&d); err != nil {
		return nil, wire.E(wire.InvalidArgument, PropTask, "not a JSON task document: "+err.Error(), "")
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, wire.E(wire.InvalidArgument, PropTask, "data after the document", "")
	}
	if err := d.validate(); err != nil {
		return nil, err
	}
	return &d, nil
}

func (d *Document) validate() error {
	bad := func(field, want, got string) error {
		return wire.E(wire.InvalidArgument, field, fmt.Sprintf("expected %s, got %.80q", want, got), "")
	}
	switch {
	case d.Schema != Schema:
		return bad("schema", Schema, d.Schema)
	case d.State != Active && d.State != Deleted:
		return bad("state", "Active or Deleted", d.State)
	case !uidRE.MatchString(d.UID):
		return bad("uid", "a uid", d.UID)
	case d.Epoch < 0:
		return bad("epoch", "0 or more", fmt.Sprint(d.Epoch))
	case d.Generation < 1:
		return bad("generation", "1 or more", fmt.Sprint(d.Generation))
	case KindShort[d.Kind] == "":
		return bad("kind", "a kind that has tasks", d.Kind)
	case !ValidName(d.Namespace):
		return bad("namespace", "a namespace", d.Namespace)
	case !ValidName(d.Name):
		return bad("name", "a job name", d.Name)
	case !ValidName(d.Role):
		return bad("role", "a role", d.Role)
	case !ValidName(d.Node):
		return bad("node", "a node name", d.Node)
	case d.State == Active && len(d.Spec) == 0:
		return bad("spec", "a task specification", "")
	}
	return nil
}

// Encode gives the document's bytes, the ones that are signed.
func (d *Document) Encode() ([]byte, error) {
	b, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("encode task %s/%s: %w", d.Namespace, d.Name, err)
	}
	if len(b) > MaxDocument {
		return nil, wire.E(wire.TooLarge, PropTask, fmt.Sprintf("document of %s/%s is %d bytes, at most %d fit a twin", d.Namespace, d.Name, len(b), MaxDocument), "")
	}
	return b, nil
}

// DeviceName is the name of the Device of one task.
func DeviceName(kind, namespace, name, role, node string) string {
	sum := sha256.Sum256([]byte(strings.Join([]string{kind, namespace, name, role, node}, "/")))
	const shown = 30
	cut := name
	if len(cut) > shown {
		cut = cut[:shown]
	}
	return "sedna-" + KindShort[kind] + "-" + cut + "-" + role + "-" + hex.EncodeToString(sum[:])[:10]
}

// NodeDeviceName is the name of the Device that stands for a node.
func NodeDeviceName(node string) string { return "sedna-node-" + node }

// JointInference is the spec of a JointInferenceService's edge task.
type JointInference struct {
	Model        Model      `json:"model"`
	HardExample  Algorithm  `json:"hardExampleMining"`
	Cloud        *CloudSide `json:"cloud,omitempty"` // absent: the edge always answers
	OnCloudError string     `json:"onCloudError"`    // local or error

	Inputs []Input         `json:"inputs,omitempty"`         // what feeds the model without being asked
	Result *ResultProperty `json:"resultProperty,omitempty"` // takes the answers to inputs and camera frames
}

// Values of OnCloudError.
const (
	AnswerLocally  = "local"
	AnswerAnError  = "error"
	FormatONNX     = "onnx"
	BlobURLPrefix  = "blob://sha256/"
	defaultTimeout = 2000
	maxTimeout     = 600_000
	maxConcurrent  = 1024
)

// Model is a model that the node fetches and serves.
type Model struct {
	Name        string      `json:"name"`
	Version     string      `json:"version"`
	URL         string      `json:"url"` // blob://sha256/<hex>, https://…, http://… or a path under the node's data roots
	SHA256      string      `json:"sha256,omitempty"`
	Format      string      `json:"format"`
	Runtime     string      `json:"runtime,omitempty"`
	Labels      []string    `json:"labels,omitempty"`
	Preprocess  *Preprocess `json:"preprocess,omitempty"`
	Postprocess string      `json:"postprocess,omitempty"` // softmax, argmax, detections or none
}

// Preprocess says how an image becomes the model's input.
type Preprocess struct {
	Width    int       `json:"width"`    // pixels
	Height   int       `json:"height"`   // pixels
	Resize   string    `json:"resize"`   // stretch or letterbox
	Channels string    `json:"channels"` // RGB, BGR or GRAY
	Layout   string    `json:"layout"`   // NCHW, NHWC or FLAT
	Mean     []float64 `json:"mean,omitempty"`
	Std      []float64 `json:"std,omitempty"`
	Scale    float64   `json:"scale"` // multiplies the 0…255 value before mean and std
}

// Algorithm is an algorithm by name with its parameters.
type Algorithm struct {
	Name       string      `json:"name"`
	Parameters []Parameter `json:"parameters,omitempty"`
}

// Parameter is one parameter; values are text, as in the manifests.
type Parameter struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Map gives the parameters by key; a key given twice keeps its last value.
func (a Algorithm) Map() map[string]string {
	m := make(map[string]string, len(a.Parameters))
	for _, p := range a.Parameters {
		m[p.Key] = p.Value
	}
	return m
}

// CloudSide is the upstream that hard examples go to, an OIP v2 server.
type CloudSide struct {
	URL                 string `json:"url"`   // base URL; a path alone is on the GlobalManager
	Model               string `json:"model"` // its name there
	TimeoutMilliseconds int    `json:"timeoutMilliseconds"`
	MaxConcurrent       int    `json:"maxConcurrent"`
}

// Timeout is how long one answer may take.
func (c *CloudSide) Timeout() time.Duration {
	return time.Duration(c.TimeoutMilliseconds) * time.Millisecond
}

var digestRE = regexp.MustCompile(`^[0-9a-f]{64}$`)

// ValidDigest tells whether s is a sha256 in lower-case hex.
func ValidDigest(s string) bool { return digestRE.MatchString(s) }

// JointInference reads and checks the spec of a JointInferenceService task.
func (d *Document) JointInference() (*JointInference, error) {
	var s JointInference
	if err := json.Unmarshal(d.Spec, &s); err != nil {
		return nil, wire.E(wire.InvalidArgument, "spec", "not the spec of a JointInferenceService task: "+err.Error(), "")
	}
	if err := s.Model.validate("spec.model"); err != nil {
		return nil, err
	}
	if s.HardExample.Name == "" {
		return nil, wire.E(wire.InvalidArgument, "spec.hardExampleMining.name", "missing", "")
	}
	if s.OnCloudError == "" {
		s.OnCloudError = AnswerLocally
	}
	if s.OnCloudError != AnswerLocally && s.OnCloudError != AnswerAnError {
		return nil, wire.E(wire.InvalidArgument, "spec.onCloudError", "expected local or error", "")
	}
	if c := s.Cloud; c != nil {
		if err := c.validate(); err != nil {
			return nil, err
		}
	}
	if err := validateInputs(s.Inputs); err != nil {
		return nil, err
	}
	if s.Result != nil {
		if err := s.Result.validate(); err != nil {
			return nil, err
		}
	}
	return &s, nil
}

func (c *CloudSide) validate() error {
	u, err := url.Parse(c.URL)
	if err != nil || (u.Scheme != "" && u.Scheme != "http" && u.Scheme != "https") || (u.Scheme == "" && !strings.HasPrefix(c.URL, "/")) {
		return wire.E(wire.InvalidArgument, "spec.cloud.url", "expected an http(s) URL or a path on the GlobalManager", "")
	}
	if c.Model == "" {
		return wire.E(wire.InvalidArgument, "spec.cloud.model", "missing", "")
	}
	if c.TimeoutMilliseconds == 0 {
		c.TimeoutMilliseconds = defaultTimeout
	}
	if c.TimeoutMilliseconds < 1 || c.TimeoutMilliseconds > maxTimeout {
		return wire.E(wire.InvalidArgument, "spec.cloud.timeoutMilliseconds", fmt.Sprintf("expected 1 to %d", maxTimeout), "")
	}
	if c.MaxConcurrent == 0 {
		c.MaxConcurrent = 16
	}
	if c.MaxConcurrent < 1 || c.MaxConcurrent > maxConcurrent {
		return wire.E(wire.InvalidArgument, "spec.cloud.maxConcurrent", fmt.Sprintf("expected 1 to %d", maxConcurrent), "")
	}
	return nil
}

func (m *Model) validate(field string) error {
	switch {
	case !ValidName(m.Name):
		return wire.E(wire.InvalidArgument, field+".name", "expected a model name", "")
	case m.URL == "":
		return wire.E(wire.InvalidArgument, field+".url", "missing", "")
	case m.SHA256 != "" && !ValidDigest(m.SHA256):
		return wire.E(wire.InvalidArgument, field+".sha256", "expected 64 lower-case hex digits", "")
	case m.Format == "":
		return wire.E(wire.InvalidArgument, field+".format", "missing", "")
	}
	if hex, ok := strings.CutPrefix(m.URL, BlobURLPrefix); ok {
		if !ValidDigest(hex) {
			return wire.E(wire.InvalidArgument, field+".url", "expected blob://sha256/ and 64 lower-case hex digits", "")
		}
		if m.SHA256 == "" {
			m.SHA256 = hex
		} else if m.SHA256 != hex {
			return wire.E(wire.InvalidArgument, field+".sha256", "differs from the digest in url", "")
		}
	}
	return nil
}
