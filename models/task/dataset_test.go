package task_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

func TestDatasetSpec(t *testing.T) {
	for _, c := range []struct {
		name, spec string
		code       wire.Code
		field      string
	}{
		{name: "path", spec: `{"url":"/srv/a.csv","format":"csv"}`},
		{name: "format in capitals", spec: `{"url":"/srv/a.csv","format":"CSV"}`},
		{name: "file", spec: `{"url":"file:///srv/a.txt","format":"txt","label":"l"}`},
		{name: "json is jsonl", spec: `{"url":"https://h/a.json","format":"json"}`},
		{name: "s3", spec: `{"url":"s3://bucket/key","format":"jsonl","periodSeconds":86400}`},
		{name: "images", spec: `{"url":"/srv/pictures","format":"images"}`},
		{name: "not an object", spec: `[]`, code: wire.InvalidArgument, field: "spec"},
		{name: "no url", spec: `{"format":"csv"}`, code: wire.InvalidArgument, field: "spec.url"},
		{name: "relative", spec: `{"url":"a.csv","format":"csv"}`, code: wire.InvalidArgument, field: "spec.url"},
		{name: "relative file", spec: `{"url":"file://a.csv","format":"csv"}`, code: wire.InvalidArgument, field: "spec.url"},
		{name: "scheme", spec: `{"url":"ftp://h/a.csv","format":"csv"}`, code: wire.InvalidArgument, field: "spec.url"},
		{name: "zero byte", spec: `{"url":"/a\u0000","format":"csv"}`, code: wire.InvalidArgument, field: "spec.url"},
		{name: "long url", spec: `{"url":"/` + strings.Repeat("a", 2048) + `","format":"csv"}`, code: wire.InvalidArgument, field: "spec.url"},
		{name: "no format", spec: `{"url":"/a"}`, code: wire.UnsupportedMedia, field: "spec.format"},
		{name: "format", spec: `{"url":"/a","format":"parquet"}`, code: wire.UnsupportedMedia, field: "spec.format"},
		{name: "images elsewhere", spec: `{"url":"https://h/a","format":"images"}`, code: wire.Unimplemented, field: "spec.url"},
		{name: "long label", spec: `{"url":"/a","format":"csv","label":"` + strings.Repeat("a", 129) + `"}`, code: wire.InvalidArgument, field: "spec.label"},
		{name: "period", spec: `{"url":"/a","format":"csv","periodSeconds":-1}`, code: wire.InvalidArgument, field: "spec.periodSeconds"},
		{name: "long period", spec: `{"url":"/a","format":"csv","periodSeconds":86401}`, code: wire.InvalidArgument, field: "spec.periodSeconds"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := (&task.Document{Spec: json.RawMessage(c.spec)}).Dataset()
			if c.code == "" {
				if err != nil {
					t.Fatal(err)
				}
				if s.Format != strings.ToLower(s.Format) || s.Format == "json" || s.Period() < time.Second {
					t.Errorf("%+v", s)
				}
				return
			}
			if !wire.IsCode(err, c.code) || wire.AsError(err).Field != c.field {
				t.Errorf("got %v, expected %s of %s", err, c.code, c.field)
			}
		})
	}
	s := &task.Dataset{URL: "file:///srv/a", Format: "txt"}
	if err := s.Validate("spec"); err != nil || s.Period() != time.Minute {
		t.Error(err, s.Period())
	}
	if path, local := s.Path(); path != "/srv/a" || !local {
		t.Error(path, local)
	}
}
