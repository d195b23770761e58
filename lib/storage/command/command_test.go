package command_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/minio/minio-go/v7"
	"github.com/spf13/cobra"

	"github.com/edgetwin/sedna/lib/storage/command"
	"github.com/edgetwin/sedna/lib/storage/s3/s3test"
	"github.com/edgetwin/sedna/models/wire"
)

// run runs the command; usage tells whether it failed before it began to work,
// as cobra tells it to who sets the exit code.
func run(t *testing.T, environ []string, args ...string) (out string, usage bool, err error) {
	t.Helper()
	var b bytes.Buffer
	cmd := command.New(environ)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	began := cmd.RunE
	usage = true
	cmd.RunE = func(c *cobra.Command, args []string) error {
		usage = false
		return began(c, args)
	}
	cmd.SetArgs(args)
	cmd.SetOut(&b)
	cmd.SetErr(&b)
	err = cmd.ExecuteContext(t.Context())
	return b.String(), usage && err != nil, err
}

func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(p)
		out[name] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func archived(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "saved/model.pb", Size: 5, Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("model")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// world is S3, a web server and a data root with the same things on them.
func world(t *testing.T) (environ []string, web, root string) {
	t.Helper()
	files := map[string]string{"models/m.tar": archived(t), "models/net.pb": "net", "set/0.jpeg": "0", "set/1.jpeg": "1", "set/2.jpeg": "2",
		"index.txt": "# the first line that is none is the directory\ns3://data/set\n0.jpeg\n2.jpeg\n"}
	s := s3test.Start(t)
	root = t.TempDir()
	for name, text := range files {
		if _, err := s.Client(t).Client.PutObject(t.Context(), s3test.Bucket, name, strings.NewReader(text), int64(len(text)), minio.PutObjectOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	handler := http.FileServer(http.Dir(root))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Token") != "secret" {
			http.Error(w, "no token", http.StatusUnauthorized)
			return
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	return []string{"S3_ENDPOINT_URL=http://" + s.Endpoint, "ACCESS_KEY_ID=" + s3test.AccessKey, "SECRET_ACCESS_KEY=" + s3test.SecretKey,
		"DATA_PATH_PREFIX=" + root, `127.0.0.1-headers={"token":"secret"}`}, srv.URL, root
}

func TestStorageInit(t *testing.T) {
	environ, web, root := world(t)
	sum := sha256.Sum256([]byte("net"))
	a, b, c := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b"), t.TempDir()
	out, _, err := run(t, environ,
		"s3://data/models/m.tar", a, web+"/models/net.pb#sha256="+hex.EncodeToString(sum[:]), a,
		"s3://data/set", b, "s3://data/index.txt", "@"+c, root+"/set/1.jpeg", c)
	if err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]map[string]string{
		a: {"saved/model.pb": "model", "net.pb": "net"},
		b: {"set/0.jpeg": "0", "set/1.jpeg": "1", "set/2.jpeg": "2"},
		c: {"0.jpeg": "0", "2.jpeg": "2", "1.jpeg": "1"},
	} {
		if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
			t.Error(diff)
		}
	}
	for _, want := range []string{"s3://data/models/m.tar to " + a + ": 1 objects, 2 files", "s3://data/set to " + b + ": 3 objects, 3 files", "index s3://data/index.txt to " + c + ": 2 objects"} {
		if !strings.Contains(out, want) {
			t.Errorf("no line %q in %s", want, out)
		}
	}
	d := t.TempDir()
	if _, _, err := run(t, append(environ, "INDIRECT_URL_MARK=!"), "--no-unpack", root+"/index.txt", "!"+d, "s3://data/models/m.tar", d); err != nil {
		t.Error(err)
	}
	if got := tree(t, d); len(got) != 3 || got["m.tar"] == "" {
		t.Errorf("another mark, not unpacked: %v", got)
	}
}

// Exit code 2 is for what can be said before anything is fetched, 1 for the rest.
func TestErrors(t *testing.T) {
	environ, web, root := world(t)
	dst := t.TempDir()
	with := func(more ...string) []string { return append(append([]string{}, environ...), more...) }
	for name, c := range map[string]struct {
		environ []string
		args    []string
		usage   bool
		code    wire.Code
		says    string
	}{
		"no arguments":        {environ, nil, true, wire.InvalidArgument, "SRC DST"},
		"an odd number":       {environ, []string{"s3://data/x", dst, "s3://data/y"}, true, wire.InvalidArgument, "got 3"},
		"no directory":        {environ, []string{"s3://data/x", "@"}, true, wire.InvalidArgument, "s3://data/x"},
		"not a URL":           {environ, []string{"s3://data/x", dst, "gopher://x", dst}, true, wire.InvalidArgument, "gopher"},
		"a bad endpoint":      {with("S3_ENDPOINT_URL=ftp://x"), []string{"s3://data/x", dst}, true, wire.InvalidArgument, "S3_ENDPOINT_URL"},
		"a bad https flag":    {with("S3_ENDPOINT_URL=host:1", "S3_USE_HTTPS=maybe"), []string{"s3://data/x", dst}, true, wire.InvalidArgument, "S3_USE_HTTPS"},
		"half of the keys":    {with("SECRET_ACCESS_KEY="), []string{"s3://data/x", dst}, true, wire.InvalidArgument, "accessKey"},
		"a bad root":          {environ, []string{"--root", "x", "s3://data/x", dst}, true, wire.InvalidArgument, "roots"},
		"a limit of nothing":  {environ, []string{"--max-bytes", "0", "s3://data/x", dst}, true, wire.InvalidArgument, "limits"},
		"no object":           {environ, []string{"s3://data/set", dst, "s3://data/none", dst}, false, wire.NotFound, "source 2 of 2, s3://data/none to " + dst},
		"wrong keys":          {with("ACCESS_KEY_ID=wrong"), []string{"s3://data/set", dst}, false, wire.PermissionDenied, "SECRET_ACCESS_KEY"},
		"outside the root":    {environ, []string{"/etc/passwd", dst}, false, wire.PermissionDenied, "root"},
		"a token is asked":    {with("127.0.0.1-headers="), []string{web + "/models/net.pb?token=hidden", dst}, false, wire.Unauthenticated, "source 1 of 1, " + web + "/models/net.pb to"},
		"headers are no JSON": {with("127.0.0.1-headers=x"), []string{web + "/models/net.pb", dst}, false, wire.InvalidArgument, "127.0.0.1-headers"},
		"another digest":      {environ, []string{"s3://data/models/net.pb#sha256=" + strings.Repeat("0", 64), dst}, false, wire.DigestMismatch, "digest"},
		"too many bytes":      {environ, []string{"--max-bytes", "2", root + "/models/net.pb", dst}, false, wire.TooLarge, "at most 2"},
		"too many files":      {environ, []string{"--max-files", "2", "s3://data/set", dst}, false, wire.TooLarge, "more than 2"},
	} {
		_, usage, err := run(t, c.environ, c.args...)
		if !wire.IsCode(err, c.code) || usage != c.usage || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: usage %v, %v", name, usage, err)
		}
	}
	if _, usage, err := run(t, environ, "--none", "s3://data/x", dst); err == nil || !usage {
		t.Errorf("an unknown flag: %v", err)
	}
}
