package controllers_test

import (
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"

	sedna "github.com/edgetwin/sedna/models/sedna/v1alpha1"
	"github.com/edgetwin/sedna/models/task"
)

func (s *space) modelReady(name, status, reason, word string) *sedna.Model {
	s.t.Helper()
	return await(s.t, s.c, &sedna.ModelList{}, s.ns, name, fmt.Sprintf("Model Ready=%s %s %q", status, reason, word), func(m *sedna.Model) bool {
		if m == nil {
			return false
		}
		c := meta.FindStatusCondition(m.Status.Conditions, sedna.ConditionReady)
		return c != nil && string(c.Status) == status && c.Reason == reason && c.ObservedGeneration == m.Generation && strings.Contains(c.Message, word)
	})
}

func testModelReady(t *testing.T, s *space) {
	s.model("missing", "1")
	m := s.modelReady("missing", "False", sedna.ReasonNotStored, digest("1"))
	if m.Status.Digest != digest("1") || m.Status.Size != 0 || len(m.Status.Versions) != 0 {
		t.Errorf("not stored: %+v", m.Status)
	}
	s.blobs.put(digest("1"), 1234)
	m = s.modelReady("missing", "True", sedna.ReasonAvailable, "1234 bytes")
	if m.Status.Size != 1234 || len(m.Status.Versions) != 1 || m.Status.Versions[0].Version != digest("1")[:12] {
		t.Errorf("stored: %+v", m.Status)
	}
	for _, url := range []string{"https://models.example/a.onnx", "s3://bucket/a.onnx", "/srv/models/a.onnx"} {
		s.change(m, func() { m.Spec.URL = url })
		s.modelReady("missing", "Unknown", sedna.ReasonReadByNodes, url)
	}
}

func testModelVersions(t *testing.T, s *space) {
	m := s.model("m", "0")
	m = s.modelReady("m", "False", sedna.ReasonNotStored, "")
	const more = 40 // than are kept
	for i := range more {
		sha := fmt.Sprintf("%064x", i+16)
		s.blobs.put(sha, int64(i))
		s.change(m, func() { m.Spec.URL, m.Spec.Version = task.BlobURLPrefix+sha, fmt.Sprint("v", i) })
		m = s.modelReady("m", "True", sedna.ReasonAvailable, fmt.Sprint(i, " bytes"))
	}
	v := m.Status.Versions
	if len(v) != 32 || v[31].Version != "v39" || v[0].Version != "v8" || v[31].Digest != m.Status.Digest || v[31].CreatedAt.IsZero() {
		t.Errorf("%d versions: %+v", len(v), v)
	}
	// Back to an old version: a new entry, not a rewritten history.
	s.change(m, func() { m.Spec.URL, m.Spec.Version = task.BlobURLPrefix+v[30].Digest, v[30].Version })
	m = s.modelReady("m", "True", sedna.ReasonAvailable, "38 bytes")
	if last := m.Status.Versions[31]; last.Version != "v38" || m.Status.Versions[30].Version != "v39" {
		t.Errorf("after going back: %+v", m.Status.Versions[30:])
	}
}

// testModelUse has the sweeper of blobs told which digests are named, and when
// one may not be any more.
func testModelUse(t *testing.T, s *space) {
	s.model("m", "7")
	m := s.modelReady("m", "False", sedna.ReasonNotStored, "")
	s.blobs.mu.Lock()
	used := s.blobs.used[digest("7")]
	s.blobs.mu.Unlock()
	if !used {
		t.Error("the digest is not known as used")
	}
	s.delete(m)
	select {
	case <-s.blobs.gone: // or for a Model of another test
	case <-t.Context().Done():
	}
}
