// Package archive unpacks tar, tar.gz, tar.bz2 and zip into a directory that is
// an os.Root, whatever the bytes are: nothing outside of it changes, what comes
// out is bounded in every way, and only plain files and directories come out.
// Symbolic and hard links are refused, since what they name when they are
// followed later is not for an archive to say; so are devices, pipes, absolute
// names and names with "..". Owners, times and special mode bits are not kept.
package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/edgetwin/sedna/lib/blob"
	"github.com/edgetwin/sedna/models/wire"
)

// Limits on what comes out of an archive.
type Limits struct {
	// Files is how many files and directories there may be. Default 100,000.
	Files int
	// Bytes is the size of all files together. Default 16 GiB.
	Bytes int64
	// FileBytes is the size of one file. Default Bytes.
	FileBytes int64
	// Ratio is how many times larger than the archive the files may be, once
	// they exceed 64 MiB. Default 250.
	Ratio int64
	// NameLength is the length of a name with its directories, in bytes.
	// Default 1024.
	NameLength int
	// Depth is how many directories deep a file may lie. Default 32.
	Depth int
}

// ratioFrom is the size in bytes up to which any ratio is fine.
const ratioFrom = 64 << 20

func (l Limits) withDefaults() Limits {
	l.Files = cmp.Or(l.Files, 100_000)
	l.Bytes = cmp.Or(l.Bytes, 16<<30)
	l.FileBytes = cmp.Or(l.FileBytes, l.Bytes)
	l.Ratio = cmp.Or(l.Ratio, 250)
	l.NameLength = cmp.Or(l.NameLength, 1024)
	l.Depth = cmp.Or(l.Depth, 32)
	return l
}

// Format is how an archive is packed.
type Format string

// The formats that Unpack reads.
const (
	Tar      Format = "tar"
	TarGzip  Format = "tar.gz"
	TarBzip2 Format = "tar.bz2"
	Zip      Format = "zip"
)

var suffixes = []struct {
	suffix string
	format Format
}{
	{".tar", Tar},
	{".tar.gz", TarGzip}, {".tgz", TarGzip},
	{".tar.bz2", TarBzip2}, {".tbz2", TarBzip2},
	{".zip", Zip},
	{".tar.xz", "tar.xz"}, {".txz", "tar.xz"}, {".tar.zst", "tar.zst"},
}

// FormatOf tells from a name how an archive is packed; false if it is none.
// Unpack says of a format that it does not read that it does not.
func FormatOf(name string) (Format, bool) {
	lower := strings.ToLower(name)
	for _, s := range suffixes {
		if strings.HasSuffix(lower, s.suffix) && len(lower) > len(s.suffix) {
			return s.format, true
		}
	}
	return "", false
}

// Result is what came out.
type Result struct {
	Files int   // files and directories
	Bytes int64 // of all files
}

// Unpack writes what the archive src of size bytes holds to the directory into,
// which must be the caller's alone. After an error some of it is there.
func Unpack(ctx context.Context, src io.ReaderAt, size int64, format Format, into *os.Root, limits Limits) (Result, error) {
	u := &unpacker{ctx: ctx, into: into, limits: limits.withDefaults(), size: size, dirs: map[string]bool{".": true}, buf: make([]byte, 256<<10)}
	var err error
	switch format {
	case Tar, TarGzip, TarBzip2:
		err = u.tar(io.NewSectionReader(src, 0, size), format)
	case Zip:
		err = u.zip(src)
	default:
		err = wire.E(wire.UnsupportedMedia, "", fmt.Sprintf("archives of format %.20q are not unpacked", string(format)), "pack it as tar, tar.gz, tar.bz2 or zip")
	}
	return u.done, err
}

type unpacker struct {
	ctx    context.Context
	into   *os.Root
	limits Limits
	size   int64           // of the archive
	dirs   map[string]bool // that are there
	buf    []byte
	done   Result
}

func refuse(entry, message, hint string) error {
	return wire.E(wire.InvalidArgument, "", fmt.Sprintf("archive entry %.200q: %s", entry, message), hint)
}

func tooLarge(entry, message string) error {
	return wire.E(wire.TooLarge, "", fmt.Sprintf("archive entry %.200q: %s", entry, message), "raise the limit if the archive is to be trusted")
}

// damaged tells a source that ends early or is no archive from a full disk.
func damaged(err error) error {
	if _, ok := errors.AsType[*wire.Error](err); ok || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return wire.E(wire.InvalidArgument, "", "the archive is damaged or cut off: "+err.Error(), "")
}

// name checks an entry's name and gives it in its shortest form, "." for the
// directory itself.
func (u *unpacker) name(raw string) (string, error) {
	name := path.Clean(raw)
	switch {
	case raw == "":
		return "", refuse(raw, "it has no name", "")
	case len(raw) > u.limits.NameLength:
		return "", tooLarge(raw, fmt.Sprintf("its name is longer than %d bytes", u.limits.NameLength))
	case strings.ContainsAny(raw, "\\\x00"):
		return "", refuse(raw, "expected names without backslash and zero byte", "pack it with / between directories")
	case path.IsAbs(raw) || !filepath.IsLocal(name):
		return "", refuse(raw, "it leads out of the directory", "")
	case strings.Count(name, "/") >= u.limits.Depth:
		return "", tooLarge(raw, fmt.Sprintf("it lies more than %d directories deep", u.limits.Depth))
	}
	return name, nil
}

// count counts one more file or directory.
func (u *unpacker) count(name string) error {
	if u.done.Files >= u.limits.Files {
		return tooLarge(name, fmt.Sprintf("more than %d files and directories", u.limits.Files))
	}
	u.done.Files++
	return u.ctx.Err()
}

// dir makes a directory and those that it lies in.
func (u *unpacker) dir(name string) error {
	if u.dirs[name] {
		return nil
	}
	if err := u.dir(path.Dir(name)); err != nil {
		return err
	}
	if err := u.count(name); err != nil {
		return err
	}
	if err := u.into.Mkdir(name, 0o755); err != nil {
		return u.failed(name, err)
	}
	u.dirs[name] = true
	return nil
}

// file writes a file; declared is the size that the archive says it has. Of
// two with the same name the later counts, as tar has it.
func (u *unpacker) file(name string, executable bool, declared int64, r io.Reader) error {
	if err := u.dir(path.Dir(name)); err != nil {
		return err
	}
	if err := u.count(name); err != nil {
		return err
	}
	if err := u.room(name, declared, declared); err != nil {
		return err
	}
	mode := fs.FileMode(0o644)
	if executable {
		mode = 0o755
	}
	f, err := u.into.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) && !u.dirs[name] {
		if err = u.into.Remove(name); err == nil {
			f, err = u.into.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
		}
	}
	if err != nil {
		return u.failed(name, err)
	}
	return errors.Join(u.copy(name, f, r), f.Close())
}

func (u *unpacker) copy(name string, f *os.File, r io.Reader) error {
	for n := int64(0); ; {
		if err := u.ctx.Err(); err != nil {
			return err
		}
		got, err := r.Read(u.buf)
		n += int64(got)
		if err := u.room(name, n, int64(got)); err != nil {
			return err
		}
		if _, werr := f.Write(u.buf[:got]); werr != nil {
			return blob.DiskError(werr)
		}
		u.done.Bytes += int64(got)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return damaged(err)
		}
	}
}

// room refuses a file of size bytes, of which the next more are to be written.
func (u *unpacker) room(name string, size, more int64) error {
	total := u.done.Bytes + more
	switch {
	case size < 0 || size > u.limits.FileBytes:
		return tooLarge(name, fmt.Sprintf("it is larger than %d bytes", u.limits.FileBytes))
	case more > u.limits.Bytes-u.done.Bytes:
		return tooLarge(name, fmt.Sprintf("all files together are larger than %d bytes", u.limits.Bytes))
	case total > ratioFrom && total/u.limits.Ratio > u.size:
		return tooLarge(name, fmt.Sprintf("the files are more than %d times larger than the archive", u.limits.Ratio))
	}
	return nil
}

// failed explains why an entry could not be made.
func (u *unpacker) failed(name string, err error) error {
	if errors.Is(err, fs.ErrExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EISDIR) {
		return refuse(name, "it is a file and a directory in the same archive", "")
	}
	if errors.Is(err, unix.ENAMETOOLONG) {
		return refuse(name, "a part of its name is too long for the file system", "")
	}
	return blob.DiskError(err)
}
