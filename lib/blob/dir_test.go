package blob_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgetwin/sedna/lib/blob"
	"github.com/edgetwin/sedna/models/wire"
)

func shaOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func openDir(t *testing.T, dir string, limits blob.Limits) *blob.Dir {
	t.Helper()
	d, err := blob.OpenDir(dir, limits)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// files lists what is below dir besides the lock.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() && e.Name() != "lock" {
			rel, err := filepath.Rel(dir, path)
			out = append(out, rel)
			return err
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestDirKeepsBlobs(t *testing.T) {
	ctx, path := t.Context(), filepath.Join(t.TempDir(), "blobs")
	d := openDir(t, path, blob.Limits{})
	var want []blob.Info
	for _, text := range []string{"", "a", "bb"} {
		info, err := d.Put(ctx, "", strings.NewReader(text))
		if err != nil || info.SHA256 != shaOf([]byte(text)) || info.Size != int64(len(text)) {
			t.Fatalf("put %q: %+v %v", text, info, err)
		}
		if again, err := d.Put(ctx, info.SHA256, strings.NewReader(text)); err != nil || again != info {
			t.Errorf("again: %v", err)
		}
		f, err := d.Open(ctx, info.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(f); err != nil || string(b) != text {
			t.Errorf("read %q %v", b, err)
		}
		_ = f.Close()
		if b, err := os.ReadFile(d.Path(info.SHA256)); err != nil || string(b) != text {
			t.Errorf("file holds %q %v", b, err)
		}
		if file, err := d.File(ctx, info.SHA256); err != nil || file != d.Path(info.SHA256) {
			t.Errorf("file %s %v", file, err)
		}
		want = append(want, info)
	}
	got, err := d.List(ctx)
	if err != nil || len(got) != len(want) {
		t.Fatalf("list: %v %v", got, err)
	}
	for _, info := range want {
		if size, err := d.Size(ctx, info.SHA256); err != nil || size != info.Size {
			t.Errorf("size %d %v", size, err)
		}
		for range 2 {
			if err := d.Delete(ctx, info.SHA256); err != nil {
				t.Error(err)
			}
		}
		if has, err := d.Has(ctx, info.SHA256); has || err != nil {
			t.Errorf("has %v %v", has, err)
		}
		if _, err := d.Open(ctx, info.SHA256); !wire.IsCode(err, wire.NotFound) {
			t.Errorf("open: %v", err)
		}
	}
	if left := files(t, path); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestDirRefusesNamesThatAreNoDigests(t *testing.T) {
	ctx, d := t.Context(), openDir(t, t.TempDir(), blob.Limits{})
	for _, sha := range []string{"..", "../../etc/passwd", strings.Repeat("A", 64), strings.Repeat("a", 63), strings.Repeat("a", 65), "..%2f" + strings.Repeat("a", 59), "/" + strings.Repeat("a", 63)} {
		_, err1 := d.Size(ctx, sha)
		_, err2 := d.Open(ctx, sha)
		_, err3 := d.Put(ctx, sha, strings.NewReader(""))
		_, err4 := d.Resume(ctx, sha, 0, 1, strings.NewReader("x"))
		_, err5 := d.Offset(ctx, sha)
		_, err6 := d.File(ctx, sha)
		_, err7 := d.Remove(ctx, blob.Entry{Info: blob.Info{SHA256: sha}})
		for _, err := range []error{err1, err2, err3, err4, err5, err6, err7, d.Touch(ctx, sha), d.Delete(ctx, sha)} {
			if !wire.IsCode(err, wire.InvalidArgument) {
				t.Errorf("%q: %v", sha, err)
			}
		}
		if path := d.Path(sha); path != "" {
			t.Errorf("%q is at %s", sha, path)
		}
	}
	if _, err := d.Put(ctx, "", strings.NewReader("")); err != nil {
		t.Error(err)
	}
}

func TestDirDoesNotFollowLinksOut(t *testing.T) {
	ctx, path, outside := t.Context(), t.TempDir(), t.TempDir()
	sha := shaOf([]byte("x"))
	d := openDir(t, path, blob.Limits{})
	if err := os.Symlink(outside, filepath.Join(path, sha[:2])); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Put(ctx, sha, strings.NewReader("x")); err == nil {
		t.Error("wrote through a link")
	}
	if left := files(t, outside); len(left) != 0 {
		t.Errorf("outside: %v", left)
	}
}

func TestDirPutRefusals(t *testing.T) {
	ctx, path := t.Context(), t.TempDir()
	d := openDir(t, path, blob.Limits{MaxBlob: 10})
	ten := bytes.Repeat([]byte("x"), 10)
	if _, err := d.Put(ctx, shaOf(ten), strings.NewReader("something")); !wire.IsCode(err, wire.DigestMismatch) {
		t.Errorf("wrong digest: %v", err)
	}
	if _, err := d.Put(ctx, "", strings.NewReader(strings.Repeat("x", 11))); !wire.IsCode(err, wire.TooLarge) {
		t.Errorf("limit+1: %v", err)
	}
	broken := errors.New("broken")
	if _, err := d.Put(ctx, "", io.MultiReader(strings.NewReader("x"), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("reader fails: %v", err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := d.Put(cancelled, "", strings.NewReader("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if left := files(t, path); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if _, err := d.Put(ctx, "", bytes.NewReader(ten)); err != nil {
		t.Errorf("limit: %v", err)
	}
}

func TestDirResume(t *testing.T) {
	ctx, path := t.Context(), t.TempDir()
	d := openDir(t, path, blob.Limits{MaxBlob: 100})
	text := []byte("the quick brown fox")
	sha, total := shaOf(text), int64(len(text))
	cut := io.MultiReader(bytes.NewReader(text[:4]), iotest.ErrReader(io.ErrUnexpectedEOF))
	if have, err := d.Resume(ctx, sha, 0, total, cut); have != 4 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("cut off: %d %v", have, err)
	}
	if has, _ := d.Has(ctx, sha); has {
		t.Fatal("a part is visible")
	}
	if have, err := d.Resume(ctx, sha, 7, total, bytes.NewReader(text[7:])); have != 4 || !wire.IsCode(err, wire.Conflict) {
		t.Errorf("with a gap: %d %v", have, err)
	}
	_ = d.Close()
	d = openDir(t, path, blob.Limits{MaxBlob: 100})
	if offset, err := d.Offset(ctx, sha); offset != 4 || err != nil {
		t.Fatalf("after a restart: %d %v", offset, err)
	}
	if have, err := d.Resume(ctx, sha, 4, total, bytes.NewReader(text[4:9])); have != 9 || err != nil {
		t.Fatalf("a part: %d %v", have, err)
	}
	if have, err := d.Resume(ctx, sha, 9, total, bytes.NewReader(text[9:])); have != total || err != nil {
		t.Fatalf("the rest: %d %v", have, err)
	}
	if size, err := d.Size(ctx, sha); size != total || err != nil {
		t.Errorf("%d %v", size, err)
	}
	if have, err := d.Resume(ctx, sha, 3, total, iotest.ErrReader(errors.New("read"))); have != total || err != nil {
		t.Errorf("what is there already: %d %v", have, err)
	}
	if got := files(t, path); !cmp.Equal(got, []string{filepath.Join(sha[:2], sha)}) {
		t.Errorf("files %v", got)
	}
}

func TestDirResumeRefusals(t *testing.T) {
	ctx, path := t.Context(), t.TempDir()
	d := openDir(t, path, blob.Limits{MaxBlob: 10})
	sha := shaOf([]byte("0123456789"))
	for _, c := range []struct {
		offset, total int64
		body          string
		code          wire.Code
	}{
		{0, 11, "0123456789a", wire.TooLarge},
		{0, 5, "0123456789", wire.TooLarge},
		{-1, 10, "", wire.InvalidArgument},
		{11, 10, "", wire.InvalidArgument},
		{0, 10, "9876543210", wire.DigestMismatch},
	} {
		if _, err := d.Resume(ctx, sha, c.offset, c.total, strings.NewReader(c.body)); !wire.IsCode(err, c.code) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if _, err := d.Resume(ctx, sha, 0, 10, strings.NewReader("98765")); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Resume(ctx, sha, 5, 10, strings.NewReader("56789")); !wire.IsCode(err, wire.DigestMismatch) {
		t.Errorf("a part that was wrong: %v", err)
	}
	if left := files(t, path); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if have, err := d.Resume(ctx, sha, 0, 10, strings.NewReader("0123456789")); have != 10 || err != nil {
		t.Errorf("after all that: %d %v", have, err)
	}
}

func TestDirSeveralWritersOfOneBlob(t *testing.T) {
	ctx, path := t.Context(), t.TempDir()
	d := openDir(t, path, blob.Limits{})
	text := bytes.Repeat([]byte("0123456789"), 100_000)
	sha, total := shaOf(text), int64(len(text))
	reader, writer := io.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() {
		if have, err := d.Resume(ctx, sha, 0, total, reader); have != total || err != nil {
			t.Errorf("the first: %d %v", have, err)
		}
	})
	if _, err := writer.Write(text[:10]); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Resume(ctx, sha, 10, total, bytes.NewReader(text[10:])); !wire.IsCode(err, wire.Conflict) {
		t.Errorf("one that goes on: %v", err)
	}
	for range 4 {
		wg.Go(func() {
			if have, err := d.Resume(ctx, sha, 0, total, bytes.NewReader(text)); have != total || err != nil {
				t.Errorf("one more: %d %v", have, err)
			}
		})
	}
	if _, err := writer.Write(text[10:]); err != nil {
		t.Fatal(err)
	}
	_ = writer.Close()
	wg.Wait()
	if got := files(t, path); len(got) != 1 {
		t.Errorf("files %v", got)
	}
}

func TestDirClearsWhatACrashLeft(t *testing.T) {
	path := t.TempDir()
	old, young := strings.Repeat("a", 64), strings.Repeat("b", 64)
	if err := os.MkdirAll(filepath.Join(path, "tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"0011.tmp", old + ".part", young + ".part"} {
		if err := os.WriteFile(filepath.Join(path, "tmp", name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	longAgo := time.Now().Add(-25 * time.Hour)
	if err := os.Chtimes(filepath.Join(path, "tmp", old+".part"), longAgo, longAgo); err != nil {
		t.Fatal(err)
	}
	d := openDir(t, path, blob.Limits{})
	if got, want := files(t, path), []string{"tmp/" + young + ".part"}; !cmp.Equal(got, want) {
		t.Errorf("left %v, want %v", got, want)
	}
	if list, err := d.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("lists %v %v", list, err)
	}
}

func TestDirIsUsedByOneProcess(t *testing.T) {
	path := t.TempDir()
	d := openDir(t, path, blob.Limits{})
	if _, err := blob.OpenDir(path, blob.Limits{}); !wire.IsCode(err, wire.FailedPrecondition) {
		t.Errorf("a second: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	openDir(t, path, blob.Limits{})
}

func TestDirLeavesRoomOnTheDisk(t *testing.T) {
	ctx, path := t.Context(), t.TempDir()
	d := openDir(t, path, blob.Limits{MinFree: 1 << 60})
	if _, err := d.Put(ctx, "", strings.NewReader("x")); !wire.IsCode(err, wire.ResourceExhausted) {
		t.Errorf("put: %v", err)
	}
	if _, err := d.Resume(ctx, shaOf([]byte("x")), 0, 1, strings.NewReader("x")); !wire.IsCode(err, wire.ResourceExhausted) {
		t.Errorf("resume: %v", err)
	}
	if left := files(t, path); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}
