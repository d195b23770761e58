package config_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgetwin/sedna/lib/config"
	"github.com/edgetwin/sedna/models/wire"
)

type limits struct {
	MaxBody int64         `yaml:"maxBody"`
	Wait    time.Duration `yaml:"wait"`
	Share   float64       `yaml:"share"`
	Port    uint16        `yaml:"port"`
}

type rule struct {
	Name string `yaml:"name"`
	N    int    `yaml:"n"`
}

type common struct {
	Name string `yaml:"name"`
}

type settings struct {
	Common    common            `yaml:",inline"`
	Addr      string            `yaml:"httpAddr"`
	BrokerURL string            `yaml:"brokerURL"`
	Debug     bool              `yaml:"debug"`
	Roots     []string          `yaml:"roots"`
	Token     config.Secret     `yaml:"token"`
	Limits    limits            `yaml:"limits"`
	Optional  *limits           `yaml:"optional,omitempty"`
	Flag      *bool             `yaml:"flag,omitempty"`
	Rules     []rule            `yaml:"rules,omitempty"`
	Labels    map[string]string `yaml:"labels,omitempty"`
	Level     slog.Level        `yaml:"level"`
}

func defaults() settings {
	return settings{Addr: ":9100", Roots: []string{"/data"}, Limits: limits{MaxBody: 10, Wait: time.Second}}
}

func write(t *testing.T, text string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestFileThenEnvironment(t *testing.T) {
	path := write(t, `
name: from-file
httpAddr: 127.0.0.1:1
debug: true
roots: [/a, "/b"]
token: hunter2
limits:
  wait: 2m
  port: 8080
rules:
  - {name: x, n: 3}
labels:
  zone: 1.10
level: WARN
optional:
`)
	got := defaults()
	err := config.Load(path, &got, []string{
		"PATH=/bin", "SEDNA_SOMETHING_ELSE=1", "SEDNA_",
		"SEDNA_HTTP_ADDR=:7", "SEDNA_BROKER_URL=tcp://h:1", "SEDNA_ROOTS=/x, /y",
		"SEDNA_LIMITS_SHARE=0.25", "SEDNA_OPTIONAL_WAIT=1h30m", "SEDNA_FLAG=false",
	})
	if err != nil {
		t.Fatal(err)
	}
	no := false
	want := settings{
		Common: common{"from-file"}, Addr: ":7", BrokerURL: "tcp://h:1", Debug: true,
		Roots: []string{"/x", "/y"}, Token: "hunter2",
		Limits:   limits{MaxBody: 10, Wait: 2 * time.Minute, Share: 0.25, Port: 8080},
		Optional: &limits{Wait: 90 * time.Minute}, Flag: &no,
		Rules: []rule{{"x", 3}}, Labels: map[string]string{"zone": "1.10"}, Level: slog.LevelWarn,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestEnvironmentOverDefaultsOnly(t *testing.T) {
	got := defaults()
	if err := config.Load("", &got, []string{"SEDNA_NAME=n", "SEDNA_ROOTS=", `SEDNA_RULES=[{"name":"a","n":1}]`, "SEDNA_LABELS={a: b}"}); err != nil {
		t.Fatal(err)
	}
	want := defaults()
	want.Common.Name, want.Roots, want.Rules, want.Labels = "n", []string{}, []rule{{"a", 1}}, map[string]string{"a": "b"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name, file, env string
		code            wire.Code
		field, says     string
	}{
		{"unknown key", "debug: true\nport: 1\n", "", wire.InvalidArgument, "port", "line 2: unknown key"},
		{"unknown nested key", "limits:\n  wait: 1s\n  maxbody: 1\n", "", wire.InvalidArgument, "limits.maxbody", "line 3"},
		{"key twice", "debug: true\ndebug: false\n", "", wire.InvalidArgument, "debug", "line 2: set before, on line 1"},
		{"not a number", "limits: {maxBody: abc}", "", wire.InvalidArgument, "limits.maxBody", "expected a whole number"},
		{"out of range", "limits: {port: 65536}", "", wire.InvalidArgument, "limits.port", "from 0 to 65535"},
		{"duration without unit", "limits: {wait: 30}", "", wire.InvalidArgument, "limits.wait", "a duration like 30s"},
		{"not a bool", "debug: perhaps", "", wire.InvalidArgument, "debug", "true or false"},
		{"list for text", "token: [hunter2]", "", wire.InvalidArgument, "token", "expected text, got a list"},
		{"text for list", "roots: /a", "", wire.InvalidArgument, "roots", "expected a list"},
		{"text for struct", "limits: 1", "", wire.InvalidArgument, "limits", "expected keys and values"},
		{"bad element", "rules: [{name: a}, {n: x}]", "", wire.InvalidArgument, "rules[1].n", "whole number"},
		{"alias", "rules: [&a {name: b}, *a]", "", wire.InvalidArgument, "rules[1]", "aliases"},
		{"merge", "limits: {<<: {wait: 1s}}", "", wire.InvalidArgument, "limits", "plain keys"},
		{"not YAML", "debug: [", "", wire.InvalidArgument, "", "expected YAML"},
		{"two documents", "debug: true\n---\ndebug: false\n", "", wire.InvalidArgument, "", "one YAML document"},
		{"too large", strings.Repeat("#", config.MaxFile+1), "", wire.TooLarge, "", "at most"},
		{"variable", "", "SEDNA_LIMITS_MAX_BODY=ten", wire.InvalidArgument, "SEDNA_LIMITS_MAX_BODY", `got "ten"`},
		{"variable of bad text", "", "SEDNA_LEVEL=loudest", wire.InvalidArgument, "SEDNA_LEVEL", "a Level"},
		{"variable of bad structure", "", "SEDNA_RULES=[{nam: x}]", wire.InvalidArgument, "SEDNA_RULES[0].nam", "unknown key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := defaults()
			err := config.Load(write(t, c.file), &got, []string{c.env})
			if !wire.IsCode(err, c.code) {
				t.Fatalf("got %v, want code %s", err, c.code)
			}
			if e := wire.AsError(err); e.Field != c.field || !strings.Contains(e.Message, c.says) {
				t.Errorf("got field %q, message %q; want %q, …%s…", e.Field, e.Message, c.field, c.says)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Error("the error shows a secret")
			}
		})
	}
	got := defaults()
	if err := config.Load(filepath.Join(t.TempDir(), "absent"), &got, nil); !wire.IsCode(err, wire.NotFound) {
		t.Errorf("absent file: %v", err)
	}
	if err := config.Load("", got, nil); err == nil {
		t.Error("a struct that is not a pointer was taken")
	}
}

func TestLargestFile(t *testing.T) {
	got := defaults()
	text := "debug: true\n" + strings.Repeat("#", config.MaxFile-len("debug: true\n"))
	if err := config.Load(write(t, text), &got, nil); err != nil || !got.Debug {
		t.Fatal(got.Debug, err)
	}
}

func TestNothingToRead(t *testing.T) {
	for _, text := range []string{"", "# only words\n", "---\n", "limits:\n"} {
		got := defaults()
		if err := config.Load(write(t, text), &got, nil); err != nil {
			t.Errorf("%q: %v", text, err)
		}
		if d := cmp.Diff(defaults(), got); d != "" {
			t.Errorf("%q: %s", text, d)
		}
	}
}

func TestSameVariableTwice(t *testing.T) {
	var into struct {
		A struct {
			B string `yaml:"b"`
		} `yaml:"a"`
		AB string `yaml:"aB"`
	}
	if err := config.Load("", &into, nil); err == nil || !strings.Contains(err.Error(), "SEDNA_A_B") {
		t.Fatalf("got %v", err)
	}
}

func TestSecretIsNeverPrinted(t *testing.T) {
	type T struct {
		S config.Secret `json:"s" yaml:"s"`
		D time.Duration `json:"d" yaml:"d"`
	}
	v := T{S: "hunter2", D: 90 * time.Second}
	js, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "secret", v.S, "struct", v)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "secret", v.S, "struct", v)
	all := string(js) + log.String() + config.Describe(v) + v.S.String()
	for _, verb := range []string{"%s", "%v", "%+v", "%#v", "%q", "%x", "%d"} {
		all += fmt.Sprintf(verb+verb, v.S, v)
	}
	if strings.Contains(all, "hunter2") || strings.Contains(all, "68756e74657232") {
		t.Error(all)
	}
	if got, want := config.Describe(v), "s: '[redacted]'\nd: 1m30s\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := config.Describe(T{}); !strings.Contains(got, `s: ""`) {
		t.Errorf("an empty secret shows as %q", got)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("limits: {wait: 1s}", "2")
	f.Add("rules: [{name: a}]", "[")
	f.Fuzz(func(t *testing.T, file, value string) {
		got := defaults()
		p := filepath.Join(t.TempDir(), "c")
		if err := os.WriteFile(p, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		_ = config.Load(p, &got, []string{"SEDNA_RULES=" + value, "SEDNA_LIMITS_WAIT=" + value})
	})
}
