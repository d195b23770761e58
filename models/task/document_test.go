package task_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

func sample() *task.Document {
	return &task.Document{
		Schema: task.Schema, State: task.Active, UID: "5d0e3a10-6f6e-4f0e-8b36-2a3c4d5e6f70", Epoch: 1, Generation: 2, Kind: task.KindJointInference,
		Namespace: "default", Name: "digits", Role: task.RoleEdge, Node: "edge1", IssuedAt: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
		Spec: json.RawMessage(`{"model":{"name":"small","version":"v1","url":"blob://sha256/` + strings.Repeat("ab", 32) + `","format":"onnx"},"hardExampleMining":{"name":"IBT"},"cloud":{"url":"/v2","model":"big"}}`),
	}
}

func TestDocumentRoundTrip(t *testing.T) {
	want := sample()
	b, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := task.Parse(b)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Fatal(err, diff)
	}
	spec, err := got.JointInference()
	if err != nil {
		t.Fatal(err)
	}
	if spec.Model.SHA256 != strings.Repeat("ab", 32) || spec.OnCloudError != task.AnswerLocally || spec.Cloud.TimeoutMilliseconds != 2000 || spec.Cloud.MaxConcurrent != 16 {
		t.Errorf("defaults: %+v %+v", spec, spec.Cloud)
	}
}

func TestDocumentRefusals(t *testing.T) {
	for field, change := range map[string]func(*task.Document){
		"schema":     func(d *task.Document) { d.Schema = "" },
		"state":      func(d *task.Document) { d.State = "active" },
		"uid":        func(d *task.Document) { d.UID = "a/b" },
		"epoch":      func(d *task.Document) { d.Epoch = -1 },
		"generation": func(d *task.Document) { d.Generation = 0 },
		"kind":       func(d *task.Document) { d.Kind = "Pod" },
		"namespace":  func(d *task.Document) { d.Namespace = "../x" },
		"name":       func(d *task.Document) { d.Name = "a+b" },
		"role":       func(d *task.Document) { d.Role = "#" },
		"node":       func(d *task.Document) { d.Node = "" },
		"spec":       func(d *task.Document) { d.Spec = nil },
	} {
		d := sample()
		change(d)
		b, err := d.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := task.Parse(b); err == nil || wire.AsError(err).Field != field || !wire.IsCode(err, wire.InvalidArgument) {
			t.Errorf("%s: %v", field, err)
		}
	}
	for text, code := range map[string]wire.Code{
		"": wire.InvalidArgument, "null": wire.InvalidArgument, "[]": wire.InvalidArgument, "{}{}": wire.InvalidArgument,
		strings.Repeat(" ", task.MaxDocument+1): wire.TooLarge,
	} {
		if _, err := task.Parse([]byte(text)); !wire.IsCode(err, code) {
			t.Errorf("%.10q: %v", text, err)
		}
	}
}

func TestSpecRefusals(t *testing.T) {
	for field, spec := range map[string]string{
		"spec":                           `[]`,
		"spec.model.name":                `{"model":{"url":"x","format":"onnx"}}`,
		"spec.model.url":                 `{"model":{"name":"m","format":"onnx","url":"blob://sha256/abc"}}`,
		"spec.model.sha256":              `{"model":{"name":"m","format":"onnx","url":"blob://sha256/` + strings.Repeat("a", 64) + `","sha256":"` + strings.Repeat("b", 64) + `"}}`,
		"spec.model.format":              `{"model":{"name":"m","url":"x"}}`,
		"spec.hardExampleMining.name":    `{"model":{"name":"m","url":"x","format":"onnx"}}`,
		"spec.onCloudError":              `{"model":{"name":"m","url":"x","format":"onnx"},"hardExampleMining":{"name":"x"},"onCloudError":"ignore"}`,
		"spec.cloud.url":                 `{"model":{"name":"m","url":"x","format":"onnx"},"hardExampleMining":{"name":"x"},"cloud":{"url":"ftp://h"}}`,
		"spec.cloud.model":               `{"model":{"name":"m","url":"x","format":"onnx"},"hardExampleMining":{"name":"x"},"cloud":{"url":"/"}}`,
		"spec.cloud.maxConcurrent":       `{"model":{"name":"m","url":"x","format":"onnx"},"hardExampleMining":{"name":"x"},"cloud":{"url":"/","model":"b","maxConcurrent":-1}}`,
		"spec.cloud.timeoutMilliseconds": `{"model":{"name":"m","url":"x","format":"onnx"},"hardExampleMining":{"name":"x"},"cloud":{"url":"/","model":"b","timeoutMilliseconds":600001}}`,
	} {
		d := sample()
		d.Spec = json.RawMessage(spec)
		if _, err := d.JointInference(); err == nil || wire.AsError(err).Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestSignature(t *testing.T) {
	pub, key := keys(t)
	pub2, key2 := keys(t)
	pinned := task.NewKeys(pub, pub2) // two are valid while a key rotates
	doc := []byte("the exact bytes")
	for _, k := range []string{task.Sign(key, doc), task.Sign(key2, doc)} {
		if err := pinned.Verify(doc, k); err != nil {
			t.Error(err)
		}
	}
	_, stranger := keys(t)
	for name, sig := range map[string]string{
		"empty": "", "no id": "abc", "stranger": task.Sign(stranger, doc), "not base64": task.KeyID(pub) + ":!", "short": task.KeyID(pub) + ":YQ",
		"of other bytes": task.Sign(key, []byte("other")), "another's id": task.KeyID(pub2) + strings.TrimPrefix(task.Sign(key, doc), task.KeyID(pub)),
	} {
		if err := pinned.Verify(doc, sig); !wire.IsCode(err, wire.BadSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDeviceName(t *testing.T) {
	long := strings.Repeat("n", 63)
	a, b := task.DeviceName(task.KindJointInference, "default", long, "edge", "n1"), task.DeviceName(task.KindJointInference, "default", long, "edge", "n2")
	if a == b || len(a) > 63 || !task.ValidName(a) {
		t.Errorf("%q %q", a, b)
	}
}

func TestStateHash(t *testing.T) {
	a, b := task.TaskState{UID: "a", Generation: 1, Phase: task.Running}, task.TaskState{UID: "b", Generation: 2, Phase: task.Failed}
	if task.StateHash([]task.TaskState{a, b}) != task.StateHash([]task.TaskState{b, a}) {
		t.Error("the order counts")
	}
	c := b
	c.Generation = 3
	if task.StateHash([]task.TaskState{a, b}) == task.StateHash([]task.TaskState{a, c}) {
		t.Error("the generation does not count")
	}
}

// FuzzParse holds: no input crashes, a refusal has a code, and what parses
// encodes to a document that parses to the same.
func FuzzParse(f *testing.F) {
	b, err := sample().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"schema":"sedna.io/task/v1","state":"Deleted"}`))
	f.Add([]byte(`{"spec":null}{"x":1e999}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := task.Parse(b)
		if err != nil {
			if wire.AsError(err).Code == wire.Internal {
				t.Errorf("no code: %v", err)
			}
			return
		}
		if _, err := d.JointInference(); err != nil && wire.AsError(err).Code == wire.Internal {
			t.Errorf("no code: %v", err)
		}
		again, err := d.Encode()
		if err != nil {
			return // escaping made it too large
		}
		if _, err := task.Parse(again); err != nil {
			t.Errorf("%q does not parse again: %v", again, err)
		}
	})
}
