package daemon_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edgetwin/sedna/lib/daemon"
)

type conf struct {
	Node string `yaml:"node"`
}

func TestExitCodesAndOutput(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(file, []byte("node: edge1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	unknown := filepath.Join(t.TempDir(), "u.yaml")
	if err := os.WriteFile(unknown, []byte("nodes: edge1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args   []string
		run    error
		code   int
		stdout string
		stderr string
	}{
		"done":             {[]string{"--config", file}, nil, 0, "ready {\"node\":\"edge1\"}\n", ""},
		"cancelled":        {[]string{"--config", file}, context.Canceled, 0, "ready", ""},
		"failed":           {[]string{"--config", file}, errors.New("disk gone"), 1, "ready", "disk gone"},
		"unknown key":      {[]string{"--config", unknown}, nil, 2, "", "nodes"},
		"missing file":     {[]string{"--config", file + ".no"}, nil, 2, "", "c.yaml.no"},
		"bad flag":         {[]string{"--nope"}, nil, 2, "", "nope"},
		"stray argument":   {[]string{"x"}, nil, 2, "", `"x"`},
		"failed check":     {nil, nil, 2, "", "node: missing"},
		"shows the config": {[]string{"--config", file, "--check-config"}, nil, 0, "node: edge1\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var out, errs bytes.Buffer
			code := daemon.Run(t.Context(), daemon.Program[conf]{
				Name:    "probe",
				Default: func() conf { return conf{} },
				Check: func(c *conf) error {
					if c.Node == "" {
						return errors.New("node: missing")
					}
					return nil
				},
				Run: func(_ context.Context, cfg conf, _ *slog.Logger, ready func(any)) error {
					ready(map[string]string{"node": cfg.Node})
					return c.run
				},
			}, c.args, nil, &out, &errs)
			if code != c.code || !strings.HasPrefix(out.String(), c.stdout) || !strings.Contains(errs.String(), c.stderr) {
				t.Errorf("code %d, stdout %q, stderr %q; want %d, %q…, …%q…", code, out.String(), errs.String(), c.code, c.stdout, c.stderr)
			}
		})
	}
}
