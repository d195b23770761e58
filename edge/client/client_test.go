package client_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edgetwin/sedna/edge/client"
	"github.com/edgetwin/sedna/models/wire"
)

func TestInferSendsFilesByTheirKind(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Header.Get("Authorization") != "Bearer secret" {
			w.WriteHeader(401)
			_, _ = w.Write(wire.E(wire.Unauthenticated, "", "a token is needed", "").JSON())
			return
		}
		_, _ = w.Write([]byte("{\n \"path\": \"" + r.URL.Path + "\", \"type\": \"" + r.Header.Get("Content-Type") + "\", \"body\": \"" + string(body) + "\"}"))
	}))
	defer srv.Close()
	dir := t.TempDir()
	files := map[string]string{"a.png": "P", "b.JPG": "J", "c.json": "O"}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	endpoints := `{"nodes":[{"name":"other","http":"http://127.0.0.1:1"},{"name":"edge1","http":"` + srv.URL + `","token":"secret"}]}`
	if err := os.WriteFile(filepath.Join(dir, "endpoints.json"), []byte(endpoints), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string // in the output
		err  string // in the error
	}{
		{[]string{"digits", dir + "/a.png", "--node", "edge1"}, `{"path":"/v1/services/digits/image","type":"image/png","body":"P"}`, ""},
		{[]string{"digits", dir + "/b.JPG", "--node", "edge1"}, `{"path":"/v1/services/digits/image","type":"image/jpeg","body":"J"}`, ""},
		{[]string{"a.digits", dir + "/c.json", "--node", "edge1"}, `{"path":"/v2/models/a.digits/infer","type":"application/json","body":"O"}`, ""},
		{[]string{"digits", dir + "/none.png", dir + "/a.png", "--node", "edge1"}, `"body":"P"`, "none.png"},
		{[]string{"digits", dir + "/a.png", "--url", srv.URL}, "", "unauthenticated: a token is needed"},
		{[]string{"digits", dir + "/a.png", "--node", "edge9"}, "", `no node "edge9"`},
		{[]string{"digits"}, "", "arg"},
	} {
		cmd := client.Command()
		var out bytes.Buffer
		cmd.SetOut(&out)
		cmd.SetErr(io.Discard)
		cmd.SetArgs(append(c.args, "--data-dir", dir))
		err := cmd.ExecuteContext(t.Context())
		if !strings.Contains(out.String(), c.want) || (err == nil) != (c.err == "") || (err != nil && !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%v: output %q, error %v; want %q, %q", c.args, out.String(), err, c.want, c.err)
		}
	}
}
