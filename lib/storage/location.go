package storage

import (
	"fmt"
	"net/url"
	"path"
	"path/filepath"
	"strings"

	"github.com/edgetwin/sedna/models/task"
	"github.com/edgetwin/sedna/models/wire"
)

// schemes of a location.
const (
	schemeFile = "file"
	schemeHTTP = "http" // and https
	schemeS3   = "s3"
)

// digestMark begins a digest at the end of a URL.
const digestMark = "#sha256="

// location is a URL taken apart.
type location struct {
	scheme string
	sha256 string // asked for, or empty

	path        string   // file: absolute and clean
	url         *url.URL // http
	bucket, key string   // s3
	dir         bool     // the URL ends with a slash
}

// maxURL bounds a URL in bytes.
const maxURL = 4096

// parse takes a URL apart. Keys of S3 are taken as they are, not decoded.
func parse(raw string) (location, error) {
	bad := func(message string) (location, error) {
		return location{}, wire.E(wire.InvalidArgument, "url", fmt.Sprintf("%.200q: %s", raw, message), "")
	}
	var l location
	rest, digest, found := strings.Cut(raw, digestMark)
	if l.sha256 = strings.ToLower(digest); found && !task.ValidDigest(l.sha256) {
		return bad("expected 64 hex digits after " + digestMark)
	}
	l.dir = strings.HasSuffix(rest, "/")
	scheme, name, found := strings.Cut(rest, "://")
	if !found {
		scheme, name = schemeFile, rest
	}
	switch strings.ToLower(scheme) {
	case schemeFile:
		if !path.IsAbs(name) || strings.Contains(name, "\x00") {
			return bad("expected an absolute path, or a URL of scheme file, http, https or s3")
		}
		l.scheme, l.path = schemeFile, filepath.Clean(name)
	case schemeHTTP, "https":
		u, err := url.Parse(rest)
		if err != nil || u.Hostname() == "" {
			return bad("expected http(s)://host/path")
		}
		l.scheme, l.url = schemeHTTP, u
	case schemeS3, "obs":
		l.scheme = schemeS3
		l.bucket, l.key, _ = strings.Cut(name, "/")
		if l.bucket == "" || strings.Contains(name, "\x00") {
			return bad("expected s3://bucket/key")
		}
	default:
		return bad(fmt.Sprintf("nothing is known of scheme %.20q", scheme))
	}
	if len(raw) > maxURL {
		return bad(fmt.Sprintf("longer than %d bytes", maxURL))
	}
	return l, nil
}

// String is for errors and logs: without user, password and query.
func (l location) String() string {
	switch l.scheme {
	case schemeFile:
		return l.path
	case schemeS3:
		return "s3://" + l.bucket + "/" + l.key
	}
	u := url.URL{Scheme: l.url.Scheme, Host: l.url.Host, Path: l.url.Path}
	return u.String()
}

// Check says what is wrong with a URL, without looking for what it names.
func Check(rawURL string) error {
	_, err := parse(rawURL)
	return err
}

// Redact gives a URL as it may be shown: without user, password and query.
func Redact(rawURL string) string {
	l, err := parse(rawURL)
	if err != nil {
		return "(not a URL)"
	}
	return l.String()
}

// child is the location of name, which is relative, below l.
func (l location) child(name string) location {
	l.sha256, l.dir = "", false
	switch l.scheme {
	case schemeFile:
		l.path = filepath.Join(l.path, filepath.FromSlash(name))
	case schemeHTTP:
		l.url = l.url.JoinPath(name)
	case schemeS3:
		if l.key != "" && !strings.HasSuffix(l.key, "/") {
			l.key += "/"
		}
		l.key += name
	}
	return l
}

// localName checks a name that something outside gave for a file, and gives it
// in its shortest form.
func localName(name string, depth int) (string, error) {
	clean := path.Clean(name)
	if name == "" || len(name) > maxURL || strings.Contains(name, "\x00") || clean == "." || !filepath.IsLocal(clean) {
		return "", wire.E(wire.InvalidArgument, "", fmt.Sprintf("expected a relative name that stays within its directory, got %.200q", name), "")
	}
	if strings.Count(clean, "/") >= depth {
		return "", wire.E(wire.TooLarge, "", fmt.Sprintf("%.200q lies more than %d directories deep", name, depth), "")
	}
	return clean, nil
}
