package archive_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgetwin/sedna/lib/storage/archive"
	"github.com/edgetwin/sedna/models/wire"
)

// entry is one entry of an archive under test.
type entry struct {
	name, text string
	kind       byte // of tar; 0 is a file
	link       string
	mode       int64
}

func packTar(t testing.TB, entries []entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Size: int64(len(e.text)), Mode: 0o644 | e.mode, Typeflag: tar.TypeReg, Linkname: e.link}
		if e.kind != 0 {
			h.Typeflag = e.kind
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			h = &tar.Header{Name: e.name, Typeflag: e.kind, PAXRecords: map[string]string{"comment": "x"}}
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func packGzip(t testing.TB, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func packZip(t testing.TB, entries []entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, e := range entries {
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate}
		switch e.kind {
		case tar.TypeSymlink:
			h.SetMode(fs.ModeSymlink | 0o777)
			e.text = e.link
		case tar.TypeFifo:
			h.SetMode(fs.ModeNamedPipe | 0o644)
		case tar.TypeChar:
			h.SetMode(fs.ModeDevice | fs.ModeCharDevice | 0o644)
		case tar.TypeDir:
			h.Method = zip.Store
			h.SetMode(fs.ModeDir | 0o755)
		default:
			h.SetMode(0o644 | fs.FileMode(e.mode))
		}
		f, err := w.CreateHeader(h)
		if err == nil && e.kind != tar.TypeDir {
			_, err = f.Write([]byte(e.text))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// unpack unpacks to a new directory and gives what is in it.
func unpack(t testing.TB, content []byte, format archive.Format, l archive.Limits) (map[string]string, archive.Result, error) {
	t.Helper()
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	r, err := archive.Unpack(context.Background(), bytes.NewReader(content), int64(len(content)), format, root, l)
	return tree(t, dir), r, err
}

// tree gives the files below dir, directories with a slash, and what is no
// plain file with its mode.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		name, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		switch {
		case e.IsDir():
			out[name+"/"] = ""
		case e.Type().IsRegular():
			b, err := os.ReadFile(p)
			out[name] = string(b)
			return err
		default:
			out[name] = e.Type().String()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

var formats = map[archive.Format]func(testing.TB, []entry) []byte{
	archive.Tar:     packTar,
	archive.TarGzip: func(t testing.TB, e []entry) []byte { return packGzip(t, packTar(t, e)) },
	archive.Zip:     packZip,
}

func TestUnpack(t *testing.T) {
	entries := []entry{
		{name: "./top.txt", text: "one"},
		{name: "images/", kind: tar.TypeDir},
		{name: "images/a/b.jpg", text: "two"},
		{name: "images/empty", text: ""},
		{name: "run.sh", text: "three", mode: 0o111},
		{name: "with space, ümläut", text: "four"},
		{name: "a/../inside", text: "five"},
	}
	want := map[string]string{"top.txt": "one", "images/": "", "images/a/": "", "images/a/b.jpg": "two", "images/empty": "", "run.sh": "three", "with space, ümläut": "four", "inside": "five"}
	for format, pack := range formats {
		got, r, err := unpack(t, pack(t, entries), format, archive.Limits{})
		if err != nil || !cmp.Equal(got, want) || r != (archive.Result{Files: 8, Bytes: 19}) {
			t.Errorf("%s: %+v %v: %s", format, r, err, cmp.Diff(want, got))
		}
	}
	twice := []entry{{name: "a", text: "old"}, {name: "a", text: "new"}, {name: "pax", kind: tar.TypeXGlobalHeader}}
	if got, _, err := unpack(t, packTar(t, twice), archive.Tar, archive.Limits{}); err != nil || got["a"] != "new" || len(got) != 1 {
		t.Errorf("the later of two: %v %v", got, err)
	}
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	content := packTar(t, entries)
	if _, err := archive.Unpack(t.Context(), bytes.NewReader(content), int64(len(content)), archive.Tar, root, archive.Limits{}); err != nil {
		t.Fatal(err)
	}
	for name, executable := range map[string]bool{"run.sh": true, "top.txt": false} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || (info.Mode()&0o111 != 0) != executable {
			t.Errorf("%s has mode %s %v", name, info.Mode(), err)
		}
	}
}

// bzip2Archive is a tar.bz2 with a file a that holds hello.
const bzip2Archive = "QlpoOTFBWSZTWanqkMYAAGz7gMmAAAJAAG8AAADiRJ4ACAggAFRCAAGgaaCKmoGjTQAH2syEQ5tREp1WZpTHBBJBIrAxITaEwwlSXhjhI+J0w6iJMREA+LuSKcKEhU9UhjA="

func bzip2(t testing.TB) []byte {
	t.Helper()
	content, err := base64.StdEncoding.DecodeString(bzip2Archive)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestEntriesThatAreRefused(t *testing.T) {
	for name, e := range map[string]entry{
		"parent":             {name: "../a", text: "x"},
		"deep parent":        {name: "a/../../b", text: "x"},
		"absolute":           {name: "/etc/passwd", text: "x"},
		"symlink out":        {name: "a", kind: tar.TypeSymlink, link: "/etc/passwd"},
		"symlink within":     {name: "a", kind: tar.TypeSymlink, link: "first"},
		"pipe":               {name: "a", kind: tar.TypeFifo},
		"device":             {name: "a", kind: tar.TypeChar},
		"backslash":          {name: `..\a`, text: "x"},
		"below a file":       {name: "first/a", text: "x"},
		"the directory":      {name: ".", text: "x"},
		"a part of its name": {name: strings.Repeat("n", 300), text: "x"},
	} {
		for format, pack := range formats {
			got, _, err := unpack(t, pack(t, []entry{{name: "first", text: "1"}, e}), format, archive.Limits{})
			if !wire.IsCode(err, wire.InvalidArgument) || !cmp.Equal(got, map[string]string{"first": "1"}) {
				t.Errorf("%s, %s: %v, there is %v", format, name, err, got)
			}
		}
	}
	hard := []entry{{name: "first", text: "1"}, {name: "a", kind: tar.TypeLink, link: "first"}}
	if _, _, err := unpack(t, packTar(t, hard), archive.Tar, archive.Limits{}); !wire.IsCode(err, wire.InvalidArgument) || !strings.Contains(err.Error(), "link to") {
		t.Errorf("hard link: %v", err)
	}
	over := []entry{{name: "a/b", text: "1"}, {name: "a", text: "x"}}
	for format, pack := range formats {
		if _, _, err := unpack(t, pack(t, over), format, archive.Limits{}); !wire.IsCode(err, wire.InvalidArgument) {
			t.Errorf("%s: a file over a directory: %v", format, err)
		}
	}
}

func TestLimits(t *testing.T) {
	entries := []entry{{name: "d/e/f", text: "12345"}, {name: "d/g", text: "123"}}
	for name, c := range map[string]struct{ fits, exceeds archive.Limits }{
		"files":       {archive.Limits{Files: 4}, archive.Limits{Files: 3}},
		"bytes":       {archive.Limits{Bytes: 8}, archive.Limits{Bytes: 7}},
		"file bytes":  {archive.Limits{FileBytes: 5}, archive.Limits{FileBytes: 4}},
		"name length": {archive.Limits{NameLength: 5}, archive.Limits{NameLength: 4}},
		"depth":       {archive.Limits{Depth: 3}, archive.Limits{Depth: 2}},
	} {
		for format, pack := range formats {
			if _, _, err := unpack(t, pack(t, entries), format, c.fits); err != nil {
				t.Errorf("%s, %s at the limit: %v", format, name, err)
			}
			if _, _, err := unpack(t, pack(t, entries), format, c.exceeds); !wire.IsCode(err, wire.TooLarge) {
				t.Errorf("%s, %s above the limit: %v", format, name, err)
			}
		}
	}
}

func TestBombs(t *testing.T) {
	zeros := strings.Repeat("\x00", 80<<20)
	for format, pack := range formats {
		if format == archive.Tar {
			continue
		}
		content := pack(t, []entry{{name: "a", text: zeros}})
		if _, r, err := unpack(t, content, format, archive.Limits{}); !wire.IsCode(err, wire.TooLarge) || r.Bytes > 65<<20 {
			t.Errorf("%s: %d bytes became %d: %v", format, len(content), r.Bytes, err)
		}
		if _, r, err := unpack(t, content, format, archive.Limits{Ratio: 2000}); err != nil || r.Bytes != 80<<20 {
			t.Errorf("%s: a ratio that is allowed: %v", format, err)
		}
	}
	many := make([]entry, 12_000)
	for i := range many {
		many[i].name = strings.Repeat("n", 200) + fmt.Sprint(i)
	}
	if _, _, err := unpack(t, packZip(t, many), archive.Zip, archive.Limits{Files: 10}); !wire.IsCode(err, wire.TooLarge) || !strings.Contains(err.Error(), "lists more") {
		t.Errorf("a large directory: %v", err)
	}
	// A zip whose header claims less than there is.
	lie := packZip(t, []entry{{name: "a", text: strings.Repeat("x", 5000)}})
	if i := bytes.LastIndex(lie, []byte("PK\x01\x02")); i > 0 {
		copy(lie[i+24:], []byte{1, 0, 0, 0})
	}
	if got, _, err := unpack(t, lie, archive.Zip, archive.Limits{Bytes: 10}); err == nil || len(got["a"]) > 10 {
		t.Errorf("%d bytes came out, said were 1: %v", len(got["a"]), err)
	}
}

func TestDamagedArchives(t *testing.T) {
	entries := []entry{{name: "a", text: strings.Repeat("some text ", 1000)}, {name: "b", text: "x"}}
	for format, pack := range formats {
		content := pack(t, entries)
		for name, bad := range map[string][]byte{"nothing": nil, "garbage": []byte(strings.Repeat("garbage!", 200)), "cut off": content[:len(content)/2]} {
			if format == archive.Tar && name == "nothing" {
				continue // an empty tar is one
			}
			if _, _, err := unpack(t, bad, format, archive.Limits{}); !wire.IsCode(err, wire.InvalidArgument) {
				t.Errorf("%s, %s: %v", format, name, err)
			}
		}
		for range 20 {
			flipped := bytes.Clone(content)
			flipped[rand.N(len(flipped))] ^= 1 << rand.N(8)
			if _, _, err := unpack(t, flipped, format, archive.Limits{}); err != nil && errors.As(err, new(*fs.PathError)) {
				t.Errorf("%s, a bit flipped: %v", format, err)
			}
		}
	}
	checked := formats[archive.TarGzip](t, entries)
	checked[len(checked)-6] ^= 1 // its checksum
	if _, _, err := unpack(t, checked, archive.TarGzip, archive.Limits{}); !wire.IsCode(err, wire.InvalidArgument) {
		t.Errorf("a wrong checksum: %v", err)
	}
	for _, format := range []archive.Format{"tar.xz", ""} {
		if _, _, err := unpack(t, checked, format, archive.Limits{}); !wire.IsCode(err, wire.UnsupportedMedia) {
			t.Errorf("%q: %v", format, err)
		}
	}
	content := bzip2(t)
	if got, _, err := unpack(t, content, archive.TarBzip2, archive.Limits{}); err != nil || got["a"] != "hello" {
		t.Errorf("bzip2: %v %v", got, err)
	}
	if _, _, err := unpack(t, content[:len(content)-20], archive.TarBzip2, archive.Limits{}); !wire.IsCode(err, wire.InvalidArgument) {
		t.Errorf("bzip2 that is cut off: %v", err)
	}
}

func TestUnpackEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	content := packTar(t, []entry{{name: "a", text: "x"}})
	if _, err := archive.Unpack(ctx, bytes.NewReader(content), int64(len(content)), archive.Tar, root, archive.Limits{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestFormatOf(t *testing.T) {
	for name, want := range map[string]archive.Format{
		"a.tar": archive.Tar, "a.tar.gz": archive.TarGzip, "x/A.TGZ": archive.TarGzip, "a.tar.bz2": archive.TarBzip2, "a.zip": archive.Zip,
		"a.tar.xz": "tar.xz", "a.csv.gz": "", "a": "", ".tar": "", "tar": "", "a.zip.txt": "",
	} {
		if got, ok := archive.FormatOf(name); got != want || ok != (want != "") {
			t.Errorf("%s: %q %v", name, got, ok)
		}
	}
}

// guarded is a directory with others around it that nothing may change.
type guarded struct {
	base, into string
	before     map[string]string
}

func guard(t testing.TB) *guarded {
	t.Helper()
	g := &guarded{base: t.TempDir()}
	g.into = filepath.Join(g.base, "a", "into")
	if err := os.MkdirAll(g.into, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"secret", "a/secret", "a/other"} {
		if err := os.WriteFile(filepath.Join(g.base, name), []byte("untouched"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	g.before = g.outside(t)
	return g
}

func (g *guarded) outside(t testing.TB) map[string]string {
	all := tree(t, g.base)
	for name := range all {
		if strings.HasPrefix(name, "a/into/") && name != "a/into/" {
			delete(all, name)
		}
	}
	return all
}

// check unpacks and says what is wrong with what that did.
func (g *guarded) check(t testing.TB, content []byte, format archive.Format, l archive.Limits) {
	t.Helper()
	root, err := os.OpenRoot(g.into)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	r, err := archive.Unpack(context.Background(), bytes.NewReader(content), int64(len(content)), format, root, l)
	if diff := cmp.Diff(g.before, g.outside(t)); diff != "" {
		t.Fatalf("the world outside changed: %s", diff)
	}
	inside, bytes := tree(t, g.into), int64(0)
	for name, text := range inside {
		if info, err := os.Lstat(filepath.Join(g.into, name)); err != nil || !info.IsDir() && !info.Mode().IsRegular() || info.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
			t.Fatalf("%q has mode %s", name, info.Mode())
		}
		if strings.Count(strings.TrimSuffix(name, "/"), "/") >= l.Depth {
			t.Fatalf("%q lies too deep", name)
		}
		bytes += int64(len(text))
	}
	if len(inside) > l.Files || bytes > l.Bytes || r.Files > l.Files || r.Bytes > l.Bytes {
		t.Fatalf("%d files of %d bytes, said were %+v", len(inside), bytes, r)
	}
	if err == nil && len(inside) > r.Files {
		t.Fatalf("%d files, said were %d", len(inside), r.Files)
	}
	if err != nil && wire.AsError(err).Code == wire.Internal {
		t.Fatalf("an error without a code: %v", err)
	}
}

var tight = archive.Limits{Files: 20, Bytes: 4000, FileBytes: 3000, Depth: 4, NameLength: 300, Ratio: 250}

// Whatever names and kinds an archive is made of, it changes nothing outside.
func TestNothingOutsideChanges(t *testing.T) {
	parts := []string{"..", ".", "a", "into", "secret", "other", "", "b", "...", "é", strings.Repeat("x", 200)}
	kinds := []byte{0, 0, 0, tar.TypeDir, tar.TypeSymlink, tar.TypeLink, tar.TypeFifo, tar.TypeChar, tar.TypeBlock}
	pick := func(r *rand.Rand) string {
		var name []string
		for range 1 + r.IntN(5) {
			name = append(name, parts[r.IntN(len(parts))])
		}
		out := strings.Join(name, "/")
		if r.IntN(10) == 0 {
			out = "/" + out
		}
		return out
	}
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		var entries []entry
		for range r.IntN(12) {
			e := entry{name: pick(r), kind: kinds[r.IntN(len(kinds))], mode: int64(r.IntN(0o10000))}
			switch e.kind {
			case 0:
				e.text = strings.Repeat("z", r.IntN(1500))
			case tar.TypeSymlink, tar.TypeLink:
				e.link = pick(r)
			}
			if e.kind != tar.TypeDir {
				e.name = strings.TrimRight(e.name, "/")
			}
			if e.name != "" {
				entries = append(entries, e)
			}
		}
		for format, pack := range formats {
			guard(t).check(t, pack(t, entries), format, tight)
		}
	}
}

func FuzzUnpack(f *testing.F) {
	seeds := [][]entry{
		nil,
		{{name: "a", text: "x"}, {name: "d/e", text: "y"}, {name: "d/", kind: tar.TypeDir}},
		{{name: "../a", text: "x"}},
		{{name: "l", kind: tar.TypeSymlink, link: "../../a/secret"}, {name: "l/x", text: "x"}},
		{{name: "l", kind: tar.TypeLink, link: "../secret"}, {name: "l", text: "x"}},
	}
	for _, entries := range seeds {
		f.Add(packTar(f, entries), byte(0))
		f.Add(packGzip(f, packTar(f, entries)), byte(1))
		f.Add(packZip(f, entries), byte(2))
	}
	f.Add(bzip2(f), byte(3))
	f.Fuzz(func(t *testing.T, content []byte, kind byte) {
		format := []archive.Format{archive.Tar, archive.TarGzip, archive.Zip, archive.TarBzip2}[kind%4]
		guard(t).check(t, content, format, tight)
	})
}

func BenchmarkUnpack(b *testing.B) {
	text := make([]byte, 100<<10)
	for i, r := 0, rand.New(rand.NewPCG(1, 2)); i < len(text); i++ {
		text[i] = "abcdefghijklmnop"[r.IntN(16)] // compresses to a half
	}
	entries := make([]entry, 256)
	for i := range entries {
		entries[i] = entry{name: fmt.Sprintf("dir%d/%d.jpg", i%8, i), text: string(text)}
	}
	for _, format := range []archive.Format{archive.Tar, archive.TarGzip, archive.Zip} {
		content := formats[format](b, entries)
		b.Run(string(format), func(b *testing.B) {
			b.SetBytes(int64(len(entries) * len(text)))
			for b.Loop() {
				dir, err := os.MkdirTemp(b.TempDir(), "")
				if err != nil {
					b.Fatal(err)
				}
				root, err := os.OpenRoot(dir)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := archive.Unpack(b.Context(), bytes.NewReader(content), int64(len(content)), format, root, archive.Limits{}); err != nil {
					b.Fatal(err)
				}
				_ = root.Close()
				b.StopTimer()
				_ = os.RemoveAll(dir)
				b.StartTimer()
			}
		})
	}
}
