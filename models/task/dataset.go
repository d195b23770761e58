package task

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/edgetwin/sedna/models/wire"
)

// KindDataset is the kind of a dataset's task.
const KindDataset = "Dataset"

// Dataset is the spec of a Dataset's task: data that the node watches.
type Dataset struct {
	URL    string `json:"url"`    // a path under the node's data roots, file://, http(s):// or s3://
	Format string `json:"format"` // csv, txt, jsonl or images
	// Label is the column with the label; empty: one called label, class, target
	// or y.
	Label         string `json:"label,omitempty"`
	PeriodSeconds int64  `json:"periodSeconds,omitempty"` // between two looks where nothing tells of a change; 0: 60
}

// Formats of datasets. A file of json has a value a line, as jsonl.
const (
	DatasetCSV    = "csv"
	DatasetTXT    = "txt"
	DatasetJSONL  = "jsonl"
	DatasetImages = "images" // a directory with a directory of pictures for each class
)

// Limits of a dataset's specification.
const (
	maxDatasetURL    = 2048
	maxDatasetLabel  = 128
	maxDatasetPeriod = 24 * 3600
	defaultPeriod    = 60
)

// Period is the time between two looks.
func (s *Dataset) Period() time.Duration { return time.Duration(s.PeriodSeconds) * time.Second }

// Path is the data's path on the node; local is false where it is elsewhere.
func (s *Dataset) Path() (path string, local bool) {
	if path, ok := strings.CutPrefix(s.URL, "file://"); ok {
		return path, true
	}
	return s.URL, strings.HasPrefix(s.URL, "/")
}

// Dataset reads and checks the spec of a Dataset's task.
func (d *Document) Dataset() (*Dataset, error) {
	var s Dataset
	if err := json.Unmarshal(d.Spec, &s); err != nil {
		return nil, wire.E(wire.InvalidArgument, "spec", "not the spec of a Dataset task: "+err.Error(), "")
	}
	return &s, s.Validate("spec")
}

// Validate checks a dataset and fills in what it leaves out. field is where it
// stands in the document.
func (s *Dataset) Validate(field string) error {
	bad := func(name, format string, args ...any) error {
		return wire.E(wire.InvalidArgument, field+"."+name, fmt.Sprintf(format, args...), "")
	}
	if s.PeriodSeconds == 0 {
		s.PeriodSeconds = defaultPeriod
	}
	s.Format = strings.ToLower(s.Format)
	if s.Format == "json" {
		s.Format = DatasetJSONL
	}
	path, local := s.Path()
	scheme, rest, _ := strings.Cut(s.URL, "://")
	switch {
	case s.URL == "":
		return bad("url", "missing")
	case len(s.URL) > maxDatasetURL || strings.ContainsRune(s.URL, 0):
		return bad("url", "expected at most %d bytes of text", maxDatasetURL)
	case local && !strings.HasPrefix(path, "/"):
		return bad("url", "expected an absolute path, got %.200q", path)
	case !local && (rest == "" || scheme != "http" && scheme != "https" && scheme != "s3"):
		return bad("url", "expected an absolute path, or a URL of scheme file, http, https or s3")
	case s.Format != DatasetCSV && s.Format != DatasetTXT && s.Format != DatasetJSONL && s.Format != DatasetImages:
		return wire.E(wire.UnsupportedMedia, field+".format", fmt.Sprintf("expected csv, txt, jsonl or images, got %.40q", s.Format), "")
	case s.Format == DatasetImages && !local:
		return wire.E(wire.Unimplemented, field+".url", "images are read from a directory on the node", "bring them there, for instance with sedna storage-init")
	case len(s.Label) > maxDatasetLabel:
		return bad("label", "expected at most %d bytes", maxDatasetLabel)
	case s.PeriodSeconds < 1 || s.PeriodSeconds > maxDatasetPeriod:
		return bad("periodSeconds", "expected 1 to %d, got %d", maxDatasetPeriod, s.PeriodSeconds)
	}
	return nil
}
