package file_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgetwin/sedna/mapper/devices"
	"github.com/edgetwin/sedna/mapper/drivers/file"
	"github.com/edgetwin/sedna/mapper/drivers/frames"
	"github.com/edgetwin/sedna/models/wire"
)

const patience = 10 * time.Second

func wait[T any](t testing.TB, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("%s: waited %v", what, patience)
		panic("unreachable")
	}
}

type sink chan frames.Frame

func (s sink) Frame(_ context.Context, _ string, f frames.Frame) error { s <- f; return nil }

type emitted struct {
	name string
	devices.Reading
}

func setup(protocol map[string]any, visitors map[string]map[string]any) (devices.Setup, chan emitted) {
	ch := make(chan emitted, 1000)
	s := devices.Setup{Namespace: "default", Name: "d", Protocol: devices.NewSettings("protocol", protocol), Log: slog.New(slog.DiscardHandler), Wake: func() {},
		Emit: func(n string, r devices.Reading) { ch <- emitted{n, r} }}
	for name, v := range visitors {
		s.Properties = append(s.Properties, devices.Property{Name: name, Kind: devices.String, Visitor: devices.NewSettings(name, v)})
	}
	return s, ch
}

func write(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, o file.Options, s devices.Setup) devices.Driver {
	t.Helper()
	d, err := file.New(o)(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	if err := d.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestCSV(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.csv"), []byte("time;t;h\n1;20.5;40\n2;;41\n3;21.5;42\n"))
	o := file.Options{Roots: []string{dir}}
	visitors := map[string]map[string]any{"temp": {"column": "t"}, "rows": {"value": "rows"}}
	s, ch := setup(map[string]any{"path": "a.csv", "comma": ";", "ratePerSecond": 100.0, "loop": false}, visitors)
	d := open(t, o, s)
	for _, want := range []string{"20.5", "21.5"} {
		if r := wait(t, ch, "row"); r.name != "temp" || r.Value != want {
			t.Errorf("%+v", r)
		}
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		got, err := d.Read(t.Context(), []string{"temp", "rows"})
		if err != nil || time.Now().After(deadline) {
			t.Fatal(got, err)
		}
		if got["rows"].Value == int64(3) && len(got) == 1 {
			break
		}
	}
	if len(ch) != 0 {
		t.Error("more came")
	}
	s, ch = setup(map[string]any{"path": filepath.Join(dir, "a.csv"), "comma": ";", "ratePerSecond": 1000.0}, visitors)
	open(t, o, s)
	for range 10 {
		wait(t, ch, "row of a loop")
	}
	for name, text := range map[string]string{"ragged.csv": "t;h\n1\n", "other.csv": "x\n1\n", "empty.csv": "t\n", "none.csv": ""} {
		write(t, filepath.Join(dir, name), []byte(text))
		s, _ := setup(map[string]any{"path": name, "comma": ";"}, map[string]map[string]any{"temp": {"column": "t"}})
		d := open(t, o, s)
		for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			if _, err := d.Read(t.Context(), nil); err != nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal(name, "is online")
			}
		}
	}
}

func TestPictures(t *testing.T) {
	dir := t.TempDir()
	img := image.NewGray(image.Rect(0, 0, 8, 6))
	var j, p bytes.Buffer
	if err := errors.Join(jpeg.Encode(&j, img, nil), png.Encode(&p, img)); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"1.jpg": j.Bytes(), "2.PNG": p.Bytes(), "readme.txt": []byte("x")} {
		write(t, filepath.Join(dir, "pics", name), b)
	}
	k := make(sink, 1000)
	o := file.Options{Roots: []string{t.TempDir(), dir}, Sink: k}
	s, _ := setup(map[string]any{"path": "pics", "ratePerSecond": 200.0, "service": "digits"}, map[string]map[string]any{"n": {"value": "frames"}, "name": {"value": "name"}})
	if _, err := file.New(file.Options{Roots: o.Roots})(s); err == nil {
		t.Error("a service without a sink")
	}
	o.Roots = o.Roots[1:]
	d := open(t, o, s)
	for range 4 {
		f := wait(t, k, "frame")
		if _, err := jpeg.Decode(bytes.NewReader(f.JPEG)); err != nil || f.Device != "default/d" {
			t.Fatal(f.Device, err)
		}
	}
	got, err := d.Read(t.Context(), []string{"n", "name"})
	if err != nil || got["n"].Value.(int64) < 4 || !strings.Contains("1.jpg 2.PNG", fmt.Sprint(got["name"].Value)) {
		t.Errorf("%v, %v", got, err)
	}
	s, _ = setup(map[string]any{"path": "none"}, nil)
	if d, err := file.New(o)(s); err != nil || d.Connect(t.Context()) == nil {
		t.Error("a directory that is not there", err)
	}
}

func TestFilesLieUnderDataRoots(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	write(t, filepath.Join(other, "a.csv"), []byte("t\n1\n"))
	if err := os.Symlink(other, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	o := file.Options{Roots: []string{dir}}
	for _, path := range []string{"../" + filepath.Base(other) + "/a.csv", filepath.Join(other, "a.csv"), "/etc/passwd"} {
		s, _ := setup(map[string]any{"path": path}, nil)
		var e *wire.Error
		if _, err := file.New(o)(s); !errors.As(err, &e) || e.Field != "protocol.path" {
			t.Errorf("%s: %v", path, err)
		}
	}
	s, _ := setup(map[string]any{"path": "link/a.csv"}, nil)
	d, err := file.New(o)(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Connect(t.Context()); err == nil {
		t.Error("a link led out of the data root")
	}
	if _, err := file.New(file.Options{})(s); err == nil {
		t.Error("no data roots")
	}
}
