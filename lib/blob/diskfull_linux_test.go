package blob_test

import (
	"bytes"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/edgetwin/sedna/lib/blob"
	"github.com/edgetwin/sedna/models/wire"
)

func TestDiskFull(t *testing.T) {
	path := t.TempDir()
	if err := unix.Mount("none", path, "tmpfs", 0, "size=256k"); err != nil {
		t.Skip("needs to mount a small file system: ", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
	d := openDir(t, path, blob.Limits{MinFree: -1 << 40})
	text := bytes.Repeat([]byte("x"), 1<<20)
	if _, err := d.Put(t.Context(), "", bytes.NewReader(text)); !wire.IsCode(err, wire.ResourceExhausted) {
		t.Errorf("put: %v", err)
	}
	if _, err := d.Resume(t.Context(), shaOf(text), 0, int64(len(text)), bytes.NewReader(text)); !wire.IsCode(err, wire.ResourceExhausted) {
		t.Errorf("resume: %v", err)
	}
	if left := files(t, path); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if _, err := d.Put(t.Context(), "", strings.NewReader("small")); err != nil {
		t.Errorf("what still fits: %v", err)
	}
}
