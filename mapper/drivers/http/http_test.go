package http_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgetwin/sedna/mapper/devices"
	driver "github.com/edgetwin/sedna/mapper/drivers/http"
	"github.com/edgetwin/sedna/models/wire"
)

func setup(protocol map[string]any, visitors map[string]map[string]any) devices.Setup {
	s := devices.Setup{Namespace: "default", Name: "d", Protocol: devices.NewSettings("protocol", protocol)}
	for name, v := range visitors {
		s.Properties = append(s.Properties, devices.Property{Name: name, Kind: devices.Double, Visitor: devices.NewSettings(name, v)})
	}
	return s
}

// station is a device that speaks HTTP.
type station struct {
	*httptest.Server
	mu       sync.Mutex
	requests []string
}

func start(t *testing.T) *station {
	t.Helper()
	s := &station{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.requests = append(s.requests, strings.TrimSpace(fmt.Sprintf("%s %s %s", r.Method, r.URL, body)))
		s.mu.Unlock()
		if r.Header.Get("X-Key") != "k" || r.Header.Get("Authorization") != "Bearer t" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		switch r.URL.Path {
		case "/api/state":
			fmt.Fprint(w, `{"t":21.5,"h":[40,41]}`)
		case "/api/text":
			fmt.Fprint(w, " 7 \n")
		case "/api/large":
			_, _ = w.Write(make([]byte, 200))
		case "/api/away":
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		case "/api/slow":
			time.Sleep(time.Second)
		case "/api/busy":
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func TestReadAndWrite(t *testing.T) {
	srv := start(t)
	s := setup(map[string]any{"url": srv.URL + "/api", "headers": `{"X-Key":"k"}`, "token": "t", "maxBytes": int64(100), "timeoutMilliseconds": int64(300)}, map[string]map[string]any{
		"t": {"path": "state", "jsonPath": "t"}, "h": {"path": "/state", "jsonPath": "$.h[1]"}, "none": {"path": "state", "jsonPath": "x"},
		"text": {"path": "text?unit=c", "format": "text", "writePath": "state", "writeMethod": "POST", "writeFormat": "text"},
		"gone": {"path": "gone"}, "large": {"path": "large"}, "away": {"path": "away"}, "slow": {"path": "slow"}, "busy": {"path": "busy"},
	})
	d, err := driver.New(s)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := d.Read(t.Context(), []string{"t", "h", "none", "text", "gone", "large", "away", "slow", "busy"})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"t": "21.5", "h": "41", "text": "7"} {
		if r := got[name]; r.Err != nil || fmt.Sprint(r.Value) != want {
			t.Errorf("%s: %+v", name, r)
		}
	}
	for name, want := range map[string]string{"none": "nothing at", "gone": "404", "large": "over 100 bytes", "away": "not followed", "slow": "Timeout", "busy": "503"} {
		if r := got[name]; r.Err == nil || !strings.Contains(r.Err.Error(), want) {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if n := strings.Count(strings.Join(srv.requests, "\n"), "/api/state"); n != 1 {
		t.Errorf("%d requests for one path: %v", n, srv.requests)
	}
	srv.requests = nil
	for _, name := range []string{"t", "text"} {
		if err := d.Write(t.Context(), name, 2.5); err != nil {
			t.Error(err)
		}
	}
	if r := strings.Join(srv.requests, "; "); r != `PUT /api/state {"value":2.5}; POST /api/state 2.5` {
		t.Error(r)
	}
	if err := d.Write(t.Context(), "gone", 1.0); !wire.IsCode(err, wire.InvalidArgument) {
		t.Error(err)
	}
	if err := d.Write(t.Context(), "busy", 1.0); err == nil || wire.IsCode(err, wire.InvalidArgument) {
		t.Error(err)
	}
	srv.Close()
	if got, err := d.Read(t.Context(), []string{"t", "h"}); err == nil {
		t.Errorf("a device that is gone gave %v", got)
	}
}

func TestRefusedConfigurations(t *testing.T) {
	for want, c := range map[string]struct{ protocol, visitor map[string]any }{
		"protocol.url":                 {map[string]any{"url": "file:///etc/passwd"}, nil},
		"protocol.timeoutMilliseconds": {map[string]any{"url": "http://x", "timeoutMilliseconds": "soon"}, nil},
		"protocol.headers":             {map[string]any{"url": "http://x", "headers": "[1]"}, nil},
		"protocol.ca":                  {map[string]any{"url": "https://x", "ca": "x"}, nil},
		"protocol.uri":                 {map[string]any{"url": "http://x", "uri": "y"}, nil},
		"a.path":                       {map[string]any{"url": "http://x"}, map[string]any{"path": "http://elsewhere/"}},
		"a.writePath":                  {map[string]any{"url": "http://x"}, map[string]any{"writePath": "//elsewhere/"}},
		"a.writeMethod":                {map[string]any{"url": "http://x"}, map[string]any{"writeMethod": "DELETE"}},
		"a.jsonPath":                   {map[string]any{"url": "http://x"}, map[string]any{"jsonPath": "["}},
	} {
		var e *wire.Error
		if _, err := driver.New(setup(c.protocol, map[string]map[string]any{"a": c.visitor})); !errors.As(err, &e) || e.Field != want {
			t.Errorf("%s: %v", want, err)
		}
	}
	if _, err := driver.New(setup(nil, nil)); err == nil {
		t.Error("no url")
	}
}
