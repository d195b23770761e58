package archive

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/edgetwin/sedna/models/wire"
)

// directoryBytes is how much of a zip's directory is read for each file that
// may come out of it, since all of it is in memory at once.
const directoryBytes = 256

// zip unpacks a zip archive.
func (u *unpacker) zip(src io.ReaderAt) error {
	bounded := &boundedReaderAt{ReaderAt: src, left: int64(u.limits.Files)*directoryBytes + 1<<20}
	r, err := zip.NewReader(bounded, u.size)
	if errors.Is(err, errDirectory) {
		return wire.E(wire.TooLarge, "", fmt.Sprintf("the archive lists more than %d files", u.limits.Files), "")
	}
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) { // names are checked below
		return damaged(err)
	}
	bounded.left = -1
	for _, f := range r.File {
		if err := u.zipEntry(f); err != nil {
			return err
		}
	}
	return nil
}

func (u *unpacker) zipEntry(f *zip.File) error {
	name, err := u.name(f.Name)
	if err != nil {
		return err
	}
	const encrypted = 1
	switch mode := f.Mode(); {
	case mode.IsDir():
		return u.dir(name)
	case mode&fs.ModeSymlink != 0:
		return refuse(f.Name, "it is a link", "pack the files themselves")
	case !mode.IsRegular():
		return refuse(f.Name, fmt.Sprintf("expected a file or a directory, it has mode %s", mode), "")
	case name == ".":
		return refuse(f.Name, "it is the directory itself", "")
	case f.Flags&encrypted != 0:
		return refuse(f.Name, "it is encrypted", "")
	case f.UncompressedSize64 > uint64(u.limits.FileBytes):
		return tooLarge(f.Name, fmt.Sprintf("it is larger than %d bytes", u.limits.FileBytes))
	}
	r, err := f.Open()
	if errors.Is(err, zip.ErrAlgorithm) {
		return refuse(f.Name, fmt.Sprintf("compression method %d is not known", f.Method), "use deflate")
	}
	if err != nil {
		return damaged(err)
	}
	defer r.Close()
	const anyExecute = 0o111
	return u.file(name, f.Mode()&anyExecute != 0, int64(f.UncompressedSize64), r)
}

var errDirectory = errors.New("the directory is too large")

// boundedReaderAt reads at most left bytes; a negative left is no bound.
type boundedReaderAt struct {
	io.ReaderAt
	left int64
}

func (b *boundedReaderAt) ReadAt(p []byte, off int64) (int, error) {
	if b.left >= 0 && int64(len(p)) > b.left {
		return 0, errDirectory
	}
	n, err := b.ReaderAt.ReadAt(p, off)
	if b.left >= 0 {
		b.left -= int64(n)
	}
	return n, err
}
