package storage

import (
	"errors"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edgetwin/sedna/models/wire"
)

// Whatever an index says, its names stay within the directory, and are few.
func FuzzParseIndex(f *testing.F) {
	f.Add("# comment\ns3://data/set\n0.jpeg\n\n sub/1.jpeg \n")
	f.Add("s3://data\n../x\n")
	f.Add("http://host/\n/etc/passwd\n")
	f.Add("/data/x\r\na/../../b\r\n")
	f.Add("s3://data\n" + strings.Repeat("x\n", 30))
	limits := Limits{Files: 10, Depth: 3}
	f.Fuzz(func(t *testing.T, text string) {
		base, names, err := parseIndex(text, limits)
		if err != nil {
			if _, ok := errors.AsType[*wire.Error](err); !ok {
				t.Fatalf("an error without a code: %v", err)
			}
			return
		}
		if base.scheme == "" || len(names) == 0 || len(names) > limits.Files {
			t.Fatalf("base %q, %d names", base.scheme, len(names))
		}
		seen := map[string]bool{}
		for _, name := range names {
			if !filepath.IsLocal(name) || path.Clean(name) != name || strings.Count(name, "/") >= limits.Depth || seen[name] {
				t.Fatalf("name %q", name)
			}
			seen[name] = true
			if child := base.child(name); base.scheme == schemeFile && !strings.HasPrefix(child.path, strings.TrimSuffix(base.path, "/")+"/") {
				t.Fatalf("%q lies outside of %q", child.path, base.path)
			}
		}
	})
}

// A URL that is taken can be shown and taken again.
func FuzzParse(f *testing.F) {
	for _, url := range []string{"s3://b/k", "obs://b", "https://user:pass@host:1/a%20b?q#f", "/a/../b", "file:///x", "http://h#sha256=" + strings.Repeat("a", 64), "S3://b/k/", "://", "s3:///"} {
		f.Add(url)
	}
	f.Fuzz(func(t *testing.T, url string) {
		l, err := parse(url)
		if err != nil {
			if !wire.IsCode(err, wire.InvalidArgument) {
				t.Fatal(err)
			}
			return
		}
		if l.scheme == schemeFile && (!path.IsAbs(l.path) || path.Clean(l.path) != l.path) || l.scheme == schemeS3 && l.bucket == "" || l.scheme == schemeHTTP && l.url.Hostname() == "" {
			t.Fatalf("%q was taken as %+v", url, l)
		}
		if again, err := parse(l.String()); err == nil && again.scheme != l.scheme {
			t.Fatalf("%q is shown as %q", url, l)
		}
	})
}
